"""Atomic files and the verified cache: nothing half-written is ever taken for whole.

A file appears whole or not at all (`atomic_write`: temporary sibling, fsync, rename), so a kill at
any moment leaves nothing that is later mistaken for a result. A cache entry is found by the content
of everything it depends on (`ngdiff.store.content.content_key`). It is verified by sha256 each time
it is used (`cached`). A damaged one is moved aside, neither trusted nor deleted. The name of a file
written so is also reported to the process that set NGDIFF_WRITTEN.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from ngdiff.store import document, paths
from ngdiff.store.content import changed, sha256
from ngdiff.store.disk import room

log = logging.getLogger("ngdiff")

MANIFEST = "manifest.json"
CACHE = "set the environment variable NGDIFF_CACHE to a folder you can write"
ELSEWHERE = "choose another output folder"
SPARE = len("." + "." + "0123456789abcdef" * 2 + ".old.tmp")  # what a temporary name has more
REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)


# ----------------------------------------------------------------------------------- atomic writing
def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _place(temporary: Path, final: Path) -> None:
    """Rename a finished file or folder into place, durably, and report it (`_tell`)."""
    os.replace(temporary, final)
    _sync(final.parent)
    _tell(_files(final) if final.is_dir() else [final])


def _tell(files: list[Path]) -> None:
    """Append the paths, a line each, to the file that NGDIFF_WRITTEN names, if it is set."""
    if listed := os.environ.get("NGDIFF_WRITTEN"):
        lines = b"".join(os.fsencode(file.resolve()) + b"\n" for file in files)
        # one write without a buffer: lines of processes that share the file do not mix
        with open(listed, "ab", buffering=0) as handle:
            handle.write(lines)


def probe_writable(folder: Path, advice: str = ELSEWHERE) -> None:
    """Make `folder` and try a file in it, before any work starts. advice: what to do without it.

    Raises PermissionError saying what to do where the folder, or a parent of it, cannot be written,
    and FullDiskError where there is no room.
    """
    folder = Path(folder)
    trial = folder / f".probe-{uuid.uuid4().hex}.tmp"
    try:
        with room(folder):
            folder.mkdir(parents=True, exist_ok=True)
            trial.touch(exist_ok=False)
            trial.unlink()
    except OSError as error:
        if error.errno not in REFUSED:
            raise
        raise PermissionError(f"cannot write to {folder} ({error.strerror}): {advice}") from error


def probe_name(path: Path, spare: int = SPARE) -> None:
    """Make sure that a name is short enough for its system, and for temporary names made of it.

    spare: bytes that those have more. Raises OSError with the number of bytes that there may be.
    """
    folder = path.parent
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    most, size = os.pathconf(folder, "PC_NAME_MAX") - spare, len(os.fsencode(path.name))
    if size > most:
        raise OSError(
            f"the name {path.name[:30]}… has {size} bytes, and it may have {most} here: choose a "
            "shorter one"
        )


def probe_file(path: Path) -> Path:
    """Make sure that a file can be written (`probe_writable`) and return its absolute path.

    Raises IsADirectoryError where a folder is in its place, OSError for a name that is too long.
    """
    path = Path(path).expanduser().absolute()
    probe_name(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: give the name of a file in it")
    probe_writable(path.parent)
    return path


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; what is written there replaces `path` at the end.

    The temporary name is `.NAME.HEX.tmp`, so no glob by suffix finds a leftover of a killed
    process. Writers that choose a format by the suffix need the format (`savefig(...,
    format="pdf")`). On an error the old `path` stays as it was.
    """
    path = probe_file(path)
    temporary = path.parent / f".{path.name}.{uuid.uuid4().hex}.tmp"
    try:
        with room(path):
            yield temporary
            if not temporary.exists():
                raise FileNotFoundError(
                    f"nothing was written for {path}: write to the path that atomic_write gives"
                )
            _sync(temporary)
            _place(temporary, path)
    finally:
        _remove(temporary)


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file())


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give an empty temporary folder, as `atomic_write` gives a path.

    Every file of it is durable before the rename. A folder that stands at `path` is kept until the
    new one is complete, and is replaced by it.
    """
    path, mark = Path(path), uuid.uuid4().hex
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(f"{path} is a file: choose another folder, it is left as it is")
    temporary, old = (path.parent / f".{path.name}.{mark}{end}" for end in (".tmp", ".old.tmp"))
    probe_writable(path.parent)
    temporary.mkdir()
    try:
        with room(path):
            yield temporary
            for file in _files(temporary):
                _sync(file)
            _sync(temporary)
            if path.exists():
                os.replace(path, old)
            _place(temporary, path)
            _remove(old)
    finally:
        _remove(temporary)


# -------------------------------------------------------------------------------------------- cache
def cache_dir() -> Path:
    """The folder of the cache: $NGDIFF_CACHE, else one in the checkout, else ~/.cache/ngdiff.

    The checkout is the one around the working directory; its cache is .cache/ngdiff.
    """
    if chosen := os.environ.get("NGDIFF_CACHE"):
        return Path(chosen).expanduser()
    return (paths.checkout() or Path.home()) / ".cache" / "ngdiff"


@contextlib.contextmanager
def lock(path: Path, what: str) -> Iterator[None]:
    """Hold `path` exclusively among processes and threads.

    By flock: the system frees it when its holder dies.
    """
    with open(path, "a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"another process is making {what}: waiting for it", flush=True)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _fault(entry: Path, key: str) -> str | None:
    """Return what is wrong with a cache entry, in words.

    None where every file is there with the bytes it was saved with.
    """
    try:
        manifest = json.loads((entry / MANIFEST).read_text("utf-8"))
        if manifest["key"] != key:
            return f"it was made for the key {manifest['key']}"
        if (name := changed(entry, manifest["files"])) is not None:
            return f"{name} has changed since it was saved"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def _set_aside(entry: Path) -> Path:
    n = 0
    while (aside := entry.with_name(f"{entry.name}.{n}.damaged")).exists():
        n += 1
    os.replace(entry, aside)
    return aside


def _build(entry: Path, key: str, build: Callable[[Path], None], what: str) -> None:
    """Build an entry under the lock, and clear what killed builds left.

    Files, manifest and rename are each durable before the next.
    """
    for leftover in entry.parent.glob(f".{key}.*.tmp"):
        _remove(leftover)
    with atomic_folder(entry) as temporary:
        build(temporary)
        files = _files(temporary)
        digests = {file.relative_to(temporary).as_posix(): sha256(file) for file in files}
        manifest = {"what": what, "key": key, "files": digests}
        (temporary / MANIFEST).write_text(document.text(manifest), "utf-8")


def found(root: Path, key: str) -> Path | None:
    """The entry root/key if it is there and whole, else None; nothing is built, moved or logged."""
    entry = Path(root) / key
    return entry if entry.is_dir() and _fault(entry, key) is None else None


def cached(
    root: Path, key: str, build: Callable[[Path], None], what: str, refresh: bool = False
) -> Path:
    """The folder root/key, built by `build(folder)` unless a whole one is there.

    `what` names it in messages. `refresh` builds anew in any case; the old entry stays until the
    new one is complete.

    Whole = every file of its manifest has its sha256. A damaged entry is logged, moved aside to
    `*.damaged` and rebuilt. Two processes asking for one key: the second waits and takes what the
    first built. A whole entry in a read-only root is used; PermissionError where one must be built
    there. An error of `build` leaves no entry.
    """
    entry = Path(root) / key
    if not refresh and found(root, key):
        return entry
    probe_writable(entry.parent, CACHE)
    with lock(entry.parent / f".{key}.lock", what):
        if os.path.lexists(entry) and not refresh:
            fault = _fault(entry, key)
            if fault is None:
                return entry
            aside = _set_aside(entry)
            said = "the cached %s is damaged (%s): moved to %s, making it again"
            log.warning(said, what, fault, aside)
        _build(entry, key, build, what)
    return entry
