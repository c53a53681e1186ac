"""Layers as descriptions: what a network is made of, compiled by the C engine."""

from gradprune.layers.base import ACTIVATIONS, CoreLayer, CoreType, Layer, Parameter
from gradprune.layers.dense import Activation, Dense, Dropout
from gradprune.layers.recurrent import GRU, LSTM, RNN, Recurrent

__all__ = [
    "ACTIVATIONS",
    "GRU",
    "LSTM",
    "RNN",
    "Activation",
    "CoreLayer",
    "CoreType",
    "Dense",
    "Dropout",
    "Layer",
    "Parameter",
    "Recurrent",
]
