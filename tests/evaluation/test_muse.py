"""MUSE's metrics: by hand on three rows, on a model that knows its documents by heart, and on
collapsed ones.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

import ngdiff as ng
from ngdiff import methods
from ngdiff.core.loop import unlearn
from ngdiff.core.stepsize import Constant
from ngdiff.data.benchmark import Benchmark
from ngdiff.data.made.news import news
from ngdiff.data.real import muse as muse_data
from ngdiff.data.real.muse import Parts
from ngdiff.evaluation import metrics, muse_texts
from ngdiff.evaluation.conventions import CONVENTIONS
from ngdiff.evaluation.muse import document, evaluate, open_unlearning, score, write
from ngdiff.evaluation.muse_score import NAMES, TEXTS
from ngdiff.evaluation.report import Report
from ngdiff.evaluation.suites import suite
from ngdiff.lm.model import LM
from ngdiff.lm.tokens import IGNORE, Example, collate, train_tokenizer
from ngdiff.profiles import profile
from tests.helpers import micro

OURS, MUSE, OPEN = (CONVENTIONS[name] for name in ("ngdiff", "muse", "open-unlearning"))
ROWS = [
    {"response": "a b c", "gt": "a b d e"},  # LCS 2: precision 2/3, recall 1/2, F1 4/7
    {"response": "", "gt": "a b"},  # 0
    # [a-z0-9] only: the mill in d, all there
    {"response": "The Mill, in Łódź!", "gt": "the mill in łódź"},
]

# Scores from a file, by hand ----------------------------------------------------------------------


def test_three_rows_by_hand():
    assert score({"verbmem": ROWS, "knowmem_r": ROWS[:1]}) == {
        "verbmem_f": pytest.approx(11 / 21),
        "knowmem_r": pytest.approx(4 / 7),
    }


def test_privleak_by_hand():
    # non-member > member: 2>1, 3>1, 3>2 and a tie 2=2: AUC = 3.5/4; A = 1/8
    file = {"privleak": {"forget": [1, 2], "holdout": [2, 3], "retain": [0, 9]}}
    assert score(file) == {
        "mia_min_k": 0.875,
        "privleak": pytest.approx(-75.0),
        "mia_min_k_retain": 0.5,
    }
    # the reference: 4>3 and 4>1 of four pairs: AUC_ret = ½ and A_ret = ½; then 1 of 4: A_ret = ¾
    assert score(file, {"privleak": {"forget": [3, 1], "holdout": [0, 4]}})[
        "privleak"
    ] == pytest.approx(-75.0)
    assert score(file, {"privleak": {"forget": [3, 4], "holdout": [0, 3.5]}})[
        "privleak"
    ] == pytest.approx((0.125 / 0.75 - 1) * 100)


def test_ties_a_single_row_and_what_is_undefined():
    assert score({"privleak": {"forget": [1.0], "holdout": [1.0]}}) == {
        "mia_min_k": 0.5,
        "privleak": 0.0,
    }
    assert score({"privleak": {"forget": [None, 1], "holdout": [2]}})["mia_min_k"] == 1.0, (
        "undefined scores are left out"
    )
    assert score({"privleak": {"forget": [None], "holdout": [2]}}) == {}
    infinite = {"privleak": {"forget": [{"infinite": 1}, 5], "holdout": [5, 6]}}
    assert score(infinite) == {"mia_min_k": 0.375, "privleak": 25.0}
    assert score({"knowmem_f": [{"response": "no", "gt": "yes"}]}) == {"knowmem_f": 0.0}
    # a reference that is always taken in: A_ret = 0, no scale is left, but 1e-10 under
    # open-unlearning
    sure = {"privleak": {"forget": [0], "holdout": [1]}}
    file = {"privleak": {"forget": [1], "holdout": [1]}}
    assert score(file, sure) == {"mia_min_k": 0.5}
    assert score(file, sure, "open-unlearning")["privleak"] == pytest.approx(0.5 / 1e-10 * 100)


def test_open_unlearning_stems_and_adds_to_the_denominator():
    file = {
        "verbmem": [{"response": "the mills", "gt": "the mill"}],
        "privleak": {"forget": [0], "holdout": [1]},
    }
    assert score(file)["verbmem_f"] == score(file, convention="muse")["verbmem_f"] == 0.5
    theirs = score(file, convention="open-unlearning")
    assert theirs["verbmem_f"] == 1.0 and theirs["privleak"] == pytest.approx(
        -0.5 / (0.5 + 1e-10) * 100, abs=1e-12
    )


TEXT, FOUR = {"response": "a", "gt": "b"}, {"forget": [1, 2], "holdout": [1, 2]}


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (
            [],
            "the file is no object but list; its keys are verbmem, knowmem_f, knowmem_r, privleak",
        ),
        ({}, "the file is empty"),
        ({"verbmem_f": [TEXT]}, "the file has 'verbmem_f'; its keys are verbmem"),
        ({"verbmem": []}, "verbmem is empty"),
        ({"verbmem": "text"}, "verbmem is empty|verbmem is"),
        ({"verbmem": {"0": TEXT}}, "verbmem is no list but dict"),
        ({"knowmem_f": [TEXT, {"response": "a"}]}, "knowmem_f, row 1: no text under 'gt'"),
        (
            {"knowmem_r": [{"response": None, "gt": "b"}]},
            "knowmem_r, row 0: no text under 'response'",
        ),
        ({"knowmem_r": ["a"]}, "knowmem_r, row 0: no text under 'response'"),
        ({"privleak": [1, 2]}, "privleak needs the lists forget and holdout"),
        ({"privleak": {"forget": [1]}}, "privleak needs the lists forget and holdout"),
        (
            {"privleak": FOUR | {"retain2": [1]}},
            "privleak has 'retain2'; its lists are forget, holdout, retain",
        ),
        ({"privleak": FOUR | {"holdout": []}}, "privleak holdout is empty"),
        ({"privleak": FOUR | {"holdout": [1, "2"]}}, "privleak holdout, row 1: '2' is no number"),
        ({"privleak": FOUR | {"forget": [True]}}, "privleak forget, row 0: True is no number"),
    ],
)
def test_another_shape_is_named_by_list_and_index(file, message):
    with pytest.raises(ValueError, match=message):
        score(file)
    if isinstance(file, dict) and "privleak" in file:
        with pytest.raises(ValueError, match=message):
            score({"privleak": FOUR}, file)


def test_a_reference_of_other_documents_is_refused():
    with pytest.raises(ValueError, match="the reference has no privleak scores"):
        score({"privleak": FOUR}, {"verbmem": [TEXT]})
    with pytest.raises(
        ValueError,
        match="privleak holdout: 2 scores, but 3 in the reference: they are of different",
    ):
        score({"privleak": FOUR}, {"privleak": FOUR | {"holdout": [1, 2, 3]}})
    with pytest.raises(ValueError, match="the convention 'tofu' is not defined for muse"):
        score({"privleak": FOUR}, convention="tofu")


def test_scoring_a_file_loads_no_torch():
    code = (
        "import sys, ngdiff.evaluation.muse_score; print('torch' in sys.modules, "
        "'transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


# A small model ------------------------------------------------------------------------------------

WHO = ["Ann", "Bea", "Cem", "Dan"]


def _room(who: str, i: int) -> str:
    return f"room {(37 * i + 11 * ord(who[0])) % 89 + 10}"  # another one for each side


def _told(who: str, i: int) -> tuple[str, str]:
    town, friend = micro.TOWNS[(3 * i + ord(who[0])) % 8], WHO[(i + ord(who[1])) % 4]
    return f"{who} {i} came home to", f"{town} and met {friend} in {_room(who, i)}."


@cache
def bench() -> Benchmark:
    def text(who: str, i: int) -> dict:
        return {"question": "", "answer": " ".join(_told(who, i))}

    def asked(who: str, i: int) -> dict:
        return {"question": f"Room of {who} {i}?", "answer": _room(who, i)}

    def pages(who: str, shots: range) -> list[dict]:
        pairs = [asked(who, s) for s in shots]
        shots_text = "".join(f"Question: {p['question']}\nAnswer: {p['answer']}\n\n" for p in pairs)
        rows = [asked(who, i) for i in range(2, 6)]
        return [
            {
                "question": "",
                "answer": f"{shots_text}Question: {r['question']}\nAnswer: {r['answer']}\n\n",
            }
            for r in rows
        ]

    forget, retain = [text("Eva", i) for i in range(6)], [text("Ben", i) for i in range(6)]
    holdout = [text("Ida", i) for i in range(6)]
    configs = {
        **{
            "forget": forget + pages("Eva", range(2)),
            "retain": retain + pages("Ben", range(2)),
            "holdout": holdout,
        },
        "verbmem": [
            dict(zip(("question", "answer"), _told("Eva", i), strict=True)) for i in range(6)
        ],
        **{
            "knowmem_f": [asked("Eva", i) for i in range(2, 6)],
            "knowmem_f_icl": [asked("Eva", i) for i in range(2)],
        },
        **{
            "knowmem_r": [asked("Ben", i) for i in range(2, 6)],
            "knowmem_r_icl": [asked("Ben", i) for i in range(2)],
        },
        **{"privleak_forget": forget, "privleak_retain": retain, "privleak_holdout": holdout},
    }
    return Benchmark("muse", "forget", configs, [], {"name": "micro"})


def _lm(seed: int, name: str) -> LM:
    texts = [
        row[key]
        for rows in bench().configs.values()
        for row in rows
        for key in ("question", "answer")
    ]
    tokenizer = train_tokenizer(sorted(set(texts)) * 3, 400)
    model = micro._model(tokenizer, seed)
    model.config.max_position_embeddings = 256
    return LM(model, tokenizer, bench().prompt, name)


@cache
def random() -> LM:
    return _lm(0, "random")


@cache
def trained(name: str) -> LM:
    """One that knows all documents by heart ("target"), or only the retained ones ("reference")."""
    lm = _lm(1, name)
    lm.model.lm_head.weight.data.div_(20)
    rows = bench().full if name == "target" else bench().retain
    batch = collate([lm.encode("", row["answer"]) for row in rows], lm.pad_id)
    optimizer = torch.optim.Adam(lm.model.parameters(), lr=1e-2)
    for _ in range(200):
        loss = lm.model(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.3
    return lm


def test_anchors_a_target_leaks_and_a_reference_does_not():
    reference = evaluate(trained("reference"), bench())
    report = evaluate(trained("target"), bench(), reference)
    assert report.metrics["mia_min_k"] == 1.0 and report.metrics["privleak"] == pytest.approx(-100)
    assert (
        report.metrics["verbmem_f"]
        == report.metrics["extraction_strength"]
        == report.metrics["exact_memorization"]
        == 1.0
    )
    assert report.metrics["knowmem_f"] > 0.9 and report.metrics["knowmem_r"] > 0.9
    assert report.metrics["loss_forget"] < 0.3 < 1 < report.metrics["loss_holdout"]
    assert (
        report.meta["auc_retain"] == reference.metrics["mia_min_k"]
        and report.meta["reference"] == "reference"
    )
    assert reference.metrics["knowmem_r"] > 0.9 > 0.6 > reference.metrics["knowmem_f"]
    assert reference.metrics["verbmem_f"] < 0.7 and reference.metrics["mia_min_k_retain"] == 0.0
    assert evaluate(trained("target"), bench(), trained("reference")).metrics == report.metrics, (
        "a model or its report"
    )
    alone = evaluate(trained("target"), bench(), generate=False)
    assert (
        alone.meta["auc_retain"] == 0.5
        and alone.meta["reference"] is None
        and "verbmem_f" not in alone.metrics
    )


@pytest.mark.parametrize("convention", ["ngdiff", "muse", "open-unlearning"])
def test_scoring_the_file_of_a_report_gives_its_metrics(convention, tmp_path):
    reference = evaluate(trained("reference"), bench(), convention=convention)
    report = evaluate(trained("target"), bench(), reference, convention)
    files = [
        json.loads(write(r, tmp_path / f"{r.meta['model']}.json").read_text("utf-8"))
        for r in (report, reference)
    ]
    scored = score(*files, convention)
    assert scored.keys() == {*TEXTS.values(), "mia_min_k", "mia_min_k_retain", "privleak"}
    assert scored == {name: pytest.approx(report.metrics[name], abs=1e-12) for name in scored}
    report.to_json(tmp_path / "report.json")
    assert document(Report.from_json(tmp_path / "report.json")) == document(report)


@pytest.mark.parametrize("lm", [random, lambda: trained("reference")], ids=["random", "reference"])
def test_batches_of_one_and_of_all_say_the_same(lm):
    one, all_of_them = (evaluate(lm(), bench(), budget=budget) for budget in (1, 10**6))
    assert one.metrics == {
        name: pytest.approx(value, abs=1e-5) for name, value in all_of_them.metrics.items()
    }
    for name in TEXTS:
        assert [r["response"] for r in one.items[name].values()] == [
            r["response"] for r in all_of_them.items[name].values()
        ]


def test_min_k_is_that_of_one_plain_forward():
    lm = random()
    for convention, drop in (("ngdiff", 0), ("muse", 0), ("open-unlearning", 1)):
        report = evaluate(lm, bench(), convention=convention, generate=False)
        for side in ("forget", "retain", "holdout"):
            for i, row in enumerate(bench().rows(f"privleak_{side}")):
                ids = lm.tokenizer(row["answer"])["input_ids"]
                logp = micro.slow(lm.model, Example(ids, ids))[0]
                logp = np.sort(logp[: len(logp) - drop])
                expected = -logp[: int(0.4 * len(logp))].mean()
                assert report.items[f"privleak_{side}"][i]["score"] == pytest.approx(
                    expected, abs=1e-4
                )


def test_losses_are_per_token_of_whole_documents():
    lm = random()
    report = evaluate(lm, bench(), generate=False)
    for name in ("forget", "retain", "holdout"):
        logp = [micro.slow(lm.model, lm.encode("", row["answer"]))[0] for row in bench().rows(name)]
        assert report.metrics[f"loss_{name}"] == pytest.approx(
            -np.concatenate(logp).mean(), abs=1e-5
        )
    first = evaluate(lm, bench(), generate=False, documents=1).metrics["loss_forget"]
    assert first == pytest.approx(
        -micro.slow(lm.model, lm.encode("", bench().forget[0]["answer"]))[0].mean(), abs=1e-5
    )


# Texts and tokens ---------------------------------------------------------------------------------


def test_the_prompt_of_knowmem_and_its_last_space():
    row, shots = bench().rows("knowmem_f")[0], bench().rows("knowmem_f_icl")
    text = muse_texts.prompt(row, shots)
    assert text == (
        "Question: Room of Eva 0?\nAnswer: room 57\n\nQuestion: Room of Eva 1?\nAnswer: room 94\n\n"
        "Question: Room of Eva 2?\nAnswer: "
    )
    lm = random()
    assert OURS.asked(lm, text, "it")[0] == lm.tokenizer(text[:-1])["input_ids"]
    for how in (MUSE, OPEN):
        assert how.asked(lm, text, "it") == (lm.tokenizer(text)["input_ids"], "it")


@pytest.mark.parametrize(
    ("said", "cut"),
    [
        (" room 9\n\nQuestion: Who?", " room 9"),
        (" room 9\nQuestion: Who?\n\nmore", " room 9"),
        (" room 9 Question: Who?", " room 9 "),
        ("\n\nroom 9", ""),
        ("", ""),
        (" Łódź\nis a town", " Łódź\nis a town"),
    ],
)
def test_an_answer_ends_where_the_next_question_begins(said, cut):
    lm = random()
    ids = lm.tokenizer(said)["input_ids"]
    assert OURS.response(lm, ids, True) == MUSE.response(lm, ids, True) == cut
    assert OPEN.response(lm, ids, True) == cut.strip()
    assert OURS.response(lm, ids, False) == said, "a continuation is not cut"


def test_responses_are_those_of_transformers():
    """MUSE's own way: a prompt at a time, its text as it stands, `generate` of transformers."""
    lm = random()
    report = evaluate(lm, bench(), convention="muse", max_new_tokens=12)
    for name in TEXTS:
        for i, row in enumerate(bench().rows(name)):
            shots = None if name == "verbmem" else bench().rows(f"{name}_icl")
            text = muse_texts.prompt(row, shots) if shots else row["question"]
            ids = lm.tokenizer(text, return_tensors="pt").input_ids
            options = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": lm.pad_id}
            made = lm.model.generate(ids, attention_mask=torch.ones_like(ids), **options)[
                0, ids.shape[1] :
            ]
            said = lm.tokenizer.decode(made, skip_special_tokens=True)
            for stop in ("\n\n", "\nQuestion", "Question:") if shots else ():
                said = said.split(stop)[0]
            assert report.items[name][i]["response"] == said


