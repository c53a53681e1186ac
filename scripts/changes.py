"""Single changes to Python source: what `make mutants` makes one at a time.

A change replaces one stretch of the source by another text, so that everything around it, comments
and line numbers included, stays. Annotations, docstrings, strings and decorators are left alone.
"""

from __future__ import annotations

import ast
import random
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

COMPARISONS = {
    ast.Lt: "<=",
    ast.LtE: "<",
    ast.Gt: ">=",
    ast.GtE: ">",
    ast.Eq: "!=",
    ast.NotEq: "==",
    ast.Is: "is not",
    ast.IsNot: "is",
    ast.In: "not in",
    ast.NotIn: "in",
}
ARITHMETIC = {
    ast.Add: "-",
    ast.Sub: "+",
    ast.Mult: "/",
    ast.Div: "*",
    ast.FloorDiv: "/",
    ast.Mod: "//",
    ast.Pow: "*",
    ast.LShift: ">>",
    ast.RShift: "<<",
    ast.BitAnd: "|",
    ast.BitOr: "&",
    ast.BitXor: "&",
}
# Functions and methods that are taken for each other; "" leaves the argument as it is.
FUNCTIONS = {
    "max": "min",
    "maximum": "minimum",
    "argmax": "argmin",
    "fmax": "fmin",
    "nanmax": "nanmin",
    "any": "all",
    "ceil": "floor",
    "ones": "zeros",
    "ones_like": "zeros_like",
    "sorted": "list",
    "reversed": "list",
    "abs": "",
    "round": "int",
}
FUNCTIONS |= {new: old for old, new in FUNCTIONS.items() if new not in {"", "int", "list"}}


@dataclass(frozen=True)
class Change:
    """One stretch of a source, and what comes in its place.

    Args:
        path: of the file, from the root of the project.
        start: of the stretch, in bytes.
        stop: its end.
        text: what comes there.
        lines: first and last line of the statement's part that runs the stretch.
        scopes: first and last lines of the functions and classes around it, the innermost first.
        is_declaration: it runs when the module is imported, and not when a function is called.
    """

    path: Path
    start: int
    stop: int
    text: str
    lines: tuple[int, int]
    scopes: tuple[tuple[int, int], ...]
    is_declaration: bool = False

    def apply(self, source: bytes) -> bytes:
        """The changed source."""
        return source[: self.start] + self.text.encode() + source[self.stop :]

    def line(self, source: bytes) -> int:
        """The line at which the stretch begins."""
        return source.count(b"\n", 0, self.start) + 1

    def describe(self, source: bytes) -> str:
        """``file:line: original -> change``, each on one line."""
        first = source.rfind(b"\n", 0, self.start) + 1
        last = source.find(b"\n", self.stop)
        last = len(source) if last < 0 else last
        before = source[first:last]
        after = source[first : self.start] + self.text.encode() + source[self.stop : last]
        texts = (" ".join(text.decode().split()) for text in (before, after))
        return f"{self.path}:{self.line(source)}: {' -> '.join(texts)}"


