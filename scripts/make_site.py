"""Write the pages of the web site to build/docs; `make docs` lets Sphinx turn them into HTML.

README.md becomes the first page. The documents in docs/ are taken as they are, notebooks with the
outputs that are stored in them. The reference of the API is a page for each row of `TOPICS`, with
every public class and function on exactly one of them. A name without a docstring, without an
example or without a topic stops the build.

    python scripts/make_site.py [build/docs]
"""

from __future__ import annotations

import base64
import fnmatch
import importlib
import importlib.util
import inspect
import json
import os
import re
import shutil
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradprune as gp

ROOT = Path(__file__).resolve().parent.parent

# Packages that need an extra: `gp` imports them when they are asked for.
EXTRAS = {"sklearn": "sklearn", "torch": "torch"}


@dataclass(frozen=True)
class Topic:
    """A page of the reference."""

    title: str
    about: str
    modules: tuple[str, ...]  # where its names are defined, without "gradprune."


TOPICS = {
    "models": Topic(
        "Models and training",
        "Describe a network, train it, save it.",
        ("model", "models", "loading", "training.history", "training.settings", "state.batching"),
    ),
    "layers": Topic("Layers", "What a model is made of.", ("layers",)),
    "initializers": Topic("Initializers", "Where weights start.", ("layers.initializers",)),
    "losses": Topic("Losses", "What training makes small.", ("losses",)),
    "metrics": Topic("Metrics", "How good predictions are.", ("training.metrics",)),
    "optimizers": Topic("Optimizers", "How a step is taken.", ("optim.optimizers",)),
    "learning_rates": Topic(
        "Learning rates", "Rates that change as training goes on.", ("optim.learning_rates",)
    ),
    "clipping": Topic("Clipping", "What bounds gradients.", ("optim.clipping",)),
    "guards": Topic("Guards", "What happens when a number goes wrong.", ("optim.guards",)),
    "callbacks": Topic(
        "Callbacks",
        "What looks on while a model is trained.",
        ("training.callbacks", "training.averaging", "training.tensorboard"),
    ),
    "pruning": Topic("Pruning", "The pruner, what it goes by and when.", ("pruning",)),
    "criteria": Topic("Criteria", "Which weights go first.", ("pruning.criteria",)),
    "compression": Topic(
        "Compression and quantization", "Smaller files.", ("compression", "quantization")
    ),
    "forms": Topic("Frozen and shrunk models", "Models for inference.", ("forms",)),
    "analysis": Topic("Analysis", "Diagnose, compare, report.", ("analysis",)),
    "interop": Topic("Torch and ONNX", "Networks of other libraries.", ("importing", "torch")),
    "sklearn": Topic("scikit-learn", "Estimators.", ("sklearn",)),
    "data": Topic("Data", "Data sets and augmentation.", ("data",)),
    "sweeps": Topic("Sweeps", "Many trainings, one table.", ("sweeps",)),
    "plotting": Topic("Plots", "Pictures of all this.", ("plotting",)),
    "machine": Topic(
        "Threads, kernels, costs",
        "What the core runs on, and the functions that work on plain arrays.",
        ("state.threads", "state.costs", "state.selection"),
    ),
    "errors": Topic("Errors", "What can go wrong, by class.", ("errors",)),
}


# ---- the public names ----------------------------------------------------------------------------


def homes() -> Iterator[Any]:
    """The modules that have public names: `gp` first, so that its names are called by it."""
    yield gp
    for name in gp.__all__:
        if inspect.ismodule(home := getattr(gp, name)):
            yield home
    for name, extra in EXTRAS.items():
        if importlib.util.find_spec(extra):
            yield importlib.import_module(f"gradprune.{name}")


def public_names() -> dict[str, Any]:
    """Every public class and function by the name that users write, such as "gp.losses.MSE"."""
    found: dict[int, tuple[str, Any]] = {}
    for home in homes():
        path = home.__name__.replace("gradprune", "gp", 1)
        for name in getattr(home, "__all__", None) or vars(home):
            value = getattr(home, name)
            is_named = inspect.isclass(value) or inspect.isfunction(value)
            if not name.startswith("_") and is_named and value.__module__.startswith("gradprune."):
                found.setdefault(id(value), (f"{path}.{name}", value))
    return dict(found.values())


def own_docstring(value: Any) -> str:
    """The docstring, unless a dataclass made it up or a base class lent it."""
    text: str = (vars(value).get("__doc__") if inspect.isclass(value) else value.__doc__) or ""
    return "" if text.startswith(f"{value.__name__}(") else inspect.cleandoc(text)