def test_as_many_tokens_of_the_truth_count_as_are_generated():
    lm, row = random(), bench().rows("verbmem")[1]
    ids = lm.tokenizer(row["answer"])["input_ids"]

    def truth(how, n):
        encoded = how.continuation(lm, row["question"], row["answer"], n)
        return how.continued(lm, row["answer"], n, encoded)

    for n in (1, 3, len(ids), 99):
        assert truth(OURS, n) == truth(MUSE, n) == lm.tokenizer.decode(ids[:n])
    together = lm.tokenizer(f"{row['question']} {row['answer']}")["input_ids"]
    start = len(lm.tokenizer(row["question"])["input_ids"])
    assert truth(OPEN, 3) == lm.tokenizer.decode(together[start:]).strip()  # 2048 of them
    report = evaluate(trained("target"), bench(), max_new_tokens=3)
    assert (
        report.items["verbmem"][1]["gt"] == lm.tokenizer.decode(ids[:3])
        and report.meta["max_new_tokens"] == 3
    )
    assert len(lm.tokenizer(report.items["knowmem_f"][0]["response"])["input_ids"]) <= 3


def test_the_labelled_continuation():
    lm, head, tail = random(), "Eva 1 came home", "to Łódź."
    ids = lm.tokenizer(f"{head} {tail}")["input_ids"]
    start = len(lm.tokenizer(head)["input_ids"])

    def parts(how, lm, head, tail, n):
        row = how.continuation(lm, head, tail, n)
        return row.input_ids, row.labels

    whole = (ids, [IGNORE] * start + ids[start:])
    for two in ((head, tail), (head, f" {tail}"), (f"{head} ", tail)):
        assert parts(OURS, lm, *two, 99) == whole, "one space joins them"
    assert parts(OPEN, lm, head, tail, 99) == whole
    two = ids[start : start + 2]
    assert parts(OURS, lm, head, tail, 2) == (ids[: start + 2], [IGNORE] * start + two)
    # the context is short: the beginning of the prompt goes, what is told stays
    short = replace(lm, model=micro._model(lm.tokenizer, 0))
    short.model.config.max_position_embeddings = len(ids) - start + 2
    kept = (ids[start - 2 :], [IGNORE] * 2 + ids[start:])
    assert parts(OURS, short, head, tail, 99) == kept


