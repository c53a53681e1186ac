"""The network: layers over an arena, forward, backward, whole steps."""
