"""Data: data sets, files of data, sequences to learn, augmentation."""

from gradprune.data.augmentation import *
from gradprune.data.datasets import *
