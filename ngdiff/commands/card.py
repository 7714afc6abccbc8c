"""What `ngdiff unlearn` says of a finished run, from its run.json: a summary, a page, a model card.

    report.html    numbers, sample answers, settings
    README.md      the model card: method, sizes, numbers, limits. Where the user's model has a
                   README, that one stays, and the card is UNLEARNING.md

The card holds no row of the user's files; the other two do.
"""

from __future__ import annotations

import html
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ngdiff.book.report import figure, page
from ngdiff.figures.runs import trajectories
from ngdiff.store import document
from ngdiff.store.cache import atomic_write
from ngdiff.store.table import DASH, Column, Table

REPORT, CARD, BESIDE = "report.html", "README.md", "UNLEARNING{}.md"
NUMBERS = (
    Column("set"),
    Column("rows", "sample", align="right"),
    Column("loss", "loss before", ".4g", "right"),
    Column("loss_after", "after", ".4g", "right"),
    Column("verbatim", "said verbatim before", align="right"),
    Column("verbatim_after", "after", align="right"),
    Column("rouge", "ROUGE-L before", ".3f", "right"),
    Column("rouge_after", "after", ".3f", "right"),
)
SAMPLES = tuple(Column(name) for name in ("set", "question", "answer", "before", "after"))
LIMITS = """\
- This is no guarantee of deletion. The numbers are of one prompt and of greedy answers.
- Another prompt, a paraphrase, sampling, more training or quantisation can bring answers back.
- The answers are those to a sample of each set. Other rows may differ.
- Nothing else was tested: skills outside of the retain rows may have suffered.
- `run.json` and `report.html` hold a few of the rows, forget rows among them. Remove both files
  before you publish the model.
"""


def _after(row: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return what the model says of a set in the end; empty where that was not measured."""
    return (row["after"] or {}).get(name, {})


def numbers(row: Mapping[str, Any]) -> Table:
    """Return what the model knew of each set before and after."""
    rows = []
    for name, one in row["before"].items():
        after = {f"{key}_after": value for key, value in _after(row, name).items()}
        rows.append({"set": name, **one, **after})
    return Table(NUMBERS, rows)


def samples(row: Mapping[str, Any], longest: int | None = None) -> Table:
    """Return a few answers of each set before and after; longest: letters of a cell."""

    def cut(text: str) -> str:
        return text if longest is None or len(text) <= longest else f"{text[: longest - 1]}…"

    rows = []
    for name, one in row["before"].items():
        after = _after(row, name).get("answers", [{}] * len(one["answers"]))
        for before, now in zip(one["answers"], after, strict=True):
            cells = {"question": before["question"], "answer": before["answer"]}
            cells |= {"before": before["said"], "after": now.get("said", DASH)}
            rows.append({"set": name} | {key: cut(text) for key, text in cells.items()})
    return Table(SAMPLES, rows)


def summary(row: Mapping[str, Any]) -> str:
    """Return what is printed in the end."""
    verdict = f"{row['verdict']}: {row['why']}"
    return "\n".join([numbers(row).text(), "", samples(row, 28).text(), "", verdict])


def facts(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (name, text) of what was done."""
    settings, sizes = row["settings"], row["sizes"]
    rate = "" if settings["lr"] is None else f" {settings['lr']:g}"
    model = Path(row["model"])  # a folder is absolute, and its place is private
    yield "Model", model.name if model.is_absolute() else row["model"]
    # what could not be measured has an error's message, which may name a folder
    yield "Verdict", f"{row['verdict']}: {row['why']}" if row["after"] else row["verdict"]
    yield (
        "Method",
        f"{settings['method']}, step size {settings['stepsize']}{rate}, {settings['optimizer']}, "
        f"{row['updates']} updates",
    )
    yield "Rows", ", ".join(f"{n} {name}" for name, n in sizes.items())
    if row["level"] is not None:
        yield "Stop", f"forget loss of a batch at least {row['level']:.4g}"
    bounds = row["bounds"]
    yield (
        "Bounds",
        f"at most {bounds['forget']:.0%} of the forget answers said verbatim, at least "
        f"{bounds['retain']:.0%} of the retain answers' score kept",
    )
    yield "Prompt", row["prompt"]


def losses(row: Mapping[str, Any], history: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the figure of both losses, where there are two steps to draw."""
    keys = ("forget_ce", "retain_ce")
    drawn = [dict(step) for step in history if all(math.isfinite(step[key]) for key in keys)]
    if len(drawn) < 2:
        return
    level = row["level"] if "holdout" in row["sizes"] else None
    png = io.BytesIO()
    trajectories({row["settings"]["method"]: drawn}, level).savefig(png, format="png", dpi=150)
    yield figure(png.getvalue(), "losses", "Both losses of each step's batch, before its update.")


def report(row: Mapping[str, Any], history: Sequence[Mapping[str, Any]]) -> str:
    """Return the page of a run; history: a row a step."""
    done = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(text)}</td></tr>"
        for name, text in facts(row)
    )
    stamped = document.text({"settings": row["settings"], "stamp": row["stamp"]})
    parts = [
        f"<h1>Unlearned: {html.escape(row['name'])}</h1>",
        f"<table>{done}</table>",
        f"<h2>Before and after</h2>\n{numbers(row).html()}",
        f"<h2>Sample answers</h2>\n{samples(row).html()}",
        *losses(row, history),
        "<h2>Limits</h2>",
        *(f"<p>{html.escape(line.strip('- `'))}</p>" for line in _items(LIMITS)),
        f"<h2>Stamp</h2>\n<pre>{html.escape(stamped)}</pre>",
    ]
    return page(f"ngdiff unlearn: {row['name']}", parts)


def _items(text: str) -> list[str]:
    """Return the items of a markdown list, each as one line without code marks."""
    return [" ".join(item.split()).replace("`", "") for item in text.split("\n- ")]


def card(row: Mapping[str, Any]) -> str:
    """Return the model card, in markdown."""
    done = "\n".join(f"- {name}: {text}" for name, text in facts(row))
    return (
        f"# {row['name']}, after unlearning\n\n"
        f"`ngdiff unlearn` made this model forget some rows of its training data.\n\n{done}\n\n"
        f"## Numbers\n\n{numbers(row).markdown()}\n\n"
        "Loss: mean over the answers' tokens, in nats. Said verbatim: the greedy answer holds the "
        f"true one word for word.\n\n## Limits\n\n{LIMITS}\n"
        "The licence of the original model applies.\n"
    )


def name_in(folder: Path) -> str:
    """Return the name of a new card in a folder that may have a README, and other cards."""
    readme = any(path.name.lower().startswith("readme") for path in folder.iterdir())
    names = (
        [CARD] if not readme else [BESIDE.format(n) for n in ("", *map("-{}".format, range(2, 99)))]
    )
    return next(name for name in names if not (folder / name).exists())


def write(row: Mapping[str, Any], history: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """Write page and card into OUT, the latter under the row's name for it."""
    with atomic_write(folder / REPORT) as temporary:
        temporary.write_text(report(row, history), "utf-8")
    with atomic_write(folder / row["card"]) as temporary:
        temporary.write_text(card(row), "utf-8")
