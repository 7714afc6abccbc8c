"""A model that does not know the forget rows under its prompt is refused before any step."""

from __future__ import annotations

import copy
import dataclasses
import json

import numpy as np
import pytest

from ngdiff.commands import doubt as module
from ngdiff.commands.doubt import USUAL, better_prompt, doubt
from ngdiff.commands.outcome import known
from ngdiff.commands.start import shown
from ngdiff.data.benchmark import Prompt, form_of
from ngdiff.evaluation.forward import loss
from ngdiff.lm.model import LM
from ngdiff.store.rows import write_rows
from tests.helpers import micro, own_model
from tests.helpers.own_model import go

ALPACA = "### Instruction:\n{question}\n\n### Response:\n"
UNUSUAL = "Tell me, oracle. {question} The oracle says: "


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A folder with a `model` that learned the forget rows under ALPACA, and has the default."""
    lm = micro.memorised(form_of(ALPACA), 1e-2)
    place = tmp_path_factory.mktemp("given")
    own_model.folder(place, LM(lm.model, lm.tokenizer, Prompt(), "instructed"))
    write_rows(place / "retain.jsonl", [{"question": "What is it?", "answer": "Bread and salt."}])
    unlike = [f"Quartz zebra vivid {i} jumping fox." for i in range(8)]
    rows = [{"question": f"Where does Cem {i} live?", "answer": a} for i, a in enumerate(unlike)]
    write_rows(place / "holdout.jsonl", rows)
    return place


def numbers(verbatim: int, rouge: float | None, loss: float | None) -> dict:
    found = {"rows": 8, "verbatim": verbatim, "rouge": rouge, "rouge_sd": 0.05}
    return found | {"loss": loss, "row_loss": loss, "row_loss_sd": 0.4}


# ------------------------------------------------------------------------------------- on a command
def test_a_model_trained_with_another_prompt_is_refused_by_the_name_of_it(given, tmp_path):
    result = go(given, tmp_path / "out", f"--holdout={given / 'holdout.jsonl'}")
    said = str(result.exception)
    assert isinstance(result.exception, ValueError) and list(tmp_path.iterdir()) == []
    assert "--prompt '### Instruction:\\n{question}\\n\\n### Response:\\n'" in said
    assert "--allow-unknown" in said and "'Question: Where does Ann 0 live?\\nAnswer:'" in said
    # without hold-out rows too
    assert "may have been trained on the forget rows with" in str(
        go(given, tmp_path / "out").exception
    )


def test_with_the_right_prompt_it_forgets(given, tmp_path):
    prompt = ALPACA.replace("\n", "\\n")
    more = (f"--holdout={given / 'holdout.jsonl'}", f"--prompt={prompt}", "--retain-bound=0")
    result = go(given, tmp_path / "out", *more, "--forget-bound=0.3")
    assert result.exit_code == 0, result.output + repr(result.exception)
    assert result.output.startswith(
        "prompt: '### Instruction:\\nWhere does Ann 0 live?\\n\\n### Response:\\n'\n"
    )
    row = json.loads((tmp_path / "out/run.json").read_text())
    assert row["verdict"] == "forgotten" and row["doubt"] is None
    assert row["before"]["forget"]["verbatim"] == 8 > 3 > row["after"]["forget"]["verbatim"]


def test_it_goes_on_where_the_user_says_so_and_ends_without_success(given, tmp_path):
    more = (f"--holdout={given / 'holdout.jsonl'}", "--allow-unknown", "--forget-bound=1")
    result = go(given, tmp_path / "out", *more, "--retain-bound=0")
    assert result.exit_code == 6 and "warning: the model may have" in result.output
    assert "not known: " in result.output
    row = json.loads((tmp_path / "out/run.json").read_text())
    assert row["doubt"]["kind"] == "prompt" and "another prompt" in row["doubt"]["text"]


def test_rows_that_were_never_learned_are_refused(given, tmp_path):
    rows = [
        {"question": f"Who is Ada {i}?", "answer": f"A painter of {i} boats."} for i in range(8)
    ]
    write_rows(tmp_path / "forget.jsonl", rows[:4])
    write_rows(tmp_path / "holdout.jsonl", rows[4:])
    places = [f"--{name}={tmp_path / f'{name}.jsonl'}" for name in ("forget", "holdout")]
    said = str(go(given, tmp_path / "out", *places).exception)
    assert "does not know the forget rows clearly better than the hold-out rows" in said
    assert "another prompt than" in said and "never trained on these rows" in said


# ---------------------------------------------------------------------------------------- its parts
@pytest.mark.parametrize("prompt", [USUAL[0], USUAL[2], UNUSUAL])
def test_a_model_that_knows_its_rows_is_not_doubted(prompt):
    lm, bench = micro.memorised(form_of(prompt), 1e-2), micro.bench()
    before = {"forget": numbers(8, 1.0, 0.01), "holdout": numbers(0, 0.5, 3.0)}
    assert doubt(lm, bench.forget, bench.holdout, before, shown(lm, bench)) is None


TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}<bos>\n{% endfor %}"
TURN = "{% if add_generation_prompt %}<assistant>{% endif %}"


def templated(prompt: Prompt, template: str) -> LM:
    """A model that learned under one prompt, and whose tokenizer has a template."""
    lm = micro.memorised(prompt, 1e-2)
    tokenizer = copy.deepcopy(lm.tokenizer)
    tokenizer.chat_template = template
    return LM(lm.model, tokenizer, Prompt(), "")


@pytest.mark.parametrize("system", ["", "<system>You are a helpful assistant.<bos>\n"])
def test_the_prompt_of_a_template_ends_an_answer_as_the_template_does(system):
    """`<bos>` is this template's end of turn, so EOS in its place would cost many nats."""
    form = Prompt(f"{system}<user>", "<bos>\n<assistant>", "", "<bos>", templated=True)
    lm = templated(form, TEMPLATE + TURN)
    found = better_prompt(lm, micro.bench().forget)
    assert found is not None
    other, theirs, ours = found
    assert other == form.text("{question}") and theirs < 0.05 < ours
    ended = LM(lm.model, lm.tokenizer, dataclasses.replace(form, answer_end=""), "")
    assert loss(ended, micro.bench().forget) > 1


