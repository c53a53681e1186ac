"""When a layer runs on lists of its live weights: a table of costs, measured once on each CPU.

Lists pay up to some share of weights kept, which depends on the CPU and on the samples a chunk of
the batch holds. The table is measured when weights are first removed and kept in the user's cache,
since another measurement would differ a little, and with it the last bits of layers in between. A
table that cannot be kept is not used. It does not depend on threads: their number never changes a
bit.
"""

from __future__ import annotations

import json
import os
import platform
import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gradprune import _core
from gradprune.cache import cache_folder
from gradprune.disk import write_atomically

__all__ = ["Costs", "get_costs", "measure_costs", "set_costs"]

_lock = threading.Lock()
_source: str | None = None  # where the table in use is from; None: nobody has asked yet


@dataclass(frozen=True)
class Costs:
    """The largest share of weights kept at which lists of them are faster than all weights.

    Attributes:
        most: at chunks of 16, 32, 48 and 64 samples; each in [0, 1]. A batch is cut into equal
            chunks of at most 64, rounded up to a multiple of 16.
        source: where the table is from.
    """

    most: tuple[float, float, float, float]
    source: str


def get_costs() -> Costs:
    """The table in use.

    ``GRADPRUNE_COSTS`` names a JSON file to take it from, or is ``default`` for the built-in one;
    else it comes from the cache and, if there is none, is measured now and kept there.

    Raises:
        ValueError: the file that ``GRADPRUNE_COSTS`` names holds no table.
        OSError: it cannot be read.

    >>> all(0 <= share <= 1 for share in get_costs().most)
    True
    """
    ensure_costs()
    return Costs(_core.get_costs(), _source or "")


def set_costs(most: Sequence[float]) -> None:
    """Use a table of one's own, for masks set from now on.

    Args:
        most: four shares, see ``Costs``. (0, 0, 0, 0): never lists; (1, 1, 1, 1): always, where
            anything is removed.

    Raises:
        ValueError: not four numbers in [0, 1].

    >>> before = get_costs()
    >>> set_costs((0.3, 0.3, 0.4, 0.4))
    >>> get_costs().most
    (0.3, 0.3, 0.4, 0.4)
    >>> set_costs(before.most)
    """
    _use(_table(most), "set_costs")


def measure_costs() -> Costs:
    """Measure on this CPU, use the result for masks set from now on, and keep it in the cache.

    Takes about a tenth of a second; best on an idle machine.

    Raises:
        OSError: it cannot be kept; the table in use stays.
    """
    _use(_measure(), "measured now")
    return get_costs()


def ensure_costs() -> None:
    """Have a table in use; the first call finds or measures it."""
    with _lock:
        if _source is not None:
            return
        named = os.environ.get("GRADPRUNE_COSTS", "")
        kept = _kept()
        if named and named != "default":
            _use(_read(Path(named)), named)
        elif named == "default":
            _use(_core.get_costs(), "default")
        else:
            try:
                _use(_read(kept), str(kept))
            except (OSError, ValueError):  # none, or nothing that could be one
                try:
                    _use(_measure(), "measured now")
                except OSError:
                    _use(_core.get_costs(), "default")


def _use(most: tuple[float, float, float, float], source: str) -> None:
    global _source  # noqa: PLW0603 - the core's table is the process's, too
    _core.set_costs(*most)
    _source = source


def _measure() -> tuple[float, float, float, float]:
    most = _core.measure_costs()
    kept = _kept()
    kept.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(kept, json.dumps({"most": most}).encode() + b"\n")
    return most


def _read(path: Path) -> tuple[float, float, float, float]:
    try:
        return _table(json.loads(path.read_text(encoding="utf-8"))["most"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f'{path} holds no table of costs, such as {{"most": [0.3, 0.3, 0.4, 0.4]}}'
        ) from error


def _table(most: Sequence[float]) -> tuple[float, float, float, float]:
    shares = tuple(map(float, most))
    if len(shares) != 4 or not all(0 <= share <= 1 for share in shares):
        raise ValueError(f"a table of costs has four shares in [0, 1], got {most!r}")
    return shares[0], shares[1], shares[2], shares[3]


def _kept() -> Path:
    """The file in the cache for this CPU, these kernels and this version of them."""
    name = re.sub(r"[^A-Za-z0-9]+", "-", f"{_core.version} {_core.isa()} {_cpu()}").strip("-")
    return cache_folder() / f"costs-{name}.json"


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            found = next((line for line in lines if line.startswith("model name")), "")
    except OSError:
        found = ""
    return found.partition(":")[2].strip() or platform.processor() or platform.machine()
