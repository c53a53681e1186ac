"""The experiments behind docs/results.md, run as `python -m studies.lenet`."""
