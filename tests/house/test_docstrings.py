"""Every public name is documented, and every example in a docstring runs."""

from __future__ import annotations

import ast
import doctest
import importlib
import importlib.util
import inspect
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import gradprune as gp
from sources import parsed

# Of packages that need an extra, those whose extra is there.
EXTRAS = {"gradprune.sklearn": "sklearn", "gradprune.torch": "torch"}
MODULES = [
    "gradprune",
    *(
        module.name
        for module in pkgutil.walk_packages(gp.__path__, "gradprune.")
        if module.name.rpartition(".")[2] not in {"__main__", "_core"}
        and importlib.util.find_spec(EXTRAS.get(module.name, "sys"))
    ),
]


class Finder(doctest.DocTestFinder):
    """Looks into what is decorated, too, which doctest takes for another module's."""

    def _from_module(self, module: object, value: object) -> bool:
        return bool(super()._from_module(module, inspect.unwrap(value)))  # type: ignore[misc]


@pytest.mark.parametrize("name", MODULES)
def test_examples(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)  # examples may write files
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for test in Finder().find(importlib.import_module(name), name):
        needed = set(re.findall(r"^\s*>>> import (\w+)$", test.docstring, re.MULTILINE))
        if all(map(importlib.util.find_spec, needed)):  # of an extra that is not there
            runner.run(test)
    assert runner.failures == 0, capsys.readouterr().out


def test_examples_of_decorated_functions_are_found() -> None:
    found = Finder().find(importlib.import_module("gradprune.analysis.explosion_phase"))
    assert any(test.name.endswith(".explode") and test.examples for test in found)


def test_every_module_has_a_docstring() -> None:
    assert [name for name in MODULES if not importlib.import_module(name).__doc__] == []


def test_all_is_what_dir_shows() -> None:
    modules = {name for name in vars(gp) if inspect.ismodule(getattr(gp, name))}
    shown = {name for name in vars(gp) if not name.startswith("_")} - modules
    assert shown <= set(gp.__all__)
    assert all(hasattr(gp, name) for name in gp.__all__)
    assert len(set(gp.__all__)) == len(gp.__all__)


def own_docstring(value: object) -> str | None:
    """The docstring, unless a dataclass or a base class made it up."""
    text = vars(value).get("__doc__") if inspect.isclass(value) else inspect.getdoc(value)
    return (
        None if text and inspect.isclass(value) and text.startswith(f"{value.__name__}(") else text
    )


def test_every_public_name_is_on_a_page_and_has_an_example(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "scripts"))
    make_site = importlib.import_module("make_site")
    names = make_site.public_names()
    assert {"gp.Model", "gp.losses.MSE", "gp.callbacks.Callback"} <= names.keys()
    assert make_site.lacks(names) == []


def members(owner: type) -> Iterator[tuple[str, object]]:
    """Public methods and properties that a class defines itself."""
    for name, value in vars(owner).items():
        if not name.startswith("_") and (inspect.isroutine(value) or isinstance(value, property)):
            yield f"{owner.__name__}.{name}", value


@pytest.mark.parametrize("name", [name for name in gp.__all__ if callable(getattr(gp, name))])
def test_public_names_and_their_members_have_docstrings(name: str) -> None:
    value = getattr(gp, name)
    assert own_docstring(value), name
    if inspect.isclass(value):
        assert [member for member, what in members(value) if not inspect.getdoc(what)] == []


# Words that begin half a sentence, whose subject a reader has to guess.
FRAGMENTS = {"Of", "In", "By", "From", "To", "Under", "With", "Than", "As"}


def test_docstrings_begin_with_a_sentence() -> None:
    """A verb ("Return ..."), or a subject ("The loss of ..."), and not "Of the last pass"."""
    found = [
        f"{name}, line {node.lineno}: {text.splitlines()[0]}"
        for name in MODULES
        for node in ast.walk(parsed(inspect.getsource(importlib.import_module(name))))
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and (text := ast.get_docstring(node))
        and text.split()[0] in FRAGMENTS
    ]
    assert found == []
