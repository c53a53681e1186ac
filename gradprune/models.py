"""Networks that papers are compared on, ready made."""

from __future__ import annotations

from gradprune.layers.convolution import Conv2D
from gradprune.layers.dense import Dense
from gradprune.layers.pooling import MaxPool2D
from gradprune.model import Model

__all__ = ["lenet5"]


def lenet5(*, seed: int = 0) -> Model:
    """LeNet-5 as Caffe has it and the pruning literature uses it: 431,080 parameters.

    20 and 50 filters of 5x5, each followed by a maximum over 2x2, then 500 units with relu and 10
    outputs; samples are (1, 28, 28). There is no activation behind the filters: the maximum is.

    Args:
        seed: of initial weights, 0 <= seed < 2**64.

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
            Dense(500, activation="relu"),
            Dense(10),
        ],
        input_shape=(1, 28, 28),
        seed=seed,
    )
