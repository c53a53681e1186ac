"""The rules of the house that no compiler checks: layers of imports, borders of the C core."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import pytest

import gradprune as gp
from peers import PEERS
from sources import parsed

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "gradprune"
CSRC = ROOT / "csrc"

# From the bottom up: packages and the few modules that stand alone. Imports
# lead to lower strata or stay within their own, and form no circle.
STRATA = (
    "errors",
    "_core",
    "foundation",
    "state",
    "losses",
    "layers",
    "data",
    "optim",
    "engine",
    "pruning",
    "quantization",
    "plotting",
    "training",
    "registry",
    "files",
    "torch",
    "interop",
    "forms",
    "model",
    "models",
    "importing",
    "sweeps",
    "analysis",
    "compression",
    "loading",
    "sklearn",
    "cli",
)
# These modules and packages know nothing of their neighbours: each can be read, replaced and tested
# alone.
STRANGERS = {
    "layers.initializers",
    "optim.clipping",
    "optim.guards",
    "optim.learning_rates",
    "pruning.granularity",
    "pruning.regrowth",
    "pruning.schedules",
    "pruning.scopes",
}
# Outside of the strata: it imports nothing but errors.
ORACLE = "reference"
# What recomputes the engine's pass by the oracle's formulas, because the engine keeps it to itself.
READS_ORACLE = {
    "engine.tracing",
    *(
        f"layers.{name}"
        for name in ("convolution", "dense", "embedding", "normalization", "pooling")
    ),
    "layers.recurrent",
}
# Where users look for names: modules that only collect them.
HOMES = {
    "",
    "augmentation",
    "callbacks",
    "clipping",
    "costs",
    "datasets",
    "guards",
    "initializers",
    "learning_rates",
    "metrics",
    "signposts",
}
# `import gradprune` needs NumPy alone; the rest is imported where it is used.
EAGER = {"gradprune", "numpy", *sys.stdlib_module_names}
# Packages whose classes are another library's, too: `import gradprune` leaves them out.
EXTENSIONS = {"sklearn": {"joblib", "scipy", "sklearn"}, "torch": {"torch"}}

RANK = {stratum: rank for rank, stratum in enumerate(STRATA)}


def name_of(path: Path) -> str:
    """The module's name below gradprune; of a package, the name with __init__."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def unit_of(module: str) -> str:
    """What the table calls it: the oracle is one unit."""
    return ORACLE if module.split(".")[0] == ORACLE else module


FILES = {
    name_of(path).removesuffix("__init__").removesuffix("."): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
MODULES = [name for name in FILES if name not in HOMES | {"__main__"} and unit_of(name) != ORACLE]
# _core has no source in Python.
KNOWN = {*FILES, "_core"}


def stratum(module: str) -> str:
    """The package it is in, or itself."""
    return module.split(".", maxsplit=1)[0]


def is_in(module: str, package: str) -> bool:
    """Whether it is that package or module, or a part of it."""
    return module == package or module.startswith(f"{package}.")


def is_type_checking(node: ast.AST) -> bool:
    """Whether it is `if TYPE_CHECKING:`, whose imports never run but bind a design all the same."""
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def imports(path: Path, *, eager: bool = False) -> Iterator[str]:
    """Full names of what a file imports; with eager, only what runs when it is imported."""
    package = path.relative_to(ROOT).parent.parts
    pending: list[ast.AST] = [parsed(path.read_text(encoding="utf-8"))]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                is_module = f"{base}.{alias.name}".removeprefix("gradprune.") in KNOWN
                yield f"{base}.{alias.name}" if is_module else base
        elif eager and is_type_checking(node):
            pending += node.orelse
        elif not (eager and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)):
            pending += ast.iter_child_nodes(node)


def full_imports(module: str) -> set[str]:
    """Modules of gradprune that a module imports; "" is gradprune itself."""
    names = imports(FILES[module])
    own = {name for name in names if name.split(".")[0] == "gradprune"}
    return {name.removeprefix("gradprune").removeprefix(".") for name in own}


