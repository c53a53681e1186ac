"""Tables of pandas as samples and targets, nullable columns and missing values among them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradprune as gp

X = np.random.default_rng(0).standard_normal((30, 3)).astype(np.float32)
LABELS = (X[:, 0] > 0).astype(np.int64)


def trained(x: Any, y: Any, **settings: Any) -> bytes:
    """The bytes of the parameters that training on this leaves."""
    model = gp.Model([gp.Dense(4, activation="relu"), gp.Dense(2)], 3, seed=0, **settings)
    model.fit(x, y, optimizer=gp.SGD(model, lr=0.1), validation_data=(x, y), verbose=0)
    model.backward(x, y)
    pruner = gp.Pruner(model, criterion=gp.Taylor())
    pruner.prune(0.5, data=(x, y))
    model.evaluate(x, y)
    gp.verify(model, model.freeze(), x=x)
    return model.arena.params.tobytes()


@pytest.mark.parametrize("kind", ["float32", "Float32", "Float64", "float64"])
@pytest.mark.parametrize("label", ["int64", "Int64", "Int8", "uint8", "boolean"])
def test_tables_are_arrays(pandas: Any, kind: str, label: str) -> None:
    table = pandas.DataFrame(X, columns=list("abc")).astype(kind)
    assert trained(table, pandas.Series(LABELS).astype(label)) == trained(X, LABELS)


@pytest.mark.usefixtures("pyarrow")
def test_tables_of_arrow_are_arrays(pandas: Any) -> None:
    table = pandas.DataFrame(X, columns=list("abc")).astype("float[pyarrow]")
    assert trained(table, pandas.Series(LABELS).astype("int64[pyarrow]")) == trained(X, LABELS)


def test_columns_of_several_types(pandas: Any) -> None:
    x = np.stack([np.arange(30) % 2, np.arange(30) - 7, np.arange(30) / 4], axis=1)
    table = pandas.DataFrame({"flag": x[:, 0] == 1, "count": x[:, 1], "share": x[:, 2]})
    table = table.astype({"flag": "boolean", "count": "Int32", "share": "Float64"})
    assert trained(table, LABELS) == trained(x, LABELS)


def test_an_index_of_another_order_changes_nothing(pandas: Any) -> None:
    table = pandas.DataFrame(X, index=np.arange(30)[::-1]).astype("Float32")
    labels = pandas.Series(LABELS, index=np.arange(100, 130)).astype("Int64")
    assert trained(table, labels) == trained(X, LABELS)


def test_numbers_as_targets(pandas: Any) -> None:
    y = X[:, :2] * 2
    table = pandas.DataFrame(y).astype("Float32")
    assert trained(X, table, loss="mse") == trained(X, y, loss="mse")


@pytest.mark.parametrize("place", [(0, 0), (4, 1), (29, 2)])
def test_a_missing_value_is_named(pandas: Any, place: tuple[int, int]) -> None:
    table = pandas.DataFrame(X, columns=list("abc")).astype("Float32")
    table.iloc[place] = pandas.NA
    model = gp.Model([gp.Dense(2)], 3, seed=0)
    message = rf"x\[{place[0]}, '{'abc'[place[1]]}'\] is missing"
    with pytest.raises(ValueError, match=message):
        model.fit(table, LABELS, optimizer=gp.SGD(model, lr=0.1), verbose=0)
    with pytest.raises(ValueError, match=message):
        model.predict(table)
    labels = pandas.Series(LABELS).astype("Int64")
    labels[7] = pandas.NA
    with pytest.raises(ValueError, match=r"y\[7\] is missing"):
        model.evaluate(X, labels)
    numpy = pandas.DataFrame(X)
    numpy.iloc[place] = np.nan
    with pytest.raises(ValueError, match=rf"x\[{place[0]}, {place[1]}\] is nan"):
        model.fit(numpy, LABELS, optimizer=gp.SGD(model, lr=0.1), verbose=0)


@pytest.mark.parametrize("kind", ["object", "string", "category", "datetime64[ns]"])
def test_a_column_that_holds_no_numbers_is_named(pandas: Any, kind: str) -> None:
    table = pandas.DataFrame(X, columns=list("abc")).astype("Float32")
    table["b"] = pandas.Series(["2020-01-01"] * 30).astype(kind)
    model = gp.Model([gp.Dense(2)], 3, seed=0)
    with pytest.raises(TypeError, match="column 'b' of x must hold real numbers, got dtype"):
        model.predict(table)
    with pytest.raises(TypeError, match="y must hold real numbers, got dtype"):
        model.backward(X, table["b"])


def test_measures_of_nullable_labels(pandas: Any) -> None:
    labels = pandas.Series(LABELS).astype("Int64")
    assert gp.metrics.accuracy(labels, LABELS) == 1.0
    model = gp.Model([gp.Dense(2)], 3, seed=0)
    table = pandas.DataFrame(X).astype("Float32")
    report = gp.report({"model": model}, x=table, y=labels, batches=())
    assert report.forms is not None
    assert report.forms.column("accuracy") == [model.evaluate(X, LABELS)["accuracy"]]
