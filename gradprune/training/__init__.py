"""Training: the loop, callbacks, history, metrics."""
