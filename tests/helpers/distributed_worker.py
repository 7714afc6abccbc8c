"""What `test_distributed` runs in one process and in two: the cases, and a launcher that imports
once and forks the ranks.

python distributed_worker.py FOLDER STAGE…      each stage in two fresh processes; results are
                                                FOLDER/NAME.pt
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import traceback
from functools import cache
from pathlib import Path

import torch
from torch import distributed as dist

import ngdiff as ng
from ngdiff import methods
from ngdiff.core import sharding, vector
from ngdiff.core.autolr import AutoLR
from ngdiff.core.info import SetLevel
from ngdiff.core.processes import whole_state
from ngdiff.core.step import UnlearningStep
from ngdiff.core.stepsize import Constant
from ngdiff.engine.engine import Engine
from ngdiff.lm import lora
from ngdiff.lm.model import LM, save
from ngdiff.lm.tokens import collate
from ngdiff.methods.problem import LMProblem
from tests.helpers import micro
from tests.helpers import strangers as own_loops
from tests.methods.test_problem import BENCH

STEPS, EVERY = 10, 5  # probes at steps 0, 1, 3, … while they agree
OPTIMIZERS = {
    # at early steps Adam divides a gradient by its own size: rounding of a tiny one is blown up to
    # the size of η
    "sgd": lambda groups: torch.optim.SGD(groups, lr=1.0, momentum=0.5),
    "adamw": None,
}
SINGLE = torch.float32
# in float64 and sharded, unless it says otherwise; `same`: a case of the same run
CASES: dict[str, dict] = {
    "shard": {},
    "replicate": {"sharding": "replicate", "same": "shard"},
    "adamw": {"optimizer": "adamw"},
    "checkpointing": {"checkpointing": True, "same": "shard"},
    "recompute": {"memory": "recompute", "same": "shard"},
    "recompute replicate micro": {
        "memory": "recompute",
        "sharding": "replicate",
        "micro": 1,
        "same": "shard",
    },
    "micro": {"micro": 1, "same": "shard"},
    "uneven": {"batch_size": 5},
    "uneven replicate micro": {
        "batch_size": 5,
        "micro": 1,
        "sharding": "replicate",
        "same": "uneven",
    },
    "one row": {"batch_size": 1},
    "one row replicate": {"batch_size": 1, "sharding": "replicate", "same": "one row"},
    "kl": {"method": "ngdiff-kl", "rule": Constant(0.05)},
    "dpo": {"method": "dpo", "rule": Constant(1e-4), "batch_size": 5},
    "rmu": {"method": "rmu", "rule": Constant(0.05)},
    "rmu replicate": {
        "method": "rmu",
        "rule": Constant(0.05),
        "sharding": "replicate",
        "same": "rmu",
    },
    "lora npo": {"method": "npo", "lora": True},
    "lora npo bfloat16": {"method": "npo", "lora": True, "dtype": SINGLE, "precision": "bfloat16"},
    "lora npo replicate": {
        "method": "npo",
        "lora": True,
        "sharding": "replicate",
        "same": "lora npo",
    },
    "lora kl": {"method": "ngdiff-kl", "lora": True, "rule": Constant(0.05)},
    "float32 shard": {"dtype": SINGLE},
    "float32 replicate": {"dtype": SINGLE, "sharding": "replicate", "same": "float32 shard"},
    "float32 recompute": {"dtype": SINGLE, "memory": "recompute", "same": "float32 shard"},
    "float32 uneven": {"dtype": SINGLE, "batch_size": 5},
    "bfloat16": {"dtype": SINGLE, "precision": "bfloat16"},
    "stale": {"dtype": SINGLE, "stale": True, "same": "float32 shard"},
    # the whole forget set is looked at in every step; it passes 0.9 nats in the middle of the run
    "set level": {"stop": SetLevel(0.9, near=0.0), "rule": Constant(0.05)},
    "set level replicate micro": {
        "stop": SetLevel(0.9, near=0.0),
        "rule": Constant(0.05),
        "micro": 3,
        "sharding": "replicate",
        "same": "set level",
    },
}
ENGINE = ("sharding", "memory", "checkpointing", "precision")


@cache
def trained() -> LM:
    """A Llama of two layers that has half learned all rows.

    It is near a minimum of R, where rounding does not grow.
    """
    lm = micro.lm()
    model = micro._model(lm.tokenizer, 5, num_hidden_layers=2)
    model.lm_head.weight.data.div_(20)
    batch = collate(
        [lm.encode(row["question"], row["answer"]) for row in BENCH.forget + BENCH.retain],
        lm.pad_id,
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()
    optimizer.zero_grad()
    return LM(model, lm.tokenizer, lm.prompt, "trained")


def target(adapted=False, dtype=torch.float64) -> LM:
    made = trained().copy()
    if dtype == torch.float64:
        micro.double(made.model)
    if adapted:
        made = lora.adapt(made, 4)
        made.model.to(dtype)
    return made


def run(case: dict, path=None, steps=STEPS, **kw):
    """The run of a case in however many processes there are."""
    engine = Engine(device="cpu", **{k: case[k] for k in ENGINE if k in case})
    lm = target(case.get("lora", False), case.get("dtype", torch.float64))
    rule = case.get("rule", AutoLR(lr=1e-2, every=EVERY))
    problem = LMProblem(
        BENCH, lm, engine=engine, batch_size=case.get("batch_size", 4), micro=case.get("micro")
    )
    optimizer = OPTIMIZERS[case.get("optimizer", "sgd")]
    method = methods.method(case.get("method", "ngdiff"))
    kw |= {"optimizer": optimizer, "checkpoint": path, "stop": case.get("stop", ())}
    return ng.unlearn(problem, method, rule, steps, **kw)


def result(done) -> dict:
    """History and whole weights; every process must call."""
    state = whole_state(getattr(done.model.model, "module", done.model.model))
    weights = None if state is None else {k: v.detach().clone() for k, v in state.items()}
    return {"history": done.rows(), "weights": weights, "stopped": done.stopped}


def keep(folder: Path, name: str, found: dict) -> None:
    if dist.get_rank() == 0:
        torch.save(found, folder / f"{name}.pt")


# ------------------------------------------------------------------------------------------- stages
def cases(folder: Path) -> None:
    for name, case in CASES.items():
        shards = sharding.shards_of
        if case.get("stale"):
            sharding.shards_of = lambda module: []  # nobody is told that θ has moved
        keep(folder, name, result(run(case)))
        sharding.shards_of = shards


def products(folder: Path) -> None:
    """Norms and Gramians of sharded vectors, mixed ones among them, against whole tensors."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    Engine(device="cpu").processes  # noqa: B018 — joins
    mesh = init_device_mesh("cpu", (2,))
    square = init_device_mesh("cpu", (2, 1))
    make = torch.Generator().manual_seed(0)
    shapes = [(6, 4), (5, 3), (1, 7), (3,), (), (2**17 + 3,)]
    whole = [
        [torch.randn(shape, generator=make, dtype=torch.float64) for shape in shapes]
        for _ in range(2)
    ]
    whole[0][1], whole[1][0] = None, None
    layouts = {
        "sharded": (mesh, [[Shard(0)]] * 4 + [[Replicate()], [Shard(0)]]),
        "mixed": (mesh, [None, [Shard(0)], [Shard(0)], None, None, [Shard(0)]]),
        "other dimension": (
            mesh,
            [[Shard(1)], [Shard(1)], [Shard(1)], [Shard(0)], None, [Replicate()]],
        ),
        "two dimensions": (
            square,
            [
                [Shard(0), Shard(0)],
                [Replicate(), Shard(0)],
                None,
                None,
                None,
                [Shard(0), Replicate()],
            ],
        ),
        "plain": (mesh, [None] * 6),
    }
    found = {}
    for name, (grid, placed) in layouts.items():
        u, v = (
            [
                x if x is None or where is None else distribute_tensor(x, grid, where)
                for x, where in zip(side, placed)
            ]
            for side in whole
        )
        norms = [
            vector.dot(u, v),
            vector.dot(u, u),
            vector.gramian(u, v),
            vector.gramian([None] * 6, v),
        ]
        found[name] = [x.tolist() for x in norms]
    reference = [
        vector.dot(*whole),
        vector.dot(whole[0], whole[0]),
        vector.gramian(*whole),
        vector.gramian([None] * 6, whole[1]),
    ]
    keep(folder, "products", {"found": found, "whole": [x.tolist() for x in reference]})


