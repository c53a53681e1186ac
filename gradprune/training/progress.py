"""What ``fit`` shows while it trains: a bar, a line for each epoch, or nothing."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Any, TextIO

from gradprune.foundation.progress import is_watched
from gradprune.losses.base import Loss
from gradprune.training.history import History

__all__ = ["Display", "shown", "totals"]

_REFRESH = 0.1  # seconds between two looks of the progress bar


def totals(history: History, first: int, loss: Loss) -> dict[str, float]:
    """Means and counts of the steps from number ``first`` on."""
    found = history.totals(first)
    if not loss.has_accuracy:
        del found["accuracy"]
    return found


class Display:
    """Shows nothing; the base of what does."""

    def start(self, epoch: int, first: int) -> None:
        """An epoch begins; its steps count from ``first``."""

    def step(self) -> None:
        """A step is done."""

    def finish_epoch(self, row: dict[str, float]) -> None:
        """An epoch is done."""


class _Lines(Display):
    """A line for each epoch.

    Args:
        own: names of numbers that are the user's own.
        file: where it goes; None: standard output, as it is when it is written to.
    """

    def __init__(self, own: Sequence[str], file: TextIO | None = None) -> None:
        self.own, self.file = own, file

    def finish_epoch(self, row: dict[str, float]) -> None:
        """See Display."""
        line = f"epoch {row['epoch']}: {_text(row, self.own)}, {row['seconds']:.2f} s"
        print(line, file=self.file, flush=True)


class _Bar(Display):
    """A bar over all steps, looked at ten times a second at most."""

    def __init__(self, bar: Any, history: History, loss: Loss, own: Sequence[str]) -> None:
        self.bar = bar
        self.history = history
        self.loss = loss
        self.own = own
        self.first = 0
        self.shown = 0
        self.next = 0.0

    def start(self, epoch: int, first: int) -> None:
        """See Display."""
        self.first = first
        self.bar.set_description_str(f"epoch {epoch}", refresh=False)

    def step(self) -> None:
        """See Display."""
        now = perf_counter()
        if now >= self.next:
            self.next = now + _REFRESH
            self._show(totals(self.history, self.first, self.loss))

    def finish_epoch(self, row: dict[str, float]) -> None:
        """See Display."""
        self._show(row)

    def _show(self, row: dict[str, float]) -> None:
        self.bar.set_postfix_str(_text(row, self.own), refresh=False)
        self.bar.update(self.history.step_count - self.shown)
        self.shown = self.history.step_count


_NAMES = {
    "loss": "loss",
    "accuracy": "acc",
    "val_loss": "val_loss",
    "val_accuracy": "val_acc",
    "norm_mean": "norm",
    "sparsity": "sparsity",
}


def _text(row: dict[str, float], own: Sequence[str]) -> str:
    names = _NAMES | {name: name for name in own}
    return ", ".join(f"{short} {row[name]:.4g}" for name, short in names.items() if name in row)


@contextmanager
def shown(
    verbose: int, steps: int, history: History, loss: Loss, own: Sequence[str] = ()
) -> Iterator[Display]:
    """What shows so many steps, and own metrics of these names."""
    if verbose == 2:
        yield _Lines(own)
    elif verbose == 1 and is_watched():
        from tqdm.auto import tqdm

        # It refreshes at each update: _Bar does the waiting.
        with tqdm(total=steps, unit="step", dynamic_ncols=True, mininterval=0, miniters=0) as bar:
            yield _Bar(bar, history, loss, own)
    elif verbose == 1:  # a file or a pipe, where a bar would be one long line of carriage returns
        yield _Lines(own, sys.stderr)
    else:
        yield Display()