class _Finder:
    """Walks one file and collects its changes."""

    def __init__(self, path: Path, source: bytes) -> None:
        self.path = path
        self.source = source
        self.starts = [0]
        for line in source.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))
        self.statement = 1  # the first line of the statement at hand
        self.scopes: list[tuple[int, int]] = []
        self.functions = 0  # how many the stretch at hand is in
        self.found: list[Change] = []

    def span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        start = self.starts[node.lineno - 1] + node.col_offset
        return start, self.starts[node.end_lineno - 1] + node.end_col_offset

    def text(self, node: ast.expr | ast.stmt) -> str:
        start, stop = self.span(node)
        return self.source[start:stop].decode()

    def add(self, start: int, stop: int, text: str) -> None:
        last = self.source.count(b"\n", 0, stop) + 1
        self.found.append(
            Change(
                self.path,
                start,
                stop,
                text,
                (self.statement, last),
                tuple(reversed(self.scopes)),
                is_declaration=not self.functions,
            )
        )

    def replace(self, node: ast.expr | ast.stmt, text: str) -> None:
        self.add(*self.span(node), text)

    def operator(self, left: ast.expr, right: ast.expr, text: str) -> None:
        """Replace the operator between two operands; parentheses around them stay."""
        start, stop = self.span(left)[1], self.span(right)[0]
        between = self.source[start:stop].decode()
        pattern = r"\b(?:is\s+not|not\s+in|is|in|and|or)\b|[-+*/%@<>=!&|^]+"
        found = re.search(pattern, re.sub(r"#[^\n]*", lambda m: " " * len(m[0]), between))
        assert found is not None
        self.add(start + found.start(), start + found.end(), text)

    # ---- statements

    def body(self, nodes: Iterable[ast.stmt]) -> None:
        for node in nodes:
            self.visit_statement(node)

    def visit_statement(self, node: ast.stmt) -> None:
        self.statement = node.lineno
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                self.scope(node)
            case ast.If() if "TYPE_CHECKING" in ast.unparse(node.test):
                self.body(node.orelse)
            case ast.If():
                self.condition(node.test)
                self.replace(node.test, "False")
                self.body(node.body)
                self.body(node.orelse)
            case ast.Expr(value=ast.Constant()) | ast.Import() | ast.ImportFrom():
                pass
            case ast.Expr(value=ast.Call()):
                self.replace(node, "pass")
                self.visit(node.value)
            case ast.Return(value=ast.expr() as value):
                if not (isinstance(value, ast.Constant) and value.value is None):
                    self.replace(value, "None")
                self.visit(value)
            case ast.Raise():
                pass  # its text is for people, and whether it is reached is the condition's matter
            case ast.AnnAssign(value=ast.expr() as value):
                self.visit(value)
            case ast.AnnAssign():
                pass
            case ast.Assign(targets=[ast.Name(id="__all__")]):
                pass
            case ast.Assign():
                if all(isinstance(t, ast.Attribute | ast.Subscript) for t in node.targets):
                    self.replace(node, "pass")
                self.children(node)
            case ast.AugAssign():
                if new := ARITHMETIC.get(type(node.op)):
                    self.operator(node.target, node.value, f"{new}=")
                self.children(node)
            case ast.Break():
                self.replace(node, "continue")
            case ast.Continue():
                self.replace(node, "break")
            case _:
                self.children(node)

    def scope(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> None:
        assert node.end_lineno is not None
        self.scopes.append((node.lineno, node.end_lineno))
        if not isinstance(node, ast.ClassDef):
            for default in (*node.args.defaults, *node.args.kw_defaults):
                if default is not None:
                    self.visit(default)
            self.functions += 1
        self.body(node.body)
        if not isinstance(node, ast.ClassDef):
            self.functions -= 1
        self.scopes.pop()

    def children(self, node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            match child:
                case ast.stmt():
                    self.visit_statement(child)
                case ast.expr():
                    self.visit(child)
                case ast.comprehension():
                    self.visit(child.iter)
                    for test in child.ifs:
                        self.replace(test, "True")
                        self.visit(test)
                case ast.keyword(arg="strict"):  # of zip, which only finds mistakes
                    pass
                case _:  # other keywords, handlers, items of `with`, cases of `match`
                    self.children(child)

    # ---- expressions

    def condition(self, node: ast.expr) -> None:
        self.replace(node, f"not ({self.text(node)})")
        self.visit(node)

    def visit(self, node: ast.expr) -> None:
        match node:
            case ast.JoinedStr():  # whose parts have no places of their own before Python 3.12
                return
            case ast.Compare():
                operands = [node.left, *node.comparators]
                for left, right, operator in zip(operands, operands[1:], node.ops, strict=False):
                    self.operator(left, right, COMPARISONS[type(operator)])
            case ast.BoolOp():
                text = "or" if isinstance(node.op, ast.And) else "and"
                for left, right in zip(node.values, node.values[1:], strict=False):
                    self.operator(left, right, text)
            case ast.BinOp():
                texts = (isinstance(side, ast.JoinedStr) for side in (node.left, node.right))
                if type(node.op) in ARITHMETIC and not any(texts):
                    self.operator(node.left, node.right, ARITHMETIC[type(node.op)])
            case ast.UnaryOp(op=ast.Not() | ast.USub()):
                self.replace(node, f"({self.text(node.operand)})")
            case ast.IfExp():
                self.condition(node.test)
                self.visit(node.body)
                self.visit(node.orelse)
                return
            case ast.Constant():
                self.constant(node)
            case ast.Call():
                self.call(node)
        self.children(node)

    def constant(self, node: ast.Constant) -> None:
        match node.value:
            case bool() as value:
                self.replace(node, str(not value))
            case int() as value:
                self.replace(node, str(value + 1))
                if value > 0:
                    self.replace(node, str(value - 1))
            case float() as value:
                self.replace(node, repr(2 * value if value else 1.0))
                if value:
                    self.replace(node, "0.0")

    def call(self, node: ast.Call) -> None:
        match node.func:
            case ast.Name(id=name) if name in FUNCTIONS:
                self.replace(node.func, FUNCTIONS[name])
            case ast.Attribute(attr="copy", value=value) if not node.args:
                self.replace(node, self.text(value))
            case ast.Attribute(attr=name) if FUNCTIONS.get(name) and name != "round":
                stop = self.span(node.func)[1]
                self.add(stop - len(name), stop, FUNCTIONS[name])


def changes(path: Path, source: bytes) -> list[Change]:
    """All single changes to a file, with some that are not Python or change nothing."""
    finder = _Finder(path, source)
    finder.body(ast.parse(source).body)
    return finder.found


def is_change(change: Change, source: bytes) -> bool:
    """Whether the changed source is Python, and another program."""
    try:
        changed = ast.parse(change.apply(source))
    except SyntaxError:
        return False
    return ast.dump(changed) != ast.dump(ast.parse(source))


def sample(sources: dict[Path, bytes], count: int, seed: int) -> list[Change]:
    """At most one change a line, lines drawn without preference among all files."""
    draw = random.Random(seed)
    lines: dict[tuple[Path, int], list[Change]] = {}
    for path in sorted(sources):
        for change in changes(path, sources[path]):
            lines.setdefault((path, change.line(sources[path])), []).append(change)
    places = sorted(lines)
    draw.shuffle(places)
    chosen: list[Change] = []
    for path, line in places:
        if len(chosen) == count:
            break
        options = lines[path, line]
        draw.shuffle(options)
        chosen += [change for change in options if is_change(change, sources[path])][:1]
    return sorted(chosen, key=lambda change: (change.path, change.start))
