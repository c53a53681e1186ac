"""Files on a disk: everything that the package writes goes through this module.

``write_atomically`` replaces a regular file as a whole or not at all. The bytes go to a temporary
file in the same folder, ``.<name>.<random>.tmp``, to the disk, and then the temporary gets the
file's name. The writer holds a lock (flock) on its temporary, which the system releases when the
process ends, however it ends. So a temporary that nobody holds was left by a process that died, and
the next writer of the same file removes it; one that is being written is never touched. A process
number in the name would not tell that: numbers are used again, and differ between containers.

What is not a regular file (a device, a pipe, a socket) cannot be replaced without losing what it
is, and is written to directly.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
import stat
from pathlib import Path

__all__ = ["append", "check_folder", "check_path", "check_writable", "read", "write_atomically"]

_LONGEST = 200  # bytes of the file's name in the temporary's, which must not exceed 255
# Names of files that are open already, by which one may be written to but not replaced.
_OPEN_FILES = ("/dev/fd/", "/dev/stdout", "/dev/stderr", "/proc/")


def check_path(path: object) -> None:
    """Raise a TypeError unless it is the path of a file: text, or what has one such as pathlib's.

    >>> check_path("m.safetensors")
    """
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"path must be a str or an os.PathLike, got {type(path).__name__}")


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file so that there is the old one or the new one, never a part of either.

    A file that exists keeps its mode and, where the system lets us, its owner; a new one gets the
    mode of the user's umask. Whatever happens before the last moment leaves the old file alone and
    no temporary behind; the next call removes a temporary that a killed process left. If the path
    is a symbolic link, the file it points to is written. A device, a pipe or a socket gets the
    bytes directly.

    Raises:
        OSError: the file cannot be written.
    """
    check_path(path)
    try:
        found = _stat(path)
        if found is not None and (
            not stat.S_ISREG(found.st_mode) or os.path.abspath(path).startswith(_OPEN_FILES)
        ):
            append(path, data)
        else:
            _replace(Path(os.path.realpath(path)), data, found)
    except OSError as error:  # with the name that the caller knows
        raise _named(error, path) from error


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raise the OSError that writing the file would raise, before the work that fills it.

    >>> check_writable("new.txt")
    """
    check_path(path)
    if os.path.isdir(path):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if os.path.exists(path) and not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(path))
    if not os.path.exists(path) or os.path.isfile(path):  # a file is made beside it
        check_folder(Path(os.path.realpath(path)).parent)


def check_folder(folder: str | os.PathLike[str]) -> None:
    """Raise the OSError that writing a file into the folder would raise.

    >>> check_folder(".")
    """
    code = 0
    if not os.path.exists(folder):
        code = errno.ENOENT
    elif not os.path.isdir(folder):
        code = errno.ENOTDIR
    elif not os.access(folder, os.W_OK | os.X_OK):
        code = errno.EACCES
    if code:
        raise OSError(code, os.strerror(code), os.fspath(folder))  # of the class that fits the code


def read(path: str | os.PathLike[str]) -> bytes:
    """Read all bytes of a regular file or a pipe; a device may have no end.

    Raises:
        OSError: it cannot be read, or is something else.
    """
    check_path(path)
    with open(path, "rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode)):
            raise OSError(errno.EINVAL, "Not a regular file or a pipe", os.fspath(path))
        return file.read()


def append(path: str | os.PathLike[str], data: bytes, *, sync: bool = False) -> None:
    """Add bytes to the end of a file, which is made if it is not there.

    The bytes are one write to a regular file, so that those of two writers do not mix.

    Args:
        path: the file, device or pipe.
        data: the bytes.
        sync: have them on the disk before this returns.

    Raises:
        OSError: they could not be written, or a part of them only.
    """
    try:
        with open(path, "ab", buffering=0) as file:
            rest = memoryview(data)
            while rest:  # a pipe may take less at once; a full disk takes less, then none
                written = file.write(rest)
                if written is None:  # a pipe that does not wait
                    raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
                rest = rest[written:]
            if sync:
                os.fsync(file.fileno())
    except OSError as error:
        raise _named(error, path) from error


def _named(error: OSError, path: str | os.PathLike[str]) -> OSError:
    return OSError(error.errno, error.strerror, os.fspath(path))


def _stat(path: str | os.PathLike[str]) -> os.stat_result | None:
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None


def _replace(target: Path, data: bytes, found: os.stat_result | None) -> None:
    """Put a new file in the place of a regular one, or of none."""
    if found is not None and not os.access(target, os.W_OK):  # as opening it would say
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    _remove_abandoned(target)
    temporary, descriptor = _make_temporary(target, 0o666 if found is None else 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            if found is not None:
                _keep_owner_and_mode(descriptor, found)
            os.fsync(descriptor)
            temporary.replace(target)  # while the lock is held, or it could be taken for abandoned
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    with contextlib.suppress(OSError):  # not every file system does this for a folder
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _make_temporary(target: Path, mode: int) -> tuple[Path, int]:
    """A new, empty file beside the target that this process holds the lock of, and its number."""
    while True:
        temporary = target.with_name(f".{_stem(target)}.{secrets.token_hex(8)}.tmp")
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)
        with contextlib.suppress(OSError):  # no locks here: then nobody can take it for abandoned
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return temporary, descriptor
        os.close(descriptor)  # another writer took it for abandoned before it was locked


def _remove_abandoned(target: Path) -> None:
    """Remove temporaries of the target that no process holds."""
    pattern = re.compile(rf"\.{re.escape(_stem(target))}\.[0-9a-f]{{16}}\.tmp")
    with os.scandir(target.parent) as entries:
        names = [entry.name for entry in entries if pattern.fullmatch(entry.name)]
    for name in names:
        with contextlib.suppress(OSError):  # another one is faster, it is held, or is not ours
            descriptor = os.open(target.with_name(name), os.O_RDWR | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                target.with_name(name).unlink()
            finally:
                os.close(descriptor)


def _stem(target: Path) -> str:
    return os.fsencode(target.name)[:_LONGEST].decode("utf-8", "ignore")


def _keep_owner_and_mode(descriptor: int, found: os.stat_result) -> None:
    """Give a file the owner, group and mode of the one that it replaces, as far as we may."""
    mode = stat.S_IMODE(found.st_mode)
    try:
        os.fchown(descriptor, found.st_uid, found.st_gid)
    except OSError:
        try:
            os.fchown(descriptor, -1, found.st_gid)
        except OSError:  # what the old group was allowed is not for ours, except what all may do
            mode = mode & ~0o070 | (mode & 0o007) << 3
        mode &= ~(stat.S_ISUID | stat.S_ISGID)
    os.fchmod(descriptor, mode)