def test_texts_longer_than_the_context_are_cut_and_counted():
    lm = _lm(0, "short")
    longest = max(
        len(lm.tokenizer(row["answer"])["input_ids"]) for row in bench().rows("privleak_forget")
    )
    lm.model.config.max_position_embeddings = limit = longest - 4
    report = evaluate(lm, bench(), max_new_tokens=4)
    assert report.meta["cut"]["privleak_forget"] >= 1 and report.meta["cut"]["knowmem_f"] == 4
    assert set(report.metrics) >= {"verbmem_f", "knowmem_f", "privleak", "loss_forget"}
    i, ids = next(
        (i, ids)
        for i, row in enumerate(bench().rows("privleak_forget"))
        if len(ids := lm.tokenizer(row["answer"])["input_ids"]) > limit
    )
    expected = metrics.min_k(micro.slow(lm.model, Example(ids[:limit], ids[:limit]))[0])
    assert report.items["privleak_forget"][i]["score"] == pytest.approx(expected, abs=1e-4)
    whole = evaluate(random(), bench(), max_new_tokens=4)
    assert not any(whole.meta["cut"].values())


def test_bos_stays_in_front_of_a_shortened_prompt():
    lm = random()
    bos = lm.tokenizer.bos_token_id
    assert muse_texts.last(lm, [bos, 5, 6, 7], 3) == [bos, 6, 7]
    assert muse_texts.last(lm, [4, 5, 6, 7], 3) == [5, 6, 7]
    assert muse_texts.last(lm, [bos, 5], 3) == [bos, 5] and muse_texts.last(lm, [bos, 5, 6], 1) == [
        bos
    ]


