"""A report's file: strict JSON, whole or absent, and the same report when read back."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from ngdiff.evaluation import Report


@pytest.fixture
def report() -> Report:
    items = {
        "exact_memorization": {0: {"score": 0.25}, 1: {"score": None}},
        "forget_Q_A_PERT_Prob": {0: {"prob": [0.1, 0.3]}},
    }
    return Report(
        {"exact_memorization": 0.25, "loss_forget": 1 / 3},
        items,
        {"model": "micro", "rows": {"forget": 2}},
    )


def test_report_round_trips(report, tmp_path):
    path = report.to_json(tmp_path / "report.json")
    assert Report.from_json(path) == report
    json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert [p.name for p in tmp_path.iterdir()] == ["report.json"]


def test_report_holds_odd_floats_and_texts(tmp_path):
    items = {"a": {0: {"score": None}, 3: {"score": -math.inf, "generation": "infinite 東京"}}}
    odd = Report({"loss": math.inf, "x": 0.1 + 0.2}, items, {"note": "NaN"})
    assert Report.from_json(odd.to_json(tmp_path / "odd.json")) == odd


def test_a_failed_write_leaves_the_old_report(report, tmp_path):
    path = report.to_json(tmp_path / "report.json")
    with pytest.raises((TypeError, ValueError)):
        Report({"x": "y"}, {}, {"bad": object()}).to_json(path)
    assert Report.from_json(path) == report and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    "text", ["", "[]", '{"metrics": {}}', '{"metrics": {}, "items": {"a": {"x": 1}}, "meta": {}}']
)
def test_a_file_that_is_no_report_is_named(text, tmp_path):
    path: Path = tmp_path / "broken.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"broken\.json is not a report"):
        Report.from_json(path)
