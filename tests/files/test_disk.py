"""Writing files: the old one or the new one, its mode, and nothing left behind."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradprune as gp
from gradprune.foundation.disk import append, read, write_atomically
from gradprune.sweeps.journal import Journal
from processes import PLACES, Forks

KILLS = int(os.environ.get("GRADPRUNE_KILLS", "3"))


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


# ---- what a file keeps ---------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644, 0o666])
def test_a_file_keeps_its_mode(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"old")
    file.chmod(mode)
    write_atomically(file, b"new")
    assert file.read_bytes() == b"new"
    assert stat.S_IMODE(file.stat().st_mode) == mode
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_a_new_file_gets_the_mode_of_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_atomically(tmp_path / "file", b"new")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666 & ~umask


def test_a_file_of_another_owner_keeps_its_owner(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may give files away")
    file = tmp_path / "file"
    file.write_bytes(b"old")
    file.chmod(0o640)
    os.chown(file, 12345, 23456)
    write_atomically(file, b"new")
    found = file.stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (12345, 23456, 0o640)


def test_where_the_owner_cannot_be_kept_its_group_gains_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"old")
    file.chmod(0o6664)

    def refuse(descriptor: int, owner: int, group: int) -> None:
        raise PermissionError(errno.EPERM, "not yours")

    monkeypatch.setattr(os, "fchown", refuse)
    write_atomically(file, b"new")
    assert stat.S_IMODE(file.stat().st_mode) == 0o644  # the new group may do what all may


def test_a_read_only_file_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"old")
    file.chmod(0o444)
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write to any file
    with pytest.raises(PermissionError, match=r"file'$"):
        write_atomically(file, b"new")
    assert file.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("name", ["ä" * 120, "x" * 255, "\udcff\udcfe", "a b\n*[c]"])
def test_every_name_that_a_file_may_have(tmp_path: Path, name: str) -> None:
    write_atomically(tmp_path / name, b"1")
    write_atomically(tmp_path / name, b"2")
    assert (tmp_path / name).read_bytes() == b"2"
    assert names(tmp_path) == [name]


# ---- what is not a regular file ------------------------------------------------------------------


def test_a_full_device_says_so_and_stays() -> None:
    if not Path("/dev/full").is_char_device():
        pytest.skip("no such device here")
    model = gp.Model([gp.Dense(2)], input_shape=2)
    for write in (model.save, gp.compress(model).save, lambda path: write_atomically(path, b"x")):
        with pytest.raises(OSError, match="/dev/full") as caught:
            write("/dev/full")
        assert caught.value.errno == errno.ENOSPC
    with pytest.raises(OSError, match="/dev/full"):
        append("/dev/full", b"x")
    with pytest.raises(OSError, match="/dev/full"):
        Journal("/dev/full", {"a": 1})
    with pytest.raises(OSError, match="/dev/full"):
        model.fit(
            np.ones((4, 2)),
            [0, 1, 0, 1],
            optimizer=gp.SGD(model, lr=0.1),
            callbacks=[gp.callbacks.CSVLogger("/dev/full")],
            verbose=0,
        )
    assert Path("/dev/full").is_char_device()


def test_a_device_cannot_be_replaced_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even by code that takes it for a regular file: see devices.py."""
    temporary = "/dev/.null.0123456789abcdef.tmp"
    for event, *arguments in (
        ("os.rename", "/tmp/new", "/dev/null", -1, -1),
        ("os.rename", "/dev/null", "/tmp/new", -1, -1),
        ("os.remove", "/dev/null", -1),
        ("os.chmod", "/dev/null", 0o600, -1),
        ("os.chown", b"/dev/null", 1, 1, -1),
        ("open", temporary, None, os.O_RDWR | os.O_CREAT),
    ):
        with pytest.raises(RuntimeError, match="a test would change /dev/"):
            sys.audit(event, *arguments)
    monkeypatch.setattr(stat, "S_ISREG", lambda mode: True)
    with pytest.raises(RuntimeError, match="a test would change /dev/"):
        write_atomically("/dev/null", b"x")
    assert Path("/dev/null").is_char_device()


def test_a_device_that_takes_everything() -> None:
    write_atomically("/dev/null", b"x")
    assert Path("/dev/null").is_char_device()


