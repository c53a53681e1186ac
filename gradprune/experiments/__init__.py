"""Experiments that the command line runs: trials, statistics, tables."""
