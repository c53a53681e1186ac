"""Optimizers and what stands before them: learning rates, clippers, guards."""