@pytest.mark.parametrize("call", [read, gp.load])
def test_a_device_without_an_end_is_not_read(call: Any) -> None:
    with pytest.raises(OSError, match=r"Not a regular file or a pipe: '/dev/zero'"):
        call("/dev/zero")


def test_a_pipe_gets_the_bytes(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    model = gp.Model([gp.Dense(100)], input_shape=300)  # more than a pipe holds at once
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append(pipe.read_bytes()))
    reader.start()
    model.save(pipe)
    reader.join()
    model.save(tmp_path / "file")
    assert received == [(tmp_path / "file").read_bytes()]
    writer = threading.Thread(target=lambda: pipe.write_bytes(received[0]))
    writer.start()
    loaded = gp.load(pipe)
    writer.join()
    assert loaded.predict(np.ones((1, 300))).tobytes() == model.predict(np.ones((1, 300))).tobytes()
    assert names(tmp_path) == ["file", "pipe"]
    assert pipe.is_fifo()


@pytest.mark.parametrize("to_file", [False, True])
def test_the_standard_output_gets_the_bytes(tmp_path: Path, *, to_file: bool) -> None:
    program = (
        "import devices; devices.protect()\n"
        "from gradprune.foundation.disk import write_atomically as w\n"
        "w('/dev/stdout', b'one\\n'); w('/dev/stdout', b'two\\n')"
    )
    out = tmp_path / "out"
    with out.open("wb") as file:
        done = subprocess.run(
            [sys.executable, "-c", program],
            stdout=file if to_file else subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": PLACES},
            check=True,
        )
    assert (out.read_bytes() if to_file else done.stdout) == b"one\ntwo\n"
    assert names(tmp_path) == ["out"]


def test_folders_and_missing_folders(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError, match=r"folder'$"):
        write_atomically(tmp_path / "folder", b"x")
    with pytest.raises(FileNotFoundError, match=r"none/file'$"):
        write_atomically(tmp_path / "none" / "file", b"x")
    with pytest.raises(FileNotFoundError, match=r"none/file'$"):
        append(tmp_path / "none" / "file", b"x")
    assert names(tmp_path) == ["folder"]


# ---- failures ------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["fsync", "replace", "fchmod"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "disk full"), KeyboardInterrupt()])
def test_a_failure_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, error: BaseException
) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"old")

    def fail(*args: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(type(error)):
            write_atomically(file, b"new")
    assert names(tmp_path) == ["file"]
    assert file.read_bytes() == b"old"


def test_the_bytes_are_on_the_disk_before_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """File, name, folder, in this order, so that a power cut leaves the old or the new file."""
    done: list[tuple[str, Any]] = []
    sync, replace = os.fsync, os.replace

    def logged_sync(descriptor: int) -> None:
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        done.append(("fsync", "folder" if is_folder else os.fstat(descriptor).st_size))
        sync(descriptor)

    def logged_replace(source: Any, target: Any) -> None:
        done.append(("replace", Path(target).name))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", logged_sync)
    monkeypatch.setattr(os, "replace", logged_replace)
    write_atomically(tmp_path / "file", b"12345")
    assert done == [("fsync", 5), ("replace", "file"), ("fsync", "folder")]
    append(tmp_path / "file", b"678", sync=True)
    append(tmp_path / "file", b"9")
    assert done[3:] == [("fsync", 8)]


def test_what_does_not_fit_is_an_error(tmp_path: Path) -> None:
    """A full disk takes a part of a row and then nothing: the rest must not vanish silently."""
    program = (
        "import resource, signal, sys\n"
        "from gradprune.foundation.disk import append\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))\n"
        "append(sys.argv[1], b'12345678')\n"
        "append(sys.argv[1], b'abcdefgh')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "file")],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": PLACES},
        check=False,
    )
    assert done.returncode == 1
    assert "File too large" in done.stderr
    assert str(tmp_path / "file") in done.stderr


# ---- what killed processes leave -----------------------------------------------------------------