def own_imports(module: str) -> set[str]:
    """The same, with the oracle as one unit."""
    return {unit_of(name) for name in full_imports(module)}


def faults(found: Mapping[str, Collection[Any]]) -> dict[str, Collection[Any]]:
    """Those of all files in which something was found."""
    return {file: what for file, what in found.items() if what}


def test_every_module_has_a_stratum() -> None:
    assert {stratum(module) for module in MODULES} - RANK.keys() == set(), "a place in STRATA"


def test_the_picture_shows_the_strata() -> None:
    """The document says what the table here says."""
    picture = (ROOT / "docs" / "architecture.svg").read_text(encoding="utf-8")
    assert {name for name in STRATA if not re.search(rf"\b{name}\b", picture)} == set()


def test_imports_point_down() -> None:
    homes, unknown, high, near = (dict[str, set[str]]() for _ in range(4))
    for module in MODULES:
        own = own_imports(module)
        homes[module] = own & HOMES
        strangers = {other for other in own if stratum(other) not in RANK}
        unknown[module] = strangers - ({ORACLE} if module in READS_ORACLE else set())
        high[module] = {o for o in own - strangers if RANK[stratum(o)] > RANK[stratum(module)]}
        beside = {other for other in own if stratum(other) == stratum(module)}
        near[module] = {
            other
            for alone in STRANGERS
            if is_in(module, alone)
            for other in beside
            if not is_in(other, alone)
        }
        if module in READS_ORACLE:
            assert ORACLE in own, f"{module} needs no exception"
    assert faults(homes) == {}, "modules import names from where they are defined"
    assert faults(unknown) == {}, "no stratum"
    assert faults(high) == {}, "these reach too high"
    assert faults(near) == {}, "these know nothing of their neighbours"


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The groups of modules that all lead to each other by imports."""
    reached: dict[str, set[str]] = {}
    for start, direct in graph.items():
        seen: set[str] = set()
        pending = list(direct)
        while pending:
            module = pending.pop()
            if module not in seen:
                seen.add(module)
                pending += graph.get(module, ())
        reached[start] = seen
    found = {
        tuple(sorted(other for other in reached[module] if module in reached.get(other, ())))
        for module in graph
        if module in reached[module]
    }
    return [list(group) for group in sorted(found)]


def test_imports_have_no_circle() -> None:
    """Of the oracle's modules, too; ``make test`` with -s shows the number."""
    modules = [name for name in FILES if name not in HOMES | {"__main__"}]
    found = circles({module: full_imports(module) - {module} for module in modules})
    print(f"circles of imports: {len(found)}")  # noqa: T201 - a number that is asked for
    assert found == []


def test_circles_are_found() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set(), "e": {"f"}, "f": {"e"}}
    assert circles(graph) == [["a", "b", "c"], ["e", "f"]]


