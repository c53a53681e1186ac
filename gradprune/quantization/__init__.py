"""Few values for many weights: codebooks, grids, and the quantizer that trains with them."""
