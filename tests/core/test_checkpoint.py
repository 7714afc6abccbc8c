"""A run on disk: stop and go on bit for bit, whatever kills it.

What is damaged, foreign or unwritable is refused.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import ngdiff as ng
from ngdiff.core.autolr import AutoLR, ThreePoint
from ngdiff.core.directions import GradDiff, NGDiff
from ngdiff.core.info import ForgetLevel
from ngdiff.core.stepsize import Constant
from ngdiff.methods.problem import LMProblem
from tests.helpers import killed, micro
from tests.helpers.twin import Lion, NetProblem
from tests.methods.test_problem import BENCH

RULES = [AutoLR(lr=1e-3, every=4), ThreePoint(every=4), AutoLR(fresh=0), Constant(0.01)]
OPTIMIZERS = {
    "its own": None,
    "momentum": lambda theta: torch.optim.SGD(theta, lr=0.1, momentum=0.9),
    "adamw": lambda theta: torch.optim.AdamW(theta, lr=0.1, amsgrad=True),
    "lion": Lion,
}


class Interrupted(Exception):
    pass


def interrupt_at(step):
    def progress(info):
        if info.step == step:
            raise Interrupted

    return progress


def problem(name):
    if name == "net":
        return NetProblem(dropout=0.3)
    return ng.quadratics.pair(angle=100, condition=100, dim=5)


def theta(run):
    return list(run.model.parameters()) if isinstance(run.model, torch.nn.Module) else [run.model]


def go(path=None, name="net", rule=RULES[0], steps=12, **kw):
    kw = {"seed": 0, "save_every": 5} | kw
    torch.manual_seed(7)  # dropout of the network
    return ng.unlearn(
        problem(name), kw.pop("method", NGDiff()), rule, steps=steps, checkpoint=path, **kw
    )


def same(one, two):
    assert repr(one.history) == repr(two.history) and one.stopped == two.stopped
    assert all(torch.equal(p, q) for p, q in zip(theta(one), theta(two), strict=True))


@pytest.mark.parametrize("rule", RULES, ids=repr)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", ["net", "toy"])
def test_stop_and_go_on_bit_for_bit(tmp_path, name, optimizer, rule):
    path, kw = (
        tmp_path / "new" / "run.safetensors",
        {"name": name, "rule": rule, "optimizer": OPTIMIZERS[optimizer]},
    )
    with pytest.raises(Interrupted):
        go(path, progress=interrupt_at(7), **kw)
    torch.rand(11)  # the generator has moved on
    seen = []
    resumed = go(path, progress=seen.append, **kw)
    # from the checkpoint after step 4, not from 0
    assert [info.step for info in seen] == list(range(5, 12))
    same(resumed, go(**kw))
    assert [f.name for f in path.parent.iterdir()] == ["run.safetensors"]


@pytest.mark.parametrize(
    "method", [ng.methods.npo, ng.methods.kl, ng.methods.ngdiff_npo], ids=lambda m: m.name
)
@pytest.mark.parametrize("batch_size", [2, 3])
def test_methods_that_look_at_the_start_go_on_bit_for_bit(tmp_path, method, batch_size):
    """What the start model says of a row is stored.

    A resumed run meets the rows in other company.
    """
    path = tmp_path / "run.safetensors"

    def go(**kw):
        problem = LMProblem(BENCH, micro.lm(), batch_size=batch_size)
        return ng.unlearn(problem, method, Constant(1e-3), steps=14, save_every=3, **kw)

    with pytest.raises(Interrupted):
        go(checkpoint=path, progress=interrupt_at(11))
    whole, resumed = go(), go(checkpoint=path)
    assert repr(whole.history) == repr(resumed.history)
    weights = [list(run.model.model.parameters()) for run in (whole, resumed)]
    assert all(torch.equal(p, q) for p, q in zip(*weights, strict=True))


def test_a_second_run_on_the_same_problem_is_the_first_one_again():
    problem = LMProblem(BENCH, micro.lm(), batch_size=2)
    runs = [
        ng.unlearn(problem, ng.methods.npo, Constant(1e-3), steps=6, seed=seed)
        for seed in (0, 1, 0)
    ]
    assert repr(runs[0].history) == repr(runs[2].history) != repr(runs[1].history)


class Normed(torch.nn.Module):
    """A network with running means, which a probe's eval mode reads."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 1)
        )

    def forward(self, x):
        return self.layers(x)