def test_type_only_imports_count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whoever reads a module has to know what its types are."""
    (tmp_path / "gradprune").mkdir()
    path = tmp_path / "gradprune" / "some.py"
    path.write_text(
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from gradprune.model import Model\n"
        "def f():\n    import rich\n"
    )
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    assert set(imports(path)) == {"typing", "gradprune.model", "rich"}
    assert set(imports(path, eager=True)) == {"typing"}


def test_the_oracle_stands_alone() -> None:
    for module in FILES:
        if unit_of(module) == ORACLE:
            assert own_imports(module) <= {"errors", ORACLE}, module


def test_heavy_imports_are_lazy() -> None:
    eager = {
        module: {name.split(".")[0] for name in imports(path, eager=True)}
        - EAGER
        - EXTENSIONS.get(stratum(module), set())
        for module, path in FILES.items()
    }
    assert faults(eager) == {}


def test_import_needs_numpy_alone() -> None:
    heavy = "matplotlib pooch rich safetensors sklearn torch tqdm"
    code = f"import sys, gradprune; print(*set({heavy.split()}) & set(sys.modules))"
    # From the folder above the package in use, so that it is found without being installed.
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(gp.__file__).parent.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.split() == []


# What a test file may import without asking: what gradprune itself and every test need.
NEEDED = {
    *("gradprune", "hypothesis", "joblib", "numpy", "pytest", "rich", "safetensors", "scipy"),
    *("sklearn", "studies", "tqdm"),
}
TESTS = {path.stem: path for path in sorted((ROOT / "tests").rglob("*.py"))}


def skips(path: Path) -> set[str]:
    """The packages that a file passes to ``importorskip``."""
    return {
        str(ast.literal_eval(node.args[0])).split(".")[0]
        for node in ast.walk(parsed(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.importorskip"
    }


def test_tests_of_optional_packages_can_be_skipped() -> None:
    """`make test` works without the peers, and `-m peers` finds every test that needs one."""
    known = NEEDED | TESTS.keys() | sys.stdlib_module_names | {""}
    used = {
        file: {name.split(".")[0] for name in imports(path)} - known for file, path in TESTS.items()
    }
    assert faults(used) == {}, "optional packages come by pytest.importorskip or are peers.PEERS"
    skipped = {file: skips(path) & PEERS for file, path in TESTS.items()}
    assert skips(TESTS["conftest"]) == skipped.pop("conftest") == PEERS
    assert faults(skipped) == {}, "take the fixture of conftest.py with that name"


GATHERED = [
    "layers",
    "losses",
    "optim.clipping",
    "optim.optimizers",
    "pruning.criteria",
]


@pytest.mark.parametrize("package", GATHERED)
def test_packages_that_grow_gather_their_modules(package: str) -> None:
    """A new module is there at once; a type checker sees the same names with the same types."""
    tree = parsed(FILES[package].read_text(encoding="utf-8"))
    (branch,) = (node for node in tree.body if isinstance(node, ast.If))
    assert is_type_checking(branch)
    seen: dict[str, object] = {}
    for line in branch.body:
        assert isinstance(line, ast.ImportFrom)
        module = import_module(str(line.module))
        seen |= {name: getattr(module, name) for name in module.__all__}
    found = import_module(f"gradprune.{package}")
    assert set(found.__all__) == seen.keys(), "a line for type checkers is missing"
    assert all(getattr(found, name) is value for name, value in seen.items())


def test_a_new_module_is_gathered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "grown"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from gradprune.foundation.gathering import gather_into\n"
        "gather_into(globals(), without=('hidden',))\n"
    )
    (package / "new.py").write_text("__all__ = ['Value']\nclass Value: pass\nclass Own: pass\n")
    (package / "hidden.py").write_text("__all__ = ['Other']\nclass Other: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    grown = import_module("grown")
    assert grown.__all__ == ["Value"]
    assert grown.Value is import_module("grown.new").Value


def test_no_module_of_leftovers() -> None:
    names = {name.split(".")[-1] for name in FILES}
    assert names & {"common", "helpers", "misc", "util", "utils"} == set()


def is_layer(cls: object) -> bool:
    """Whether it is one of the classes behind ``Layer``."""
    base = gp.layers.Layer
    return isinstance(cls, type) and issubclass(cls, base) and cls is not base


LAYERS = {cls.__name__ for cls in vars(gp.layers).values() if is_layer(cls)}


def class_questions(source: str) -> Iterator[str]:
    """What asks for the class of a layer, or for the name of one, or is a table by it."""
    for node in ast.walk(parsed(source)):
        asked: list[ast.AST] = []
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"isinstance", "issubclass"}:
            asked = [*node.args[1:]]
        elif isinstance(node, ast.Compare):
            asked = [node.left, *node.comparators]
        elif isinstance(node, ast.Dict):
            asked = [key for key in node.keys if key is not None]
        elif isinstance(node, ast.MatchClass):
            asked = [node.cls]
        parts = [part for one in asked for part in ast.walk(one)]
        ours = (part for part in parts if not ast.unparse(part).startswith("torch."))
        named = any(last_name(part) in LAYERS for part in ours)
        if isinstance(node, ast.Compare):
            texts = any(isinstance(part, ast.Constant) for one in asked for part in ast.walk(one))
            named |= texts and any(last_name(one) in {"type", "name__"} for one in asked)
        if named:
            yield ast.unparse(node)


def test_nobody_asks_for_the_class_of_a_layer() -> None:
    """A layer answers by its own methods, so that a new one needs no line elsewhere."""
    questions = {
        module: list(class_questions(FILES[module].read_text(encoding="utf-8")))
        for module in MODULES
        if not is_in(module, "layers") and not is_in(module, "cli")
    }
    assert faults(questions) == {}


def test_questions_for_a_class_are_found() -> None:
    source = """
