"""Few values for many weights: codebooks, grids, and the quantizer that trains with them."""

from gradprune.quantization.codebooks import *
from gradprune.quantization.grids import *
from gradprune.quantization.quantizer import *
from gradprune.quantization.report import *
from gradprune.quantization.schemes import *