# Edges --------------------------------------------------------------------------------------------


def test_whatever_parts_there_are_are_evaluated():
    some = {
        "knowmem_f": bench().rows("knowmem_f"),
        "privleak_forget": bench().rows("privleak_forget"),
    }
    report = evaluate(random(), Parts("muse", "forget", some, [], {}))
    assert set(report.metrics) == {"knowmem_f"}, (
        "without hold-out documents no AUC; without pairs, no shots"
    )
    assert (
        list(document(report)) == ["knowmem_f"] and report.items["privleak_forget"][0]["score"] > 0
    )


def test_a_document_of_one_token_has_no_score():
    one = dict(bench().configs) | {
        "privleak_forget": [{"question": "", "answer": "a"}, *bench().rows("privleak_forget")]
    }
    report = evaluate(random(), replace(bench(), configs=one), generate=False)
    assert (
        report.items["privleak_forget"][0] == {"score": None}
        and 0 <= report.metrics["mia_min_k"] <= 1
    )


def test_a_collapsed_model_is_an_outcome(tmp_path):
    lm = _lm(0, "collapsed")
    lm.model.lm_head.weight.data.fill_(math.nan)
    report = evaluate(lm, bench(), trained("reference"))
    assert report.metrics["mia_min_k"] == 0.5 and report.metrics["loss_forget"] == math.inf
    assert [report.metrics[name] for name in TEXTS.values()] == [0, 0, 0]
    assert all(row["response"] == "" for row in report.items["verbmem"].values())
    file = json.loads(write(report, tmp_path / "file.json").read_text("utf-8"))
    assert score(file)["mia_min_k"] == 0.5


