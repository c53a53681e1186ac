"""The quantizer: few values for many weights, now, and through all training that follows.

Quantizing is a transaction: everything is computed first and then written. From then on every step
of the model's optimizer runs between ``begin`` and ``end`` of the quantizer's parts, wherever the
step is called from; a step that is refused leaves weights, codes and gradients as they were.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gradprune.errors import NonFiniteError
from gradprune.optim.optimizers.base import Around, Done
from gradprune.quantization.report import ParameterReport, QuantizationReport, describe
from gradprune.quantization.schemes import Coding, Layout, Part, Scheme
from gradprune.state.arena import Arena, Tensor, excluded_names
from gradprune.state.copying import Attached
from gradprune.state.headroom import require
from gradprune.state.locking import locked

__all__ = ["Quantizer"]

_ROOM = 64  # bytes a weight, for quantizing it after a step that cannot be taken back


class Quantizable(Protocol):
    """What a quantizer needs of a network."""

    arena: Arena

    @property
    def quantizer(self) -> Around | None: ...


class Quantizer(Attached):
    """Gives the weights of a model few values, and keeps it so while the model is trained.

    It does nothing until ``quantize`` is called. From then on each step of the optimizer, by
    ``fit``, ``train_step`` or ``optimizer.step()``, ends with quantized weights; how they learn is
    said by the scheme. Gradients in ``model.gradients`` stay those of the single weights. Norms,
    clipping and limits of guards go by what the step sees. A weight that is removed leaves its
    cluster or grid; one that comes back takes the nearest value. What is written into a view of
    ``model.parameters`` counts in the next pass; the step after it quantizes it again.

    Args:
        model: a network; ``model.quantizer`` becomes this quantizer.
        weights: the scheme for prunable parameters, such as ``Codebook(16)`` or ``Grid(8)``.
        exclude: names of layers or parameters to leave alone.
        biases: the scheme for the other parameters; None: they stay float.

    Attributes:
        model, weights, exclude, biases: as given.
        count: calls of ``quantize`` so far.

    Raises:
        TypeError, ValueError: an argument is not as above, or nothing is left to quantize.

    >>> import gradprune as gp
    >>> model = gp.Model([gp.Dense(10, activation="relu"), gp.Dense(5)], input_shape=20, seed=0)
    >>> quantizer = gp.Quantizer(model, gp.Codebook(4), exclude="dense1")
    >>> print(quantizer.quantize())
    parameter      live  distinct  max error  rms error  bits each
    dense0.weight   200         4   5.90e-01   1.07e-01       1.90
    skipped dense0.bias: biases are not quantized
    skipped dense1.weight: excluded
    skipped dense1.bias: excluded
    """

    slot = "quantizer"
    model: Quantizable

    def __init__(
        self,
        model: Quantizable,
        weights: Scheme,
        *,
        exclude: str | Sequence[str] = (),
        biases: Scheme | None = None,
    ) -> None:
        self._check_model(model)
        if not isinstance(weights, Scheme):
            raise TypeError(f"weights must be a scheme such as Codebook(16), got {weights!r}")
        if biases is not None and not isinstance(biases, Scheme):
            raise TypeError(f"biases must be a scheme such as Grid(8) or None, got {biases!r}")
        self.model = model
        self.weights = weights
        self.biases = biases
        self.exclude = (exclude,) if isinstance(exclude, str) else tuple(exclude)
        self.count = 0
        self._parts: dict[str, Part] = {}  # none before the first ``quantize``
        self._cover()
        setattr(model, self.slot, self)
        model.arena.follow(self)

    def _cover(self) -> None:
        """Which scheme is for what."""
        self._skipped: dict[str, str] = {}
        self._schemes: dict[str, tuple[Scheme, Layout]] = {}
        for prefix, scheme, tensors in zip(
            ("weights", "biases"), (self.weights, self.biases), self._covered(), strict=True
        ):
            if scheme is not None and tensors:
                layout = Layout(self.model.arena, tensors, scheme.per)
                self._schemes[prefix] = scheme, layout
        if not self._schemes:
            raise ValueError("nothing to quantize: every parameter is left out")

    def _covered(self) -> tuple[list[Tensor], list[Tensor]]:
        """Weights and biases to quantize."""
        tensors = self.model.arena.tensors
        left_out = excluded_names(tensors, self.exclude)
        kept: tuple[list[Tensor], list[Tensor]] = [], []
        for tensor in tensors:
            if tensor.name in left_out:
                self._skipped[tensor.name] = "excluded"
            elif not tensor.prunable and self.biases is None:
                self._skipped[tensor.name] = "biases are not quantized"
            else:
                kept[not tensor.prunable].append(tensor)
        return kept

    @property
    def is_active(self) -> bool:
        """Whether it has quantized, so that training goes on quantized."""
        return bool(self._parts)

    @property
    def quantized(self) -> tuple[str, ...]:
        """The names of the parameters that are quantized; none before ``quantize``."""
        return tuple(name for part in self._parts.values() for name in part.layout.tensors)

    @locked
    def quantize(self) -> QuantizationReport:
        """Quantize the weights as they are now; after training this is all of PTQ.

        Called again it makes new codebooks and grids, from the float weights behind the quantized
        ones if there are any (straight-through training).

        Returns:
            For each parameter: distinct values, errors and ideal bits. ``str(report)`` is a table.

        Raises:
            NonFiniteError: a weight is not finite; nothing is changed.
        """
        sources = {
            prefix: self._parts[prefix].source()
            if prefix in self._parts
            else self.model.arena.params[layout.members().place]
            for prefix, (_, layout) in self._schemes.items()
        }
        for prefix, weights in sources.items():
            if not np.isfinite(weights).all():
                raise self._fault(prefix, weights)
        parts = {
            prefix: scheme.fit(layout, sources[prefix])
            for prefix, (scheme, layout) in self._schemes.items()
        }
        values = {prefix: part.values() for prefix, part in parts.items()}
        report = self._report(sources, values)
        for prefix, part in parts.items():  # nothing fails from here on
            part.write(values[prefix])
        self._parts = parts
        self.count += 1
        return report

    def coding(self, name: str) -> Coding:
        """Return how the values of a parameter come from codes.

        What was written into a view since the last step is quantized here as the next step would
        do it, and stays in the model as it is.

        Args:
            name: the name of a parameter.

        Raises:
            KeyError: it is not quantized.

        >>> import gradprune as gp
        >>> model = gp.Model([gp.Dense(2)], input_shape=3, seed=0)
        >>> report = gp.Quantizer(model, gp.Codebook(2)).quantize()
        >>> coding = model.quantizer.coding("dense0.weight")
        >>> bool((coding.decode() == model.parameters["dense0.weight"]).all())
        True
        """
        with self.lock:
            for part in self._parts.values():
                if name in part.layout.tensors:
                    return part.coding(name)
        raise KeyError(f"{name!r} is not quantized; quantized are {list(self.quantized)}")

    # ---- training ------------------------------------------------------------------------------

    @locked
    def around(self, step: Callable[[], Done]) -> Done:
        """Let a step of an optimizer see what it is to see, and quantize after it.

        Args:
            step: takes it; whether it was applied comes fourth in what it returns.
        """
        require(_ROOM * sum(part.layout.size for part in self._parts.values()))
        applied = False
        try:
            for part in self._parts.values():
                part.begin()
            done = step()
            applied = done[3]
        finally:
            for part in self._parts.values():
                part.end(applied)
        return done

    def follow_mask(
        self, mask: NDArray[np.uint8], params: NDArray[np.float32]
    ) -> Callable[[], None]:
        """Weights that are back take the nearest value; see ``Arena.follow``."""
        if self.model.quantizer is not self:
            return lambda: None
        parts = {prefix: part.followed(mask, params) for prefix, part in self._parts.items()}

        def finish() -> None:
            self._parts = parts
            for part in parts.values():
                part.write_back()

        return finish

    def described(self) -> tuple[dict[str, Any], str]:
        """See Described."""
        settings = {"weights": self.weights, "exclude": self.exclude, "biases": self.biases}
        shown = {
            name: value for name, value in settings.items() if value is not None and value != ()
        }
        return shown, f"{len(self.quantized)} parameters quantized"

    # ---- copies, see ``copying`` ------------------------------------------------------------

    @locked
    def capture(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """See Attached."""
        derived = {"model", "_skipped", "_schemes", "_parts"}
        objects = {name: value for name, value in vars(self).items() if name not in derived}
        if self.model.quantizer is self:
            return objects, {"state": self.state(), "tensors": self.tensors()}
        arena = self.model.arena  # one that is no longer attached has not followed the mask
        parts = {
            prefix: part.followed(arena.mask, arena.params) for prefix, part in self._parts.items()
        }
        return objects, {"state": self.state(), "tensors": _tensors(parts)}

    def restore(self, objects: dict[str, Any], arrays: dict[str, Any]) -> None:
        """See Attached."""
        vars(self).update(objects)
        self._parts = {}
        self._cover()
        self.model.arena.follow(self)
        self._load(arrays["state"], arrays["tensors"])

    # ---- checkpoints ---------------------------------------------------------------------------

    @locked
    def state(self) -> dict[str, int]:
        """Return counters for a checkpoint."""
        return {"count": self.count, "is_active": int(self.is_active)}

    @locked
    def tensors(self) -> dict[str, NDArray[Any]]:
        """Return arrays for a checkpoint; none before the first ``quantize``."""
        return _tensors(self._parts)

    @locked
    def load_state(self, state: Mapping[str, int], tensors: Mapping[str, NDArray[Any]]) -> None:
        """Set what ``state`` and ``tensors`` gave; masks and weights have to be set before.

        Raises:
            ValueError: something is missing, not finite or does not fit; nothing is changed.
        """
        for name, array in tensors.items():
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise ValueError(f"the quantizer's {name} must be finite")
        self._load(state, tensors)

    def _load(self, state: Mapping[str, int], tensors: Mapping[str, NDArray[Any]]) -> None:
        """Without a look at the numbers: a model that has diverged can be copied, too."""
        parts = {}
        if state["is_active"]:
            for prefix, (scheme, layout) in self._schemes.items():
                start = f"{prefix}."
                own = {
                    name.removeprefix(start): array
                    for name, array in tensors.items()
                    if name.startswith(start)
                }
                parts[prefix] = scheme.restore(layout, own)
        self._parts = parts
        self.count = int(state["count"])

    # ---- reporting -----------------------------------------------------------------------------

    @locked
    def _report(
        self,
        sources: Mapping[str, NDArray[np.float32]],
        values: Mapping[str, NDArray[np.float32]],
    ) -> QuantizationReport:
        found: dict[str, ParameterReport] = {}
        for prefix, (_, layout) in self._schemes.items():
            entry, after = layout.members().entry, values[prefix]
            for name in layout.tensors:
                own = layout.entries_of(name)
                inside = slice(*np.searchsorted(entry, [own.start, own.stop]))
                found[name] = describe(sources[prefix][inside], after[inside])
        order = [tensor.name for tensor in self.model.arena.tensors]
        return QuantizationReport(
            {name: found[name] for name in order if name in found},
            {name: self._skipped[name] for name in order if name in self._skipped},
        )

    def _fault(self, prefix: str, weights: NDArray[np.float32]) -> NonFiniteError:
        layout = self._schemes[prefix][1]
        position = int(np.argmin(np.isfinite(weights)))
        entry = int(layout.members().entry[position])
        name = next(n for n in layout.tensors if entry < layout.entries_of(n).stop)
        shape = layout.tensors[name].shape
        index = tuple(int(i) for i in np.unravel_index(entry - layout.starts[name], shape))
        return NonFiniteError.of_parameter("quantization", name, index, float(weights[position]))


def _tensors(parts: Mapping[str, Part]) -> dict[str, NDArray[Any]]:
    return {
        f"{prefix}.{name}": array
        for prefix, part in parts.items()
        for name, array in part.tensors().items()
    }
