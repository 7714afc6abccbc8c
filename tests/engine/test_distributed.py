"""Two gloo processes on the CPU against one.

Sharded or replicated, the run is that of one process up to rounding.

In float64 the logic is seen bare: 1e-10 is a million roundings of 2⁻⁵³, room for what ten steps and
η*, a quotient of differences of losses, make of them. In float32 and bfloat16 that growth is
measured: by how far runs of one process lie apart that differ in precision or in the order of their
sums alone. Plain SGD with momentum from a half-trained model: Adam's early steps divide a gradient
by its own size, and would blow up the rounding of one that is nearly zero.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from ngdiff.core import processes, sharding
from ngdiff.core.directions import NGDiff
from ngdiff.core.info import Info
from ngdiff.core.step import UnlearningStep
from ngdiff.core.stepsize import Constant
from ngdiff.engine.engine import Engine
from ngdiff.lm.model import load
from ngdiff.store.cache import lock
from tests.helpers import distributed_worker as worker
from tests.helpers import strangers as own_loops
from tests.helpers.distributed_worker import CASES, RESUME

SCRIPT = Path(worker.__file__)
ENVIRONMENT = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
ENVIRONMENT["PYTHONPATH"] = str(SCRIPT.parents[2])


@functools.cache
def one(name):
    """The run of one process."""
    case = CASES[name]
    return one(case["same"]) if "same" in case else worker.result(worker.run(case))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Everything the two processes did, done once however many workers run the tests."""
    shared = "PYTEST_XDIST_WORKER" in os.environ
    root = (
        tmp_path_factory.getbasetemp().parent if shared else tmp_path_factory.mktemp("distributed")
    )
    place = root / "two processes"
    with lock(root / "two processes.lock", "two processes"):
        if not place.exists():
            place.mkdir()
            for name in RESUME:
                worker.run(CASES[name], place / f"one {name}", steps=4, save_every=4)
            stages = ["cases+products+refused+strangers", "killed", "resumed"]
            command = [sys.executable, str(SCRIPT), str(place), *stages]
            done = subprocess.run(
                command, capture_output=True, text=True, env=ENVIRONMENT, timeout=500
            )
            (place / "log").write_text(done.stdout + "\n" + done.stderr)
    return place


@pytest.fixture
def two(folder):
    """The result of a name."""

    def read(name):
        path = folder / f"{name}.pt"
        assert path.is_file(), (folder / "log").read_text()[-3000:]
        return torch.load(path)

    return read


def apart(x, y):
    """`distances` of two results, which are otherwise alike."""
    assert x["stopped"] == y["stopped"] and len(x["history"]) == len(y["history"])
    for key in ("step", "outcome", "stepsize", "forwards"):
        assert [row[key] for row in x["history"]] == [row[key] for row in y["history"]], key
    assert x["weights"].keys() == y["weights"].keys()
    return distances(x, y)


def distances(x, y, steps=worker.STEPS):
    """(weights, absolute; norms, relative, and cosine; η, losses, relative) of two results."""
    weights = max(
        (x["weights"][k].double() - y["weights"][k].double()).abs().max().item()
        for k in x["weights"]
    )
    pairs = list(zip(x["history"], y["history"]))[:steps]

    def relative(*keys):
        return max(abs(r[k] - s[k]) / max(abs(r[k]), 1e-6) for r, s in pairs for k in keys)

    cosine = max(abs(r["cosine"] - s["cosine"]) for r, s in pairs)
    losses = relative("retain", "forget", "retain_ce", "forget_ce")
    return weights, max(relative("norm_R", "norm_F"), cosine), relative("eta"), losses


@functools.cache
def twins(name):
    """The case in float64, and in its own precision with sums that are added up in other orders."""
    case = CASES[CASES[name].get("same", name)]
    exact = {k: v for k, v in case.items() if k not in ("dtype", "precision")}
    return [
        worker.result(worker.run(twin))
        for twin in (exact, case | {"micro": 1}, case | {"micro": 2})
    ]