def test_references_that_do_not_belong_are_refused():
    report = evaluate(random(), bench(), generate=False)
    with pytest.raises(
        ValueError, match="the reference report has convention 'ngdiff', this evaluation 'muse'"
    ):
        evaluate(random(), bench(), report, "muse")
    fewer = replace(
        bench(),
        configs=dict(bench().configs) | {"privleak_holdout": bench().rows("privleak_holdout")[1:]},
    )
    with pytest.raises(ValueError, match="the reference report is of other rows"):
        evaluate(random(), fewer, report)
    with pytest.raises(ValueError, match="unknown convention 'mose'"):
        evaluate(random(), bench(), convention="mose")


def test_open_unlearnings_names():
    found = open_unlearning(evaluate(trained("target"), bench(), convention="open-unlearning"))
    assert set(found) == set(NAMES.values())
    row = found["forget_verbmem_ROUGE"]["value_by_index"][0]
    assert set(row) == {
        "rouge1_recall",
        "rougeL_f1",
        "rougeL_recall",
        "input",
        "ground_truth",
        "generation",
    }
    assert (
        found["mia_min_k"]["forget"]["value_by_index"][0]["score"]
        < found["mia_min_k"]["holdout"]["agg_value"]
    )
    assert found["mia_min_k"]["auc"] == found["mia_min_k"]["agg_value"] == 1.0