RESUME = ("adamw", "lora npo replicate")  # cases


def killed(folder: Path) -> None:
    """Checkpoints after 4 steps of two processes; then a run that both are killed in, at step 6."""
    for name in RESUME:
        run(CASES[name], folder / f"two {name}", steps=4, save_every=4)

    def kill(info):
        if info.step == 6:
            os.kill(os.getpid(), signal.SIGKILL)

    run(CASES["adamw"], folder / "killed", save_every=3, progress=kill)


def resumed(folder: Path) -> None:
    """The runs that go on, from checkpoints of two processes and of one; and saved models."""
    seen: list = []
    again = run(CASES["adamw"], folder / "killed", save_every=100, progress=seen.append)
    keep(folder, "killed and resumed", result(again) | {"first": seen[0].step})
    for name in RESUME:
        keep(
            folder,
            f"two to two {name}",
            result(run(CASES[name], folder / f"two {name}", save_every=100)),
        )
        keep(
            folder,
            f"one to two {name}",
            result(run(CASES[name], folder / f"one {name}", save_every=100)),
        )
    for name in ("float32 shard", "lora npo"):
        done = run(CASES[name], steps=2)
        save(done.model, folder / f"saved {name}")
        dist.barrier()
        keep(folder, f"saved {name}", result(done))