isinstance(layer, Dense | Conv2D), isinstance(layer, Layer), isinstance(x, str)
isinstance(layer, (gp.Dense, int)), type(layer) is LSTM, {Add: 1, "b": 2}
isinstance(part, torch.nn.Embedding)
low.type == "softmax", type(layer).__name__ in {"Dense"}, kind == "dense"
match layer:
    case Dropout(rate=0.5):
        pass
"""
    assert set(class_questions(source)) == {
        "isinstance(layer, Dense | Conv2D)",
        "isinstance(layer, (gp.Dense, int))",
        "type(layer) is LSTM",
        "{Add: 1, 'b': 2}",
        "low.type == 'softmax'",
        "type(layer).__name__ in {'Dense'}",
        "Dropout(rate=0.5)",
    }


C_FILES = [*sorted(CSRC.rglob("*.c")), *sorted(CSRC.rglob("*.h"))]


def includes(path: Path) -> list[str]:
    """Names of the headers that a C file includes."""
    return re.findall(
        r'^\s*#\s*include\s*[<"]([^>"]+)', path.read_text(encoding="utf-8"), re.MULTILINE
    )


# A module of the core is a .c file with the .h of its name. What csrc/tests holds are programs.
C_MODULES = {
    path: str(path.relative_to(CSRC).with_suffix(""))
    for path in C_FILES
    if CSRC / "tests" not in path.parents
}


def without_comments(text: str) -> str:
    """C text without comments and strings."""
    return re.sub(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"', " ", text, flags=re.DOTALL)


def c_definitions(text: str) -> Iterator[str]:
    """Names of the functions and objects that a C file defines for others."""
    starts = re.findall(
        r"^(?!static\b|extern\b|typedef\b|#)(\w[^\n;={}]*?)(?:\([^;{}]*\)\s*\{|(?:\[\w*\])?\s*=)",
        text,
        re.MULTILINE,
    )
    yield from (re.findall(r"\w+", start)[-1] for start in starts if " " in start)


def c_graph(files: dict[Path, str], lists: dict[str, str]) -> dict[str, set[str]]:
    """Module to the modules that it includes or whose functions and objects it uses.

    Args:
        files: path to module.
        lists: macro to the folder of csrc whose files it lists: who uses it in a .c file uses all.
    """
    texts = {path: without_comments(path.read_text(encoding="utf-8")) for path in files}
    home = {
        name: files[path]
        for path, text in texts.items()
        if path.suffix == ".c"
        for name in c_definitions(text)
    }
    graph: dict[str, set[str]] = {module: set() for module in files.values()}
    for path, text in texts.items():
        own = graph[files[path]]
        for name in includes(path):
            found = [base / name for base in (CSRC, path.parent) if base / name in files]
            own |= {files[header] for header in found}
        # Of a header what inline functions do: to declare is not to use.
        bodies = [text] if path.suffix == ".c" else [body for _, body in c_functions(text)]
        words = {word for body in bodies for word in re.findall(r"\w+", body)}
        words -= {name for name, _ in c_functions(text)}
        own |= {home[word] for word in words & home.keys()}
        for macro in words & lists.keys():
            own |= {module for module in files.values() if Path(module).parent.name == lists[macro]}
        if any(word.startswith("gp_kernels__") for word in words):  # names that are pasted there
            own.add("kernels/table")
    return {module: used - {module} for module, used in graph.items()}


def build_lists() -> dict[str, str]:
    """The macros that setup.py passes, with the folders that they list."""
    text = (ROOT / "setup.py").read_text(encoding="utf-8")
    match = re.search(r"^LISTS = (\{.*?\})", text, re.MULTILINE | re.DOTALL)
    assert match
    found: dict[str, str] = ast.literal_eval(match[1])
    return found


def test_the_core_has_no_circles() -> None:
    graph = c_graph(C_MODULES, build_lists())
    print(f"C: {len(graph)} modules, {len(circles(graph))} circles")  # noqa: T201
    assert circles(graph) == []


def test_the_graph_of_the_core_shows_what_it_uses() -> None:
    graph = c_graph(C_MODULES, build_lists())
    rows = {f"losses/{path.stem}" for path in CSRC.glob("losses/*.c")}
    assert graph["loss_table"] == {"loss", *rows}
    assert {"kernels/table", "denormals", "kernels/kernels"} <= graph["dispatch"]
    assert {"net", "pass", "load", "region"} <= graph["calls"]  # declared in other headers
    assert "calls" in graph["binding/net_type"]  # declared in gradprune.h
    assert graph["gradprune"] == set()


def test_a_circle_is_found(tmp_path: Path) -> None:
    texts = {
        "a.h": "int a_value(void);\nextern const int a_table;",
        "a.c": '#include "a.h"\nint a_value(void) { return b_value(1); }\nconst int a_table = 3;',
        "b.c": "/* a_value */\nint b_value(int x)\n{\n    return x;\n}",
        "c.c": "static int b_value(void) { return a_table; }\nint c(void)\n{\n    return d();\n}",
        "d.h": "static inline int d(void)\n{\n    return c();\n}",
        "e.c": "LIST",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    files = {tmp_path / name: name.partition(".")[0] for name in texts}
    graph = c_graph(files, {})
    assert graph == {"a": {"b"}, "b": set(), "c": {"a"}, "d": {"c"}, "e": set()}
    assert circles(graph) == []
    graph["b"].add("c")
    assert circles(graph) == [["a", "b", "c"]]


def test_python_stays_in_the_binding() -> None:
    python = {
        str(path): [
            name for name in includes(path) if re.match(r"Python\.h|numpy/|.*binding/", name)
        ]
        for path in C_FILES
        if CSRC / "binding" not in path.parents
    }
    assert faults(python) == {}


# What an arena holds, and what networks show of it.
STATE = {
    "arena": {"params", "grads", "mask", "core", "parameters", "buffers", "state", "gradients"},
    "model": {"parameters", "buffers", "gradients", "masks"},
}
STATE["arena"] |= STATE["model"]
STATE["network"] = STATE["replica"] = STATE["model"]
# These hand views out, and who uses one later takes the lock; or a model of their own is all they
# work on.
UNLOCKED = {f"engine.compiled.Compiled.{name}" for name in ("_build", "gradients", "parameters")}
ALONE = {"cli", "sweeps"}


def last_name(node: ast.AST) -> str:
    """The last word of a dotted name, without leading underscores."""
    name = getattr(node, "attr", None) or getattr(node, "id", "")
    return str(name).lstrip("_")


def reads_no_numbers(node: ast.Attribute, parent: ast.AST) -> bool:
    """Whether only sizes or names are asked for, which never change."""
    return (
        (isinstance(parent, ast.Attribute) and parent.attr in {"shape", "size"})
        or (isinstance(parent, ast.Compare) and node in parent.comparators)
        or (isinstance(parent, ast.For | ast.comprehension) and parent.iter is node)
        or (isinstance(parent, ast.UnaryOp) and isinstance(parent.op, ast.Not))
        or (
            isinstance(parent, ast.Call)
            and last_name(parent.func) in {"list", "len", "empty_like", "zeros_like"}
        )
    )


def unlocked(source: str) -> Iterator[tuple[str, str]]:
    """(function, expression) of what reaches a model's state in code that does not hold its lock.

    It is held within ``with ....lock:`` and in functions that are ``@locked``.
    """
    tree = parsed(source)
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute) or node.attr not in STATE.get(
            last_name(node.value), set()
        ):
            continue
        if reads_no_numbers(node, parents[node]):
            continue
        names: list[str] = []
        around: ast.AST = node
        is_locked = False
        while around in parents:
            around = parents[around]
            if isinstance(around, ast.With):
                is_locked |= any(last_name(i.context_expr) == "lock" for i in around.items)
            if isinstance(around, ast.FunctionDef):
                is_locked |= any(last_name(d) == "locked" for d in around.decorator_list)
            if isinstance(around, ast.FunctionDef | ast.ClassDef):
                names.insert(0, around.name)
        if not is_locked:
            yield ".".join(names), ast.unparse(node)


def test_state_is_reached_by_who_holds_its_lock() -> None:
    """A thread that trains must not be seen in the middle of a step; see locking.py."""
    found = {
        module: [
            (name, what)
            for name, what in unlocked(FILES[module].read_text(encoding="utf-8"))
            if f"{module}.{name}" not in UNLOCKED
        ]
        for module in MODULES
        if stratum(module) not in ALONE and module != "state.arena"
    }
    assert faults(found) == {}


def test_what_holds_no_lock_is_found() -> None:
    source = """