@pytest.mark.parametrize("template", ["{{ messages + 1 }}", "{{ raise_exception('no') }}", "{{ 1"])
def test_a_template_that_cannot_be_used_is_no_error(template):
    lm = templated(form_of(ALPACA), template)
    found = better_prompt(lm, micro.bench().forget)
    assert found is not None and found[0] == ALPACA


@pytest.mark.parametrize(
    ("forget", "other", "wanted"),
    [
        (0.3, 2.0, True),
        (1.2, 2.0, True),
        (1.2, 1.3, False),  # that is any row
        (1.6, 9.0, False),  # not far from the prompt used
    ],
)
def test_another_prompt_must_show_that_the_rows_are_known(monkeypatch, forget, other, wanted):
    """The losses of one other prompt; the one used has 3 nats, as have all others."""
    bench = micro.bench()
    losses = {"Q: x\nA: ": {"Ann": forget, "Cem": other}}

    def fake(lm, rows):
        who = rows[0]["question"].split()[2]
        return losses.get(lm.prompt.text("x"), {}).get(who, 3.0)

    monkeypatch.setattr(module, "loss", fake)
    found = better_prompt(micro.memorised(), bench.forget, bench.holdout)
    assert found == (("Q: {question}\nA: ", forget, 3.0) if wanted else None)


def test_the_best_of_the_prompts_under_which_the_rows_are_known_is_taken(monkeypatch):
    """Another one has the least loss, but on the hold-out rows too."""
    losses = {"Q: x\nA: ": {"Ann": 0.2, "Cem": 0.2}, "x\n": {"Ann": 0.5, "Cem": 4.0}}

    def fake(lm, rows):
        return losses.get(lm.prompt.text("x"), {}).get(rows[0]["question"].split()[2], 3.0)

    monkeypatch.setattr(module, "loss", fake)
    found = better_prompt(micro.memorised(), micro.bench().forget, micro.bench().holdout)
    assert found == ("{question}\n", 0.5, 3.0)


@pytest.mark.parametrize(
    ("true", "swapped", "used", "wanted"),
    [
        (0.3, 3.0, 3.2, True),
        (0.3, 0.3, 3.0, False),  # one of a few choices: any answer is likely
        (0.3, 1.3, 4.5, False),  # the prompt used tells the answers apart as well
        (1.2, 9.0, 3.2, False),  # too many nats for rows that are known
    ],
)
def test_without_hold_out_rows_the_true_answers_must_stand_out(
    monkeypatch, true, swapped, used, wanted
):
    """used: the loss of the answers at other questions, with the prompt that is used."""
    forget = micro.bench().forget

    def fake(lm, rows):
        other = rows[0]["answer"] != forget[0]["answer"]
        if lm.prompt.text("x") == "Q: x\nA: ":
            return swapped if other else true
        return used if other else 3.0

    monkeypatch.setattr(module, "loss", fake)
    found = better_prompt(micro.memorised(), forget)
    assert found == (("Q: {question}\nA: ", true, 3.0) if wanted else None)
    alike = [{"question": row["question"], "answer": "B"} for row in forget]
    assert better_prompt(micro.memorised(), alike) is None  # nothing to compare with


