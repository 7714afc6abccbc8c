"""MUSE's own folders of results, in both of their forms."""

from __future__ import annotations

import json

import pytest

from ngdiff import score
from ngdiff.score import muse

FORGET, HOLDOUT, RETAIN = [1.0, 2.0], [1.5, 3.0], [1.0, 2.5]  # AUC of forget as members: ¾, ⅝
SAID = [("a red fox", "a red fox"), ("a red fox", "a fox"), ("…", "a fox")]


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), "utf-8")


def rows():
    return [{"prompt": "Q", "response": said, "gt": gt, "rougeL": 0} for said, gt in SAID]


def new_form(root, forget=FORGET):
    put(root / "knowmem_f/log.json", rows())
    put(root / "knowmem_f/agg.json", {"mean_rougeL": (1 + 0.8) / 3})
    sides = {"forget": forget, "holdout": HOLDOUT, "retain": RETAIN}
    log = {side: [{"PPL": 2, "Min-40%": v} for v in values] for side, values in sides.items()}
    put(root / "privleak/log.json", log)
    return root


def old_form(root, forget=FORGET):
    put(root / "knowmem/history.json", rows())
    put(root / "knowmem/out.json", {"mean_rougeL": (1 + 0.8) / 3})
    for side, values in (("forget", forget), ("holdout", HOLDOUT), ("retain2", RETAIN)):
        told = [{"text": "t", "ppl": {"PPL": 2, "Min-40%": value}} for value in values]
        put(root / f"privleak/{side}.json", told)
    return root


@pytest.mark.parametrize(("form", "name"), [(new_form, "knowmem_f"), (old_form, "knowmem")])
def test_both_forms_give_the_numbers_of_their_rows(tmp_path, form, name):
    values, warnings = muse.score(form(tmp_path))
    # F1 of "a red fox" against "a fox": precision ⅔, recall 1
    assert values[name] == pytest.approx((1 + 0.8 + 0) / 3, rel=1e-12)
    assert values["mia_min_k"] == 0.75 and values["mia_min_k_retain"] == 0.625
    assert values["privleak"] == pytest.approx((0.25 - 0.5) / 0.5 * 100)
    assert any("AUC_ret = ½" in line for line in warnings)
    assert (name == "knowmem") == any("does not state whether" in line for line in warnings)
    assert score.score("muse", tmp_path)[0] == values


@pytest.mark.parametrize("form", [new_form, old_form])
def test_a_reference_may_be_a_folder(tmp_path, form):
    reference = form(tmp_path / "ref", forget=[1.6, 2.0])  # AUC ½
    values, warnings = muse.score(form(tmp_path / "ours"), reference)
    assert values["privleak"] == pytest.approx((0.25 - 0.5) / 0.5 * 100)
    assert any("not tested whether it is of the same documents" in line for line in warnings)
    assert not any("the same values" in line for line in warnings)
    assert any("the same values" in w for w in muse.score(reference, reference)[1])


def test_what_a_summary_says_otherwise_and_what_is_not_used_is_told(tmp_path):
    new_form(tmp_path)
    put(tmp_path / "knowmem_f/agg.json", {"mean_rougeL": 0.9})
    put(tmp_path / "fluency/log.json", [])
    lines = muse.score(tmp_path)[1]
    assert any("agg.json: its mean_rougeL is 0.9, its rows give 0.6" in line for line in lines)
    assert any("1 files not used: fluency/log.json" in line for line in lines)


def test_a_folder_that_is_no_result_and_a_row_that_is_none(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no results of MUSE in .*: looked for verbmem_f"):
        muse.score(tmp_path)
    new_form(tmp_path)
    put(tmp_path / "knowmem_f/log.json", [{"response": "a"}])
    with pytest.raises(ValueError, match=r"knowmem_f/log\.json, row 0: no text under 'gt'"):
        muse.score(tmp_path)
    new_form(tmp_path)
    put(tmp_path / "privleak/log.json", {"forget": [{"PPL": 1}], "holdout": [{"Min-40%": 1}]})
    with pytest.raises(ValueError, match=r"log\.json, forget, row 0: no 'Min-40%' \(it has PPL\)"):
        muse.score(tmp_path)
