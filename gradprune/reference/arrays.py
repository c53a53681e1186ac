"""The array types the oracle speaks in."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.floating[Any]]
"""float32 or float64; what goes in comes out."""

Mask: TypeAlias = NDArray[np.bool_] | NDArray[np.uint8]
"""1 or True = kept, 0 or False = removed."""
