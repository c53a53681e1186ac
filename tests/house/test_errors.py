"""Errors: the builtin ones they are, and what they carry."""

from __future__ import annotations

import pickle

from gradprune.errors import DatasetNotFoundError, FileFormatError, NonFiniteError


def test_errors_keep_their_builtin_bases_and_survive_pickling() -> None:
    error = NonFiniteError("NaN there", phase="backward", layer="dense0", index=(1, 2))
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == "NaN there"
    assert (again.phase, again.layer, again.parameter, again.index) == (
        "backward",
        "dense0",
        None,
        (1, 2),
    )
    assert issubclass(NonFiniteError, ArithmeticError)
    assert issubclass(FileFormatError, ValueError)
    assert issubclass(DatasetNotFoundError, FileNotFoundError)