def rounding(name, steps=worker.STEPS):
    """The largest `distances` that rounding alone makes between runs of one process, of three
    twins.

    The two processes are one more such twin. Of independent errors one of four is the largest by
    chance, and one is above four times the largest of three hardly ever: SLACK.
    """
    return [
        max(numbers)
        for numbers in zip(*(distances(one(name), twin, steps) for twin in twins(name)))
    ]


SLACK = 4


def same(x, y):
    assert repr(x["history"]) == repr(y["history"])
    assert all(torch.equal(x["weights"][k], y["weights"][k]) for k in x["weights"])


def test_all_stages_ended_as_they_should(folder):
    """Two processes each: done, killed by signal 9, done."""
    lines = (folder / "log").read_text().split("\n")
    assert lines[:3] == ["cases+products+refused+strangers 0 0", "killed -9 -9", "resumed 0 0"], (
        "\n".join(lines[-40:])
    )


# -------------------------------------------------------------------------------------- against one
EXACT = [
    name
    for name in CASES
    if name != "stale" and "bfloat16" not in name and not name.startswith("float32")
]


@pytest.mark.parametrize("name", EXACT)
def test_two_processes_are_one_in_float64(two, name):
    numbers = apart(one(name), two(name))
    assert max(numbers) <= 1e-10
    looks = [row for row in two(name)["history"] if row["stepsize"] != "held"]
    assert 3 <= len(looks) < 10 or "rule" in CASES[name]
    ended = two(name)["stopped"] == "forget_level"
    assert ended == ("stop" in CASES[name]) and (ended or len(two(name)["history"]) == 10)
    assert any(row["outcome"] == "ok" for row in two(name)["history"])


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("float32")])
def test_two_processes_are_one_in_float32(two, name):
    """But for what rounding makes of ten steps with probes, which twins of one process show."""
    for found, bound in zip(apart(one(name), two(name)), rounding(name), strict=True):
        assert found <= SLACK * bound


def test_sharded_bfloat16_is_that_of_one_process(two, monkeypatch):
    """The exact weights of both, and norms and η, within what bfloat16 itself makes of the run:
    forwards round alike in a shard and in a whole model, sums do not."""
    made, real = [], Engine.optimizer
    monkeypatch.setattr(Engine, "optimizer", lambda *a: (made.append(real(*a)), made[-1])[1])
    done = worker.run(CASES["bfloat16"])
    alone, found = worker.result(done), two("bfloat16")
    names = [name for name, _ in done.model.model.named_parameters()]
    exact = dict(zip(names, made[0].exact(), strict=True))
    fine = twins("bfloat16")[0]["weights"]
    assert {x.dtype for x in found["weights"].values()} == {torch.float32}
    off, error = (
        torch.cat([(x[k] - exact[k]).detach().double().flatten() for k in names]).norm()
        for x in (found["weights"], fine)
    )
    assert off <= 2 * error  # each is an error away from the run in float64
    # later steps differ by their ways
    numbers, bounds = (distances(alone, found, 1), rounding("bfloat16", 1))
    assert all(number <= SLACK * bound for number, bound in zip(numbers[1:], bounds[1:]))


def test_without_resharding_a_probe_sees_old_weights(two):
    """After a forward without gradients FSDP2 keeps the root group gathered.

    The next one would use the old embedding.
    """
    stale, bounds = distances(one("float32 shard"), two("stale")), rounding("float32 shard")
    assert stale[0] > 10 * SLACK * bounds[0]
    x, y = (run["history"][0]["eta"] for run in (one("float32 shard"), two("stale")))
    assert abs(x - y) > 10 * SLACK * bounds[2] * abs(x)


def test_global_products_are_those_of_whole_tensors(two):
    found, whole = (two("products")[k] for k in ("found", "whole"))
    for name, numbers in found.items():
        for x, y in zip(numbers, whole, strict=True):
            torch.testing.assert_close(
                torch.tensor(x), torch.tensor(y), rtol=1e-12, atol=1e-12, msg=name
            )
    assert len(found) == 5 and whole[0] != 0


