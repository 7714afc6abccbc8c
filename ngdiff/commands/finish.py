"""What `ngdiff unlearn` does after its last step: it writes the model, measures it, and says so.

The model is in OUT before anything else is tried. Where it cannot be measured, the verdict is "not
measured", and OUT stays.
"""

from __future__ import annotations

import gc
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ngdiff.commands import card
from ngdiff.commands.claim import CHECKPOINT, START, read
from ngdiff.commands.fitting import fitted
from ngdiff.commands.job import PLACES, WHERE, Job
from ngdiff.commands.origin import as_given, carry_over, loaded
from ngdiff.commands.outcome import Bounds, Verdict, judge
from ngdiff.commands.places import RUN
from ngdiff.commands.sample import measure, placed
from ngdiff.core.loop import Run
from ngdiff.core.processes import whole_state
from ngdiff.data.benchmark import Benchmark
from ngdiff.lm.model import save
from ngdiff.store import document
from ngdiff.store.cache import atomic_folder
from ngdiff.store.content import digests, sha256
from ngdiff.store.progress import to_stderr
from ngdiff.store.rows import read_rows, stamp, write_document, write_rows

HISTORY = "history.jsonl"
ENDS = {
    "steps": "all steps were made",
    "forget_level": "the forget loss has reached the level",
    "aligned": "the gradients are parallel: no direction lowers one loss and raises the other",
    "zero_both": "both gradients are zero",
    "nonfinite": "a loss or gradient is not finite: use a lower rate (--lr), or stop earlier",
}


@dataclass
class Trained:
    """A run, its optimizer, the folder of the user's model, how many steps an earlier process
    made, and the rows that the model was given.
    """

    run: Run
    optimizer: Any
    origin: Path | None
    before: int
    bench: Benchmark


def finish(job: Job, trained: Trained) -> int:
    """Write OUT, measure what it holds, and return the exit status of this process.

    Every process must call. All but the first end as soon as the shards are gathered, so none waits
    for a measurement. The trained model is let go before the saved one is loaded.
    """
    state = whole_state(trained.run.model.model)
    if job.engine.processes.size > 1:
        job.engine.processes.wait()
        torch.distributed.destroy_process_group()
    if state is None:
        return 0
    row, bench = _row(job, trained), trained.bench
    _keep(job, trained, state, row)
    print(_end(job, row), flush=True)
    trained.run.model = trained.optimizer = None
    gc.collect()
    row |= _measured(job, bench, row)
    _describe(job, row, trained.run.rows())
    print(card.summary(row), flush=True)
    return row["status"]


def again(job: Job, bench: Benchmark) -> int:
    """Say what became of a finished run, and return the exit status.

    It is 0, and nothing is changed, whatever the verdict was. A model that was not measured, as
    when the command was killed, is measured now.
    """
    row = read(job.folder / RUN)
    if row["after"] is None:
        print(f"{job.out} holds this run, finished but not measured", flush=True)
        row |= _measured(job, bench, row)
        _describe(job, row, read_rows(job.folder / HISTORY))
        print(card.summary(row), flush=True)
        return row["status"]
    bounds, here = row["bounds"], {"forget": job.forget_bound, "retain": job.retain_bound}
    print(
        f"{job.out} holds this run, finished: nothing is done. To make it anew: --force\n"
        f"{row['verdict']}: {row['why']}"
        + (f" (by the bounds of then, {bounds})" if bounds != here else ""),
        flush=True,
    )
    return 0


