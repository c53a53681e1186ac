"""Samples as scikit-learn's users pass them: tables, sparse matrices, arrays of any numbers."""

from __future__ import annotations

import os
from datetime import date, time, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.base import BaseEstimator
from sklearn.utils.validation import validate_data

__all__ = ["dense", "features", "features_and_targets"]

_DTYPES = (np.float64, np.float32)


def features(estimator: BaseEstimator, X: Any) -> Any:
    """Return the features to predict, an array or a CSR matrix of float64 or float32.

    Raises:
        ValueError: they are not those that the estimator was fitted on, as of scikit-learn, or
            there are categories among them.
    """
    _refuse_categories(estimator, X)
    return validate_data(estimator, X, accept_sparse="csr", dtype=_DTYPES, reset=False)


def features_and_targets(
    estimator: BaseEstimator, X: Any, y: Any, *, reset: bool
) -> tuple[Any, NDArray[Any]]:
    """Return features and targets to train on, and note what features there are.

    Raises:
        ValueError: likewise; or there are not as many targets, or one is missing.
    """
    _refuse_categories(estimator, X)
    _refuse_missing(y)
    X, y = validate_data(
        estimator, X, y, accept_sparse="csr", dtype=_DTYPES, multi_output=True, reset=reset
    )
    return X, y.toarray() if sparse.issparse(y) else y


def dense(X: Any) -> NDArray[Any]:
    """Return an array of what may be a sparse matrix.

    Raises:
        ValueError: it would take more than half of the machine's memory.

    >>> dense(sparse.csr_array([[0.0, 1.0]])).tolist()
    [[0.0, 1.0]]
    """
    if sparse.issparse(X):
        # As they are, and scaled as float32.
        needed = X.shape[0] * X.shape[1] * (X.dtype.itemsize + 4)
        if needed > _memory() / 2:
            raise ValueError(
                f"X has shape {X.shape}: with its zeros it takes {needed / 1e9:,.0f} GB, more than "
                "half of the memory here. Reduce its features first, for example "
                "make_pipeline(TruncatedSVD(100), ...), or pass parts of it to partial_fit"
            )
    array: NDArray[Any] = X.toarray() if sparse.issparse(X) else X
    return array


def _memory() -> int:
    """Bytes of memory of the machine, 2**63 where it does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 2**63


def _refuse_categories(estimator: BaseEstimator, X: Any) -> None:
    """Say what to do with columns that hold no numbers."""
    if getattr(getattr(X, "dtype", None), "kind", "") in set("mM"):
        raise ValueError(f"X holds dates or times, not numbers ({X.dtype}). {_DATES}")
    columns, types = getattr(X, "columns", None), getattr(X, "dtypes", None)
    if columns is None or types is None:
        return
    kinds = {name: _kind(X, name, dtype) for name, dtype in zip(columns, types, strict=True)}
    dates = [name for name, kind in kinds.items() if kind == "dates"]
    if dates:
        shown = ", ".join(repr(name) for name in dates[:5]) + ", ..." * (len(dates) > 5)
        raise ValueError(f"columns of X hold dates or times, not numbers: {shown}. {_DATES}")
    named = [name for name, kind in kinds.items() if kind == "categories"]
    if named:
        shown = ", ".join(repr(name) for name in named[:5]) + ", ..." * (len(named) > 5)
        raise ValueError(
            f"columns of X hold categories, not numbers: {shown}. Encode them first, for example "
            "make_pipeline(make_column_transformer((OneHotEncoder(handle_unknown='ignore'), "
            f"{named[:5]}), remainder='passthrough'), {type(estimator).__name__}())"
        )


_WORDS = {
    **dict.fromkeys(("category", "categorical", "string", "str", "enum"), "categories"),
    **dict.fromkeys(
        ("datetime64", "timedelta64", "datetime", "duration", "date", "time", "period"), "dates"
    ),
}
_DATES = (
    "Make numbers of them first, for example t.dt.month, or (t - t.min()).dt.total_seconds() of "
    "such a column t"
)


def _kind(table: Any, name: Any, dtype: Any) -> str:
    """What a column holds, "categories" or "dates"; "" if it may be numbers."""
    word = str(dtype).partition("(")[0].partition("[")[0].lower()
    if word != "object":
        return _WORDS.get(word, "")
    column = table[name]
    if getattr(column, "ndim", 1) != 1:  # two columns of one name
        return ""
    first = next((value for value in column if not _is_missing(value)), None)
    if isinstance(first, str):
        return "categories"
    return "dates" if isinstance(first, date | time | timedelta) else ""


def _is_missing(value: Any) -> bool:
    """Whether it stands for a value that is not known: None, NaN, and those of pandas."""
    if value is None:
        return True
    try:
        return bool(value != value)  # noqa: PLR0124 - of NaN and NaT alone
    except TypeError:  # pandas.NA is neither true nor false
        return True
    except ValueError:  # an array
        return False


def _refuse_missing(y: Any) -> None:
    """Say which targets are missing, or are of several types, which have no order."""
    is_text = str(getattr(y, "dtype", "")) in {"object", "str", "string"}
    if not isinstance(y, list | tuple) and not (is_text and getattr(y, "ndim", 0) == 1):
        return
    values = list(y)
    missing = [place for place, value in enumerate(values) if _is_missing(value)]
    if missing and any(value is None or isinstance(value, str) for value in values):
        raise ValueError(
            f"y[{missing[0]}] is missing ({len(missing)} of {len(values)} are): leave out the "
            "samples without a target"
        )
    kinds = {isinstance(value, str) for value in values}
    if len(kinds) == 2:
        raise ValueError(
            "y holds text and other things: write labels of one type, such as [str(v) for v in y]"
        )
