"""The import closure: complete against what really runs, sensitive to its modules alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import ngdiff as ng
from ngdiff.store import code

# of cached numbers and models
MAKERS = ("ngdiff.study.trials", "ngdiff.lm.pair", "ngdiff.theory.theorems")
CHANGE = "\nCHANGED = 1\n"


def modules(home: Path) -> dict[str, Path]:
    """Dotted name -> file of every module below `home`."""
    names = {
        path: (home.name, *path.relative_to(home).with_suffix("").parts)
        for path in home.rglob("*.py")
    }
    return {".".join(parts).removesuffix(".__init__"): path for path, parts in names.items()}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the package's sources."""
    return Path(
        shutil.copytree(
            code.HOME, tmp_path / "ngdiff", ignore=shutil.ignore_patterns("__pycache__")
        )
    )


def forget() -> None:
    """Drop what was read of the files: a process reads each once."""
    for remembered in (code._source, code._files, code._digest, code._lazy):
        remembered.cache_clear()


@pytest.mark.parametrize("maker", MAKERS)
def test_a_changed_module_changes_the_hash_if_and_only_if_it_is_in_the_closure(
    copy: Path, maker: str
) -> None:
    inside, before, every = (
        set(code.closure(maker, copy)),
        code.fingerprint(maker, copy),
        modules(copy),
    )
    assert inside < set(every) and maker in inside
    for name, file in every.items():
        text = file.read_text("utf-8")
        file.write_text(text + CHANGE, "utf-8")
        forget()
        assert (code.fingerprint(maker, copy) != before) == (name in inside), name
        file.write_text(text, "utf-8")
    forget()
    assert code.fingerprint(maker, copy) == before


def test_wording_and_layout_change_nothing_and_a_sign_does(copy: Path) -> None:
    file, before = copy / "core" / "directions.py", code.fingerprint("ngdiff.study.trials", copy)
    text = file.read_text("utf-8")
    worded = text.replace('"""Direction rules:', '"""Rules of direction:').replace(
        "1.0 / norm", "1.0  / (norm)"
    )
    for changed, same in (
        (worded + "\n# a remark\n", True),
        (text.replace("1.0 / norm", "-1.0 / norm"), False),
    ):
        assert changed != text
        file.write_text(changed, "utf-8")
        forget()
        assert (code.fingerprint("ngdiff.study.trials", copy) == before) == same


def package(home: Path, **files: str) -> Path:
    """A package at `home` with these files; a double underscore in a name is a folder."""
    for name, text in {"__init__": "", **files}.items():
        path = home / (name if name == "__init__" else name.replace("__", "/"))
        path = path.with_name(f"{path.name}.py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
        if not (path.parent / "__init__.py").exists():
            (path.parent / "__init__.py").write_text("", "utf-8")
    return home


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("import pkg.b", {"pkg", "pkg.b"}),
        ("def f():\n    from pkg import b", {"pkg", "pkg.b"}),  # inside a function
        # read off the package
        ("def f():\n    import pkg as p\n    return p.b.x", {"pkg", "pkg.b"}),
        ("import pkg as p\nX = p.sub.c.y", {"pkg", "pkg.sub", "pkg.sub.c", "pkg.b"}),
        ("from pkg import Late", {"pkg", "pkg.b"}),  # a name that the package loads on first use
        ("import pkg as p\nX = p.Late()", {"pkg", "pkg.b"}),
        ("from . import b", {"pkg", "pkg.b"}),
        ("from .sub.c import y", {"pkg", "pkg.sub", "pkg.sub.c", "pkg.b"}),
        ("from .sub import c as d", {"pkg", "pkg.sub", "pkg.sub.c", "pkg.b"}),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from pkg import b", set()),
        ("import json, os.path", set()),
        ("from importlib import import_module\nX = import_module('json')", set()),
    ],
)
def test_what_counts_as_an_import(tmp_path: Path, text: str, found: set[str]) -> None:
    init = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from pkg.b import Late\n"
    home = package(
        tmp_path / "pkg", a=text, b="class Late: pass\nx = 1", sub__c="from ..b import x\ny = x"
    )
    (home / "__init__.py").write_text(init)
    forget()
    assert set(code.closure("pkg.a", home)) == found | {"pkg.a"}


def test_a_computed_import_cannot_be_followed_and_is_refused(tmp_path: Path) -> None:
    home = package(
        tmp_path / "pkg",
        a="import importlib\ndef f(n):\n    return importlib.import_module(n)",
        b="from pkg import a",
    )
    for name in ("pkg.a", "pkg.b"):
        with pytest.raises(ValueError, match=r"pkg\.a imports a module by a computed name"):
            code.closure(name, home)
    with pytest.raises(ValueError, match="is no module of"):
        code.closure("pkg.c", home)