def _row(job: Job, trained: Trained) -> dict[str, Any]:
    """Return what run.json says before the measurement."""
    found, done = read(job.work / START), trained.run
    where = {name: getattr(job, name) for name in WHERE}
    where["processes"] = job.engine.processes.size
    places = {name: str(getattr(job, name)) for name in PLACES if getattr(job, name)}
    row: dict[str, Any] = {"settings": found["settings"], "level": found["level"]}
    row |= {"stopped": done.stopped, "updates": sum(info.updated for info in done.history)}
    # seconds: of this process, after the steps before it
    row |= {"seconds": done.seconds, "steps_before": trained.before}
    prompt = repr(done.model.prompt.text("{question}"))
    row |= {"name": done.model.name, "prompt": prompt}
    row["sizes"] = {name: len(rows) for name, rows in trained.bench.configs.items()}
    row["bounds"] = {"forget": job.forget_bound, "retain": job.retain_bound}
    row |= {"before": found["before"], "doubt": found["doubt"], "after": None}
    row |= {"model": job.place, "model_files": found["model_files"]}
    row["stamp"] = stamp({**places, **where}, job.seed, done.seconds)
    return row | _said(Verdict("not measured", "the command ended before it asked the model"))


def _keep(job: Job, trained: Trained, state: dict[str, Tensor], row: dict[str, Any]) -> None:
    """Write model, history and run.json in one rename, then remove the checkpoint.

    state: its tensors are taken out one by one.
    """
    lm, fresh = trained.run.model, job.lora is not None
    weights = as_given(state, lm, None if fresh else trained.origin, trained.optimizer)
    with atomic_folder(job.folder) as temporary:
        save(lm, temporary, weights)
        carry_over(trained.origin, temporary, fresh)
        write_rows(temporary / HISTORY, trained.run.rows())
        row["card"] = card.name_in(temporary)
        row["files"] = digests(temporary) | {card.REPORT: None, row["card"]: None}
        (temporary / RUN).write_text(document.text(row), "utf-8")
    (job.work / CHECKPOINT).unlink(missing_ok=True)


def _end(job: Job, row: dict[str, Any]) -> str:
    """Return why the run stopped, and where the model is."""
    end = f"{row['stopped']}: {ENDS.get(row['stopped'], 'see ngdiff.core.info.Info')}"
    if row["stopped"] == "forget_level" and not row["updates"]:
        end += " before any update: the start model's loss is already that high"
    return f"{end}\n  {row['updates']} updates, {row['seconds']:.1f} s: {job.out}"


def _measured(job: Job, bench: Benchmark, row: dict[str, Any]) -> dict[str, Any]:
    """Return what the model in OUT says, loaded as the start was, and the verdict on it."""
    try:
        lm = loaded(job, str(job.folder))
        bench = fitted(bench, lm, job.long, lambda text: None)
        after = measure(placed(lm, job.engine.place), bench, job.seed)
        bounds = Bounds(job.forget_bound, job.retain_bound)
        seen = (row["level"], row["before"], after)
        verdict = judge(row["stopped"], *seen, bounds, row["updates"])
    except Exception as error:  # whatever it is, the model is written
        reason = (str(error) or repr(error)).splitlines()[0]
        return _said(Verdict("not measured", f"{reason}; the model is in {job.out}"))
    return {"after": after, **_said(verdict)}


def _said(verdict: Verdict) -> dict[str, Any]:
    return {"verdict": verdict.word, "why": verdict.text, "status": verdict.status}


def _describe(job: Job, row: dict[str, Any], history: list[dict[str, Any]]) -> None:
    """Write report and model card into OUT, then the final run.json, each whole or not at all.

    Without that last one the run counts as not measured, and the same command measures it.
    """
    try:
        card.write(row, history, job.folder)
    except Exception as error:  # the verdict is printed all the same
        to_stderr(f"report and model card are not both written: {error!r}")
    else:
        print(f"  report: {card.REPORT}, model card: {row['card']}\n", flush=True)
    try:
        for name in (card.REPORT, row["card"]):
            row["files"].pop(name, None)
            if (digest := sha256(job.folder / name)) is not None:
                row["files"][name] = digest
        write_document(job.folder / RUN, row)
    except OSError as error:
        to_stderr(f"{RUN} is not written: {error}")
