"""Look at the sdist and the wheel in dist/ as those who install them will; `make release-check`.

What is in them, what their metadata say, whether version and date are the same everywhere, and
whether the sdist installs and works, without extras, on every Python from 3.11 on that is found: on
the PATH, among pyenv's, or in PYTHONS="python3.12 /opt/python/bin/python3.13".

    python scripts/release_check.py
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from email.parser import Parser
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VERSIONS = ("3.11", "3.12", "3.13", "3.14")

# What somebody needs who builds, tests and reads the project without its repository.
IN_SDIST = (
    *("CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md"),
    *("README.zh.md", "SECURITY.md", "pyproject.toml", "setup.py"),
    *("csrc/gradprune.h", "csrc/flags.txt", "csrc/kernels/table.c", "csrc/tests/Makefile"),
    *(
        "docs/limits.md",
        "docs/site/conf.py",
        "docs/guides/pruning.md",
        "notebooks/quickstart.ipynb",
    ),
    *("gradprune/py.typed", "gradprune/_core.pyi", "gradprune/data/digits.npz"),
    *("scripts/make_site.py", "studies/lenet.py", "tests/conftest.py"),
)
IN_WHEEL = ("gradprune/py.typed", "gradprune/_core.pyi", "gradprune/data/digits.npz")
NOWHERE = re.compile(r"\.(pyc|o|d)$|__pycache__|\.git/|/\.venv/|build/|\.ipynb_checkpoints")

# Run in an environment that has the package, what it depends on, and nothing else.
PROGRAM = """
import importlib.util, sys
import gradprune as gp
assert "site-packages" in gp.__file__, gp.__file__
for extra in ("torch", "sklearn", "matplotlib", "onnx", "joblib", "constriction"):
    assert importlib.util.find_spec(extra) is None, extra
(x, y), test = gp.datasets.digits()
model = gp.Model([gp.Dense(32, activation="relu"), gp.Dense(10)], input_shape=64, seed=0)
history = model.fit(x, y, optimizer=gp.Adam(model, clip=gp.ClipNorm(1.0)), epochs=3, verbose=0)
gp.Pruner(model, criterion=gp.Magnitude()).prune(0.5)
model.save("model.safetensors")
again = gp.load("model.safetensors")
assert (again.predict(x) == model.predict(x)).all()
assert (model.freeze().predict(x).argmax(1) == model.predict(x).argmax(1)).mean() > 0.99
try:
    gp.plotting.plot_loss(history)
except ImportError as error:
    assert 'pip install "gradprune[plot]"' in str(error), error
else:
    raise AssertionError("plotting without matplotlib")
print(sys.version.split()[0], gp.__version__, gp.get_num_threads())
"""


def only(pattern: str) -> Path:
    """The one file of dist/ with such a name."""
    found = sorted((ROOT / "dist").glob(pattern))
    if len(found) != 1:
        raise SystemExit(f"dist/ should have one {pattern}, and has {len(found)}")
    return found[0]


def contents(sdist: Path, wheel: Path) -> Iterator[str]:
    """What is missing in the archives, or should not be there."""
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    yield from (f"the sdist has no {name}" for name in IN_SDIST if name not in inside)
    built = {name for name in inside if NOWHERE.search(name) or name.endswith(".so")}
    yield from (f"the sdist has {name}" for name in sorted(built))
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
        text = archive.read(next(name for name in inside if name.endswith("/METADATA"))).decode()
    sources = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "gradprune").rglob("*.py")
        if "__pycache__" not in path.parts
    }
    missing = [name for name in (*IN_WHEEL, *sorted(sources)) if name not in inside]
    yield from (f"the wheel has no {name}" for name in missing)
    if not any(re.match(r"gradprune/_core\..*(so|pyd)$", name) for name in inside):
        yield "the wheel has no extension"
    if not any(name.endswith(".dist-info/licenses/LICENSE") for name in inside):
        yield "the wheel has no licence"
    folders = {name.partition("/")[0] for name in inside}
    yield from (
        f"the wheel has a folder {folder}"
        for folder in sorted(folders)
        if folder != "gradprune" and not folder.endswith(".dist-info")
    )
    metadata = Parser().parsestr(text)
    if metadata["License-Expression"] != "MIT" or metadata["Requires-Python"] != ">=3.11":
        yield "the metadata do not say the licence, or for which Python this is"
    yield from versions(str(metadata["Version"]))


def versions(version: str) -> Iterator[str]:
    """Where the version, or the day of its release, is another one."""
    log = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    released = re.search(r"^## \[(\d[^\]]*)\] - (\d{4}-\d\d-\d\d)$", log, flags=re.MULTILINE)
    cited = dict(
        re.findall(
            r"^([\w-]+): \"?([^\"\n]*)\"?$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE
        )
    )
    header = (ROOT / "csrc" / "gradprune.h").read_text(encoding="utf-8")
    found = {
        "CHANGELOG.md": released[1] if released else None,
        "CITATION.cff": cited.get("version"),
        "csrc/gradprune.h": (re.findall(r'#define GP_VERSION "(.*)"', header) or [None])[0],
    }
    yield from (
        f"{name} is of version {other}, the wheel of {version}"
        for name, other in found.items()
        if other != version
    )
    if released and cited.get("date-released") != released[2]:
        yield "CHANGELOG.md and CITATION.cff do not agree on the day"


def interpreters() -> dict[str, str]:
    """Versions from 3.11 on to a Python of that version that runs."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates = [
        *os.environ.get("PYTHONS", "").split(),
        sys.executable,
        *(path for version in VERSIONS if (path := shutil.which(f"python{version}"))),
        *(str(path) for path in sorted(pyenv.glob("*/bin/python"))),
    ]
    ask = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"
    found: dict[str, str] = {}
    for python in candidates:
        answer = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=False)
        if (version := answer.stdout.strip()) in VERSIONS:
            found.setdefault(version, python)
    return found


def works(python: str, archive: Path) -> str | None:
    """Install an archive into an environment of its own and use it; what went wrong."""
    with tempfile.TemporaryDirectory() as folder:
        bin_folder = Path(folder) / "env" / "bin"
        install = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        for command in (
            [python, "-m", "venv", f"{folder}/env"],
            [str(bin_folder / "python"), *install, str(archive)],
            [str(bin_folder / "python"), "-c", PROGRAM],
            [str(bin_folder / "gradprune"), "--help"],
        ):
            environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
            done = subprocess.run(
                command, cwd=folder, env=environment, capture_output=True, text=True, check=False
            )
            if done.returncode:
                return f"{' '.join(command[:3])} ...\n{done.stdout}{done.stderr}"
    return None


def main() -> int:
    """Print what is wrong; 1 if anything is."""
    sdist, wheel = only("*.tar.gz"), only("*.whl")
    faults = list(contents(sdist, wheel))
    checked = subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", str(sdist), str(wheel)],
        capture_output=True,
        text=True,
        check=False,
    )
    if checked.returncode:
        faults.append(checked.stdout + checked.stderr)
    found = interpreters()
    for version, python in found.items():
        # The wheel is of the Python that made it; for the others the sdist is built.
        archive = wheel if f"-cp{version.replace('.', '')}-" in wheel.name else sdist
        fault = works(python, archive)
        print(f"Python {version}, {archive.name}: {'FAILED' if fault else 'works'}", flush=True)
        faults += [fault] if fault else []
    print(f"not found: Python {', '.join(v for v in VERSIONS if v not in found) or 'none'}")
    print("\n".join(faults), end="\n" if faults else "")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
