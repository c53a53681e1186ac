"""When a layer runs on lists of its live weights: a table, fixed for each instruction set.

Lists pay up to some share of weights kept, which depends on the CPU and on the samples a chunk of
the batch holds. They add in another order than all weights do, so the table also decides about the
last bits of results. Therefore it is the same on every machine with one instruction set, is only
measured on request, and belongs to a model, whose file and copies keep it. It does not depend on
threads: their number never changes a bit.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gradprune import _core

__all__ = ["Costs", "get_costs", "measure_costs", "set_costs", "to_costs"]

_lock = threading.Lock()
_current: Costs | None = None  # of models made from now on; None: nobody has asked yet


@dataclass(frozen=True)
class Costs:
    """Holds the largest share of weights kept at which lists are faster than all weights.

    Attributes:
        most: at chunks of 16, 32, 48 and 64 samples; each in [0, 1]. A batch is cut into equal
            chunks of at most 64, rounded up to a multiple of 16.
        source: where the table is from.

    Raises:
        ValueError: not four numbers in [0, 1].

    >>> import gradprune as gp
    >>> costs = gp.costs.Costs((0.5, 0.4, 0.3, 0.3))
    >>> costs.most, costs.source
    ((0.5, 0.4, 0.3, 0.3), 'set by hand')
    """

    most: tuple[float, float, float, float]
    source: str = "set by hand"

    def __post_init__(self) -> None:
        try:
            shares = tuple(map(float, self.most))
        except (TypeError, ValueError):
            shares = ()
        if len(shares) != 4 or not all(0 <= share <= 1 for share in shares):
            raise ValueError(f"a table of costs has four shares in [0, 1], got {self.most!r}")
        object.__setattr__(self, "most", shares)


def to_costs(table: Costs | Sequence[float], source: str = "set by hand") -> Costs:
    """Return a table, made of four shares unless it is one.

    Raises:
        ValueError: not four numbers in [0, 1].

    >>> to_costs([0, 0.5, 0.5, 1]).most
    (0.0, 0.5, 0.5, 1.0)
    """
    if isinstance(table, Costs):
        return table
    return Costs(table, source)  # type: ignore[arg-type]  # it counts and checks the shares


def get_costs() -> Costs:
    """Return the table of models made from now on; ``model.costs`` is the one of a model.

    It is the built-in one of the instruction set, unless ``set_costs`` or ``measure_costs`` was
    called or ``GRADPRUNE_COSTS`` names a JSON file such as {"most": [0.3, 0.3, 0.4, 0.4]}.

    Raises:
        ValueError: the file that ``GRADPRUNE_COSTS`` names holds no table.
        OSError: it cannot be read.

    >>> all(0 <= share <= 1 for share in get_costs().most)
    True
    """
    global _current  # noqa: PLW0603 - one table for the process
    with _lock:
        if _current is None:
            named = os.environ.get("GRADPRUNE_COSTS")
            if named:
                _current = _read(Path(named))
            else:
                _current = Costs(_core.default_costs(), f"built in for {_core.isa()}")
        return _current


def set_costs(table: Costs | Sequence[float]) -> None:
    """Use this table for models made from now on; ``model.costs = table`` changes a model's.

    Args:
        table: four shares, see ``Costs``. (0, 0, 0, 0): never lists; (1, 1, 1, 1): always, where
            anything is removed.

    Raises:
        ValueError: not four numbers in [0, 1].

    >>> before = get_costs()
    >>> set_costs((0.3, 0.3, 0.4, 0.4))
    >>> get_costs().most
    (0.3, 0.3, 0.4, 0.4)
    >>> set_costs(before)
    """
    global _current  # noqa: PLW0603 - one table for the process
    costs = to_costs(table)
    with _lock:
        _current = costs


def measure_costs() -> Costs:
    """Measure on this CPU, and use the result for models made from now on.

    Takes about a tenth of a second; best on an idle machine. Two measurements differ a little, and
    so do the last bits of models made after them. To have the same table in another process, write
    ``{"most": [...]}`` to a JSON file that ``GRADPRUNE_COSTS`` names there.

    >>> measured = measure_costs()
    >>> measured == get_costs()
    True
    """
    measured = Costs(_core.measure_costs(), "measured on this CPU")
    set_costs(measured)
    return measured


def _read(path: Path) -> Costs:
    try:
        return to_costs(json.loads(path.read_text(encoding="utf-8"))["most"], str(path))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f'{path} holds no table of costs, such as {{"most": [0.3, 0.3, 0.4, 0.4]}}'
        ) from error
