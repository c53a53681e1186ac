"""Other forms of a network: frozen, on integers, shrunk."""

from gradprune.forms.frozen import *
from gradprune.forms.shrinking import *
