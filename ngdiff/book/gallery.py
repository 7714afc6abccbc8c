"""Every figure and every table of the pages, rebuilt from saved rows alone.

    shown, missing = figures(folder)     # name of the figure → figure; name → the file that lacks
    print(table("tofu_", folder))        # the table of page 07

Page 10 shows them, and a test draws them all from the committed rows. Nothing here runs a model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ngdiff.book import evidence
from ngdiff.figures import comparison, landscapes, one_step, runs, suites
from ngdiff.figures import evidence as long
from ngdiff.figures.style import Drawn
from ngdiff.profiles import profile as profile_of
from ngdiff.store.rows import read_rows
from ngdiff.study import plan as plans
from ngdiff.study import tables, verdicts

Row = dict[str, Any]
# the pages' tables: beginning of the files' names → metric → heading
TABLES = {
    "": {
        **{name: name for name in ("score", "kept", "forgot", "reached")},
        "loss_retain": "retain loss",
        "retain_Q_A_ROUGE": "retain ROUGE",
        "updates": "updates",
    },
    "tofu_": {
        "forget_quality": "quality",
        "model_utility": "utility",
        "forget_truth_ratio": "truth ratio",
        "forget_Q_A_ROUGE": "ROUGE-L",
        "privleak": "privleak",
        "extraction_strength": "extraction",
        "updates": "steps",
        "score": "score",
    },
    "muse_": {
        **{name: name for name in ("verbmem_f", "knowmem_f", "privleak", "knowmem_r")},
        **{name: name for name in ("loss_forget", "updates", "reached", "score")},
    },
    "semeval_": {
        "task_aggregate": "task",
        "mia_auc": "AUC",
        "mia_final_score": "MIA",
        "updates": "steps",
        "reached": "reached",
        "score": "score",
    },
}
PLANS = {"": "live", "tofu_": "tofu", "muse_": "muse", "semeval_": "semeval"}
SOURCES = {"": "", "tofu_": "", "muse_": "news", "semeval_": "dossiers"}  # generated rows


class NotRunError(Exception):
    """A file of rows that is not there."""


@dataclass(frozen=True)
class Saved:
    """The saved rows of a folder. data: the spelling of real rows; "" for generated ones."""

    folder: Path
    profile: str = "tiny"
    data: str = ""

    def read(self, name: str) -> list[Row]:
        """Return the rows of a file. Errors: NotRunError where it is not there, or empty."""
        path = self.folder / name
        if rows := read_rows(path) if path.is_file() else []:
            return rows
        raise NotRunError(name)

    def some(self, name: str) -> list[Row]:
        """Return the rows of a file, [] where it is not there."""
        try:
            return self.read(name)
        except NotRunError:
            return []

    def tuning(self, page: str) -> list[Row]:
        """Return the committed tuning rows of a page, named by the beginning of its files."""
        rates = profile_of(self.profile).rates
        plan = plans.plan(PLANS[page], (), *[rates] * bool(page))
        data = self.data or SOURCES[page]
        if rows := plans.saved_tuning(plan, profile=self.profile, data=data):
            return rows
        raise NotRunError(f"tuning rows of {PLANS[page]}")

    def done(self, page: str) -> dict[str, list[Row]]:
        """Return the reported rows of a page in the form of `ngdiff.study.plan.carry_out`."""
        parts = {part: self.read(f"{page}{part}") for part in ("matched.parquet", "levels.jsonl")}
        found = {name.partition(".")[0]: rows for name, rows in parts.items()}
        return found | {"unmatched": self.some(f"{page}unmatched.parquet")}


# ---------------------------------------------------------------------------------------- the runs
def _losses(name: str, saved: Saved) -> Drawn:
    rows, start = saved.read(f"{name}.jsonl"), saved.some("start.jsonl")
    histories = runs.by_name(saved.read(f"{name}_history.parquet"))
    level = next((row["loss_holdout"] for row in start if row["model"] == "start"), None)
    return runs.trajectories(histories, level, rows)


def _autolr(saved: Saved) -> Drawn:
    rows = saved.read("learning_rate.jsonl")
    return runs.autolr(runs.by_name(saved.read("learning_rate_history.parquet")), rows)


def _plane(page: str, saved: Saved) -> Drawn:
    done, axes = saved.done(page), suites.MUSE if page == "muse_" else {}
    return comparison.plane(done["matched"], done["levels"], unmatched=done["unmatched"], **axes)


def _rates(page: str, saved: Saved) -> Drawn:
    return comparison.rates(saved.tuning(page))


def _quality(saved: Saved) -> Drawn:
    return comparison.quality(saved.tuning(""), saved.read("starts.parquet"), "score")


def _requests(saved: Saved) -> Drawn:
    start = next(row for row in saved.read("muse_levels.jsonl") if row["model"] == "start")
    return suites.requests(saved.read("muse_folds.jsonl"), start)


def _membership(saved: Saved) -> Drawn:
    done = saved.done("semeval_")
    every = [*saved.tuning("semeval_"), *tables.reported(done)]
    published = [row for row in tables.published("semeval") if row["model"] == "olmo-7b"]
    return suites.membership(every, done["levels"], published)


# ----------------------------------------------------------------------------- the long comparison
def _where(saved: Saved) -> Drawn:
    rows = verdicts.load(saved.folder)
    went = [r | {"set": evidence.TITLES[n]} for n in rows.names for r in rows.of("geometry", n)]
    if not went:
        raise NotRunError("evidence_geometry_*.parquet")
    return long.where(went, evidence.gains(rows))


def _bands(saved: Saved) -> Drawn:
    rows = verdicts.load(saved.folder)
    if tried := rows.of("bands", "authors"):
        return long.bands(tried, rows.of("levels", "authors"))
    raise NotRunError(verdicts.file_name("bands", "authors"))


def used(name: str, folder: Path) -> list[str]:
    """Return the files that a figure of the long comparison is drawn from."""
    rows = verdicts.load(folder)
    if name == "fig10_bands":
        return [verdicts.file_name(part, "authors") for part in ("bands", "levels")]
    return [verdicts.file_name("geometry", n) for n in rows.names if rows.of("geometry", n)]


# ------------------------------------------------------------------------------------------ theory
def _theory(draw: Callable[..., Drawn], name: str, saved: Saved, **options: Any) -> Drawn:
    return draw(saved.read(f"theory_{name}.jsonl"), **options)


def _paths(saved: Saved) -> Drawn:
    return landscapes.trajectories(
        saved.read("theory_trajectories.jsonl"), saved.read("theory_pairs.jsonl")
    )


def _invariance(saved: Saved) -> Drawn:
    *rows, last = saved.read("theory_invariance.jsonl")
    return landscapes.invariance(rows, last["pair"])


FIGURES: tuple[tuple[str, Callable[[Saved], Drawn]], ...] = (
    ("fig0_start_here", partial(_losses, "start")),
    ("fig1_losses", partial(_theory, landscapes.losses, "losses", scale="log")),
    ("fig1_slopes", partial(_theory, one_step.slopes, "slopes")),
    ("fig2_gradient_space", partial(_theory, one_step.gradient_space, "gradient_space")),
    ("fig2_interval", partial(_theory, one_step.interval, "interval")),
    ("fig3_parabola", partial(_theory, one_step.along, "parabola")),
    ("fig3_autolr", _autolr),
    ("fig4_trajectories", _paths),
    ("fig4_windows", partial(_theory, one_step.window, "windows")),
    ("fig4_invariance", _invariance),
    ("fig5_trajectories", partial(_losses, "tiny_llm")),
    ("fig6_plane", partial(_plane, "")),
    ("fig6_rates", partial(_rates, "")),
    ("fig6_learning_rate", _quality),
    ("fig6_differences", lambda saved: comparison.differences(saved.read("claims.jsonl"))),
    ("fig7_tofu", partial(_plane, "tofu_")),
    ("fig7_rates", partial(_rates, "tofu_")),
    ("fig8_muse", partial(_plane, "muse_")),
    ("fig8_rates", partial(_rates, "muse_")),
    ("fig8_requests", _requests),
    ("fig9_membership", _membership),
    ("fig9_rates", partial(_rates, "semeval_")),
    ("fig10_where", _where),
    ("fig10_bands", _bands),
)


def figures(saved: Saved) -> Iterator[tuple[str, Drawn | str]]:
    """Yield the name of every figure and the figure, or the file without which it is not drawn."""
    for name, draw in FIGURES:
        try:
            yield name, draw(saved)
        except NotRunError as error:
            yield name, str(error)


def table(page: str, saved: Saved) -> str:
    """Return the main table of a page as text, "not run" without its rows.

    page: the beginning of its files' names, a key of `TABLES`.
    """
    try:
        done = saved.done(page) | {"tuning": saved.tuning(page)}
        return f"{tables.runs(done, TABLES[page], width=13)}\n{tables.FOOT}"
    except NotRunError as error:
        return f"not run: {error}"
