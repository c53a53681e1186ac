"""`make mutants`: which changes are made to a source, and which tests are run for them."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
HERE = Path("package/module.py")


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))


def made_of(source: str) -> list[str]:
    """The sources that single changes make of a source."""
    module: Any = importlib.import_module("changes")
    text = source.encode()
    return [
        change.apply(text).decode()
        for change in module.changes(HERE, text)
        if module.is_change(change, text)
    ]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a < b <= c", ["a <= b <= c", "a < b < c"]),
        ("x = a is not b", ["x = a is b"]),
        ("x = (a) not in (b)", ["x = (a) in (b)"]),
        ("x = a and b or c", ["x = a and b and c", "x = a or b or c"]),
        ("x = not a", ["x = (a)"]),
        ("x = a - b * c", ["x = a + b * c", "x = a - b / c"]),
        ("x += y", ["x -= y"]),
        ("x = 5", ["x = 6", "x = 4"]),
        ("x = 0", ["x = 1"]),
        ("x = 0.25", ["x = 0.5", "x = 0.0"]),
        ("x = True", ["x = False"]),
        ("x = -y", ["x = (y)"]),
        ("x = np.maximum(a, b)", ["x = np.minimum(a, b)"]),
        ("x = all(y)", ["x = any(y)"]),
        ("x = abs(y)", ["x = (y)"]),
        ("x = y.copy()", ["x = y"]),
        ("f(a)", ["pass"]),
        ("x.a = y", ["pass"]),
        ("x = a if b else c", ["x = a if not (b) else c"]),
        ("x = [a for a in b if c]", ["x = [a for a in b if True]"]),
        ("if a:\n    x = y", ["if not (a):\n    x = y", "if False:\n    x = y"]),
        ("for a in b:\n    break", ["for a in b:\n    continue"]),
        (
            "def f(a: int = 1) -> list[2]: ...",
            ["def f(a: int = 2) -> list[2]: ...", "def f(a: int = 0) -> list[2]: ..."],
        ),
        ("def f():\n    '''Text.'''\n    return a", ["def f():\n    '''Text.'''\n    return None"]),
        ("if TYPE_CHECKING:\n    x = 1", []),
        ("__all__ = ['a', 'b'][:1]", []),
        ("x = zip(a, b, strict=True)", []),
        ("raise ValueError(f'{x + 1}')", []),
        ("x: Literal[1]", []),
    ],
)
def test_changes(source: str, expected: list[str]) -> None:
    assert made_of(source) == expected


SOURCE = b"""LIMIT = 3


def f(x):
    y = x + 1
    return y < LIMIT
