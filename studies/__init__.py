"""The experiments behind docs/results.md, run as `python -m studies.lenet`."""

import sys
from pathlib import Path

# An installed gradprune comes before the folder beside this one, which has no core unless it was
# built in place.
_ROOT = Path(__file__).resolve().parent.parent
sys.path.sort(key=lambda place: Path(place or ".").resolve() == _ROOT)
