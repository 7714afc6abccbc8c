"""The tuned rates: a committed part of the protocol.

Every constant rate of the comparison was chosen on tuning runs (`ngdiff.study.plan.tuning`), which
are never reported. Their rows lie in data/protocol/<profile>/<rows>.parquet, each with its stamp.
An everyday reproduction reads them and makes the reported runs only; `ngdiff reproduce --refresh`
and `ngdiff evidence` make them again.

A row counts only for the very run it was made by: same settings, same rows of the benchmark, same
models' recipe (`ngdiff.study.keys.setting`). Any other tuning run is made on the spot, and saved
on `--refresh` only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ngdiff.profiles import profile
from ngdiff.store import paths
from ngdiff.store.cache import CACHE, cache_dir, lock, probe_writable
from ngdiff.store.rows import read_rows, write_rows
from ngdiff.study import keys, trials
from ngdiff.study.trial import Trial

Row = dict[str, Any]


def file_of(trial: Trial) -> Path:
    """Return where the tuning rows of a trial's rows lie in the checkout."""
    row = trial.row()
    name = "_".join(filter(None, (row["data"].removesuffix(" rows"), row["split"])))
    return paths.protocol_folder() / profile(trial.profile).name / f"{name}.parquet"


def committed(wanted: Sequence[Trial]) -> dict[Trial, Row]:
    """Return the rows of those trials that the protocol holds."""
    by_file: dict[Path, dict[str, Row]] = {}
    found = {}
    for trial in wanted:
        path = file_of(trial)
        if path not in by_file:
            rows = read_rows(path) if path.is_file() else []
            by_file[path] = {row["setting"]: row for row in rows}
        if row := by_file[path].get(keys.setting(trial)):
            found[trial] = row
    return found


def saved(wanted: Sequence[Trial]) -> list[Row]:
    """Return the committed rows of tuning trials, in their order; [] unless all are there."""
    rows = committed(wanted)
    return [rows[trial] for trial in wanted] if len(rows) == len(wanted) else []


def tuning_rows(
    wanted: Sequence[Trial],
    refresh: bool = False,
    run: Callable[[list[Trial]], list[Row]] = trials.run_all,
    save: bool = False,
) -> list[Row]:
    """Return the rows of tuning trials in their order: committed ones, others run now.

    refresh: run them all (a trial whose code and settings are unchanged comes from the cache) and
    save them. save: save those that were run.
    """
    rows = {} if refresh else committed(wanted)
    todo = [trial for trial in wanted if trial not in rows]
    if todo:
        rows |= dict(zip(todo, run(todo), strict=True))
    if refresh or (save and todo):
        for path in dict.fromkeys(map(file_of, wanted)):
            _save(path, {t: rows[t] for t in wanted if file_of(t) == path})
    return [rows[trial] for trial in wanted]


def _save(path: Path, rows: dict[Trial, Row]) -> None:
    """Add the rows to a file; rows of another population of the benchmark, which nothing can use,
    are dropped.
    """
    probe_writable(path.parent)
    probe_writable(cache_dir(), CACHE)
    with lock(cache_dir() / f"{path.stem}.lock", f"the rates of {path.stem}"):
        new = [row | identity(trial) for trial, row in rows.items()]
        known = [] if not path.is_file() else read_rows(path)
        replaced, population = {row["setting"] for row in new}, new[0]["population"]
        kept = [r for r in known if r["population"] == population and r["setting"] not in replaced]
        order = sorted([*kept, *new], key=lambda r: (r["method"], r["lr"], r["seed"], r["setting"]))
        write_rows(path, order)


def identity(trial: Trial) -> dict[str, str]:
    """Return the fields by which a saved row is known as that of a trial, whatever the code."""
    return {"setting": keys.setting(trial), "population": keys.population(trial)}
