"""Moves of images in training: flips, crops, shifts, rotations."""

from gradprune.data.augmentation import *
