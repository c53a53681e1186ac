"""Sweeps: many trials, on all CPUs, that go on after an interruption."""
