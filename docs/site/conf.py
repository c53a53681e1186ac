"""Settings of Sphinx for the site of `make docs`, whose pages scripts/make_site.py writes."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts"))
import make_site

# The reference calls modules as scripts do: gp, gp.losses.
for home in make_site.homes():
    sys.modules[home.__name__.replace("gradprune", "gp", 1)] = home

project = "gradprune"
author = "the gradprune authors"
release = version = make_site.gp.__version__
html_title = f"gradprune {release}"
html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_copyright = False
html_show_sourcelink = False
html_copy_source = False

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_heading_anchors = 4
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
python_maximum_signature_line_length = 80
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_custom_sections = [("Attributes", "params_style")]  # several names in one row
smartquotes_action = "D"  # dashes alone: "mse" is a word of the code


def escape(line: str) -> str:
    """A line of a docstring, which is plain text with ``code``, as Sphinx's markup."""
    head = re.match(r" +[\w, *]+:(?= |$)|", line)
    start = head.end() if head else 0
    parts = re.split(r"(``.*?``|`[^`]*`_*)", line[start:])
    parts[::2] = [re.sub(r"([|*])|(?<=\w)_(?!\w)", r"\\\g<0>", part) for part in parts[::2]]
    return line[:start] + "".join(parts)


def plain_text(_app: Any, _what: str, _name: str, _value: Any, _opt: Any, lines: list[str]) -> None:
    """Escape what Sphinx would take for its markup, such as the bars of |w|."""
    in_example = in_code = False
    for i, line in enumerate(lines):
        in_example = line.lstrip().startswith(">>>") or (in_example and bool(line.strip()))
        if in_code and line.strip() and not line.startswith("    "):
            in_code = False
        if not in_example and not in_code:
            lines[i] = escape(line)
        in_code |= line.endswith("::")


def setup(app: Any) -> None:
    """Come before Sphinx reads the sections of a docstring."""
    app.connect("autodoc-process-docstring", plain_text, priority=400)
