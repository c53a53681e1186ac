"""Build of the C extension: what pyproject.toml cannot say.

setuptools has no flags per source file, but csrc/kernels/table.c is compiled once per
instruction set, each time with other flags into an object of its own (csrc/flags.txt).

Environment, for development:
    GRADPRUNE_SANITIZE=address,undefined   sanitizers (the interpreter needs LD_PRELOAD)
    GRADPRUNE_COVERAGE=1                   gcov
    GRADPRUNE_WERROR=1                     warnings are errors
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from glob import glob
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, PlatformError
from setuptools.modified import newer_group

KERNELS = "csrc/kernels/table.c"
FLAGS = "csrc/flags.txt"
# Tables whose rows are the files of a folder of csrc, by the macro that lists them.
LISTS = {
    "GP_CLIPPER_LIST": "clippers",
    "GP_LAYER_LIST": "layers",
    "GP_LOSS_LIST": "losses",
}

# A global flag of this kind reaches files that run on every machine (and, through inline
# functions, objects of other instruction sets) or breaks what the core says about NaN.
REFUSED_MACROS = {
    "__AVX__": "AVX outside of the kernels: the library would crash on machines without it",
    "__FMA__": "FMA outside of the kernels: the library would crash on machines without it",
    "__FAST_MATH__": "-ffast-math: NaN and infinity would go unnoticed",
}


def read_flags(macros: set[str]) -> dict[str, list[str]]:
    """The lines of csrc/flags.txt that hold for a compiler which defines these macros."""
    flags = {}
    for line in Path(FLAGS).read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            name, condition, *words = line.split()
            if condition == "-" or condition in macros:
                flags[name] = words
    return flags


def gathered(folder: str) -> str:
    """X(name) for each source of a folder of csrc: what the table of its rows is made from."""
    return " ".join(f"X({path.stem})" for path in sorted(Path("csrc", folder).glob("*.c")))


def compiler_macros(command: list[str]) -> set[str]:
    """Names of the macros predefined by a compiler with all its flags."""
    probe = [*command, "-dM", "-E", "-x", "c", os.devnull]
    try:
        result = subprocess.run(probe, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        detail = getattr(error, "stderr", "") or error
        raise PlatformError(
            f"gradprune needs gcc or clang (C11 and vector extensions); {command[0]!r} does not "
            f"work: {detail}"
        ) from error
    return {line.split()[1].partition("(")[0] for line in result.stdout.splitlines()}


class BuildExtension(build_ext):
    """build_ext with one object of the kernel source per instruction set."""

    def build_extension(self, ext: Extension) -> None:
        """Compile the kernels, then the rest around them."""
        import numpy as np  # only here: metadata and the sdist can do without

        command = getattr(self.compiler, "compiler_so", None)
        if not command:
            raise PlatformError("gradprune needs gcc or clang; MSVC lacks the vector extensions")
        macros = compiler_macros(command)
        for macro, reason in REFUSED_MACROS.items():
            if macro in macros:
                raise CompileError(
                    f"{' '.join(command)!r} turns on {reason}. Every instruction set is built "
                    "anyway and chosen at run time; take the flag out of CFLAGS and CC, or undo "
                    "it, e.g. CFLAGS='-march=x86-64 -fno-fast-math'"
                )

        flags = read_flags(macros)
        names = [name for name in flags if name.isupper()]
        # As system headers they are exempt from our warnings.
        headers = [np.get_include(), *self.include_dirs]
        extra: list[str] = []
        link: list[str] = []
        if os.environ.get("GRADPRUNE_WERROR"):
            extra += ["-Werror"]
        if sanitizers := os.environ.get("GRADPRUNE_SANITIZE"):
            link += [f"-fsanitize={sanitizers}"]
            extra += ["-O1", "-g", "-fno-omit-frame-pointer", *link]
        if os.environ.get("GRADPRUNE_COVERAGE"):
            link += ["--coverage"]
            extra += ["-O0", "-g", "--coverage"]
        for header in headers:
            extra += ["-isystem", header]

        kernel_macros = [(f"GP_HAVE_{name}", "1") for name in names]
        lists = [(macro, gathered(folder)) for macro, folder in LISTS.items()]
        ext.define_macros = [*kernel_macros, *lists]
        ext.extra_compile_args = [*flags["core"], *extra]
        ext.extra_link_args = [*link, *flags["link"]]
        ext.depends = [*ext.depends, self.note_command(command, ext)]

        target = self.get_ext_fullpath(ext.name)
        if not self.force and not newer_group([*ext.sources, *ext.depends], target, "newer"):
            return
        ext.extra_objects = []
        for name in names:
            ext.extra_objects += self.compiler.compile(
                [KERNELS],
                output_dir=os.path.join(self.build_temp, name.lower()),
                macros=[*kernel_macros, (f"GP_ISA_{name}", "1")],
                include_dirs=ext.include_dirs,
                debug=self.debug,
                extra_postargs=[*flags["core"], *flags["kernels"], *flags[name], *extra],
                depends=ext.depends,
            )
        super().build_extension(ext)

    def note_command(self, command: list[str], ext: Extension) -> str:
        """A file that is newer than the extension if the compiler or a flag has changed."""
        note = Path(self.build_temp, "command.txt")
        macros = [f"{name}={value}" for name, value in ext.define_macros]
        text = "\n".join([*command, *macros, *ext.extra_compile_args, *ext.extra_link_args])
        if not note.exists() or note.read_text(encoding="utf-8") != text:
            note.parent.mkdir(parents=True, exist_ok=True)
            note.write_text(text, encoding="utf-8")
        return str(note)


if sys.platform == "darwin":
    # One architecture at a time: a universal build would need two sets of kernels.
    os.environ.setdefault("ARCHFLAGS", f"-arch {platform.machine()}")

setup(
    cmdclass={"build_ext": BuildExtension},
    ext_modules=[
        Extension(
            "gradprune._core",
            sources=sorted(
                path
                for folder in ("", "clippers/", "layers/", "layers/parts/", "losses/", "binding/")
                for path in glob(f"csrc/{folder}*.c")
            ),
            include_dirs=["csrc"],
            depends=[KERNELS, FLAGS, "setup.py", *sorted(glob("csrc/**/*.h", recursive=True))],
        )
    ],
)