"""


def test_a_sample_is_one_of_its_seed() -> None:
    module: Any = importlib.import_module("changes")
    one = module.sample({HERE: SOURCE}, 2, 5)
    assert module.sample({HERE: SOURCE}, 2, 5) == one
    assert len({change.line(SOURCE) for change in one}) == 2
    everything = module.sample({HERE: SOURCE}, 9, 5)
    assert [change.line(SOURCE) for change in everything] == [1, 5, 6]
    assert everything[2].describe(SOURCE) in {
        "package/module.py:6: return y < LIMIT -> return y <= LIMIT",
        "package/module.py:6: return y < LIMIT -> return None",
    }


def test_covering_tests(tmp_path: Path) -> None:
    module: Any = importlib.import_module("covering")
    covering = module.Covering(tmp_path, tmp_path / "map", [])
    key = module.digest(SOURCE)
    (tmp_path / "map" / "sources" / key).write_bytes(SOURCE)
    tests = [
        module.Test("tests/test_other.py::slow", 2.0),
        module.Test("tests/test_other.py::quick", 0.1),
        module.Test("tests/test_modules.py::test", 3.0),
    ]
    lines = {1: set(), 4: set(), 5: {0, 1, 2}, 6: {0, 2}}
    covering.records[tmp_path / "tests" / "test_other.py"] = module.Record(
        tests, [], {HERE.as_posix(): key}, {HERE.as_posix(): lines}
    )

    def names(source: bytes, line: int) -> list[str]:
        found = importlib.import_module("changes").sample({HERE: source}, 9, 0)
        change = next(change for change in found if change.line(source) == line)
        return [test.name.rpartition("::")[2] for test in covering.tests_of(change, source)]

    assert names(SOURCE, 6) == ["test", "slow"]
    assert names(SOURCE, 5) == ["quick", "test", "slow"]
    assert names(SOURCE, 1) == ["quick", "test", "slow"]  # the whole module
    edited = SOURCE.replace(b"def f", b"# a comment\n\ndef f").replace(
        b"    return", b"    y *= 2\n    return"
    )
    assert names(edited, 9) == ["test", "slow"]
    assert names(edited, 8) == ["quick", "test", "slow"]  # new: as the function around it


def test_of_a_declaration_all_tests_of_its_class_are_covering(tmp_path: Path) -> None:
    """Whichever test happens to import the module first; and the package's face is looked at."""
    covering_module: Any = importlib.import_module("covering")
    source = b"class A:\n    x: int = 3\n\n    def f(self, y: int = 2) -> int:\n        return y\n"
    face, own = tmp_path / "tests" / "test_public_api.py", tmp_path / "tests" / "test_other.py"
    covering = covering_module.Covering(tmp_path, tmp_path / "map", [])
    covering.files = [face, own]
    key = covering_module.digest(source)
    (tmp_path / "map" / "sources" / key).write_bytes(source)
    names = ("imports", "calls")
    tests = [covering_module.Test(f"tests/test_other.py::{name}", 1.0) for name in names]
    lines = {1: {0}, 2: {0}, 4: {0}, 5: {1}}
    covering.records[own] = covering_module.Record(
        tests, [], {HERE.as_posix(): key}, {HERE.as_posix(): lines}
    )
    covering.records[face] = covering_module.Record(
        [covering_module.Test("tests/test_public_api.py::face", 0.1)], [], {}, {}
    )

    def found(line: int) -> list[str]:
        changes = importlib.import_module("changes").changes(HERE, source)
        change = next(change for change in changes if change.line(source) == line)
        return [t.name.rpartition("::")[2] for t in covering.tests_of(change, source)]

    assert found(2) == ["face", "calls", "imports"]
    assert found(4) == ["face", "calls", "imports"]
    assert found(5) == ["face", "calls"]


# ---- C


def c_made_of(body: str) -> set[str]:
    """What single changes make of the body of a C function."""
    module: Any = importlib.import_module("mutants_c")
    source = f"void f(void)\n{{\n{body}\n}}\n"
    places = module.sites("csrc/f.c", source, set())
    made = {change.apply(source) for place in places for change in place}
    return {text.split("{\n", 1)[1].rsplit("\n}", 1)[0] for text in made}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("x = a < b;", {"x = a <= b;", "x = a >= b;", ";"}),
        ("x = a && !b;", {"x = a || !b;", "x = a && b;", ";"}),
        ("x += 3;", {"x -= 3;", "x = 3;", "x += 4;", "x += 2;", ";"}),
        ("float *p = q;", {";"}),
        ("g(a, 0.5f);", {"g(a, 1.0f);", "g(a, 0.25f);", ";"}),
        ("if (a) b();", {"if (!(a)) b();", "if (1) b();", "if (0) b();", "if (a) ;"}),
        ("if (a) return;", {"if (!(a)) return;", "if (1) return;", "if (0) return;", "if (a) ;"}),
        ("return a;", set()),  # a function without a value is no change, but undefined
        ("for (;;) break;", {"for (;;) continue;"}),
        ("for (; i < n; i++) g();", {"for (; i <= n; i++) g();", "for (; i >= n; i++) g();"}
         | {"for (; i < n; i++) ;"}),
        ('/* a < b */ g("1 + 1"); // 2', {'/* a < b */ ; // 2'}),
        ("float p[9];", {"float p[8];", ";"}),  # nobody would see one more
        ("const double *a, q[4] = {0};", {"const double *a, q[3] = {0};"}
         | {"const double *a, q[4] = {1};"}),
        ("float p[4]; g(sizeof p);", {"float p[3]; g(sizeof p);", "float p[5]; g(sizeof p);"}
         | {"float p[4]; ;", "; g(sizeof p);"}),
        ("float p[4]; g(sizeof *p);", {"float p[3]; g(sizeof *p);", "float p[4]; ;"}
         | {"; g(sizeof *p);"}),
        ("float p[4][2];", {"float p[3][2];", "float p[5][2];", "float p[4][1];", ";"}
         | {"float p[4][3];"}),
        ("p[4];", {"p[3];", "p[5];", ";"}),
        ("return p[4];", {"return p[3];", "return p[5];"}),
    ],
)  # fmt: skip
def test_changes_to_c(body: str, expected: set[str]) -> None:
    assert c_made_of(body) == expected


