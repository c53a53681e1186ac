"""The model: a network that can be trained, measured, saved and summed up."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, SupportsFloat, SupportsIndex

from numpy.typing import ArrayLike

from gradprune import files
from gradprune.data.augmentation import Augmentation
from gradprune.engine.summary import Summary, summarize
from gradprune.forms import shrinking
from gradprune.forms.frozen import FrozenModel
from gradprune.forms.shrinking import ShrinkReport
from gradprune.foundation.checks import flag
from gradprune.interop.exporting import Exportable
from gradprune.layers.base import Layer
from gradprune.layers.graph import Node
from gradprune.losses.base import LossLike
from gradprune.losses.table import lists_losses
from gradprune.losses.weights import ClassWeight
from gradprune.optim.optimizers import Optimizer
from gradprune.pruning.scopes import Scope
from gradprune.pruning.starting import RandomStart
from gradprune.quantization.mixed_precision import choose_layers, samples_to_measure
from gradprune.training.callbacks import Callback
from gradprune.training.followers import Steps
from gradprune.training.history import History
from gradprune.training.loop import train
from gradprune.training.own_metrics import MetricsLike
from gradprune.training.preparation import prepare
from gradprune.training.ranks import ranks_of

__all__ = ["Model"]


class Model(Exportable):
    """A network that can be trained, clipped and pruned.

    ``Model(layers, input_shape)`` is a sequence: each layer reads the one before it.
    ``Model(inputs, outputs)`` is a network that branches: layers are called on an ``Input`` and on
    what other calls return, ``a + b`` adds two of these, and the model is all that leads from the
    one ``Input`` to the one output. Both are the same kind of model, with a flat list of layers.

    Args:
        layers: layers such as ``Dense`` or ``Conv2D``; or the ``Input``.
        input_shape: the shape of a sample: its features, such as 784, or (channels, height,
            width) of an image, or (time, features) of a sequence; or what the call of the last
            layer returned.
        seed: the seed of initial weights and dropout, 0 <= seed < 2**64.
        loss: what the model is trained and measured by wherever no other loss is given; None:
            the one that it was trained by last, at first "cross_entropy".
        sparsity: the share of the prunable weights that the model starts without, in [0, 1):
            round(sparsity * weights) of them, at places drawn from the seed. Or the sparsity of
            each layer or parameter by name, such as {"dense0": 0.9}; the others keep everything.
            Each parameter keeps at least one weight. What lives starts with the value that it has
            in a dense model of the same seed. A model that starts sparse takes the memory of what
            lives and one byte for each weight, which is its mask.
        scope: how a sparsity is distributed over the layers: "erk", which None stands for, "layer",
            or another one of ``Pruner``. Random weights that are ranked together lose the same
            share everywhere, so "global" is as "layer".

    Raises:
        TypeError: these are neither layers and a shape nor two ends of a network.
        ValueError: a layer does not take the shape it gets, two have one name, or outputs do not
            come from inputs, through layers, each called once if it has parameters; or there is no
            such loss.

    Attributes:
        layers, output_shape, parameters, buffers, gradients, masks, sparsity, loss: see
            ``Network``.
        optimizer, pruner, quantizer: the last ones made for this model, or None.
        history: the history of the last ``fit``, also if it failed or was interrupted, or None.
        epoch: epochs trained so far, by every ``fit``; saved with the model.
        notes: a dict of your own, of text, numbers, tuples and dicts of these; saved, too.
        shrink_report: what ``shrink`` removed to make this model, or None.

    >>> import gradprune as gp
    >>> model = gp.Model([gp.Dense(8, activation="tanh"), gp.Dense(2)], input_shape=3, seed=0)
    >>> list(model.parameters)
    ['dense0.weight', 'dense0.bias', 'dense1.weight', 'dense1.bias']

    A network that starts sparse:

    >>> layers = [gp.Dense(300, activation="relu"), gp.Dense(10)]
    >>> model = gp.Model(layers, input_shape=784, seed=0, sparsity=0.99)
    >>> {name: int(mask.sum()) for name, mask in model.masks.items()}
    {'dense0.weight': 1852, 'dense1.weight': 530}

    A residual connection:

    >>> x = gp.Input(3)
    >>> y = gp.Dense(3, activation="relu")(x)
    >>> model = gp.Model(x, gp.Dense(2, name="last")(x + y), seed=0)
    >>> [layer.name for layer in model.layers]
    ['dense0', 'add0', 'last']
    """

    def __init__(
        self,
        layers: Sequence[Layer] | Node,
        input_shape: SupportsIndex | Sequence[int] | Node,
        *,
        seed: int = 0,
        loss: LossLike | None = None,
        sparsity: SupportsFloat | Mapping[str, float] = 0.0,
        scope: str | Scope | None = None,
    ) -> None:
        start = RandomStart.asked(sparsity, scope, seed)
        super().__init__(layers, input_shape, seed=seed, loss=loss, start=start)

    def _begin(self) -> None:
        super()._begin()
        self.shrink_report: ShrinkReport | None = None

    @lists_losses
    def fit(
        self,
        x: ArrayLike,
        y: ArrayLike | None = None,
        *,
        optimizer: Optimizer | None = None,
        loss: LossLike | None = None,
        epochs: SupportsIndex = 1,
        batch_size: SupportsIndex = 32,
        validation_data: tuple[ArrayLike, ...] | None = None,
        validation_split: SupportsFloat = 0.0,
        sample_weight: ArrayLike | None = None,
        class_weight: ClassWeight | None = None,
        lengths: ArrayLike | None = None,
        pruner: Steps | None = None,
        callbacks: Sequence[Callback] = (),
        verbose: int = 1,
        shuffle: bool = True,
        seed: int = 0,
        augment: Augmentation | Sequence[Augmentation] = (),
        accumulate: SupportsIndex = 1,
        metrics: MetricsLike = (),
        communicator: Any = None,
        reduction: str = "fast",
        sharded: bool = False,
    ) -> History:
        """Train for some epochs.

        The order of the samples in epoch e is a function of (seed, e) alone, with e counted in
        ``model.epoch``: two calls for 3 epochs give the same bits as one for 6, also with a saved
        and loaded model in between.

        Args:
            x: (n, *input_shape) real numbers, all finite; converted once.
            y: cross_entropy: (n,) integer labels; {of_values}: real numbers of the shape
                of predictions, (n, *output_shape), or (n,) if there is one output.
            optimizer: made for this model; None: ``model.optimizer``.
            loss: {losses}, or a loss such as ``CrossEntropy()`` or
                ``Distillation(teacher)``, which ``model.loss`` remembers; None: ``model.loss``.
            epochs: passes over the data, at least 1.
            batch_size: samples a step; the last step of an epoch takes what is left. One sample
                that is left joins the batch before, if a ``BatchNorm`` cannot do with one; see
                ``steps_per_epoch``.
            validation_data: (x, y) to measure after each epoch, or (x, y, sample_weight), or (x,
                y, sample_weight, lengths).
            validation_split: in [0, 1), the share of the samples that is taken out before the first
                epoch and measured after each, in place of validation_data: round(share * n) of
                them, chosen by ``seed``; where y are labels, of each class its share to within one.
                Both parts keep their order, and come out as if they had been passed apart.
            sample_weight: (n,) what each sample counts, as for ``backward``: the mean loss of a
                batch divides by the sum of its weights, so it is an error if that is 0.
            class_weight: what samples of each class count besides, where y are labels: weights by
                class (those left out have 1), one for each output, or "balanced": n / (classes *
                samples of the class), of the samples trained on. Validation goes without.
            lengths: (n,) how many steps of each sequence count, as for ``backward``.
            pruner: a ``Pruner``, or an object of your own whose ``step()`` is called after each
                step; a loaded model's is ``model.pruner``. A schedule that cannot end within this
                call is warned of before it starts. Reports of its events are in
                ``history.prune_reports``.
            callbacks: ``Callback`` objects, called in this order.
            verbose: 0 silent; 1 a progress bar where there is a terminal or notebook, else a line
                an epoch on standard error; 2 a line an epoch on standard output.
            shuffle: take the samples in a new order each epoch, else as they are.
            seed: the seed of that order and of ``augment``, 0 <= seed < 2**64.
            augment: an ``Augmentation`` such as ``Shift(2)`` or several, applied in this order to
                the images of each training step, samples of shape (channels, height, width); what
                a sample becomes is a function of (seed, epoch, its number in x). Validation data
                is left as it is; the teacher of a ``Distillation`` sees x as it is.

            accumulate: take a step after so many batches, by the gradient of all their samples: as
                one batch of accumulate * batch_size, in the memory of a smaller one (but for the
                statistics of a ``BatchNorm``). Schedules, pruner and callbacks count steps.
            metrics: functions (targets, outputs) -> number to measure after each epoch as by
                ``evaluate``: ``name`` in the logs is that of all training samples, which takes one
                more pass through them, without dropout and ``augment``; ``val_name`` that of the
                validation data.
            communicator: of mpi4py, such as MPI.COMM_WORLD: all its ranks call ``fit`` with the
                same arguments, and a step takes ``accumulate`` batches from each. Rank 0 alone
                shows progress and calls callbacks that write. See docs/scaling.md.
            reduction: "fast", or "ordered": gradients are added up in the order of the batches, so
                that n ranks have the bits of one with n times ``accumulate``.
            sharded: x and y are samples of this rank alone, else the same on all.

        Returns:
            The numbers of each epoch and step, also kept in ``model.history``.

        Raises:
            TypeError, ValueError: an argument is not as above; nothing is changed.
            OSError: a callback could not write its file; likewise.
            ImportError: there is no mpi4py: ``pip install "gradprune[mpi]"``.
            RankError: another rank has failed, or has other weights or masks than rank 0.
            NonFiniteError: a loss or gradient is not finite and the optimizer's guard raises.
            KeyboardInterrupt: Ctrl-C, after the step in flight. Then and after any other error
                model, optimizer and pruner are whole, after the last complete step; an epoch left
                in its middle is not counted, and the next ``fit`` takes it from its start.

        >>> import numpy as np
        >>> import gradprune as gp
        >>> model = gp.Model([gp.Dense(1)], input_shape=1, seed=0)
        >>> optimizer = gp.SGD(model, lr=0.1)
        >>> x = np.linspace(-1, 1, 50).reshape(50, 1)
        >>> history = model.fit(
        ...     x, 2 * x + 1, optimizer=optimizer, loss="mse", epochs=100, verbose=0
        ... )
        >>> model.parameters["dense0.weight"].round(3).tolist()
        [[2.0]]
        """
        with ranks_of(communicator, reduction=reduction, sharded=sharded) as ranks:
            run = prepare(
                self,
                x,
                y,
                optimizer=optimizer,
                loss=loss,
                epochs=epochs,
                batch_size=batch_size,
                validation_data=validation_data,
                pruner=pruner,
                callbacks=callbacks,
                validation_split=validation_split,
                sample_weight=sample_weight,
                class_weight=class_weight,
                lengths=lengths,
                verbose=verbose,
                shuffle=shuffle,
                seed=seed,
                augment=augment,
                accumulate=accumulate,
                metrics=metrics,
                ranks=ranks,
            )
            run.warn(stacklevel=2)
            return train(run)

    def summary(self) -> Summary:
        """Count parameters, kept weights, multiplications and bytes; ``print`` shows a table.

        >>> import gradprune as gp
        >>> model = gp.Model([gp.Dense(3, activation="relu"), gp.Dense(2)], input_shape=4)
        >>> print(model.summary())
        layer   type         outputs  parameters  kept  MACs  effective  bytes  non-zero  kernel
        dense0  Dense, relu        3          15    15    12         12     60        48  dense
        dense1  Dense              2           8     8     6          6     32        24  dense
        ----------------------------------------------------------------------------------------
        total                      2          23    23    18         18     92        72
        sparsity 0.00%
        """
        report = self.shrink_report
        return summarize(self, notes=() if report is None else (report.headline,))

    def freeze(self, *, precision: str = "float32", x: ArrayLike | None = None) -> FrozenModel:
        """Return the model as it is now, immutable and for inference alone; see ``FrozenModel``.

        Args:
            precision: "int8" for Dense layers on 8-bit integers: a quarter of the memory, faster
                where the CPU has VNNI. Layers stay float32 before a ``LayerNorm``, and where
                outputs would be off by more than 3 % of the largest one; see ``FrozenModel``.
            x: (n, *input_shape) samples to measure that on, such as will be predicted; a few dozen
                do. None: random ones, normal and absolute values of normal numbers, of deviations
                0.1, 1 and 10. Only with "int8".

        Raises:
            TypeError, ValueError: an argument is not as above.

        >>> import gradprune as gp
        >>> model = gp.Model([gp.Dense(1)], input_shape=2, seed=0)
        >>> model.parameters["dense0.weight"][:] = [[1, 2]]
        >>> fast = model.freeze()
        >>> model.parameters["dense0.weight"][:] = 0
        >>> fast.predict([[1, 1]]).tolist()
        [[3.0]]
        """
        samples = samples_to_measure(self, precision, x)
        if precision != "int8":
            return FrozenModel(self, precision)
        with self.lock:
            return FrozenModel(self, precision, choose_layers(self, samples))

    def shrink(self, *, inputs: bool = False) -> Model:
        """Return an ordinary smaller model with the same predictions, without dead units.

        A unit of a Dense layer or a filter is removed if no sample can change it, because none of
        its live weights reads anything that varies, or if nothing that stays reads it. A unit of a
        recurrent layer is removed if nothing reads its state. Units whose outputs are added are
        removed together or not at all, and ``Unit`` prunes them so. A convolution with groups
        loses whole groups.

        The f(bias) of a constant unit is added to the biases behind it; if there are none, the
        unit stays unless it is 0. All that goes into a softmax stays, and so do all outputs of the
        network; a layer keeps at least one unit. Weights count as dead by their mask, not by their
        value. A unit with live weights before a BatchNorm keeps one of them, even if all that it
        reads is constant, because without any its channel would be silent.

        This model is untouched. Masks, gradients, optimizer (moments, counters, schedule, what
        clippers and guard remember) and counters of passes and epochs come along; so a step of
        the smaller model changes what is left as a step of this one would, but for weight decay
        of folded biases, for norms over parameters that are gone and for penalties of layers. Not
        carried are the pruner, whose budgets are shares of this model's weights, the history and
        the copies of a ``Rollback``. Dropout draws other masks, and constants no longer pass
        through it. Layers that were cut have the default initializers.

        Args:
            inputs: also remove inputs that nothing reads. The smaller model then takes
                ``x[:, small.shrink_report.live_inputs]``, for sequences reshaped to (n,
                *small.input_shape); else it takes what this one takes.

        Returns:
            The smaller model; its ``shrink_report`` says what was removed.

        >>> import gradprune as gp
        >>> model = gp.Model([gp.Dense(4, activation="relu"), gp.Dense(2)], input_shape=3, seed=0)
        >>> model.set_mask("dense0.weight", [[1, 1, 0], [0, 0, 0], [1, 0, 0], [0, 1, 0]])
        >>> model.set_mask("dense1.weight", [[1, 1, 0, 0], [0, 1, 0, 1]])
        >>> print(model.shrink().shrink_report)
        shrunk from 26 to 14 parameters; 2 of 3 inputs are read
        layer   outputs  kept  constant  unread  parameters  kept
        dense0        4     2         1       1          16     8
        dense1        2     2         0       0          10     6
        """
        small, report = shrinking.shrink(self, Model, inputs=inputs)
        small.shrink_report = report
        return small

    def check_savable(self) -> None:
        """A TypeError if something of the model is of a class that ``save`` could not write.

        >>> import gradprune as gp
        >>> gp.Model([gp.Dense(2)], input_shape=3).check_savable()
        """
        files.check_savable(self)

    def save(self, path: str | os.PathLike[str], *, training_state: bool = True) -> None:
        """Write everything to a safetensors file: a loaded model trains on with the same bits.

        Layers, weights, masks, the optimizer with its moments, clip, guard and schedule, the
        pruner with its statistics, the quantizer with its codes, the table ``costs`` and all
        counters are in it; gradients and history are not. The bits are those of an unbroken run
        in any process with the same version and instruction set, whatever its threads and
        whatever table ``gp.costs.get_costs`` gives there; with other instructions the loaded
        numbers are
        the same, and what is computed from them is rounded otherwise. The file is replaced as a
        whole or, on an error, left as it was.

        Removed weights are in the file, too, as zeros with a byte of mask for each weight, so a
        pruned model's file is no smaller: ``gp.compress(model).save("m.gpz")`` makes it small.

        Args:
            path: the file.
            training_state: False leaves out the optimizer, whose moments take as many bytes as the
                weights or twice as many, and the pruner; what is loaded predicts the same.

        Raises:
            OSError: the file cannot be written.
            TypeError: something is of a class of your own that is no frozen dataclass, so that
                ``gp.load(path, custom_objects={...})`` could not make it again.
        """
        files.save(self, path, training_state=flag("training_state", training_state))
