"""Flat state: the arena, its lock, what is copied with it, and who may run on how many threads."""