@pytest.mark.parametrize(
    ("use", "is_truth"),
    [
        ("if (f(1)) g();", True),
        ("while (f(1) && f(2)) g();", True),
        ("x = a || !f(1);", True),
        ("return f(1) || g() ? -1 : 0;", True),
        ("g(f(1) && x);", True),
        ("return f(1);", False),
        ("x = f(1);", False),
        ("g(f(1));", False),
        ("if (f(1) == 1) g();", False),
        ("if (a && f(1) == 1) g();", False),
        ("x = a + f(1) && b;", False),
        ("if (f(1)) g(f);", False),  # called from elsewhere
        ("if (a) g();", False),  # or by nobody here
    ],
)
def test_what_is_asked_for_truth_returns_another_number_unseen(use: str, is_truth: bool) -> None:
    module: Any = importlib.import_module("mutants_c")
    source = "static int f(int x)\n{\n    if (x) return -1;\n    return 0;\n}\n"
    truths = module.asked_for_truth([source, f"void h(int a)\n{{\n{use}\n}}\n"])
    assert truths == ({"f"} if is_truth else set())
    made = {c.apply(source) for place in module.sites("csrc/f.c", source, truths) for c in place}
    assert source.replace("-1", "-0") in made
    assert source.replace("return 0", "return 1") in made
    assert (source.replace("-1", "-2") in made) == (not is_truth)


def test_every_file_of_the_core_has_tests_of_its_own() -> None:
    """The tables name tests that exist, and every file finds some in them."""
    module: Any = importlib.import_module("mutants_c")
    programs = {path.stem for path in (ROOT / "csrc" / "tests").glob("test_*.c")}
    files = {path.stem for path in (ROOT / "tests").rglob("test_*.py")}
    for table, known in ((module.PROGRAMS, programs), (module.PYTHON, files)):
        named = {f"test_{name}" for names in table.values() for name in names}
        assert named - known == set()
    sources = [p.relative_to(ROOT).as_posix() for p in (ROOT / "csrc").rglob("*.[ch]")]
    for source in sources:
        table = module.PYTHON if source.startswith("csrc/binding/") else module.PROGRAMS
        assert module.chosen(table, source) or source.startswith("csrc/tests/"), source


def test_changes_to_c_are_drawn_by_seed() -> None:
    module: Any = importlib.import_module("mutants_c")
    path = "csrc/clip.c"
    source = (ROOT / path).read_text(encoding="utf-8")
    drawn = [list(module.draw({path: source}, seed, set())) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]
    assert len({(change.start, change.end) for change in drawn[0]}) == len(drawn[0])
    for change in drawn[0]:
        assert change.apply(source) != source
        assert change.describe(source).startswith(f"{path}:")