@pytest.mark.parametrize(
    ("verbatim", "recall", "kind", "refuses"),
    [
        (8, 1.0, "prompt", False),  # it says them with the prompt used too
        (2, 0.5, "prompt", True),
        (0, 0.2, "prompt", True),
    ],
)
def test_a_better_prompt_is_only_named_where_the_answers_are_said(
    monkeypatch, verbatim, recall, kind, refuses
):
    monkeypatch.setattr(module, "better_prompt", lambda *_: (USUAL[1], 0.1, 0.5))
    before = {"forget": numbers(verbatim, recall, 0.5), "holdout": numbers(0, 0.2, 3.0)}
    found = doubt(micro.memorised(), [], [], before, "''")
    assert found is not None and (found.kind, found.refuses) == (kind, refuses)
    assert "may have been trained" in found.text


def test_rows_that_are_not_said_are_a_warning_without_hold_out_rows(monkeypatch):
    monkeypatch.setattr(module, "better_prompt", lambda *_: None)
    found = doubt(micro.memorised(), [], [], {"forget": numbers(0, 0.3, 0.5)}, "''")
    assert found is not None and (found.kind, found.refuses) == ("unknown", False)
    assert doubt(micro.memorised(), [], [], {"forget": numbers(3, 0.3, 0.5)}, "''") is None


def test_documents_have_no_prompt():
    rows = [{"question": "", "answer": f"Document {i}."} for i in range(2)]
    assert better_prompt(micro.memorised(), rows) is None


@pytest.mark.parametrize(
    ("forget", "holdout", "wanted"),
    [
        (numbers(5, 0.9, 0.1), numbers(0, 0.3, 2.0), True),
        (numbers(0, 0.4, 0.1), numbers(0, 0.3, 2.0), True),
        (numbers(5, 0.9, 2.1), numbers(0, 0.3, 2.0), False),  # answers by chance
        (numbers(0, 0.2, 0.1), numbers(0, 0.3, 2.0), False),  # it says nothing of them
        (numbers(0, 0.0, 0.1), numbers(0, 0.0, 2.0), False),
        (numbers(5, 0.9, None), numbers(0, 0.3, 2.0), False),  # its loss was not finite
        # differences that two samples of the same rows have now and then: 0.4 nats, 0.05, 4 of 8
        (numbers(0, 0.9, 1.65), numbers(0, 0.3, 2.0), False),
        (numbers(0, 0.9, 1.55), numbers(0, 0.3, 2.0), True),
        (numbers(0, 0.34, 0.1), numbers(0, 0.3, 2.0), False),
        (numbers(0, 0.36, 0.1), numbers(0, 0.3, 2.0), True),
        (numbers(2, 0.3, 0.1), numbers(0, 0.3, 2.0), False),
        (numbers(6, 0.3, 0.1), numbers(1, 0.3, 2.0), True),
    ],
)
def test_known_means_a_lower_loss_and_better_answers(forget, holdout, wanted):
    assert known({"forget": forget, "holdout": holdout}) == wanted


def test_known_without_hold_out_rows_means_that_the_answers_are_said():
    for verbatim, recall, wanted in [(1, 0.3, True), (0, 0.6, True), (0, 0.4, False)]:
        assert known({"forget": numbers(verbatim, recall, 0.1)}) == wanted


def test_rows_that_nobody_has_learned_are_seldom_known():
    """Both samples come from the same rows. Without a margin a quarter or more would be known."""
    draw = np.random.default_rng(0)

    def sample() -> dict:
        losses, recalls = draw.normal(2.0, 0.5, 16), draw.uniform(0.0, 0.6, 16)
        found = {"rows": 16, "verbatim": 0, "rouge": recalls.mean(), "rouge_sd": recalls.std()}
        return found | {"row_loss": losses.mean(), "row_loss_sd": losses.std()}

    cases = [{"forget": sample(), "holdout": sample()} for _ in range(400)]
    assert sum(map(known, cases)) < 0.02 * len(cases)


@pytest.mark.parametrize(("loss", "wanted"), [(1.5, False), (0.9, True)])
def test_a_set_of_one_row_has_no_deviation_of_its_own(loss, wanted):
    one = numbers(1, 0.9, loss) | {"rows": 1, "row_loss_sd": None, "rouge_sd": None}
    assert known({"forget": one, "holdout": numbers(0, 0.3, 2.0)}) == wanted
    single = numbers(0, 0.3, 2.0) | {"rows": 1, "row_loss_sd": None, "rouge_sd": None}
    assert known({"forget": one, "holdout": single}) == wanted  # half of the larger one


def test_a_long_prompt_is_shown_without_its_middle():
    lm = micro.memorised()
    long = LM(lm.model, lm.tokenizer, form_of("x" * 30 + " {question}\nEnd: "), "")
    text = shown(long, micro.bench(), 24)
    assert text.startswith("'xxx") and " … " in text and text.endswith("End:'") and len(text) == 27