def topic_of(value: Any) -> str | None:
    """The topic with the longest module that the name is in."""
    module = value.__module__.removeprefix("gradprune.")
    matches = [
        (len(prefix), slug)
        for slug, topic in TOPICS.items()
        for prefix in topic.modules
        if f"{module}.".startswith(f"{prefix}.")
    ]
    return max(matches)[1] if matches else None


def lacks(names: dict[str, Any]) -> list[str]:
    """What is wrong with the public names, one line each."""
    lines = []
    for name, value in names.items():
        text = own_docstring(value)
        if not text:
            lines.append(f"{name} has no docstring")
        elif ">>> " not in text and "```python" not in text:
            lines.append(f"{name} has no example in its docstring")
        if topic_of(value) is None:
            lines.append(
                f"{name} ({value.__module__}) belongs to no topic of {Path(__file__).name}"
            )
    return lines


def defined_here(value: Any) -> bool:
    """Whether gradprune wrote a method, and not a library that its class is made for."""
    function = inspect.unwrap(getattr(value, "fget", None) or getattr(value, "__func__", value))
    return str(getattr(function, "__module__", "gradprune.")).startswith("gradprune.")


def members(owner: type, public: set[type]) -> list[str]:
    """What the page of a class shows: its public methods, but none that a public base shows."""
    shown: list[str] = []
    for cls in owner.__mro__:
        if cls is not owner and (cls in public or not cls.__module__.startswith("gradprune.")):
            continue
        shown += [
            name
            for name, value in vars(cls).items()
            if not name.startswith("_")
            and (inspect.isroutine(value) or isinstance(value, property))
            and value.__doc__
            and defined_here(value)
            and not any(
                hasattr(base, name)
                for base in owner.__mro__[1:]
                if base in public or base is object
            )
        ]
    return list(dict.fromkeys(shown))


def entry(name: str, value: Any, public: set[type]) -> str:
    """What Sphinx is to write about a name."""
    kind = "class" if inspect.isclass(value) else "function"
    kind = "exception" if inspect.isclass(value) and issubclass(value, Exception) else kind
    lines = [f".. auto{kind}:: {name}"]
    if inspect.isclass(value) and (shown := members(value, public)):
        lines.append(f"   :members: {', '.join(shown)}")
    body = "\n".join(lines)
    return f"## {name.removeprefix('gp.')}\n\n```{{eval-rst}}\n{body}\n```\n"


def reference(names: dict[str, Any]) -> dict[str, str]:
    """The pages of the API reference by path."""
    public = {value for value in names.values() if inspect.isclass(value)}
    pages, listed = {}, []
    for slug, topic in TOPICS.items():
        chosen = {name: value for name, value in names.items() if topic_of(value) == slug}
        if not chosen:
            continue
        lines = [f"# {topic.title}\n", f"{topic.about}\n", "| name | what it is |", "| --- | --- |"]
        for name, value in chosen.items():
            first = own_docstring(value).partition("\n")[0].replace("|", "\\|")
            lines.append(f"| [`{name}`](#{name}) | {first.replace('``', '`')} |")
        lines.append("")
        lines += [entry(name, value, public) for name, value in chosen.items()]
        pages[f"api/{slug}.md"] = "\n".join(lines)
        words = ", ".join(f"`{name.removeprefix('gp.')}`" for name in chosen)
        listed.append(f"| [{topic.title}]({slug}.md) | {words} |")
    tree = ["```{toctree}", ":hidden:", *(f"{Path(page).stem}" for page in pages), "```\n"]
    table = ["# API reference\n", "| topic | names |", "| --- | --- |", *listed, "", *tree]
    return {"api/index.md": "\n".join(table), **pages}


# How the pages follow each other.
CHINESE = "中文"
CHAPTERS = {
    "Guides": (
        "questions",
        "guides/pruning",
        "guides/from_*",
        "guides/which",
        "guides/own_parts",
        "guides/*",
    ),
    "Topics": (
        "gradients",
        "sparse",
        "images",
        "devices",
        "torch",
        "sklearn",
        "extending",
        "threads",
    ),
    "Notebooks": ("notebooks/README", "notebooks/*"),
    "Reference": ("api/index", "math", "reference", "results", "performance", "limits"),
    "Inside": (
        "how_it_works",
        "architecture",
        "decisions",
        "contributing",
        "security",
        "changelog",
    ),
    CHINESE: ("index.zh", "notebooks/*.zh"),
}


