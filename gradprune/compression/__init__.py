"""Compression: fewer bits for each weight that pruning has left."""
