"""Reports: the forms of a model side by side, and what a sweep found, in a terminal or a page."""

from __future__ import annotations

import base64
import html
import itertools
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradprune import _core
from gradprune.analysis.verification import verify
from gradprune.forms.frozen import FrozenModel
from gradprune.foundation.checks import as_array, instance, whole
from gradprune.foundation.columns import Table
from gradprune.foundation.disk import check_path, write_atomically
from gradprune.foundation.display import Displayed, page_part
from gradprune.foundation.timing import median_times
from gradprune.interop.c_predictor import CPredictor
from gradprune.interop.predictors import Predictor, predictor_of
from gradprune.model import Model
from gradprune.plotting.forms import plot_bars
from gradprune.plotting.style import new_figure, picture, save_figure, styled
from gradprune.plotting.tradeoff import plot_tradeoff
from gradprune.sweeps.records import Aggregate, Records, format_value
from gradprune.sweeps.sweep import SweepResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Report", "report"]

_ANY = 1e300  # a tolerance that only measures
_SIZES = ("kept", "macs", "nbytes")  # of a sweep, what accuracy is drawn against
_SHOWN = ("accuracy", "change", "weights", "macs", "nbytes")
_PICTURES = (".png", ".svg", ".pdf")


@dataclass(frozen=True, repr=False)
class Report(Displayed):
    """The result of ``gp.report``; ``print`` shows tables.

    Attributes:
        title: as given.
        forms: one row each, or None: form, parameters (kept), macs and macs_effective (per sample),
            memory and file (bytes), flash, ram and instructions of files of C (bytes of constants
            and of the workspace; instructions of one prediction on a Cortex-M4, counted by qemu),
            accuracy, error and agreement (against the first form), and batch_n, the microseconds
            of a prediction for n samples. None where a form does not tell.
        sweep: as given, or None.
        notes: warnings about how far the figures can be trusted.

    >>> import gradprune as gp
    >>> model = gp.Model([gp.Dense(4, activation="relu"), gp.Dense(2)], input_shape=3, seed=0)
    >>> forms = {"model": model, "frozen": model.freeze()}
    >>> report = gp.report(forms, x=[[1.0, 2.0, 3.0]], y=[1], batches=())
    >>> report.forms.column("form"), report.sweep
    (['model', 'frozen'], None)
    """

    title: str
    forms: Records | None
    sweep: SweepResult | None
    notes: tuple[str, ...]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a picture (.png, .svg, .pdf) or a page (.html) that needs no other file.

        Raises:
            ValueError: the name ends otherwise.
            ImportError: matplotlib is missing.
            OSError: it cannot be written.
        """
        check_path(path)
        check_ending(path)
        if Path(path).suffix.lower() == ".html":
            write_atomically(path, _page(self).encode())
        else:
            save_figure(self.plot(), path)

    def plot(self) -> Figure:
        """Draw all pictures of the report in one figure.

        Raises:
            ImportError: matplotlib is missing.
        """
        rows = [] if self.sweep is None else _panels(self.sweep)
        heights = [3.6] * len(rows)
        if self.forms is not None:
            heights.append(1.0 + 0.4 * len(self.forms))
        with styled(True):
            figure = new_figure(13.0, sum(heights) + (0.4 if self.title else 0.0))
            if self.title:
                figure.suptitle(self.title, x=0.01, ha="left", fontsize=12.5, fontweight="bold")
            parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
            for part, (name, result, by, sizes) in zip(parts, rows, strict=False):
                for size, axes in zip(
                    sizes, part.subplots(1, len(sizes), squeeze=False)[0], strict=True
                ):
                    plot_tradeoff(result, x=size, by=by, ax=axes)
                part.suptitle(name, x=0.01, ha="left", fontsize=10.5, fontweight="bold")
            if self.forms is not None:
                _draw_forms(self.forms, parts[-1])
        return figure

    def shown(self) -> list[str | Table]:
        """See Displayed."""
        parts: list[str | Table] = [self.title] if self.title else []
        if self.forms is not None:
            parts += _shown(self.forms).shown()
        if self.sweep is not None:
            parts += _curves(self.sweep).shown()
        return [*parts, *self.notes]

    def __str__(self) -> str:
        *parts, notes = [*self.shown()[: -len(self.notes) or None], "\n".join(self.notes)]
        return "\n\n".join(map(str, [*parts, notes])).rstrip()


def check_ending(path: str | os.PathLike[str]) -> None:
    """Raise a ValueError unless a report can be saved in a file of such a name.

    >>> check_ending("report.html")
    """
    known = (".html", *_PICTURES)
    if Path(path).suffix.lower() not in known:
        raise ValueError(f"a report is saved as {', '.join(known)}, got {os.fspath(path)!r}")


def report(
    forms: Mapping[str, Any] | None = None,
    *,
    x: ArrayLike | None = None,
    y: ArrayLike | None = None,
    sweep: SweepResult | None = None,
    title: str = "",
    batches: Sequence[int] = (1, 64),
    turns: int = 5,
) -> Report:
    """Measure forms of one model beside each other, and show what a sweep found.

    Args:
        forms: name to model, frozen, shrunk, packed model or anything else with ``predict``, to
            a torch module or to the path of a file, as for ``gp.verify``; the first is what the
            others are compared with.
        x: (n, *input_shape), samples for the forms to predict; required if there are forms.
        y: (n,) integer labels of the samples, for the accuracy.
        sweep: the result of a sweep of a ``gp.sweeps.Experiment``, or one with the same metrics,
            for curves of accuracy against weights kept, multiply-accumulates and bytes. Use seeds,
            and the criteria ``Random()`` and ``Magnitude()`` as baselines.
        title: the headline of the report.
        batches: the batch sizes whose predictions are timed; if empty, nothing is timed.
        turns: how often each form is timed, in alternation; the median counts.

    Returns:
        The report: ``print`` it, or ``save`` it as a picture or a page.

    Raises:
        VerificationError: a form predicts another shape, or no number where the first does.
        TypeError, ValueError: an argument is not as above.

    The file of a model is what ``save`` writes without optimizer and pruner; memory of a model is
    that of its parameters, of other forms their ``nbytes``.

    >>> import gradprune as gp
    >>> _, (x, y) = gp.datasets.digits()
    >>> model = gp.Model([gp.Dense(8, activation="relu"), gp.Dense(10)], 64, seed=0)
    >>> report = gp.report({"model": model, "frozen": model.freeze()}, x=x, y=y, batches=())
    >>> report.forms.column("macs")
    [592, 592]
    >>> report.save("report.html")
    """
    if forms is not None and not isinstance(forms, Mapping):
        raise TypeError(
            'forms must map names to models, such as {"model": model, "frozen": model.freeze()}, '
            f"got {type(forms).__name__}"
        )
    for name in forms or ():
        instance("the name of a form", name, str, '"model"')
    if sweep is not None:
        instance("sweep", sweep, SweepResult, "what sweep of an Experiment returns")
    instance("title", title, str, '"Pruned digits"')
    if not forms and sweep is None:
        raise ValueError("a report needs forms of a model, or a sweep")
    table: Records | None = None
    notes: list[str] = []
    turns = whole("turns", turns, least=1)
    given: object = batches
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise TypeError(f"batches must be numbers of samples, such as (1, 64), got {given!r}")
    batches = tuple(whole("batches", n, least=1) for n in batches)
    if sweep is not None:
        _panels(sweep)  # says what is missing
    if forms:
        if x is None:
            raise ValueError("forms are measured on samples: pass x")
        opened = {name: predictor_of(form) for name, form in forms.items()}
        table = _measure(opened, as_array("x", x), y, batches, turns)
        notes += _count_instructions(opened, table, as_array("x", x))
        notes.append(
            "Memory and file are in bytes; the error is the largest of an output, relative to the "
            "largest output of the first form."
        )
        if batches:
            notes.append(
                f"Times are medians in microseconds a call, {_core.isa()} kernels, "
                f"at most {_core.get_num_threads()} threads."
            )
    if sweep is not None:
        notes += _doubts(sweep)
    return Report(title, table, sweep, tuple(notes))


# ---- forms ---------------------------------------------------------------------------------------


def _measure(
    forms: dict[str, Predictor],
    x: NDArray[Any],
    y: ArrayLike | None,
    batches: Sequence[int],
    turns: int,
) -> Records:
    labels = None if y is None else as_array("y", y)
    if labels is not None and (labels.shape != x.shape[:1] or labels.dtype.kind not in "iu"):
        raise ValueError(f"y must be {len(x)} integer labels, got {labels.dtype} {labels.shape}")
    reference = next(iter(forms.values()))
    compared = verify(reference, *((form, _ANY) for form in forms.values()), x=x)
    rows: list[dict[str, Any]] = []
    for (name, form), error, same in zip(
        forms.items(), compared.errors.values(), compared.agreement.values(), strict=True
    ):
        accuracy = None
        if labels is not None:
            outputs = np.asarray(form.predict(x))
            if outputs[0].size < 2:
                raise ValueError(
                    f"y holds class labels, but {name} has one output and predicts no classes"
                )
            accuracy = float(np.mean(outputs.argmax(axis=1) == labels))
        rows.append(
            {
                "form": name,
                **_counts(form),
                "memory": _memory(form),
                "file": _file(form),
                "flash": getattr(form, "flash", None),
                "ram": getattr(form, "ram", None),
                "instructions": None,
                "accuracy": accuracy,
                "error": error,
                "agreement": same,
            }
        )
    for n in batches:
        samples = x[np.arange(n) % len(x)]
        runs = {name: partial(form.predict, samples) for name, form in forms.items()}
        taken = median_times(runs, turns=turns)
        for row in rows:
            row[f"batch_{n}"] = taken[row["form"]]
    return Records(list(rows[0]), rows)


def _count_instructions(
    forms: Mapping[str, Predictor], table: Records, x: NDArray[Any]
) -> Iterator[str]:
    """Fill the column, and yield why a form has none."""
    for row in table:
        form = forms[row["form"]]
        if isinstance(form, CPredictor):
            try:
                row["instructions"] = form.instructions(x[0].astype(np.float32))
            except RuntimeError as error:
                first = str(error).splitlines()[0]
                yield f"The instructions of {row['form']} are not counted: {first}."


def _counts(form: Any) -> dict[str, int | None]:
    """Parameters kept and multiply-accumulates, of forms that know."""
    if isinstance(form, FrozenModel):
        return {
            "parameters": sum(layer.parameters for layer in form.layers),
            "macs": sum(layer.macs_dense for layer in form.layers),
            "macs_effective": sum(layer.macs_effective for layer in form.layers),
        }
    if callable(getattr(form, "summary", None)):
        total = form.summary().total
        return {
            "parameters": total.kept,
            "macs": total.macs_dense,
            "macs_effective": total.macs_effective,
        }
    return dict.fromkeys(("parameters", "macs", "macs_effective"))


def _memory(form: object) -> int | None:
    if isinstance(form, Model):
        return form.summary().total.bytes_dense
    return getattr(form, "nbytes", None)


def _file(form: Any) -> int | None:
    """Bytes of the file that it is or writes, header and all."""
    if hasattr(form, "file_bytes"):
        return int(form.file_bytes)
    if isinstance(form, Model):
        alone = Model(form.layers, form.input_shape, seed=form.seed)
        with form.lock, alone.lock:
            alone.set_masks(form.masks)
            np.copyto(alone.arena.params, form.arena.params)
            alone.costs = form.costs
        form = alone
    if not callable(getattr(form, "save", None)):
        return None
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "model.safetensors" if isinstance(form, Model) else "model.gpz")
        form.save(file)
        return file.stat().st_size


def _shown(forms: Records) -> Records:
    """Without what no form tells, accuracy and agreement in percent."""
    columns = [name for name in forms.columns if any(v is not None for v in forms.column(name))]
    rows = [
        {
            name: f"{100 * row[name]:.4g} %"
            if name in {"accuracy", "agreement"} and row[name] is not None
            else f"{row[name]:.2g}"
            if name == "error"
            else row[name]
            for name in columns
        }
        for row in forms
    ]
    return Records(columns, rows)


def _draw_forms(forms: Records, part: Any) -> None:
    shown = _shown(forms).columns
    names = {"memory": "memory (bytes)", "file": "file (bytes)", "macs_effective": "MACs a sample"}
    names |= {"flash": "flash (bytes)", "ram": "RAM (bytes)", "instructions": "instructions"}
    names |= {
        column: f"{column[6:]} sample{'s' if column != 'batch_1' else ''} (µs)"
        for column in shown
        if column.startswith("batch_")
    }
    chosen = [column for column in names if column in shown]
    for column, axes in zip(chosen, part.subplots(1, len(chosen), squeeze=False)[0], strict=True):
        values = dict(zip(forms.column("form"), forms.column(column), strict=True))
        texts = [format_value(value) or "–" for value in values.values()]
        plot_bars(values, texts, title=names[column], ax=axes)
        if column != chosen[0]:
            axes.set_yticklabels([])


# ---- sweeps --------------------------------------------------------------------------------------


def _by(sweep: SweepResult) -> str:
    """The factor of the lines."""
    others = [name for name in sweep.factors if name != "seed"]
    return "criterion" if "criterion" in others else others[0]


def _panels(sweep: SweepResult) -> list[tuple[str, SweepResult, str, list[str]]]:
    """A row of panels for each choice of the factors that make neither lines nor points."""
    sizes = [name for name in _SIZES if name in sweep.metrics]
    if "accuracy" not in sweep.metrics or not sizes:
        raise ValueError(
            f"curves need the metrics accuracy and one of {', '.join(_SIZES)}; "
            f"the sweep has {', '.join(sweep.metrics) or 'none'}"
        )
    by = _by(sweep)
    levels = {
        name: list(dict.fromkeys(sweep.column(name)))
        for name in sweep.factors
        if name not in {by, "seed"}
    }
    point = max(levels, key=lambda name: (name == "sparsity", len(levels[name])), default=None)
    others = [name for name in levels if name != point]
    return [
        (
            ", ".join(f"{name} {level}" for name, level in zip(others, chosen, strict=True)),
            sweep.where(**dict(zip(others, chosen, strict=True))),
            by,
            sizes,
        )
        for chosen in itertools.product(*(levels[name] for name in others))
    ]


def _curves(sweep: SweepResult) -> Aggregate:
    by = [name for name in sweep.factors if name != "seed"]
    done = Records(sweep.columns, [row for row in sweep if row["error"] is None])
    return Aggregate(done, by=by, metrics=[name for name in _SHOWN if name in sweep.metrics])


def _doubts(sweep: SweepResult) -> list[str]:
    """What a reader should hold against the curves (Blalock et al. 2020)."""
    notes = []
    if sweep.failed:
        notes.append(f"{len(sweep.failed)} of {len(sweep)} trials failed and are left out.")
    seeds = len(set(sweep.column("seed"))) if "seed" in sweep.factors else 1
    if seeds < 5:
        notes.append(f"Only {seeds} seed{'s' if seeds > 1 else ''}: deviations are rough guesses.")
    if "criterion" in sweep.factors:
        names = {str(name).partition("(")[0].lower() for name in sweep.column("criterion")}
        missing = [name for name in ("random", "magnitude") if name not in names]
        if missing:
            notes.append(f"No baseline of {' and '.join(missing)} in this sweep.")
    if "weights" in sweep.metrics and "sparsity" in sweep.factors:
        budgets: dict[object, set[object]] = {}
        for row in sweep:
            if row["error"] is None:
                budgets.setdefault(row["sparsity"], set()).add(row["weights"])
        uneven = [str(level) for level, kept in budgets.items() if len(kept) > 1]
        if uneven:
            notes.append(f"Budgets differ at sparsity {', '.join(uneven)}: compare with care.")
    return notes


# ---- pictures and pages --------------------------------------------------------------------------


_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem;
  background: Canvas; color: CanvasText; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; white-space: nowrap;
  border-bottom: 1px solid color-mix(in srgb, CanvasText 20%, transparent); }
thead th { border-bottom-width: 2px; }
img { max-width: 100%; background: white; border-radius: 6px; margin-top: 1rem; }
footer { margin-top: 2rem; opacity: .75; font-size: .9rem; }
"""


def _page(chosen: Report) -> str:
    title = html.escape(chosen.title or "gradprune report")
    image = base64.b64encode(picture(chosen.plot(), "svg")).decode()
    alternative = "The numbers of the tables on this page as curves and bars"
    body = [f'<img alt="{alternative}" src="data:image/svg+xml;base64,{image}">']
    if chosen.forms is not None:
        body += ["<h2>Forms of the model</h2>", page_part(_shown(chosen.forms).shown())]
    if chosen.sweep is not None:
        body += [
            "<h2>Sweep: mean ± standard deviation over seeds</h2>",
            page_part(_curves(chosen.sweep).shown()),
        ]
    if chosen.notes:
        notes = "".join(f"<li>{html.escape(note)}</li>" for note in chosen.notes)
        body += ["<h2>Notes</h2>", f"<ul>{notes}</ul>"]
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{title}</title><style>{_STYLE}</style></head><body>",
            f"<h1>{title}</h1>",
            *body,
            f"<footer>gradprune {html.escape(_core.version)}</footer></body></html>\n",
        ]
    )
