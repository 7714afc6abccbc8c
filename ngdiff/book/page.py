"""Where a page writes: the committed places only under `ngdiff reproduce` with its defaults.

    page = opened(profile=profile, seeds=seeds, smoke=smoke)   # the first line of every notebook
    page.rows, page.figures                                    # folders to write to
    page.saved("populations.jsonl")                            # rows of this run, else committed

`ngdiff reproduce` tells a page where to write (NGDIFF_PAGE): to a folder in the cache. When the
page has run to its end, its files are put into their places (`Places.publish`). So a run that fails
changes nothing that is committed. Any other run, in Jupyter, through papermill or nbconvert, writes
to folders that git ignores. They are named after its settings, and the page prints them in a line.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ngdiff.book.parameters import checked
from ngdiff.evaluation.spelling import which
from ngdiff.store import paths
from ngdiff.store.cache import atomic_write
from ngdiff.store.rows import read_rows

PAGE = "NGDIFF_PAGE"  # where `ngdiff reproduce` makes a page write: a Places as JSON
DRAWN = "drawn"  # end of the label of a page that only draws saved rows


def label_of(
    profile: str, data: str = "", smoke: bool = False, seeds: Sequence[int] | None = None
) -> str:
    """Return the name of a run with these settings, such as tiny-smoke-seeds-0-1.

    seeds: None where each notebook has its own. Only a profile's plain name is a committed place.
    """
    label = paths.run_label(profile, data, smoke)
    return label + "".join(f"-{part}" for part in ("seeds", *seeds)) if seeds is not None else label


@dataclass(frozen=True)
class Places:
    """The folders of a run. rows, figures: where a page writes. published: where rows of this run
    lie that other pages have written.
    """

    rows: Path
    figures: Path
    published: Path

    @classmethod
    def of(cls, root: Path, label: str) -> Places:
        """Return the places of a label in a checkout: data/results/<label>, figures/<label>."""
        rows = root / "data" / "results" / label
        return cls(rows, root / "figures" / label, rows)

    def staged(self, folder: Path) -> Places:
        """Return these places with a folder to write to until the page has ended."""
        return Places(folder / "rows", folder / "figures", self.published)

    def publish(self, staged: Places, files: Iterable[Path]) -> list[Path]:
        """Put what a page has written to staged places into these; return the files here.

        files: all that it wrote; those elsewhere are left where they are.
        """
        done = []
        pairs = ((staged.rows, self.rows), (staged.figures, self.figures))
        for file in sorted(files):
            for here, there in pairs:
                if file.is_relative_to(here.resolve()) and file.is_file():
                    final = there / file.relative_to(here.resolve())
                    with atomic_write(final) as temporary:
                        shutil.copyfile(file, temporary)
                    done.append(final)
        return done

    def text(self) -> str:
        """Return the places as the value of NGDIFF_PAGE."""
        return json.dumps({name: str(value.resolve()) for name, value in vars(self).items()})


@dataclass(frozen=True)
class Page:
    """An open page: its checked parameters and its places."""

    parameters: dict[str, Any]
    places: Places

    def __getattr__(self, name: str) -> Any:
        try:
            return vars(self)["parameters"][name]
        except KeyError:
            raise AttributeError(f"this page has no parameter {name!r}") from None

    @property
    def rows(self) -> Path:
        """The folder for this page's rows."""
        return self.places.rows

    @property
    def figures(self) -> Path:
        """The folder for this page's figures."""
        return self.places.figures

    @property
    def published(self) -> Path:
        """The folder of saved rows that this page reads."""
        return self.places.published

    def saved(self, name: str) -> list[dict[str, Any]] | None:
        """Return saved rows: this page's own, else those of its run or the committed ones.

        None where they were not run.
        """
        files = [folder / name for folder in (self.rows, self.published)]
        found = next((file for file in files if file.is_file()), None)
        return None if found is None else read_rows(found)


def opened(**given: Any) -> Page:
    """Check a page's parameters and return the page, before anything is imported or written.

    Outside `ngdiff reproduce` it prints where the page writes. Errors: ValueError of
    `ngdiff.book.parameters.checked`; ValueError for refresh outside `ngdiff reproduce`.
    """
    asked = given.pop("rows", "")
    found = checked({**given, "rows": asked})
    asked = found.pop("rows")
    told = os.environ.get(PAGE)
    if told:
        places = Places(**{name: Path(value) for name, value in json.loads(told).items()})
        if asked:
            places = Places(places.rows, places.figures, Path(asked))
        return Page(found, places)
    if found.get("refresh"):
        raise ValueError(
            "refresh = True makes committed rows again, so it is an option of "
            "`ngdiff reproduce --refresh` alone: leave refresh = False here"
        )
    places = _by_hand(found, asked)
    shown = " and ".join(os.path.relpath(path) for path in (places.rows, places.figures))
    print(f"This run writes to {shown}, which git ignores.")
    return Page(found, places)


def _by_hand(found: dict[str, Any], asked: str) -> Places:
    """Return the places of a run outside `ngdiff reproduce`; asked: a folder of rows to draw."""
    root, seeds = paths.checkout() or Path.cwd(), found.get("seeds")
    data, smoke = which(found.get("data", "")), found.get("smoke", False)
    read = Places.of(root, label_of(found["profile"], data.real, smoke)).rows
    if seeds is None:
        read = Path(asked) if asked else read
        own = Places.of(root, f"{read.name}-{DRAWN}")
    else:
        made = "" if data.place or not data.text else f"-{data.text}"  # another generated one
        own = Places.of(root, label_of(found["profile"] + made, data.real, smoke, seeds))
    return Places(own.rows, own.figures, read)
