"""The size `micro`, which the timing tests know, and one measurement that they share."""

from __future__ import annotations

import pytest

from ngdiff.store.rows import read_rows
from ngdiff.timing import case
from ngdiff.timing.case import Case
from ngdiff.timing.step import step_table
from tests.helpers.timed import MICRO


@pytest.fixture(autouse=True)
def _micro(monkeypatch):
    monkeypatch.setitem(case.SIZES, "micro", MICRO)


@pytest.fixture(scope="session")
def measured(tmp_path_factory):
    """(rows, rows as saved, what was printed)."""
    path = tmp_path_factory.mktemp("bench") / "new" / "rows.jsonl"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(case.SIZES, "micro", MICRO)
        printed = []
        patch.setattr("builtins.print", lambda *text, **_: printed.append(" ".join(map(str, text))))
        rows = step_table(Case("micro", 16, pairs=1), path)
    return rows, read_rows(path), "\n".join(printed)