# ----------------------------------------------------------------------------------- stop and go on
@pytest.mark.parametrize("name", RESUME)
def test_two_processes_go_on_bit_for_bit(two, name):
    same(two(f"two to two {name}"), two(name))


@pytest.mark.parametrize("name", RESUME)
def test_a_run_may_go_on_with_another_number_of_processes(two, folder, name):
    seen = []
    fewer = worker.result(
        worker.run(CASES[name], folder / f"two {name}", save_every=100, progress=seen.append)
    )
    assert seen[0].step == 4
    assert max(apart(one(name), fewer)) <= 1e-10
    assert max(apart(one(name), two(f"one to two {name}"))) <= 1e-10


def test_two_killed_processes_go_on_bit_for_bit(two):
    resumed = two("killed and resumed")
    assert resumed["first"] == 6  # the checkpoint after step 5 was whole in both
    same(resumed, two("adamw"))


def test_a_saved_sharded_model_is_an_ordinary_folder(two, folder):
    place, wanted = folder / "saved float32 shard", two("saved float32 shard")["weights"]
    found = load(place)
    assert found.model.state_dict().keys() == wanted.keys()
    assert all(torch.equal(x, wanted[k]) for k, x in found.model.state_dict().items())
    assert json.loads((place / "config.json").read_text())["architectures"] == ["LlamaForCausalLM"]
    assert found.prompt == worker.trained().prompt and (place / "tokenizer.json").is_file()


def test_a_saved_sharded_adapter_is_peft_s_own(two, folder):
    from peft import PeftModel

    place, wanted = folder / "saved lora npo", two("saved lora npo")["weights"]
    model = PeftModel.from_pretrained(worker.target().model, place)
    adapters = {k: v for k, v in model.state_dict().items() if "lora_" in k}
    assert adapters and all(
        torch.equal(x.double(), wanted[k].double()) for k, x in adapters.items()
    )
    assert not (place / "model.safetensors").exists()
    assert any(x.any() for k, x in adapters.items() if "lora_B" in k)


def test_accelerate_launches_the_same_code(tmp_path):
    flags = [
        "--multi_gpu",
        "--num_processes",
        "2",
        "--num_machines",
        "1",
        "--mixed_precision",
        "no",
    ]
    flags += ["--dynamo_backend", "no", "--main_process_port", "0"]
    command = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        *flags,
        str(SCRIPT),
        str(tmp_path),
        "launched",
    ]
    environment = ENVIRONMENT | {"ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240)
    # gloo may abort while it is taken down, on a busy machine, after everything was written: what
    # is asserted below
    assert done.returncode == 0 or "terminate called without an active exception" in done.stderr, (
        done.stderr[-3000:]
    )
    for name in ("shard", "replicate"):
        assert max(apart(one(name), torch.load(tmp_path / f"launched {name}.pt"))) <= 1e-10


# ----------------------------------------------------------------------------------------- refusals
def test_ddp_whose_gradients_alias_its_buckets_is_refused(two):
    found = two("refused")
    assert "gradient_as_bucket_view=False" in found[True]
    assert found[False] == (0, 2)  # without an engine, too, a DDP is both processes


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("DeepSpeedEngine", "launch with FSDP2 instead"),
        ("FullyShardedDataParallel", "shard with FSDP2 instead"),
    ],
)
def test_wrappers_that_own_the_gradients_are_refused_with_what_to_use(name, advice):
    net = type("Mine", (type(name, (nn.Linear,), {}),), {})(2, 2)  # a subclass of it as well
    with pytest.raises(ValueError, match=advice):
        processes.of(net, list(net.parameters()))
    with pytest.raises(ValueError, match=advice):
        UnlearningStep(net, torch.optim.SGD(net.parameters(), lr=0.1), NGDiff(), Constant(0.1))