class NormedProblem:
    """Two regressions on rows of the step."""

    options: ClassVar[dict] = {}

    def __init__(self):
        self.model = self.module = Normed()
        self.parameters = list(self.model.parameters())

    def bind(self, method, seed):
        return NormedProblem()

    def batch(self, step):
        x = torch.randn(16, 4, generator=torch.Generator().manual_seed(step))
        return (lambda: (self.model(x) - x[:, :1]).square().mean()), (
            lambda: (self.model(-x) + 1).square().mean()
        )

    def probe(self, step, fresh):
        return None

    def optimizer(self, make=None):
        return torch.optim.AdamW(self.parameters, lr=1e-3)


def test_running_means_are_part_of_a_checkpoint(tmp_path):
    path, rule = tmp_path / "run", AutoLR(lr=1e-3, every=4, fresh=0)
    with pytest.raises(Interrupted):
        ng.unlearn(
            NormedProblem(),
            NGDiff(),
            rule,
            12,
            checkpoint=path,
            save_every=3,
            progress=interrupt_at(7),
        )
    resumed = ng.unlearn(NormedProblem(), NGDiff(), rule, 12, checkpoint=path, save_every=3)
    whole = ng.unlearn(NormedProblem(), NGDiff(), rule, 12)
    assert repr(resumed.history) == repr(whole.history)
    states = [run.model.state_dict() for run in (whole, resumed)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_more_steps_may_be_asked_for_and_fewer_may_not(tmp_path):
    path = tmp_path / "run"
    go(path, steps=10)
    same(go(path, steps=14), go(steps=14))
    same(go(path, steps=10), go(steps=10))
    with pytest.raises(ValueError, match="10 steps into the run already"):
        go(path, steps=9)


def test_a_finished_run_stops_again_where_it_stopped(tmp_path):
    path, stop = tmp_path / "run", ForgetLevel(1.2)
    first = go(path, stop=stop, steps=60, rule=Constant(0.03))
    assert first.stopped == "forget_level" and 5 < len(first.history) < 60
    same(go(path, stop=stop, steps=60, rule=Constant(0.03)), first)


def test_a_killed_run_goes_on_bit_for_bit(tmp_path):
    path = tmp_path / "run.safetensors"
    run = f"from tests.core import test_checkpoint; test_checkpoint.go({str(path)!r})"
    script = killed.script(str(Path(__file__).resolve().parents[2]), run)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    seen = []
    resumed = go(path, progress=seen.append)
    # the checkpoint after step 9 was half written, and is not taken for whole
    assert seen[0].step == 5
    same(resumed, go())


# ------------------------------------------------------------------------------------------- damage
def rewritten(path, change):
    """The checkpoint with its text or tensors changed and everything else kept."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    change(metadata, tensors)
    save_file(tensors, path, metadata)


DAMAGE = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "empty": lambda path: path.write_bytes(b""),
    "another kind of file": lambda path: path.write_text("weights " * 100),
    "one bit of a weight": lambda path: path.write_bytes(
        path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1])
    ),
    "one number of the history": lambda path: rewritten(
        path, lambda m, t: m.update(run=m["run"].replace('"count", 10', '"count", 11'))
    ),
    "a missing tensor": lambda path: rewritten(path, lambda m, t: t.popitem()),
    "safetensors of somebody else": lambda path: save_file({"w": torch.ones(3)}, path),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_checkpoint_is_refused_and_kept(tmp_path, how):
    path, seen = tmp_path / "run.safetensors", []
    go(path, steps=10)
    whole = path.read_bytes()
    DAMAGE[how](path)
    left = path.read_bytes() if path.is_file() else None
    assert left != whole
    with pytest.raises(ValueError, match=r"run\.safetensors is damaged .*move it away"):
        go(path, progress=seen.append)
    assert not seen and (path.read_bytes() if path.is_file() else None) == left


FOREIGN = {
    "method": {"method": GradDiff()},
    "step size": {"rule": Constant(0.01)},
    "seed": {"seed": 1},
    "stop": {"stop": ForgetLevel(3.0)},
    "optimizer": {"optimizer": OPTIMIZERS["momentum"]},
    "rate of the optimizer": {
        "optimizer": lambda theta: torch.optim.AdamW(theta, lr=0.02, weight_decay=0.1)
    },
    "problem": {"name": "toy"},
}


@pytest.mark.parametrize("what", FOREIGN)
def test_a_checkpoint_of_another_run_is_refused_and_kept(tmp_path, what):
    path, seen = tmp_path / "run", []
    go(path, steps=10)
    kept = path.read_bytes()
    with pytest.raises(ValueError, match=r"belongs to another run[\s\S]*its own file"):
        go(path, progress=seen.append, **FOREIGN[what])
    assert not seen and path.read_bytes() == kept


def test_another_start_is_another_run(tmp_path):
    path = tmp_path / "run"
    ng.unlearn(NetProblem(seed=0), NGDiff(), Constant(0.01), steps=5, checkpoint=path, save_every=5)
    with pytest.raises(ValueError, match="belongs to another run"):
        ng.unlearn(
            NetProblem(seed=1), NGDiff(), Constant(0.01), steps=5, checkpoint=path, save_every=5
        )


@pytest.mark.parametrize("trained", [True, False], ids=["trained", "frozen"])
def test_point_7_a_start_of_the_same_norm_is_another_run(tmp_path, trained):
    """Another fine-tune of one base, or an adapter on another base: ‖θ‖ is the same to 8 digits."""
    path, other = tmp_path / "run", NetProblem()
    ng.unlearn(NetProblem(), NGDiff(), Constant(0.01), steps=5, checkpoint=path, save_every=5)
    moved = other.model.one if trained else other.model.frozen
    with torch.no_grad():
        moved.weight[0, 0] += 1e-9
    with pytest.raises(ValueError, match="belongs to another run"):
        ng.unlearn(other, NGDiff(), Constant(0.01), steps=5, checkpoint=path, save_every=5)


def test_other_losses_from_the_same_start_are_another_run(tmp_path):
    one, two = (ng.quadratics.pair(angle=angle) for angle in (100, 120))
    ng.unlearn(one, NGDiff(), Constant(0.01), steps=5, checkpoint=tmp_path / "run", save_every=5)
    with pytest.raises(ValueError, match="belongs to another run"):
        ng.unlearn(
            two, NGDiff(), Constant(0.01), steps=5, checkpoint=tmp_path / "run", save_every=5
        )


def test_the_name_of_a_run_is_the_same_in_every_process(tmp_path):
    """A stop rule may be any function, whose repr holds an address."""
    rules = [lambda info: None for _ in range(2)]
    assert repr(rules[0]) != repr(rules[1])
    for rule in rules:
        assert len(go(tmp_path / "run", stop=rule, steps=5).history) == 5


@pytest.mark.parametrize("below", ["", "deeper"])
def test_an_unwritable_place_is_refused_before_any_work(tmp_path, below):
    (tmp_path / "file").write_text("kept")
    seen = []
    with pytest.raises(PermissionError, match="cannot write to"):
        go(tmp_path / "file" / below / "run", progress=seen.append)
    assert not seen and (tmp_path / "file").read_text() == "kept"


def test_a_folder_turned_read_only_keeps_the_old_checkpoint(tmp_path, monkeypatch):
    from ngdiff.core import checkpoint

    path = tmp_path / "run"
    go(path, steps=5)
    kept = path.read_bytes()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        go(path)
    assert path.read_bytes() == kept and [f.name for f in tmp_path.iterdir()] == ["run"]


def test_a_checkpoint_is_tensors_and_text_never_pickle(tmp_path):
    go(tmp_path / "run", steps=5)
    with safe_open(tmp_path / "run", framework="pt") as file:
        text = json.loads(file.metadata()["run"])
        assert any("exp_avg" in key for key in file.keys())  # noqa: SIM118
    assert len(text["history"]) == 5 and "NGDiff()" in text["name"]


@pytest.mark.parametrize("save_every", [0, -1])
def test_save_every_is_positive(tmp_path, save_every):
    with pytest.raises(ValueError, match="save_every"):
        go(tmp_path / "run", save_every=save_every)
