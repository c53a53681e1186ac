"""Calls of constructors that do not fit: what was meant, and how it is written here.

Python says that ``PrunerState.__init__() missing 1 required keyword-only argument``. These errors
say which setting is missing, what it is, and how a call as in torch or Keras is written here.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import json
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

__all__ = ["explain_calls"]

# Settings as other libraries call them, and the names that they may have here.
SYNONYMS: dict[str, tuple[str, ...]] = {
    "act": ("activation",),
    "amount": ("sparsity",),
    "alpha": ("slope",),
    "begin_step": ("start",),
    "beta_1": ("betas",),
    "beta_2": ("betas",),
    "clipnorm": ("clip",),
    "clipvalue": ("clip",),
    "cycle_steps": ("steps",),
    "end_step": ("stop",),
    "epsilon": ("eps",),
    "eta_min": ("final",),
    "final_sparsity": ("sparsity",),
    "frequency": ("every",),
    "gamma": ("factor",),
    "hidden_size": ("units",),
    "initial_sparsity": ("initial",),
    "kernel_initializer": ("initializer",),
    "kernel_size": ("kernel",),
    "learning_rate": ("lr",),
    "negative_slope": ("slope",),
    "nonlinearity": ("activation",),
    "out_channels": ("filters",),
    "out_features": ("units",),
    "p": ("rate", "norm_type"),
    "params": ("model",),
    "pool_size": ("kernel",),
    "pruning_schedule": ("schedule",),
    "rho": ("alpha",),
    "step_size": ("every",),
    "strides": ("stride",),
    "T_max": ("steps",),
    "use_bias": ("bias",),
}
# Settings for what a layer finds out by itself.
FOUND_OUT = ("in_features", "in_channels", "input_dim", "input_shape", "input_size", "num_features")
# Where the order of settings differs from that of torch's and Keras's positional arguments.
HABITS = {"Conv2D": ("stride", "padding"), "LSTM": (), "GRU": (), "RNN": ("activation",)}
_FIRST_IN = ("Dense", "Conv2D", "RNN", "LSTM", "GRU", "BatchNorm", "LayerNorm")
_LONGEST = 40


def explain_calls(classes: Iterable[type]) -> None:
    """Make constructors say what was wrong with a call that does not fit their arguments.

    Args:
        classes: classes of this package; what they inherit of it is included.
    """
    for cls in classes:
        for base in cls.__mro__:
            init = vars(base).get("__init__")
            is_ours = base.__module__.startswith("gradprune.")
            if is_ours and inspect.isfunction(init) and not hasattr(init, "__wrapped__"):
                setattr(base, "__init__", _explaining(init))  # noqa: B010 - or mypy minds


def _explaining(init: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(init)
    def explaining(self: Any, /, *args: Any, **settings: Any) -> None:
        try:
            init(self, *args, **settings)
        except TypeError:
            signature = inspect.signature(init)
            try:
                signature.bind(self, *args, **settings)
            except TypeError:
                said = _Call(type(self), signature, args, settings).explanation()
                raise TypeError(said) from None
            raise

    return explaining


class _Call:
    """A call that does not fit."""

    def __init__(
        self, cls: type, signature: inspect.Signature, args: Sequence[Any], settings: dict[str, Any]
    ) -> None:
        self.cls, self.name = cls, cls.__name__
        self.args, self.settings = args, settings
        parameters = [*signature.parameters.values()][1:]
        self.parameters = {p.name: p for p in parameters}
        self.positional = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
        named = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
        # What every layer has is nothing that somebody writes by position.
        self.named = [name for name in named if name not in ("name", "inputs", "trainable")]

    def explanation(self) -> str:
        if len(self.args) > len(self.positional):
            return self._too_many()
        unknown = [name for name in self.settings if name not in self.parameters]
        return self._unknown(unknown[0]) if unknown else self._missing()

    def _too_many(self) -> str:
        extra = self.args[len(self.positional) :]
        takes = f"{self.name} takes {_listed(self.positional)} by position and the rest by name"
        if not self.positional:
            takes = f"{self.name} takes its settings by name"
        if not self.named:
            takes = f"{self.name} takes {_listed(self.positional) or 'no settings'}"
        found_out = self.name in _FIRST_IN and not isinstance(extra[0], str | bool)
        if found_out and self.name != "Conv2D":
            # the size that comes in is what torch takes first
            size = [_shown(value) for value in self.args[1 : 1 + len(self.positional)]]
            return f"{takes}; it finds out what comes in: write {self._written(size)}"
        order = [name for name in HABITS.get(self.name, self.named) if name not in self.settings]
        if len(extra) > len(order):
            rest = f": {', '.join(self.named)}" if self.named else ""
            return f"{takes}{rest}; got {len(self.args)} by position"
        values = map(_shown, self.args[: len(self.positional)], self.positional)
        named = (
            f"{name}={_shown(value, '...')}" for name, value in zip(order, extra, strict=False)
        )
        note = "; it finds out how many channels come in" if found_out else ""
        return f"{takes}: write {self._written([*values, *named])}{note}"

    def _unknown(self, name: str) -> str:
        if name in FOUND_OUT and self.name in _FIRST_IN:
            return f"{self.name} has no {name!r}: it finds out what comes in"
        meant = [known for known in SYNONYMS.get(name, ()) if known in self.parameters]
        meant = meant or difflib.get_close_matches(name, self.parameters, n=1, cutoff=0.6)
        if meant:
            return f"{self.name} has no {name!r}: here it is {meant[0]!r}"
        return f"{self.name} has no {name!r}; it takes {', '.join(self.parameters)}"

    def _missing(self) -> str:
        given = {*self.positional[: len(self.args)], *self.settings}
        missing = [
            p.name for p in self.parameters.values() if p.default is p.empty and p.name not in given
        ]
        parts = [
            _shown(value, name) for value, name in zip(self.args, self.positional, strict=False)
        ]
        parts += [name if name in self.positional else f"{name}=..." for name in missing]
        about = [
            f"{name}, {text}" if (text := _about(self.cls, name)) else name for name in missing
        ]
        return f"{self.name} needs {' and '.join(about)}: write {self._written(parts)}"

    def _written(self, parts: Iterable[str]) -> str:
        settings = (f"{name}={_shown(value, '...')}" for name, value in self.settings.items())
        return f"{self.name}({', '.join([*parts, *settings])})"


def _listed(names: Sequence[str]) -> str:
    return " and ".join(names)


def _shown(value: object, otherwise: str = "...") -> str:
    """A value as it is written, or else a word for it."""
    if otherwise == "model":
        return otherwise
    if isinstance(value, str):
        text = json.dumps(value, ensure_ascii=False)
    elif isinstance(value, int | float | tuple | None):
        text = repr(value)
    elif hasattr(value, "__dataclass_fields__"):
        text = f"{type(value).__name__}()" if "=" in repr(value) else repr(value)
    else:
        return otherwise
    return text if len(text) <= _LONGEST else otherwise


def _about(cls: type, name: str) -> str:
    """What the documentation says about an argument, up to the end of a clause."""
    text = inspect.getdoc(cls) or ""
    found = re.search(rf"^ +{name}: (.*?)(?=[.;:]\s|\.$|\n *\n|\Z)", text, re.MULTILINE | re.DOTALL)
    return " ".join(found[1].split()).replace("``", "") if found else ""
