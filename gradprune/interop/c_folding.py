"""Batch normalization behind a product becomes a part of its weights, as in a frozen network.

Both round alike: what is folded is computed in float64 and rounded once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from gradprune.interop.c_layers import NORMALIZATIONS, PRODUCTS, Named, normalization
from gradprune.layers.base import CoreLayer

__all__ = ["fold", "folded_norms"]

_WEIGHT, _BIAS = -2, -3  # places that no parameter has


def folded_norms(core: Sequence[CoreLayer], values: Mapping[int, Named]) -> dict[int, int]:
    """Where products stand that a normalization alone reads, to where this stands.

    Args:
        core: the layers of the core.
        values: parameters and buffers by place.
    """
    readers = Counter(position - back for position, low in enumerate(core) for back in low.back)
    found = {}
    for position, low in enumerate(core):
        product = position - low.back[0]
        if low.type in NORMALIZATIONS and product >= 0 and readers[product] == 1:
            channels, made = int(low.settings[0]), core[product]
            if made.type in PRODUCTS and len(values[made.weight].numbers) == channels:
                found[product] = position
    return found


def fold(
    product: CoreLayer, norm: CoreLayer, values: Mapping[int, Named]
) -> tuple[CoreLayer, dict[int, Named]]:
    """Return the product with the normalization in it, and its weight and bias by place.

    w' = w scale, b' = (b - mean) scale + shift, row by row.
    """
    mean, scale, shift = normalization(values, norm)
    role, weight = values[product.weight]
    bias = values[product.bias].numbers if product.bias >= 0 else np.zeros_like(mean)
    rows = scale.reshape(-1, *[1] * (weight.ndim - 1))
    shifted = (bias.astype(np.float64) - mean) * scale + shift
    return product._replace(weight=_WEIGHT, bias=_BIAS), {
        _WEIGHT: Named(role, (weight * rows).astype(np.float32)),
        _BIAS: Named("bias", shifted.astype(np.float32)),
    }
