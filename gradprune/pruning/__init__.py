"""Pruning: what to remove (criteria), where (scopes), when (schedules), and doing it (pruner)."""
