"""The verb ``compress``: without a loss, or as small as a drop or a number of bytes allows."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, SupportsFloat, SupportsIndex

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradprune.compression.books import short
from gradprune.compression.canonical import CanonicalWeights, canonical_weights
from gradprune.compression.curvature import Curvature, measured
from gradprune.compression.curve import CompressionPoint, CompressionReport
from gradprune.compression.distortion import Distortion, Limits
from gradprune.compression.gpz import PackedModel, check_packable, encoded, weights_of
from gradprune.engine.memory import LARGEST
from gradprune.foundation.checks import as_array, flag, fraction, seed_number, whole
from gradprune.foundation.progress import is_watched
from gradprune.losses.base import Loss
from gradprune.model import Model
from gradprune.optim.clipping import ClipNorm
from gradprune.optim.optimizers import SGD
from gradprune.quantization.codebooks import Codebook
from gradprune.quantization.quantizer import Quantizer
from gradprune.training.settings import Training
from gradprune.training.validation_split import held_out

__all__ = ["compress"]

Data = tuple[ArrayLike, ArrayLike]

_HELD_OUT = 0.2  # of the data, but not more than
_MOST_HELD_OUT = 10_000
_MEASURED = 4096  # samples that curvature is measured on
_FIRST_PRICE = 0.1  # of the reference
_FACTOR = 3.0  # between prices until one is too high
_LONGEST = 12  # of these
_BISECTIONS = 4
_TUNED_FACTOR = 1.5
_TUNED_LONGEST = 6
_TUNED_BISECTIONS = 2
_MOST_VALUES = 64  # of a codebook
_TUNING: Callable[[int], Training] = partial(
    Training,
    optimizer=partial(SGD, momentum=0.9, nesterov=True, clip=ClipNorm(1.0)),
    lr=0.05,
)
_FREE = 0.6  # of the epochs of fine-tuning, in which only zeros stay; in the others codes do, too,
_SLOWER = 0.3  # and the learning rate starts so much lower


def compress(
    model: Model,
    *,
    data: Data | None = None,
    validation_data: Data | None = None,
    max_drop: SupportsFloat = 0.002,
    target_bytes: SupportsIndex | None = None,
    finetune: SupportsIndex | Training = 0,
    may_prune: bool = True,
    canonical: bool = True,
    seed: SupportsIndex = 0,
    verbose: int = 1,
) -> PackedModel:
    """Pack a model into the smallest file: losslessly, or with ``data`` as small as it may get.

    Without ``data`` architecture, masks and values come back bit for bit; the seed, the optimizer,
    the pruner and the counters of training are not kept. The coder predicts each number from
    those coded before it: see docs/math.md, "The packed file".

    With ``data`` each weight becomes one of few values, or 0, so that

        sum over rows r of g_r/2 (q_r - w_r)^T H (q_r - w_r) + price * bits(q)

    is small: H are the second moments of the row's inputs, g_r is the mean square of the gradient
    of its output, and bits are counted by the statistics of the file's own coder. Each parameter
    gets a codebook of its own or a grid, whichever is cheaper. Weights are rounded column by
    column, and the weights not yet rounded compensate for the error. The price is found by
    bisection. See docs/math.md, "Bits against damage".

    Args:
        model: is not changed.
        data: (x, y), some of which are held out (a fifth, at most 10,000) to measure drops on; None
            for a lossless file.
        validation_data: (x, y) to measure on instead. Pass samples that the model was not trained
            on if you have some, above all with ``finetune``: training samples make the drop look
            smaller than it is.
        max_drop: accuracy that may be lost on the samples held out, such as 0.002; for a loss that
            has no accuracy, the share by which the loss may rise.
        target_bytes: the largest size of the file, which then is the most accurate one that was
            found; a UserWarning says so if it loses more than ``max_drop``.
        finetune: epochs of training of each of the smallest files that are tried, by SGD; or a
            ``gp.compression.Training`` with an optimizer of your own. In the first three fifths
            zeros stay zeros; then weights are rounded again, and in the rest those that share a
            value keep sharing it.
        may_prune: whether more weights may become 0.
        canonical: sort hidden units of consecutive Dense layers and leave out dead ones: those
            that no later weight reads, or that are 0 whatever comes in. The model that comes back
            predicts the same to rounding, and is smaller; False keeps everything as it is.
        seed: the seed of the choice of samples that are held out, and of fine-tuning.
        verbose: 1 shows a progress bar on terminals and in notebooks, 0 nothing.

    Returns:
        A ``PackedModel``, which predicts; it was read back from the bytes of its file. With
        ``data`` its ``report`` holds every file that was tried, and ``packed.at(nbytes=4096)``
        returns another of them.

    Raises:
        NonFiniteError: a parameter or the loss is not finite.
        TypeError: a layer's setting is of a class of your own, or an argument is not as above.
        ValueError: an argument is not as above, or no file is as small as ``target_bytes``.
        ImportError: constriction is not installed.

    Source: entropy-aware rounding with the optimal brain surgeon's corrections as in CERWU (arXiv
    2505.18758) and GPTQ (Frantar and others 2023); codebooks by entropy-constrained quantization
    (Chou, Lookabaugh and Gray 1989).

    >>> import numpy as np
    >>> import gradprune as gp
    >>> model = gp.Model([gp.Dense(30, activation="relu"), gp.Dense(4)], input_shape=50, seed=0)
    >>> report = gp.Pruner(model, criterion=gp.Magnitude()).prune(0.95)
    >>> packed = gp.compress(model)
    >>> packed.save("m.gpz")
    >>> x = np.ones((2, 50))
    >>> errors = gp.verify(model, packed, gp.load("m.gpz"), x=x)
    >>> packed.nbytes == sum(packed.parts.values()) < model.arena.size
    True
    >>> data, _ = gp.datasets.digits()
    >>> model = gp.Model([gp.Dense(10)], input_shape=64, seed=0)
    >>> history = model.fit(*data, optimizer=gp.Adam(model, lr=0.01), epochs=5, verbose=0)
    >>> small = gp.compress(model, data=data, max_drop=0.01, verbose=0)
    >>> small.nbytes < gp.compress(model).nbytes / 3, small.report.chosen.drop <= 0.01
    (True, True)
    """
    canonical = flag("canonical", canonical)
    limit = None if target_bytes is None else whole("target_bytes", target_bytes, least=1)
    drop = fraction("max_drop", max_drop)
    limits = Limits(flag("may_prune", may_prune), _MOST_VALUES)
    seed, tuning = seed_number(seed), _tuning(finetune)
    if data is None:
        given = {
            "target_bytes": limit is not None,
            "finetune": tuning is not None,
            "validation_data": validation_data is not None,
        }
        for name, is_given in given.items():
            if is_given:
                raise ValueError(f"{name} needs data=(x, y) to measure damage on")
        weights = weights_of(model)
        return PackedModel(
            encoded(weights, model.input_shape, canonical=canonical),
            type(model),
            max_bytes=LARGEST,
        )
    check_packable(model)
    loss = model.loss_for(None)
    train, test = _samples(model, data, validation_data, loss, seed)
    search = _Search(model, train, test, loss, canonical, limits, tuning, seed, verbose)
    try:
        chosen = search.smallest(drop) if limit is None else search.within(limit)
    finally:
        search.close()
    if limit is not None and chosen.drop > drop:
        warnings.warn(
            f"the best file of at most {limit:,} bytes loses {chosen.drop:.4g}, more than "
            f"max_drop={drop:g}",
            UserWarning,
            stacklevel=2,
        )
    packed = PackedModel(chosen.data, type(model), max_bytes=LARGEST)
    packed.report = search.report(chosen)
    return packed


def _tuning(finetune: SupportsIndex | Training) -> Training | None:
    if isinstance(finetune, Training):
        training = finetune
        if training.optimizer is None:
            raise ValueError("finetune needs a Training with an optimizer, such as gp.Adam")
    else:
        training = _TUNING(whole("finetune", finetune))
    return training if training.epochs else None


def _pair(model: Model, name: str, data: object, loss: Loss) -> tuple[NDArray[Any], NDArray[Any]]:
    """Samples and targets, checked."""
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise TypeError(f"{name} must be a pair (x, y), got {type(data).__name__}")
    x, y = as_array(name, data[0]), as_array(name, data[1])
    rows, _ = model.batch(x, y, loss)
    if len(rows) < 2:
        raise ValueError(f"{name} must hold at least two samples, got {len(rows)}")
    if len(y) != len(rows):
        raise ValueError(f"{name} must hold as many targets as samples, got {len(y)}")
    return rows.reshape(-1, *model.input_shape), y


def _samples(
    model: Model, data: Data, validation_data: Data | None, loss: Loss, seed: int
) -> tuple[Any, Any]:
    """(x, y) to learn from and (x, y) to measure on."""
    x, y = _pair(model, "data", data, loss)
    if validation_data is not None:
        return (x, y), _pair(model, "validation_data", validation_data, loss)
    share = min(_HELD_OUT, _MOST_HELD_OUT / len(x))
    labels = y if loss.is_classification and y.ndim == 1 and y.dtype.kind in "iu" else len(x)
    out = held_out(labels, share, seed)
    return (x[~out], y[~out]), (x[out], y[out])


class _Search:
    """Looks for a price; keeps all that was tried."""

    def __init__(
        self,
        model: Model,
        train: tuple[Any, Any],
        test: tuple[Any, Any],
        loss: Loss,
        canonical: bool,
        limits: Limits,
        tuning: Training | None,
        seed: int,
        verbose: int,
    ) -> None:
        self._train, self._test, self._loss = train, test, loss
        self._canonical, self._tuning, self._seed = canonical, tuning, seed
        self._kind, self._shape, self._full = type(model), model.input_shape, 4 * model.arena.size
        weights = weights_of(model)
        if canonical:
            weights = canonical_weights(weights, model.input_shape)
        base = self._model(weights)
        self._before = self._measure(base)
        self._points: list[CompressionPoint] = []
        self._bar = _bar(verbose)
        self._add(weights, finetuned=False)
        step = -(-len(train[0]) // _MEASURED)
        curvature: Curvature = measured(base, train[0][::step], train[1][::step], loss)
        self._lossless = curvature.none
        if tuning is not None:
            limits = replace(limits, grids=False)
        self._distortion = Distortion(weights, self._shape, curvature, limits)
        self._names = {*curvature.single, *curvature.matrices}
        self._names |= {m.bias for m in curvature.matrices.values() if m.bias is not None}
        self._reference = self._distortion.reference_price()

    def close(self) -> None:
        """No more is shown."""
        if self._bar is not None:
            self._bar.close()

    def report(self, chosen: CompressionPoint) -> CompressionReport:
        """Tell what was tried."""
        points = sorted(self._points, key=lambda p: (p.nbytes, p.drop))
        return CompressionReport(
            tuple(points), chosen, self._full, len(self._test[0]), dict(self._lossless)
        )

    def smallest(self, max_drop: float) -> CompressionPoint:
        """Return the smallest file of a drop that is not larger."""

        def good(point: CompressionPoint) -> bool:
            return point.drop <= max_drop

        price = self._bisected(lambda p: good(self._at(p)))
        if self._tuning is not None and self._names:
            self._tuned_bisected(price, good)
        return min(filter(good, self._points), key=lambda p: (p.nbytes, p.drop))

    def within(self, limit: int) -> CompressionPoint:
        """Return the most accurate file that is not larger."""

        def large(point: CompressionPoint) -> bool:
            return point.nbytes > limit

        price = self._bisected(lambda p: large(self._at(p)))
        if self._tuning is not None and self._names:
            for _ in range(_TUNED_LONGEST):  # values that move may take some bytes more
                if not large(self._at(price, finetuned=True)):
                    break
                price *= 1.1
        small = [p for p in self._points if not large(p)]
        if not small:
            least = min(p.nbytes for p in self._points)
            raise ValueError(
                f"no file is as small as target_bytes={limit:,}: the smallest one that was found "
                f"has {least:,} bytes"
            )
        return min(small, key=lambda p: (p.drop, p.nbytes))

    # ---- prices --------------------------------------------------------------------------------

    def _bisected(self, goes_on: Callable[[float], bool]) -> float:
        """Look between prices; the highest at which it goes on, or one next to it."""
        low = high = None
        price = _FIRST_PRICE * self._reference
        for _ in range(_LONGEST):
            if goes_on(price):
                low = price
                price *= _FACTOR
            else:
                high = price
                price /= _FACTOR
                if self._points[-1].drop <= 0:  # small enough, and nothing is lost
                    break
            if (low is not None and high is not None) or self._points[-1].live == 0:
                break
        if low is None or high is None:
            return low or high or price
        for _ in range(_BISECTIONS):
            middle = float(np.sqrt(low * high))
            if goes_on(middle):
                low = middle
            else:
                high = middle
        return high

    def _tuned_bisected(self, price: float, good: Callable[[CompressionPoint], bool]) -> None:
        """Likewise, with training in between."""
        low, high = None, None
        for _ in range(_TUNED_LONGEST):
            if good(self._at(price, finetuned=True)):
                low, price = price, price * _TUNED_FACTOR
            else:
                high, price = price, price / _TUNED_FACTOR
            if low is not None and high is not None:
                break
        if low is None or high is None:
            return
        for _ in range(_TUNED_BISECTIONS):
            middle = float(np.sqrt(low * high))
            if good(self._at(middle, finetuned=True)):
                low = middle
            else:
                high = middle

    def _at(self, price: float, *, finetuned: bool = False) -> CompressionPoint:
        weights = self._distortion.at(price)
        if finetuned:
            weights = self._tuned(weights, price)
        return self._add(weights, finetuned=finetuned)

    def _tuned(self, weights: CanonicalWeights, price: float) -> CanonicalWeights:
        """Trained without what became 0, rounded again, and trained with shared values."""
        assert self._tuning is not None
        free = replace(self._tuning, epochs=round(_FREE * self._tuning.epochs))
        rate = None if free.lr is None else _SLOWER * free.lr
        shared = replace(free, epochs=self._tuning.epochs - free.epochs, lr=rate)
        if free.epochs:
            model = self._model(weights)
            free.fit(model, self._train, seed=self._seed)
            model.check_finite()
            weights = self._distortion.after(weights_of(model)).at(price)
        model = self._model(weights)
        counts = {name: len(np.unique(weights.parameters[name])) for name in self._names}
        left = [name for name in weights.parameters if name not in self._names]
        most = Codebook(max(counts.values()))
        Quantizer(model, most, biases=most, exclude=left).quantize()
        shared.fit(model, self._train, seed=self._seed)
        model.check_finite()
        tuned = weights_of(model)
        for name in self._names:
            values = short(tuned.parameters[name]).astype(np.float32)
            tuned.parameters[name] = values
            if name in tuned.masks:
                tuned.masks[name] &= values != 0
        return replace(tuned, scales={})

    # ---- points --------------------------------------------------------------------------------

    def _model(self, weights: CanonicalWeights) -> Model:
        model = self._kind.blank(weights.layers, self._shape)
        model.loss = self._loss
        with model.lock:
            model.set_masks(weights.masks)
            for name, values in weights.parameters.items():
                model.arena.state[name][...] = values
        return model

    def _measure(self, model: Model) -> tuple[float, float]:
        loss, accuracy, _ = model.loss_and_outputs(*self._test, self._loss)
        model.check_finite()
        return float(loss), float(accuracy)

    def _add(self, weights: CanonicalWeights, *, finetuned: bool) -> CompressionPoint:
        data = encoded(weights, self._shape, canonical=self._canonical)
        loss, accuracy = self._measure(self._model(weights))
        if self._loss.has_accuracy:
            drop = self._before[1] - accuracy
        else:
            drop = (loss - self._before[0]) / max(abs(self._before[0]), 1e-30)
        live = sum(int(np.count_nonzero(values)) for values in weights.parameters.values())
        point = CompressionPoint(
            len(data),
            loss,
            accuracy if self._loss.has_accuracy else None,
            drop,
            live,
            finetuned,
            data,
        )
        self._points.append(point)
        if self._bar is not None:
            self._bar.set_postfix_str(f"{len(data):,} bytes, drop {100 * drop:.2f} %")
            self._bar.update()
        return point


def _bar(verbose: int) -> Any:
    """A bar of files that were tried."""
    if not verbose or not is_watched():
        return None
    from tqdm.auto import tqdm

    return tqdm(desc="compress", unit="file", dynamic_ncols=True)