class A:
    def f(self):
        return self.model.arena.params.copy()

    @locked
    def g(self):
        return self.model.arena.params.copy()

def h(arena):
    with arena.lock:
        arena.params[:] = 0
    return arena.mask, arena.params.size
"""
    assert set(unlocked(source)) == {("A.f", "self.model.arena.params"), ("h", "arena.mask")}


# Who may reach what a lock guards: who makes it, who destroys it, and who takes the lock.
GUARDS = {
    "arena_type.c": {"gp_arena_enter", "gp_arena_sizes", "arena_new", "arena_dealloc"},
    "net_type.c": {"enter_net", "net_new", "net_dealloc"},
}


def c_functions(text: str) -> Iterator[tuple[str, str]]:
    """(name, body) of the functions that a formatted C file defines; bodies end with a brace."""
    for match in re.finditer(r"^\w[^\n;={}]*?\b(\w+)\([^;{}]*\)\s*\{", text, re.MULTILINE):
        is_line = "}" in text[match.end() : text.index("\n", match.end())]
        end = text.index("\n" if is_line else "\n}", match.end())
        yield match[1], text[match.end() : end]


def test_the_binding_reaches_guarded_state_by_its_lock() -> None:
    """No call of the core can see an arena or a network that another thread is changing."""
    for path in sorted((CSRC / "binding").glob("*.[ch]")):
        text = path.read_text(encoding="utf-8")
        users = {name for name, body in c_functions(text) if re.search(r"->guarded\b", body)}
        assert users == GUARDS.get(path.name, set()), path.name
        found = sum(len(re.findall(r"->guarded\b", body)) for _, body in c_functions(text))
        assert found == len(re.findall(r"->guarded\b", text)), f"{path.name}: outside functions"


# dispatch.c is the place; it asks only to refuse flags that would reach every object.
def test_instruction_sets_are_chosen_in_one_place() -> None:
    """No `#if __AVX2__` in bodies: an object per instruction set, chosen at run time."""
    asks = re.compile(r"^\s*#\s*(?:el)?if.*\b__(?:AVX|SSE|FMA|ARM_NEON)\w*", re.MULTILINE)
    used = {
        str(path): asks.findall(path.read_text(encoding="utf-8"))
        for path in C_FILES
        if path.name != "dispatch.c"
    }
    assert faults(used) == {}


def test_version_is_one() -> None:
    header = (CSRC / "gradprune.h").read_text(encoding="utf-8")
    assert re.findall(r'#define GP_VERSION "(.*)"', header) == [gp.__version__]
    try:
        installed = metadata.version("gradprune")
    except metadata.PackageNotFoundError:
        pytest.skip("gradprune runs from its sources: there is no installed version to differ")
    assert installed == gp.__version__


def test_pins_agree() -> None:
    """pre-commit judges with the same versions as `make lint`."""
    pin = re.compile(r'"([\w-]+)==([\w.]+)"')
    dev = dict(pin.findall((ROOT / "pyproject.toml").read_text(encoding="utf-8")))
    hooks = dict(pin.findall((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")))
    assert dev
    assert {name: hooks.get(name) for name in dev} == dev


def _writes(node: ast.AST) -> bool:
    """Whether a call writes a file, or renames one, by itself."""
    if not isinstance(node, ast.Call):
        return False
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    strings = [a.value for a in node.args if isinstance(a, ast.Constant)]
    if name == "open":
        return any(isinstance(text, str) and re.fullmatch("[rbt+]*[wax][bt+]*", text)
                   for text in strings)  # fmt: skip
    if name == "replace":  # of a Path; that of a string has two arguments, of a dataclass keywords
        return len(node.args) == 1 and not node.keywords
    return name in {"write_text", "write_bytes", "savefig", "rename", "mkstemp"}


def test_files_are_written_in_one_place() -> None:
    found = [
        f"{path.relative_to(PACKAGE)}:{node.lineno} {ast.unparse(node)}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.name != "disk.py"
        for node in ast.walk(parsed(path.read_text()))
        if _writes(node)
    ]
    assert [text.partition(" ")[2] for text in found] == [
        "file.open('wb')",  # datasets: a download, among the system's temporary files
        "figure.savefig(content, format=kind, dpi=150, metadata=metadata)",  # plotting.style: bytes
    ], found


# A module or class that grows beyond these holds more than one idea.
MODULE_LINES = 500
CLASS_LINES = 350
FUNCTION_LINES = {"training.loop.train": 60, "model.Model.fit": 60}  # without the docstring


def sizes(source: str) -> dict[str, int]:
    """Name of each class and function to its lines; those of a function without its docstring."""
    found = {}
    pending: list[tuple[str, ast.AST]] = [("", parsed(source))]
    while pending:
        prefix, node = pending.pop()
        for child in ast.iter_child_nodes(node):
            if not isinstance(child, ast.ClassDef | ast.FunctionDef):
                continue
            name = f"{prefix}{child.name}"
            first = child.body[0]
            docs = 0
            if isinstance(child, ast.FunctionDef) and ast.get_docstring(child):
                docs = (first.end_lineno or 0) - first.lineno + 1
            found[name] = (child.end_lineno or 0) - child.lineno + 1 - docs
            pending.append((f"{name}.", child))
    return found


def test_nothing_grows_too_large() -> None:
    sources = {name: path.read_text(encoding="utf-8") for name, path in FILES.items()}
    large = {name: len(text.splitlines()) for name, text in sources.items()}
    classes = {
        f"{module}.{node.name}": (node.end_lineno or 0) - node.lineno + 1
        for module, text in sources.items()
        for node in ast.walk(parsed(text))
        if isinstance(node, ast.ClassDef)
    }
    assert {name: n for name, n in large.items() if n > MODULE_LINES} == {}
    assert {name: n for name, n in classes.items() if n > CLASS_LINES} == {}
    for name, most in FUNCTION_LINES.items():
        module = max((m for m in sources if m and name.startswith(f"{m}.")), key=len)
        assert sizes(sources[module])[name.removeprefix(f"{module}.")] <= most, name


def test_sizes_are_those_of_the_code() -> None:
    source = 'class A:\n    def f(self):\n        """One\n        two."""\n        return 1\n'
    assert sizes(source) == {"A": 5, "A.f": 2}