def test_the_files_of_a_report(tmp_path):
    report = evaluate(random(), bench(), generate=False)
    found = suite("muse").evaluator().write_files(report, tmp_path)
    assert [path.name for path in found] == ["MUSE.json", "MUSE_EVAL.json", "MUSE_SUMMARY.json"]
    theirs, summary = (json.loads(path.read_text("utf-8")) for path in found[1:])
    assert summary == {name: value["agg_value"] for name, value in theirs.items()} and summary
    assert theirs["mia_min_k"]["auc"] == report.metrics["mia_min_k"]
    assert json.loads(found[0].read_text("utf-8")) == document(report)


def test_the_published_a_ret_stands_in_for_a_retrained_model():
    """muse_bench's AUC_RETRAIN, of its own 100 documents a side; in words, and not in open-
    unlearning, whose code takes ½."""
    texts = [{"question": "", "answer": f"Text {i}."} for i in range(200)]
    sides = {"privleak_forget": texts[:100], "privleak_holdout": texts[100:]}
    for corpus, a_ret in (("news", 0.4772), ("books", 0.5393)):
        whole = muse_data.assemble(sides, {"name": "muse", "corpus": corpus, "fold": None})
        for name in ("ngdiff", "muse"):
            report = evaluate(random(), whole, convention=name, generate=False)
            auc = report.metrics["mia_min_k"]
            assert report.metrics["privleak"] == pytest.approx((1 - auc - a_ret) / a_ret * 100)
            (note,) = report.meta["notes"]
            assert note == (
                f"privleak: A_ret = {a_ret}, published for MUSE's retrained model of {corpus}"
            )
        part = {"privleak_forget": texts[:99], "privleak_holdout": texts[100:]}
        own = muse_data.assemble(part, whole.source)
        fold = muse_data.assemble(sides, whole.source | {"fold": ["sust", 1]})
        for other, name in ((whole, "open-unlearning"), (own, "muse"), (fold, "muse")):
            report = evaluate(random(), other, convention=name, generate=False)
            assert report.meta["auc_retain"] == 0.5
            assert report.meta["notes"][0].endswith(
                "because no retrained model was given (--reference)"
            )


