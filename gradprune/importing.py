"""Models of networks that other libraries have made; readers are imported when they are called."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, SupportsIndex

from gradprune.errors import FileFormatError
from gradprune.foundation.checks import flag
from gradprune.interop.assembly import Read
from gradprune.model import Model

__all__ = ["from_onnx", "from_torch"]


def from_torch(
    module: Any,
    input_shape: SupportsIndex | Sequence[int],
    *,
    zeros_are_removed: bool = False,
) -> Model:
    """Make a model of a torch module, which predicts what the module does in eval mode.

    The module is read by ``torch.export`` on a copy; it stays as it is, its mode and hooks, too.
    Parameters, running statistics, eps, momentum and rates of dropout come along, so that training
    goes on as in torch. A module ``features.0`` becomes the layer ``features/0``. Masks of
    torch.nn.utils.prune become masks; weights that are 0 without a mask stay weights.

    Supported are Linear, Conv1d, Conv2d (groups, strides, dilation, zero padding), BatchNorm,
    LayerNorm, RNN, LSTM and GRU (several layers, both directions, from a state of 0), Embedding,
    Dropout, maxima and means over windows or over all places, the activations of ``Activation``,
    sums, concatenation, and view, flatten, permute and their like as far as they leave samples
    apart. Normalizations without weight or bias get ones and zeros,
    which training changes.

    Args:
        module: an nn.Module in float32 whose forward takes one tensor (n, *input_shape) and
            returns one of n samples.
        input_shape: the shape of a sample: its features, such as 784, or (channels, height,
            width), or what else the module takes. A module with an Embedding takes whole numbers.
        zeros_are_removed: weights that are exactly 0 count as removed.

    Returns:
        The model. ``model.to_torch()`` gives a module with the same names back.

    Raises:
        ImportError: torch is not installed: ``pip install "gradprune[torch]"``.
        TypeError, ValueError: ``module`` or ``input_shape`` is not as above.
        UnsupportedOperationError: the module has operations without a counterpart here; the error
            names every one with the path of its module.

    >>> import torch
    >>> import gradprune as gp
    >>> module = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
    >>> model = gp.from_torch(module, input_shape=4)
    >>> [layer.name for layer in model.layers]
    ['0', '1', '2']
    """
    from gradprune.interop.torch_reader import read_torch

    zeros = flag("zeros_are_removed", zeros_are_removed)
    return model_of(read_torch(module, input_shape), zeros_are_removed=zeros)


def from_onnx(path: str | os.PathLike[str] | bytes, *, zeros_are_removed: bool = False) -> Model:
    """Make a model of a file of ONNX, which predicts what onnxruntime does with the file.

    Files of ``model.to_onnx`` in float32 are read, those of torch's exporters, of skl2onnx for
    scikit-learn's MLPs and of tf2onnx for Keras: dense, convolutional and recurrent networks with
    operators of version 11 and later, whose input is (samples, ...) with known sizes. Chains of
    operators on shapes are computed, groups that are one function, such as gelu, are recognized,
    int8 weights become float32. The output of a classifier is its probabilities. Images with
    channels last keep that layout at the input, and are transposed where the file transposes them.

    Layers are called as the file calls their parameters, with "/" for the dots of torch's names.

    Args:
        path: the file, or its bytes. Arrays in other files are read from its folder alone.
        zeros_are_removed: whether weights that are 0 count as removed, as in a file that a pruned
            model was written to; else they are weights like others.

    Raises:
        ImportError: onnx is not installed; it comes with ``pip install "gradprune[onnx]"``.
        OSError: the file cannot be read.
        FileFormatError: the file is not an ONNX file, is damaged, or contradicts itself.
        UnsupportedOperationError: operators have no counterpart here; all of them are named.
        TypeError: an argument is not as above.

    Example::

        model = gp.from_onnx("m.onnx")
        gp.Pruner(model, criterion=gp.Magnitude()).prune(0.9)
        model.to_onnx("pruned.onnx")

    >>> import onnx
    >>> import gradprune as gp
    >>> model = gp.Model([gp.Dense(4, activation="relu"), gp.Dense(2)], input_shape=3, seed=0)
    >>> path = model.to_onnx("model.onnx")
    >>> again = gp.from_onnx("model.onnx")
    >>> report = gp.verify(model, again, x=[[1.0, 2.0, 3.0]])
    >>> [layer.label for layer in again.layers]
    ['Dense', 'relu', 'Dense']
    """
    from gradprune.interop.onnx_reader import read_onnx

    zeros = flag("zeros_are_removed", zeros_are_removed)
    read, where = read_onnx(path)
    try:
        return model_of(read, zeros_are_removed=zeros)
    except ValueError as error:
        raise FileFormatError(f"{where}: {error}") from None


def model_of(read: Read, *, zeros_are_removed: bool) -> Model:
    """Return a model with the layers, arrays and masks that a reader found.

    Args:
        read: what it found.
        zeros_are_removed: whether weights that are 0 count as removed.
    """
    model = Model.blank(read.layers, read.input_shape)
    with model.lock:
        masks = dict(read.masks)
        if zeros_are_removed:
            for name, mask in model.masks.items():
                masks[name] = masks.get(name, mask) & (read.arrays[name] != 0)
        model.set_masks(masks)
        model.set_state(read.arrays)
    return model