def launched(folder: Path) -> None:
    """What any launcher starts."""
    for name in ("shard", "replicate"):
        keep(folder, f"launched {name}", result(run(CASES[name])))
    dist.destroy_process_group()


def refused(folder: Path) -> None:
    """What must not go on, and what a plain DDP is told without an engine.

    DDP whose gradients alias its buckets must not.
    """
    Engine(device="cpu").processes  # noqa: B018
    found = {}
    for view in (True, False):
        net = torch.nn.parallel.DistributedDataParallel(
            torch.nn.Linear(2, 2), gradient_as_bucket_view=view
        )
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        try:
            step = UnlearningStep(net, optimizer, methods.ngdiff.direction, Constant(0.1))
            found[view] = (step.processes.rank, step.processes.size)
        except ValueError as error:
            found[view] = str(error)
    keep(folder, "refused", found)


def strangers(folder: Path) -> None:
    """Loops of one's own."""
    Engine(device="cpu").processes  # noqa: B018
    keep(folder, "strangers", own_loops.stage())


THREADS = int(os.environ.get("NGDIFF_TEST_THREADS", "1"))
STAGES = {f.__name__: f for f in (cases, products, refused, strangers, killed, resumed, launched)}


def launch(folder: Path, stages: list[str]) -> list[int]:
    """Fork two processes that run the stages one after the other; give their exit codes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = []
    for rank in range(2):
        if not (pid := os.fork()):
            os.environ |= {
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": "2",
                "LOCAL_WORLD_SIZE": "2",
            }
            os.environ |= {
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "ACCELERATE_USE_CPU": "true",
            }
            code = 1
            try:
                for stage in stages:
                    STAGES[stage](folder)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        ranks.append(pid)
    codes = []
    for pid in ranks:
        _, status = os.waitpid(pid, 0)
        codes.append(os.waitstatus_to_exitcode(status))
    return codes


def main() -> None:
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)  # OpenMP's team of threads does not survive a fork
    trained()
    for group in sys.argv[2:]:
        if "RANK" in os.environ:  # somebody else's launcher
            torch.set_num_threads(THREADS)
            STAGES[group](folder)
        else:
            print(group, *launch(folder, group.split("+")), flush=True)


if __name__ == "__main__":
    main()