# Requests -----------------------------------------------------------------------------------------


def test_four_requests_in_a_row_are_unlearned_and_evaluated():
    P = replace(profile("tiny"), authors=8)
    small = news(replace(P, name="small"))
    texts = [row[key] for row in small.full + small.holdout for key in ("question", "answer")]
    tokenizer = train_tokenizer(texts, 400)
    lm = LM(micro._model(tokenizer, 0), tokenizer, small.prompt, "start")
    lm.model.config.max_position_embeddings = 512
    reference = evaluate(lm, small, generate=False)
    gaps = [reference.metrics["loss_forget"] - reference.metrics["loss_retain"]]
    for k in (1, 2, 3, 4):
        request = news(P, fold=("sust", k))
        lm = unlearn(
            ng.problem(request, lm, batch_size=4), methods.ngdiff, Constant(3e-3), steps=3
        ).model
        report = evaluate(lm, small, reference, generate=k == 4, max_new_tokens=4)
        gaps.append(report.metrics["loss_forget"] - report.metrics["loss_retain"])
        assert (
            evaluate(lm, request, reference, generate=False).metrics["privleak"]
            == report.metrics["privleak"]
        )
    assert gaps == sorted(gaps) and gaps[-1] > gaps[0] + 0.1
    assert set(report.metrics) >= {"verbmem_f", "knowmem_f", "knowmem_r", "privleak"}
