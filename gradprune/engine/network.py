"""The network: layers compiled for the C engine over one arena."""

from __future__ import annotations

from collections.abc import Sequence
from typing import SupportsIndex

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradprune.engine.lengths import lengths_of
from gradprune.engine.passes import Passes
from gradprune.foundation.checks import flag
from gradprune.losses.base import LossLike
from gradprune.losses.table import lists_losses
from gradprune.losses.weights import weights_of
from gradprune.optim.optimizers.base import Optimizer
from gradprune.optim.optimizers.taken import StepInfo, StepInfos, Taken
from gradprune.state.batching import step_rows
from gradprune.state.locking import locked

__all__ = ["PATIENCE", "Network"]

Floats = NDArray[np.float32]
MOST_STEPS = 1000  # in one call of the core
PATIENCE = 0.05  # seconds after which Ctrl-C, other threads and progress bars get their turn


class Network(Passes):
    """Layers over one arena: forward and backward passes, steps and masks.

    Args:
        layers: such as ``Dense``, ``Conv2D``, ``BatchNorm`` or ``LSTM``, each of which reads the
            one before it unless its ``inputs`` name others; or an ``Input``.
        input_shape: features of a sample, or its shape: (time, features) for recurrent layers; or
            what the last layer's call on it returned.
        seed: the seed of initial weights and dropout, 0 <= seed < 2**64.
        loss: the loss that the network is trained and measured by; see the attribute.

    Attributes:
        layers: the layers, each with a name.
        output_shape: of a prediction: (outputs,), (time, units) or (channels, height, width).
        outputs: the number of values of a prediction.
        buffers: name to float32 view of values that are not trained, such as running means and
            variances of ``BatchNorm``, which passes in training change.
        masks: name of a prunable parameter to read-only bool view, True = kept.
        optimizer: the last optimizer made for this network.
        pruner: the last pruner made for this network.
        quantizer: the last quantizer made for this network; steps go through it.
        last_loss: the loss of the last backward pass.
        gathered: the total weight of the samples whose mean gradient ``gradients`` holds, from
            which ``backward`` continues with ``accumulate``; 0 after a step.
        exploded: whether a layer's output exceeded the guard's limit in that pass.
        refused: whether the optimizer's guard has skipped the step of the last backward pass;
            its gradients should then not be used.
        forward_count: training passes so far; addresses dropout's masks.
        steps: the layers in order, with what each reads and the shapes around it.
        core_layers: (name, what the core runs) in order; a Dense and its activation are two.
    """

    @lists_losses
    def backward(
        self,
        x: ArrayLike,
        y: ArrayLike | None,
        *,
        loss: LossLike | None = None,
        sample_weight: ArrayLike | None = None,
        lengths: ArrayLike | None = None,
        accumulate: bool = False,
    ) -> float:
        """Run a forward and a backward pass: fill ``gradients`` and return the mean loss.

        Dropout is active. Gradients of removed weights are exactly 0.

        Args:
            x: (n, *input_shape) real numbers, all finite.
            y: cross_entropy: (n,) integer labels; {of_values}: real numbers of the shape
                of predictions, (n, *output_shape), or (n,) if there is one output.
            loss: {losses}, or a loss such as ``CrossEntropy()`` or
                ``Distillation(teacher)``, which ``model.loss`` remembers; None: ``model.loss``.
                Or a function of yours, see below.
            sample_weight: (n,) numbers of at least 0, what each sample counts: the loss is
                sum w_i loss_i / sum w_i, as scikit-learn's and torch's of class weights. A
                sample of weight 2 counts as if it were there twice, to rounding (but for the
                statistics of a ``BatchNorm``), one of weight 0 not at all; weights that are all
                the same change no bit. None: all count the same.
            lengths: (n,) integers, how many steps of each sample count, 1 to time: x (n, time,
                features) are sequences that are padded behind. What pads them changes nothing:
                recurrent layers end with each sample's own last step, as after torch's
                ``pack_padded_sequence``, and where the model gives a number of each step the loss
                is the mean over those that count. None: all steps count. See docs/sequences.md.
            accumulate: go on from the passes since the last step: ``gradients`` and the loss become
                those of all their samples, as if these were one batch, weights and penalties
                included (but for the statistics of a ``BatchNorm``). A step ends it.

        Returns:
            The mean loss, including the l1 and l2 penalties of the layers.

        Raises:
            TypeError, ValueError: an array or name is not as above, or no sample counts; nothing
                is changed.

        >>> import gradprune as gp
        >>> model = gp.Model([gp.Dense(1, bias=False)], input_shape=1, seed=0)
        >>> model.parameters["dense0.weight"][:] = 1
        >>> x, y = [[1.0], [2.0]], [0.0, 0.0]
        >>> model.backward(x, y, loss="mse"), model.backward(x, y, sample_weight=[1, 3])
        (2.5, 3.25)

        A batch in parts:

        >>> model.backward(x[:1], y[:1], loss="mse"), model.backward(x[1:], y[1:], accumulate=True)
        (1.0, 2.5)

        A loss of your own is a function of outputs, (n, *output_shape) float32, and targets, which
        returns the loss of the batch and its gradient by the outputs. Targets are rows of y:
        whole numbers as int64, others as float32. If it has an argument ``sample_weight`` it gets
        that, too. Each step is then one of Python, so ``train_steps`` and ``fit`` call the function
        once a step.

        >>> def fourth_power(outputs, targets):
        ...     error = outputs - targets.reshape(outputs.shape)
        ...     return np.mean(error**4), 4 * error**3 / error.size
        >>> model.backward(x, y, loss=fourth_power)
        8.5
        """
        chosen = self.loss_for(loss)
        inputs, targets = self.batch(x, y, chosen)
        weights = weights_of(sample_weight, len(inputs), loss=chosen)
        ends = lengths_of(lengths, len(inputs), self.steps, self.input_shape, loss=chosen)
        guard = None if self.optimizer is None else self.optimizer.guard
        goes_on = flag("accumulate", accumulate)
        with self.lock:
            self._pass(
                *(inputs, targets, weights, None, chosen, guard), lengths=ends, goes_on=goes_on
            )
            self._loss = chosen.lasting
            return self.last_loss

    def train_step(
        self,
        x: ArrayLike,
        y: ArrayLike | None,
        *,
        optimizer: Optimizer,
        loss: LossLike | None = None,
        sample_weight: ArrayLike | None = None,
        lengths: ArrayLike | None = None,
    ) -> tuple[float, StepInfo]:
        """Run ``backward`` and ``optimizer.step()`` in one call of the core, with the same bits.

        Args:
            x: as for ``backward``.
            y: likewise.
            optimizer: takes the step.
            loss: as for ``backward``.
            sample_weight: likewise.
            lengths: likewise.

        Returns:
            (mean loss before the step, what the step did).
        """
        chosen = self.loss_for(loss)
        inputs, targets = self.batch(x, y, chosen)
        weights = weights_of(sample_weight, len(inputs), loss=chosen)
        ends = lengths_of(lengths, len(inputs), self.steps, self.input_shape, loss=chosen)
        with self.lock:
            taken = self.take(
                *(inputs, targets, None, (len(inputs),), chosen, optimizer),
                weights=weights,
                lengths=ends,
            )
            self._loss = chosen.lasting
        return taken.loss[0], taken.last

    def train_steps(
        self,
        x: ArrayLike,
        y: ArrayLike | None,
        *,
        optimizer: Optimizer,
        index: ArrayLike | Sequence[ArrayLike] | None = None,
        n: SupportsIndex | None = None,
        loss: LossLike | None = None,
        sample_weight: ArrayLike | None = None,
        lengths: ArrayLike | None = None,
    ) -> tuple[NDArray[np.float64], StepInfos]:
        """Run ``train_step`` again and again in the core, with the same bits.

        A step that a guard skips counts as a step, too. If a step raises, the steps before it have
        been taken.

        Args:
            x: (samples, *input_shape) real numbers.
            y: the targets of all of them, as for ``backward``.
            optimizer: takes the steps.
            index: the samples of each step: (steps, batch) row numbers, or a sequence of row
                numbers for each step. None: every step takes all samples.
            n: how many steps; None: as many as ``index`` has, and 1 without.
            loss: as for ``backward``.
            sample_weight: (samples,) of all of them, as for ``backward``.
            lengths: likewise.

        Returns:
            (mean losses before each step (n,), what the steps did, an array for each number of a
            ``StepInfo``).

        Raises:
            IndexError: there is no such row.
            TypeError, ValueError: an argument is not as above.
            NonFiniteError, ExplosionError: as ``Optimizer.step``.

        >>> import gradprune as gp
        >>> (x, y), _ = gp.datasets.digits()
        >>> model = gp.Model([gp.Dense(10)], input_shape=64, seed=0)
        >>> order = np.random.default_rng(0).integers(0, len(x), (100, 32))
        >>> losses, steps = model.train_steps(x, y, index=order, optimizer=gp.Adam(model, lr=0.01))
        >>> losses.shape, steps.norm.shape, bool(losses[-1] < losses[0])
        ((100,), (100,), True)
        """
        chosen = self.loss_for(loss)
        inputs, targets = self.batch(x, y, chosen)
        weights = weights_of(sample_weight, len(inputs), loss=chosen)
        ends = lengths_of(lengths, len(inputs), self.steps, self.input_shape, loss=chosen)
        rows, sizes = step_rows(index, n, len(inputs))
        with self.lock:
            self._loss = chosen.lasting
        taken: list[Taken] = []
        while sizes:
            now = self.take(
                *(inputs, targets, rows, sizes, chosen, optimizer),
                weights=weights,
                lengths=ends,
                seconds=PATIENCE,
            )
            taken.append(now)
            done, sizes = sizes[: len(now.loss)], sizes[len(now.loss) :]
            rows = None if rows is None else rows[sum(done) :]
        columns = [np.concatenate(column) for column in zip(*taken, strict=True)]
        return columns[0], StepInfos(*columns[3:])

    def predict(self, x: ArrayLike, *, lengths: ArrayLike | None = None) -> Floats:
        """Return the outputs for samples, without dropout.

        Args:
            x: (n, *input_shape) real numbers, all finite.
            lengths: (n,) lengths of sequences padded at the end, as for ``backward``; where
                the model has an output for each step, outputs after a sample's last step are 0.

        Returns:
            (n, *output_shape) float32.
        """
        inputs = self.rows(x)
        ends = lengths_of(lengths, len(inputs), self.steps, self.input_shape)
        out = np.empty((len(inputs), self.outputs), np.float32)
        with self.lock:
            self._net.predict(self.arena.core, inputs, out, ends)
        return out.reshape(len(out), *self.output_shape)

    @locked
    def is_sparse(self, layer: str, *, batch_size: int = 64) -> bool:
        """Return whether a layer runs on lists of its live weights, because they are few enough.

        ``costs`` says what is few enough.
        """
        return any(
            name == layer and self._net.is_sparse(self.arena.core, position, batch_size)
            for position, (name, _) in enumerate(self.core_layers)
        )