def test_no_module_of_the_package_hides_an_import() -> None:
    for name in modules(code.HOME):
        assert name in code.closure(name)


def test_a_notebook_depends_on_what_it_uses_of_the_package() -> None:
    used, unused = "import ngdiff as ng\nstep = ng.NGDiff()", "import ngdiff as ng\nprint(ng)"
    assert code.fingerprint_of(used) != code.fingerprint_of(unused)
    assert code.fingerprint_of(used) == code.fingerprint_of("from ngdiff import NGDiff")


FORK = """
import os, sys
import nltk, scipy.stats, sklearn.metrics, torch, transformers.models.llama.modeling_llama
assert "ngdiff" not in sys.modules
for line in sys.stdin:
    if not os.fork():
        sys.argv[1:] = line.split()
        exec(os.environ["TRIAL"])
        sys.stdout.flush()
        os._exit(0)
    if os.wait()[1]:
        sys.exit("the trial failed")
"""
TRIAL = """
import json, sys
from dataclasses import replace
from ngdiff.store import code
from ngdiff import profiles
from ngdiff.lm import pair
from ngdiff.study import trials
from ngdiff.profiles import TinyLM, Training

pair._train_at_once = lambda *_: None  # but one after the other, without two more processes
tiny = profiles.profile("tiny")
shape = TinyLM(hidden=32, layers=1, heads=2, intermediate=64, vocab=512, context=128)
training = Training(epochs=16, pretrain_epochs=5, lr=1.5e-2, batch_size=16, replay=0.5)
micro = replace(
    tiny, name="micro", authors=4, questions=6, lm=shape, training=training, steps=5,
    batch_size=4, max_new_tokens=8,
)
profiles._PROFILES = (*profiles._PROFILES, micro)
kinds = {"data": "", "profile": "micro", "rule": "fixed", "lr": 3e-3}
row = trials.run(trials.Trial("graddiff-0.5", "constant", **kinds), refresh=len(sys.argv) > 1)
loaded = sorted(name for name in sys.modules if name.partition(".")[0] == "ngdiff")
closure = code.closure("ngdiff.study.trials")
print(json.dumps({"loss_forget": row["loss_forget"], "loaded": loaded, "closure": closure}))
"""


@pytest.fixture
def trial(copy: Path, tmp_path: Path) -> Iterator[Callable[..., dict]]:
    """What a process that has not yet imported the copy of the package gets for one small trial:
    forked from one that has imported torch and others, which takes the longest.
    """
    env = os.environ | {
        "PYTHONPATH": str(copy.parent),
        "NGDIFF_CACHE": str(tmp_path / "cache"),
        "OMP_NUM_THREADS": "1",
        "TRIAL": TRIAL,
    }
    command, pipe = [sys.executable, "-c", FORK], subprocess.PIPE
    with (
        (tmp_path / "log").open("w") as log,
        subprocess.Popen(
            command, env=env, cwd=copy.parent, stdin=pipe, stdout=pipe, stderr=log, text=True
        ) as process,
    ):
        assert process.stdin and process.stdout
        to, back = process.stdin, process.stdout

        def run(*arguments: str) -> dict:
            print(*arguments, file=to, flush=True)
            line = back.readline()
            assert line, (tmp_path / "log").read_text()
            return json.loads(line)

        yield run
        to.close()


def test_a_turned_sign_is_never_served_from_the_cache_nor_its_number_afterwards(
    copy: Path, trial: Callable[..., dict]
) -> None:
    """One sign turned in the step: another number at once.

    The file restored: the first number again.
    """
    file = next(path for path in copy.rglob("*.py") if "class Swap" in path.read_text("utf-8"))
    text, sign = file.read_text("utf-8"), "combine_(self.g_R, self.g_F, a, b)"
    assert text.count(sign) == 1
    first = trial()
    assert set(first["loaded"]) <= set(first["closure"])  # what really ran is in the closure
    file.write_text(text.replace(sign, "combine_(self.g_R, self.g_F, a, -b)"), "utf-8")
    broken = [trial()["loss_forget"], trial("refresh")["loss_forget"]]
    assert broken[0] == broken[1] < first["loss_forget"]  # descended, not ascended
    file.write_text(text, "utf-8")
    assert trial()["loss_forget"] == first["loss_forget"]


@pytest.mark.parametrize("name", ng.__all__)
def test_every_public_name_leads_to_the_module_that_defines_it(name: str) -> None:
    value = getattr(ng, name)
    home = value.__name__ if isinstance(value, types.ModuleType) else value.__module__
    assert home in code.closure_of(f"import ngdiff as ng\nng.{name}")


@pytest.mark.parametrize("name", ["NGDiff", "method"])
def test_a_name_that_a_package_hands_on_leads_to_its_module(name: str) -> None:
    assert "ngdiff.methods.recipes" in code.closure_of(f"import ngdiff as ng\nng.methods.{name}")
