"""Networks that papers are compared on, ready made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import SupportsIndex

from gradprune.foundation.checks import whole
from gradprune.layers.convolution import Conv2D
from gradprune.layers.dense import Activation, Dense
from gradprune.layers.graph import Input, Node
from gradprune.layers.normalization import BatchNorm
from gradprune.layers.pooling import Flatten, GlobalAvgPool, MaxPool2D
from gradprune.model import Model

__all__ = ["lenet5", "resnet"]


def lenet5(*, seed: int = 0) -> Model:
    """Make LeNet-5 as Caffe has it and the pruning literature uses it: 431,080 parameters.

    20 and 50 filters of 5x5, each followed by a maximum over 2x2, then 500 units with relu and 10
    outputs; samples are (1, 28, 28). There is no activation behind the filters: the maximum is.

    Args:
        seed: the seed of initial weights, 0 <= seed < 2**64.

    Source: LeCun et al. 1998, in the form of Jia et al. 2014, "Caffe".

    >>> sum(values.size for values in lenet5().parameters.values())
    431080
    """
    return Model(
        [
            Conv2D(20, 5),
            MaxPool2D(2),
            Conv2D(50, 5),
            MaxPool2D(2),
            Flatten(),
            Dense(500, activation="relu"),
            Dense(10),
        ],
        input_shape=(1, 28, 28),
        seed=seed,
    )


def resnet(
    blocks: SupportsIndex = 1,
    *,
    filters: Sequence[int] = (32, 64, 128),
    stride: SupportsIndex = 2,
    input_shape: Sequence[int] = (1, 28, 28),
    classes: SupportsIndex = 10,
    seed: int = 0,
) -> Model:
    """Make a small residual network: a convolution, blocks, the mean of each channel, Dense.

    A block adds to its input what two convolutions of 3x3 make of it, each with a batch
    normalization, the first with relu; behind the sum there is a relu. The first block of all
    stages but the first halves the image, with a convolution of 1x1 for what goes past it. There
    are 2 blocks x stages + 2 layers with weights from end to end.

    Args:
        blocks: the number of blocks of a stage, at least 1.
        filters: the number of filters of each stage.
        stride: the stride of the first convolution: 2 makes a quarter of the work.
        input_shape: (channels, height, width).
        classes: outputs.
        seed: the seed of initial weights, 0 <= seed < 2**64.

    Source: He et al. 2016, "Deep Residual Learning for Image Recognition", section 4.2, where
    filters are (16, 32, 64), the stride is 1 and the way past is the identity, padded with zeros.

    >>> model = resnet()
    >>> sum(values.size for values in model.parameters.values())
    308074
    """
    x = Input(input_shape)
    stride = whole("stride", stride, least=1)
    y = Activation("relu")(_normalized(x, filters[0], kernel=3, stride=stride))
    for stage, width in enumerate(filters):
        for block in range(whole("blocks", blocks, least=1)):
            y = _residual_block(y, width, stride=2 if stage > 0 and block == 0 else 1)
    return Model(x, Dense(whole("classes", classes, least=1))(GlobalAvgPool()(y)), seed=seed)


def _normalized(x: Node, filters: int, *, kernel: int, stride: int) -> Node:
    """A convolution that keeps the size, or divides it by the stride, and its normalization."""
    y = Conv2D(filters, kernel, stride=stride, padding=kernel // 2, bias=False)(x)
    return BatchNorm()(y)


def _residual_block(x: Node, filters: int, *, stride: int) -> Node:
    relu = Activation("relu")
    y = relu(_normalized(x, filters, kernel=3, stride=stride))
    y = _normalized(y, filters, kernel=3, stride=1)
    if x.shape != y.shape:
        x = _normalized(x, filters, kernel=1, stride=stride)
    return relu(x + y)