def test_a_plain_model_is_one_process_s():
    net = nn.Linear(2, 2)
    alone = processes.of(net, list(net.parameters()))
    assert (alone.rank, alone.size) == (0, 1) and (
        processes.of(None, []).rank,
        processes.of(None, []).size,
    ) == (0, 1)
    rows = torch.tensor([1.0, 2.0])
    assert alone.gather(rows) is rows and alone.sum(rows) is rows and alone.wait() is None
    assert not sharding.sharded(net.weight) and sharding.gathered(net.weight) is net.weight


def test_a_sharded_adapter_in_bfloat16_with_a_start_is_that_of_one_process(two):
    """FSDP2's first forward is the start's, with the adapter off.

    It must not settle there that the adapter is frozen.
    """
    alone, found = one("lora npo bfloat16"), two("lora npo bfloat16")
    assert found["stopped"] == alone["stopped"] and len(found["history"]) == len(alone["history"])
    steps = 2  # of which the second sees what the first moved; later ones are chaotic in bfloat16
    assert distances(alone, found, steps)[1] <= SLACK * rounding("lora npo bfloat16", steps)[1]


# ------------------------------------------------------------------------------- loops of one's own
@pytest.mark.parametrize("what", ["list", "inside"])
def test_point_2_processes_of_which_nothing_says_whether_they_share_are_refused(two, what):
    """A DDP given as its parameters, or as what is inside it: the replicas drifted apart."""
    assert "nothing says whether they share" in two("strangers")[what]
    assert "processes=Processes(together=True)" in two("strangers")[what]


def test_point_2_a_ddp_is_seen_inside_a_compiled_model_and_a_module(two):
    found = two("strangers")
    assert (found["compiled"], found["within"], found["said"], found["alone"]) == (2, 2, 2, 1)


def test_point_2_a_loss_that_goes_around_ddp_is_an_error_before_anything_changes(two):
    found = two("strangers")
    assert "the processes have different gradients" in found["apart"] and found["unchanged"]


@functools.cache
def alone(dtype, probed=False):
    net = own_loops.mlp(dtype)
    options = own_loops.PROBED if probed else {}
    return own_loops.loop(net, **options), [p.detach() for p in net.parameters()]


def off(infos, exact):
    """The largest relative distance of two histories."""
    names = ("retain", "forget", "forget_ce", "norm_R", "norm_F", "eta")
    pairs = zip(infos, exact, strict=True)
    numbers = [(getattr(x, n), getattr(y, n)) for x, y in pairs for n in names]
    return max(abs(x - y) / abs(y) for x, y in numbers if y == y)


@pytest.mark.parametrize("name", ["replicate", "shard"])
def test_point_3_mean_losses_of_two_processes_are_those_of_one(two, name):
    """Stopped at the same step by the forget level, which is a mean over the processes.

    The numbers are within what float32 makes of the run of one: its distance from float64, times
    SLACK.
    """
    history = [Info(**row) for row in two("strangers")[name]["history"]]
    weights = two("strangers")[name]["weights"]
    (one, theta), (exact, theta_64) = alone(torch.float32), alone(torch.float64)
    assert [i.outcome for i in history] == [i.outcome for i in one] == [i.outcome for i in exact]
    assert one[-1].outcome == "forget_level" and len(one) > 2

    def moved(other):
        return max((x.double() - y).abs().max().item() for x, y in zip(other, theta_64))

    eps = torch.finfo(torch.float32).eps
    assert off(history, exact) <= SLACK * max(off(one, exact), 8 * eps)
    assert moved(weights) <= SLACK * max(moved(theta), 8 * eps)


@pytest.mark.parametrize("name", ["replicate", "shard"])
def test_point_3_a_probe_of_mean_losses_on_two_processes_is_that_of_one(two, name):
    """Its first rate, which all rows of both processes decide; a line of half of it is no line."""
    history = [Info(**row) for row in two("strangers")[f"{name} probed"]]
    (one, _), (exact, _) = (alone(kind, True) for kind in (torch.float32, torch.float64))
    assert history[0].stepsize == one[0].stepsize and history[0].eta != 0.05
    eps = torch.finfo(torch.float32).eps
    bound = SLACK * max(off(one[:1], exact[:1]), 512 * eps)
    assert off(history[:1], exact[:1]) <= bound
