"""Layers as descriptions: what a network is made of, compiled by the C engine."""

from gradprune.layers.add import Add
from gradprune.layers.base import ACTIVATIONS, CoreLayer, Layer, Parameter
from gradprune.layers.convolution import Conv2D
from gradprune.layers.dense import Activation, Dense, Dropout
from gradprune.layers.graph import Input, Node
from gradprune.layers.normalization import BatchNorm, LayerNorm
from gradprune.layers.pooling import AvgPool2D, Flatten, GlobalAvgPool, MaxPool2D
from gradprune.layers.recurrent import GRU, LSTM, RNN, Recurrent

__all__ = [
    "ACTIVATIONS",
    "GRU",
    "LSTM",
    "RNN",
    "Activation",
    "Add",
    "AvgPool2D",
    "BatchNorm",
    "Conv2D",
    "CoreLayer",
    "Dense",
    "Dropout",
    "Flatten",
    "GlobalAvgPool",
    "Input",
    "Layer",
    "LayerNorm",
    "MaxPool2D",
    "Node",
    "Parameter",
    "Recurrent",
]