def chapters(pages: set[str]) -> dict[str, list[str]]:
    """The pages of each chapter, in order. One that no chapter names is among the topics."""
    left = {page for page in pages if not page.startswith("api/")} - {"index"} | {"api/index"}
    found: dict[str, list[str]] = {}
    for caption, patterns in CHAPTERS.items():
        found[caption] = []
        for pattern in patterns:
            matches = sorted(fnmatch.filter(left, pattern))
            chosen = [page for page in matches if page.endswith(".zh") == (caption == CHINESE)]
            found[caption] += chosen
            left -= set(chosen)
    found["Topics"] += sorted(left)
    return found


def contents(pages: set[str]) -> str:
    """The table of contents, for the end of the first page."""
    text = ""
    for caption, chosen in chapters(pages).items():
        text += "\n".join(["", "```{toctree}", ":hidden:", f":caption: {caption}", "", *chosen])
        text += "\n```\n"
    return text


# ---- documents -----------------------------------------------------------------------------------


def sources() -> dict[str, str]:
    """The path on the site of every document of the repository that has a page."""
    pages = {"README.md": "index.md", "README.zh.md": "index.zh.md"}
    pages |= {name: name.lower() for name in ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")}
    for path in sorted((ROOT / "docs").rglob("*")):
        if path.is_file() and path.parent.name not in {"site", "static"}:
            name = path.relative_to(ROOT).as_posix()
            pages[name] = name.removeprefix("docs/")
    for path in sorted((ROOT / "notebooks").iterdir()):
        if path.suffix in {".ipynb", ".md"}:
            pages[f"notebooks/{path.name}"] = f"notebooks/{path.name.replace('.ipynb', '.md')}"
    return {source: page for source, page in pages.items() if (ROOT / source).exists()}


def relink(text: str, source: str, pages: dict[str, str]) -> str:
    """The text with links to files of the repository turned into links to pages of the site.

    A link to a file that has no page is left as its words. Sphinx finds those that are wrong.
    """
    here = pages[source]

    def replaced(match: re.Match[str]) -> str:
        words, target, anchor = match[1], match[2], match[3] or ""
        path = os.path.normpath(os.path.join(os.path.dirname(source), target))
        path = "notebooks/README.md" if path == "notebooks" else path
        page = pages.get(path)
        if page is None and (ROOT / path).exists():
            return words.removeprefix("!")
        start = os.path.dirname(here)
        return f"{words}({os.path.relpath(page or path, start or '.')}{anchor})"

    pattern = r"(!?\[[^\]]*\])\((?!\w+:)([^)#\s]+)(#[^)\s]*)?\)"
    return re.sub(pattern, replaced, text)


# ---- notebooks -----------------------------------------------------------------------------------


def notebook(path: Path, folder: Path) -> str:
    """The page of a notebook, with its outputs; its pictures are written into a folder."""
    parts, pictures = [], 0
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(text)
            continue
        parts.append(f"```python\n{text}\n```")
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if "image/png" in data:
                name = f"{path.stem}_{pictures}.png"
                pictures += 1
                (folder / name).write_bytes(base64.b64decode("".join(data["image/png"])))
                parts.append(f"![what the cell draws]({name})")
            elif "text/markdown" in data:
                parts.append("".join(data["text/markdown"]))
            else:
                printed = "".join(data.get("text/plain", output.get("text", "")))
                printed = re.sub(r"\x1b\[[\d;]*m", "", printed).rstrip()
                parts.append(f"```text\n{printed}\n```")
    source = f"Run it: `{path.relative_to(ROOT).as_posix()}` in the sources.\n"
    return "\n\n".join([*parts, source])


# ---- the site ------------------------------------------------------------------------------------


def write(folder: Path) -> None:
    """Write all pages, in place of those that were there."""
    names = public_names()
    if faults := lacks(names):
        raise SystemExit("\n".join(faults))
    shutil.rmtree(folder, ignore_errors=True)
    pages = sources()
    texts = reference(names)
    for source, page in pages.items():
        path, target = ROOT / source, folder / page
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".ipynb":
            text = notebook(path, target.parent)
        elif path.suffix == ".md":
            text = path.read_text(encoding="utf-8")
        else:
            shutil.copyfile(path, target)
            continue
        texts[page] = relink(text, source, pages)
    texts["index.md"] += contents({page.removesuffix(".md") for page in texts})
    for page, text in texts.items():
        (folder / page).parent.mkdir(parents=True, exist_ok=True)
        (folder / page).write_text(text, encoding="utf-8")


def main(arguments: Iterable[str]) -> None:
    """Write the pages to the folder that is named, build/docs if none is."""
    write(Path(next(iter(arguments), ROOT / "build" / "docs")))


if __name__ == "__main__":
    main(sys.argv[1:])
