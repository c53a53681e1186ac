"""Compression: models made smaller that still know the answer."""