KILLED = """
import fcntl, os, signal
from gradprune.foundation.disk import write_atomically
def die(*args):
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def writers() -> Iterator[Forks]:
    with Forks(KILLED) as process:
        yield process


@pytest.mark.parametrize("call", ["fcntl.flock", "os.fstat", "os.fchmod", "os.fsync", "os.replace"])
def test_a_killed_writer_leaves_one_temporary_for_the_next(
    tmp_path: Path, call: str, writers: Forks
) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"old")
    others = [
        "other",
        ".file.01234567.tmp",
        ".file.0123456789abcdef.tmp.gz",
        ".g.0123456789abcdef.tmp",
    ]
    for name in others:
        (tmp_path / name).touch()
    for _ in range(2):
        killed, _ = writers.run(f"{call} = die\nwrite_atomically({str(file)!r}, b'new')")
        assert killed == -signal.SIGKILL
        assert file.read_bytes() == b"old"
        left = set(names(tmp_path)) - {"file", *others}
        assert len(left) == 1  # the first one was removed by the second writer
    write_atomically(file, b"new")
    assert file.read_bytes() == b"new"
    assert names(tmp_path) == sorted(["file", *others])


def test_a_living_writer_keeps_its_temporary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second writer of the file comes and goes while the first is at its last step."""
    file = tmp_path / "file"
    sync = os.fsync
    inside: list[list[str]] = []

    def write_another(descriptor: int) -> None:
        sync(descriptor)
        if not inside:
            inside.append(names(tmp_path))
            write_atomically(file, b"second")
            inside.append(names(tmp_path))

    monkeypatch.setattr(os, "fsync", write_another)
    write_atomically(file, b"first")
    assert len(inside[0]) == 1  # its temporary
    assert inside[1] == [*inside[0], "file"]
    assert file.read_bytes() == b"first"
    assert names(tmp_path) == ["file"]


def test_a_link_is_no_temporary(tmp_path: Path) -> None:
    link = tmp_path / ".file.0123456789abcdef.tmp"
    link.symlink_to(tmp_path / "other")
    (tmp_path / "other").touch()
    write_atomically(tmp_path / "file", b"new")
    assert names(tmp_path) == [link.name, "file", "other"]


def test_a_temporary_taken_before_it_was_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = fcntl.flock
    taken: list[str] = []

    def late(descriptor: int, how: int) -> None:
        if not taken:
            taken.extend(names(tmp_path))
            (tmp_path / taken[0]).unlink()
        lock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", late)
    write_atomically(tmp_path / "file", b"new")
    assert len(taken) == 1
    assert names(tmp_path) == ["file"]
    assert (tmp_path / "file").read_bytes() == b"new"


def test_without_locks_nothing_is_taken_for_abandoned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(fcntl, "flock", refuse)
    other = tmp_path / ".file.0123456789abcdef.tmp"
    other.touch()
    write_atomically(tmp_path / "file", b"new")
    assert names(tmp_path) == [other.name, "file"]


SAVING = """
import sys
import gradprune as gp
model = gp.load(sys.argv[1])
packed = gp.compress(model)
print(flush=True)
while True:
    model.epoch += 1
    model.save(sys.argv[1])
    packed.save(sys.argv[2])
"""


@pytest.mark.timeout(60 + 20 * KILLS)
def test_kills_at_any_time(tmp_path: Path) -> None:
    """The files always load, one temporary is left of each at most, the next save removes it.

    GRADPRUNE_KILLS sets how many.
    """
    draw = random.Random(0)
    file, packed = tmp_path / "model", tmp_path / "packed"
    model = gp.Model([gp.Dense(64), gp.Dense(10)], input_shape=64, seed=0)
    model.save(file)
    gp.compress(model).save(packed)
    epoch = 0
    for _ in range(KILLS):
        writer = subprocess.Popen(
            [sys.executable, "-c", SAVING, str(file), str(packed)],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": PLACES, "OMP_NUM_THREADS": "1"},
        )
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(draw.uniform(0, 0.05))
        writer.kill()
        writer.communicate()
        left = set(names(tmp_path)) - {"model", "packed"}
        assert sorted(name.split(".")[1] for name in left) in (
            [],
            ["model"],
            ["packed"],
            ["model", "packed"],
        )
        loaded = gp.load(file)
        assert isinstance(loaded, gp.Model)
        assert loaded.epoch >= epoch
        epoch = loaded.epoch
        gp.load(packed)
    model.save(file)
    gp.compress(model).save(packed)
    assert names(tmp_path) == ["model", "packed"]
