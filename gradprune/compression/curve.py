"""What a compression with data has tried: bytes against accuracy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gradprune.foundation.columns import Table

__all__ = ["CompressionPoint", "CompressionReport"]


@dataclass(frozen=True)
class CompressionPoint:
    """A file that was made, and what it does on the samples that were held out.

    Attributes:
        nbytes: the size of the file in bytes.
        loss: its mean loss.
        accuracy: its accuracy, None if the loss has none.
        drop: the accuracy lost; or, if the loss has none, the share by which the loss rose.
        live: the number of weights that are not 0, biases included.
        finetuned: whether it was trained after its weights were shared.
        data: the bytes of the file.

    >>> point = CompressionPoint(100, 0.5, 0.9, 0.01, 20, False, b"")
    >>> point.nbytes, point.drop
    (100, 0.01)
    """

    nbytes: int
    loss: float
    accuracy: float | None
    drop: float
    live: int
    finetuned: bool
    data: bytes = field(repr=False)


@dataclass(frozen=True)
class CompressionReport:
    """What ``gradprune.compress`` tried on its way; ``str`` of it is a table.

    Attributes:
        points: all files that were tried, from the smallest on; the last one is lossless.
        chosen: the point that was returned.
        full: bytes of all parameters as float32, removed ones included.
        samples: the number of samples that were held out to measure on.
        lossless: name of a parameter that stayed as it was, to the reason.

    >>> import gradprune as gp
    >>> data, _ = gp.datasets.digits()
    >>> model = gp.Model([gp.Dense(10)], input_shape=64, seed=0)
    >>> history = model.fit(*data, optimizer=gp.Adam(model, lr=0.01), epochs=5, verbose=0)
    >>> report = gp.compress(model, data=data, max_drop=0.01, verbose=0).report
    >>> report.chosen.drop <= 0.01, report.points[-1].drop, report.lossless
    (True, 0.0, {})
    """

    points: tuple[CompressionPoint, ...]
    chosen: CompressionPoint
    full: int
    samples: int
    lossless: Mapping[str, str] = field(default_factory=dict)

    def choose(
        self, *, nbytes: int | None = None, max_drop: float | None = None
    ) -> CompressionPoint:
        """Return the most accurate point of at most so many bytes, or the smallest of such a drop.

        Args:
            nbytes: bytes at most.
            max_drop: drop at most; with ``nbytes`` the smallest file that meets both.

        Raises:
            ValueError: there is none; the error names the nearest.
        """
        if nbytes is None and max_drop is None:
            raise ValueError("pass nbytes, max_drop or both")
        small = [p for p in self.points if nbytes is None or p.nbytes <= nbytes]
        if not small:
            raise ValueError(
                f"no file of at most {nbytes:,} bytes was made; the smallest has "
                f"{self.points[0].nbytes:,}"
            )
        if max_drop is None:
            return min(small, key=lambda p: (p.drop, p.nbytes))
        good = [p for p in small if p.drop <= max_drop]
        if not good:
            least = min(small, key=lambda p: (p.drop, p.nbytes))
            raise ValueError(
                f"no such file lost at most {max_drop:g}; the best of {least.nbytes:,} bytes lost "
                f"{least.drop:.4g}"
            )
        return min(good, key=lambda p: (p.nbytes, p.drop))

    def __str__(self) -> str:
        name = "loss" if self.chosen.accuracy is None else "accuracy"
        rows = [
            (
                f"{p.nbytes:,}",
                f"{self.full / p.nbytes:,.1f}",
                f"{p.loss:.4g}" if p.accuracy is None else f"{100 * p.accuracy:.2f} %",
                f"{100 * p.drop:+.2f}",
                f"{p.live:,}",
                "yes" if p.finetuned else "",
                "<-" if p is self.chosen else "",
            )
            for p in self.points
        ]
        columns = ("bytes", "ratio", name, "drop %", "live", "fine-tuned", "")
        lines = Table(columns, rows).lines()
        lines += [f"lossless {name}: {reason}" for name, reason in self.lossless.items()]
        return "\n".join(lines)
