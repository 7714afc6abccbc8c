"""`ngdiff losses`: the objectives that unlearn, on the first rows, against plain torch;
conventions; bad input.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as fn
from typer.testing import CliRunner

from ngdiff import methods
from ngdiff.commands import losses as module
from ngdiff.commands.cli import app
from ngdiff.commands.comparison import Comparison
from ngdiff.commands.losses import OBJECTIVES, command, losses
from ngdiff.core.directions import NGDiff
from ngdiff.evaluation.conventions import CONVENTIONS, Convention, convention
from ngdiff.lm import lora
from ngdiff.lm.model import LM, save
from ngdiff.lm.tokens import IGNORE, collate
from ngdiff.methods.problem import LMProblem
from ngdiff.store.rows import write_rows
from tests.helpers import micro
from tests.helpers.distributed_worker import trained
from tests.methods.test_problem import BENCH

NAMES = [
    "ce_retain",
    "ce_forget",
    "kl",
    "npo",
    "simnpo",
    "dpo",
    "undial",
    "wga",
    "satimp",
    "ceu",
    "rmu",
    "rmu_retain",
]
ROWS = 4


@pytest.fixture(scope="module")
def model() -> LM:
    """Somewhat away from the start: probabilities that are neither 0 nor 1."""
    lm = trained().copy("model")
    make = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in lm.model.parameters():
            p.add_(0.2 * p.std() * torch.randn(p.shape, generator=make) if p.dim() > 1 else 0)
    return lm


@pytest.fixture(scope="module")
def start() -> LM:
    return trained()


def plain(model, start, name):
    """What each objective's paper, or open-unlearning's code, computes: whole padded batches and
    the usual torch functions.
    """
    rule = convention(name)
    texts = {
        on: collate(
            [rule.encode(model, r["question"], r["answer"]) for r in rows[:ROWS]], model.pad_id
        )
        for on, rows in (("forget", BENCH.forget), ("retain", BENCH.retain))
    }
    # each row is padded by its EOS, of which the first is the label behind the answer
    if name == "tofu":
        more = min(500, model.context) - max(t["labels"].shape[1] for t in texts.values())
        for on, batch in texts.items():
            ends, wide = (
                batch["attention_mask"].sum(1) - 1,
                min(500, model.context) - batch["labels"].shape[1],
            )
            assert (
                more > 0
                and (batch["input_ids"][range(ROWS), ends] == model.tokenizer.eos_token_id).all()
            )
            batch["attention_mask"][range(ROWS), ends] = 0
            batch["input_ids"][batch["attention_mask"] == 0] = model.tokenizer.eos_token_id
            values = {
                "input_ids": model.tokenizer.eos_token_id,
                "attention_mask": 0,
                "labels": IGNORE,
            }
            texts[on] = {
                key: fn.pad(batch[key], (0, wide), value=value) for key, value in values.items()
            }
    found, everywhere = {}, name in ("tofu", "open-unlearning")

    def seen(lm, batch):
        hidden = []
        hook = lm.model.model.layers[-1].register_forward_hook(
            lambda m, given, out: hidden.append(out)
        )
        logits = lm.model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        hook.remove()
        return logits, hidden[0]

    (zf, hf), (zr, hr) = (seen(model, texts[on]) for on in ("forget", "retain"))
    with torch.no_grad():
        (sf, _), (sr, gr) = (seen(start, texts[on]) for on in ("forget", "retain"))
    yf, yr = (texts[on]["labels"] for on in ("forget", "retain"))

    def nll(z, y):
        return fn.cross_entropy(
            z[:, :-1].transpose(1, 2), y[:, 1:], ignore_index=IGNORE, reduction="none"
        )

    answer, n = yf[:, 1:] != IGNORE, (yf != IGNORE).sum(1)
    each, V = nll(zf, yf)[answer], zf.shape[-1]
    found["ce_retain"] = nll(zr, yr).sum() / (yr[:, 1:] != IGNORE).sum()
    found["ce_forget"] = -each.mean()
    p, q = (z.log_softmax(-1) for z in (zr, sr))
    if everywhere:
        found["kl"] = fn.kl_div(
            p.reshape(-1, V), q.reshape(-1, V), reduction="batchmean", log_target=True
        )
    else:
        kept = yr[:, 1:] != IGNORE
        found["kl"] = fn.kl_div(
            p[:, :-1][kept], q[:, :-1][kept], reduction="batchmean", log_target=True
        )
    lost = nll(zf, yf).sum(1) - nll(sf, yf).sum(1)
    found["npo"] = -2 / 0.1 * fn.logsigmoid(0.1 * lost).mean()
    found["simnpo"] = -2 / 4.5 * fn.logsigmoid(4.5 * nll(zf, yf).sum(1) / n).mean()
    gained = nll(sr, yr).sum(1) - nll(zr, yr).sum(1)
    found["dpo"] = -2 / 0.1 * fn.logsigmoid(0.1 * (gained + lost)).mean()
    known = (-each).exp().detach()
    found["wga"] = -(known * each).mean()
    found["satimp"] = -(known**5 * (1 - known) * each).mean()
    if name == "open-unlearning":
        at = yf[:, 1:].clone()
        at[at == IGNORE] = V - 100
        lowered = (sf[:, :-1] - 10 * fn.one_hot(at, V)).softmax(-1)
        found["undial"] = fn.cross_entropy(zf[:, :-1].reshape(-1, V), lowered.reshape(-1, V))
    else:
        lowered = (sf[:, :-1][answer] - 10 * fn.one_hot(yf[:, 1:][answer], V)).softmax(-1)
        found["undial"] = fn.cross_entropy(zf[:, :-1][answer], lowered)
    later = ((yf != IGNORE).cumsum(1) > 1)[:, 1:] & answer
    others = zf[:, :-1][later].detach().scatter(1, yf[:, 1:][later][:, None], -math.inf).softmax(-1)
    found["ceu"] = fn.cross_entropy(zf[:, :-1][later], others)
    torch.manual_seed(0)
    u = torch.rand(1, 1, hf.shape[-1])
    for key, (h, goal, y) in {
        "rmu": (hf, u / u.norm() * 2, yf),
        "rmu_retain": (hr, gr, yr),
    }.items():
        s, m = ((h - goal).square().mean(2) * (y != IGNORE)).sum(1), (y != IGNORE).sum(1)
        found[key] = (s / m[:, None]).mean() if name == "open-unlearning" else (s / m).mean()
    return found


def norm(model, value):
    grads = torch.autograd.grad(
        value, list(model.model.parameters()), allow_unused=True, retain_graph=True
    )
    return math.sqrt(sum(g.double().square().sum().item() for g in grads if g is not None))


@pytest.mark.parametrize("name", CONVENTIONS)
def test_values_and_gradients_are_those_of_plain_torch(model, start, name):
    ours, theirs = (
        losses(model, start, BENCH.forget, BENCH.retain, ROWS, name),
        plain(model, start, name),
    )
    assert set(ours) == set(NAMES) and set(theirs) == set(NAMES)
    for key, value in theirs.items():
        assert ours[key]["loss"] == pytest.approx(value.item(), rel=1e-5), key
        assert ours[key]["grad_norm"] == pytest.approx(norm(model, value), rel=1e-4), key
        assert ours[key]["grad_norm"] > 0


def test_tofu_looks_at_500_tokens_of_a_row_and_open_unlearning_at_512(model, start):
    """A cut row is learned without an EOS behind it, by open-unlearning with one; ours takes all of
    it.
    """
    wide, was = replace(model, model=model.copy().model), replace(start, model=start.copy().model)
    for lm in (wide, was):
        lm.model.config.max_position_embeddings = 4096
    row = {"question": "What?", "answer": "no more of this " * 200}
    lost = {n: losses(wide, was, [row], [row], 1, n)["ce_retain"]["loss"] for n in CONVENTIONS}
    ids = wide.encode(**row).input_ids
    head, tag = (
        len(wide.tokenizer(text)["input_ids"])
        for text in ("Question: What?\nAnswer: ", "Question: What?\n")
    )
    assert len(ids) > 600
    for n, kept, first in (
        ("tofu", ids[:500], tag),
        ("open-unlearning", [*ids[:512], ids[-1]], head),
    ):
        with torch.no_grad():
            z = wide.model(torch.tensor([kept])).logits[0]
        want = fn.cross_entropy(z[first - 1 : -1], torch.tensor(kept[first:])).item()
        assert lost[n] == pytest.approx(want, rel=1e-5), n
    assert len({round(lost[n], 6) for n in ("ngdiff", "tofu", "open-unlearning")}) == 3


def test_documents_have_an_eos_but_under_open_unlearning(model, start):
    rows = [
        {"question": "", "answer": text}
        for text in ("Ann Lee lives in Oslo.", "Bo Ray was born in Rome in 1950.")
    ]
    found = {n: losses(model, start, rows, rows, 2, n)["ce_retain"]["loss"] for n in CONVENTIONS}
    ids = [model.tokenizer(row["answer"])["input_ids"] for row in rows]
    for end, names in (
        ([model.tokenizer.eos_token_id], {*CONVENTIONS} - {"open-unlearning"}),
        ([], {"open-unlearning"}),
    ):
        lost = []
        for text in ids:
            text = torch.tensor([*text, *end])
            with torch.no_grad():
                z = model.model(text[None]).logits[0]
            lost.append(fn.cross_entropy(z[:-1], text[1:], reduction="none"))
        for name in names:
            assert found[name] == pytest.approx(torch.cat(lost).mean().item(), rel=1e-5), name


def test_conventions_differ_where_published_code_does(model, start):
    """On the same labels (the answer, as all conventions have it where no token straddles the
    prompt's end).
    """

    class Relabelled(Convention):
        def __init__(self, how):
            self.objective = how.objective

    found = {
        name: losses(model, start, BENCH.forget, BENCH.retain, ROWS, Relabelled(how))
        for name, how in CONVENTIONS.items()
    }
    changed = {
        n: {
            k
            for k in NAMES
            if found[n][k]["loss"] != pytest.approx(found["ngdiff"][k]["loss"], rel=1e-3)
        }
        for n in found
    }
    assert changed == {
        "ngdiff": set(),
        "tofu": {"kl"},
        "open-unlearning": {"kl", "undial", "rmu", "rmu_retain"},
        "muse": set(),
        "semeval": set(),
    }


def test_they_are_the_losses_that_unlearn(model, start):
    """A step of each method on the same rows begins at the same value and gradient norm."""
    few = LMProblem(BENCH, start, batch_size=7)
    found = losses(model, start, BENCH.forget, BENCH.retain, 7)
    for name, (on, objective) in OBJECTIVES.items():
        # eleven retain rows, of which seven were taken; refusals of their own
        if on == "retain" or objective.pairs:
            continue
        made = few.bind(methods.Method("m", NGDiff(), forget=objective), 0)
        made.module.load_state_dict(model.model.state_dict())
        (phase,) = made.batch(0)[1]
        phase().sum().backward()
        grads = [p.grad.flatten() for p in made.parameters if p.grad is not None]
        assert found[name]["loss"] == pytest.approx(-phase().sum().item(), rel=1e-5), name
        assert found[name]["grad_norm"] == pytest.approx(
            torch.cat(grads).norm().item(), rel=1e-4
        ), name


def test_without_a_start_the_model_is_its_own(model):
    found = losses(model, None, BENCH.forget, BENCH.retain, ROWS)
    assert found["kl"] == {"loss": 0.0, "grad_norm": 0.0} == found["rmu_retain"]
    assert found["npo"]["loss"] == pytest.approx(13.863, abs=5e-4) == found["dpo"]["loss"]
    assert found["npo"]["grad_norm"] > 0 < found["undial"]["loss"]


def test_an_adapter_is_part_of_the_model_and_alone_has_gradients(model, start):
    lm = lora.adapt(model.copy(share=False), 4)
    with torch.no_grad():
        for n, p in lm.model.named_parameters():
            if "lora_B" in n:
                p.add_(0.02)
    merged = LM(
        lm.copy(share=False).model.merge_and_unload().requires_grad_(),
        lm.tokenizer,
        lm.prompt,
        "merged",
    )
    mine, whole = (losses(m, start, BENCH.forget, BENCH.retain, ROWS) for m in (lm, merged))
    for name in NAMES:
        assert mine[name]["loss"] == pytest.approx(whole[name]["loss"], rel=1e-4), name
        assert 0 < mine[name]["grad_norm"] != pytest.approx(whole[name]["grad_norm"], rel=1e-3)
    # not the base model's
    assert losses(lm, None, BENCH.forget, BENCH.retain, ROWS)["kl"]["loss"] == 0.0


def test_nothing_of_the_model_changes(model, start):
    before = [p.clone() for p in model.model.parameters()]
    model.model.train()
    one, two = (losses(model, start, BENCH.forget, BENCH.retain, ROWS) for _ in range(2))
    assert one == two and model.model.training
    model.model.eval()
    assert all(
        torch.equal(p, q) and p.grad is None for p, q in zip(model.model.parameters(), before)
    )


def test_a_row_counts_in_its_place_only(model, start):
    """The first rows, in their order: dpo pairs row i with row i."""
    few = losses(model, start, BENCH.forget[:3], BENCH.retain[:3], 3)
    assert losses(model, start, BENCH.forget, BENCH.retain, 3) == few
    turned = losses(model, start, BENCH.forget[:3], BENCH.retain[2::-1], 3)
    for name in NAMES:
        assert (turned[name]["loss"] == pytest.approx(few[name]["loss"], rel=1e-5)) == (
            name != "dpo"
        ), name
    # rows may be in both
    assert losses(model, start, BENCH.forget, BENCH.forget, 2)["ce_retain"]["loss"] > 0


class NoPad:
    """A tokenizer that came without a padding token: open-unlearning pads with EOS, and hides
    EOS.
    """

    def __init__(self, tokenizer):
        self.inner, self.pad_token_id = tokenizer, None

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def __call__(self, *args, **options):
        return self.inner(*args, **options)


def test_open_unlearning_hides_eos_where_it_is_the_padding(model, start):
    other = LM(model.model, NoPad(model.tokenizer), model.prompt, "no pad")
    ours, theirs, known = (
        losses(*case)
        for case in (
            (other, start, BENCH.forget, BENCH.retain, ROWS, "ngdiff"),
            (other, start, BENCH.forget, BENCH.retain, ROWS, "open-unlearning"),
            (model, start, BENCH.forget, BENCH.retain, ROWS, "open-unlearning"),
        )
    )
    assert ours == losses(model, start, BENCH.forget, BENCH.retain, ROWS)
    # EOS comes last: it is predicted
    assert theirs["npo"]["loss"] == pytest.approx(known["npo"]["loss"], rel=1e-5)
    # what stands at EOS, or behind it, sees another mask
    for name in ("kl", "undial", "rmu", "rmu_retain"):
        assert theirs[name]["loss"] != pytest.approx(known[name]["loss"], rel=1e-5), name


# -------------------------------------------------------------------------------------- the command
@pytest.fixture(scope="module")
def given(tmp_path_factory, model, start):
    folder = tmp_path_factory.mktemp("given")
    for name, lm in (("model", model), ("start", start)):
        save(lm.copy(), folder / name)
    for name in ("forget", "retain"):
        write_rows(folder / f"{name}.jsonl", getattr(BENCH, name))
    return folder


def go(given, *more):
    """Later ones win."""
    options = [f"--{name}={given / f'{name}.jsonl'}" for name in ("forget", "retain")]
    return CliRunner().invoke(
        app, ["losses", f"--model={given / 'model'}", *options, *map(str, more)]
    )


def test_the_command_writes_what_the_function_gives(given, model, start, tmp_path):
    out = tmp_path / "losses.json"
    done = go(given, f"--start={given / 'start'}", f"--json={out}", "--convention=open-unlearning")
    assert done.exit_code == 0 and done.output == f"wrote {out}\n", done.output + repr(
        done.exception
    )
    written = json.loads(out.read_text())
    wanted = losses(model, start, BENCH.forget, BENCH.retain, 4, "open-unlearning")
    assert written["asked"]["prompt"] == model.prompt.content()
    assert written["asked"]["hidden"] == model.tokenizer.pad_token
    assert list(written) == ["objectives", "asked", "stamp"] and list(
        written["objectives"]
    ) == list(OBJECTIVES)
    for name, pair in wanted.items():
        assert written["objectives"][name] == pytest.approx(pair, rel=1e-6)
    config = written["stamp"]["config"]
    assert (config["rows"], config["convention"], config["start"]) == (
        4,
        "open-unlearning",
        str(given / "start"),
    )
    assert [p.name for p in tmp_path.iterdir()] == ["losses.json"]


def test_without_a_file_it_is_printed(given, model):
    done = go(given, "--rows=2")
    assert done.exit_code == 0, done.output
    printed = json.loads(done.stdout)["objectives"]
    assert printed["kl"]["loss"] == 0.0 and printed["ce_retain"]["loss"] == pytest.approx(
        losses(model, None, BENCH.forget, BENCH.retain, 2)["ce_retain"]["loss"], rel=1e-6
    )


def test_a_value_that_is_not_finite_is_null(given, tmp_path, monkeypatch):
    monkeypatch.setattr(
        module, "losses", lambda *args: {"npo": {"loss": math.inf, "grad_norm": math.nan}}
    )
    command(
        Comparison(
            str(given / "model"),
            given / "forget.jsonl",
            given / "retain.jsonl",
            json=tmp_path / "out.json",
        )
    )
    assert json.loads((tmp_path / "out.json").read_text())["objectives"] == {
        "npo": {"loss": None, "grad_norm": None}
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--rows=8"],
            r"--forget .*forget\.jsonl has fewer than the 8 rows asked for \(.*\.jsonl: 7, "
            r".*\.jsonl: 11\)",
        ),
        (
            ["--rows=8", "--forget={0}/retain.jsonl", "--retain={0}/forget.jsonl"],
            r"--retain .*forget\.jsonl has fewer",
        ),
        (
            ["--convention=mine"],
            r"unknown convention 'mine': choose one of 'ngdiff', 'tofu', 'open-unlearning'",
        ),
        (["--forget={0}/nothing.jsonl"], r"no file .*nothing\.jsonl"),
        (["--forget={0}/cut.jsonl"], r"cut\.jsonl, line 1: "),
        (
            ["--start={0}/other"],
            r"the start has hidden_size 16, the model 32: --start takes the model before "
            r"unlearning",
        ),
        (["--model={0}/none"], r"none does not exist"),
        (["--json={0}/forget.jsonl/out.json"], r"forget\.jsonl"),
        (
            ["--forget={0}/long.jsonl", "--rows=1"],
            r"question 'Tell\?' is \d+ tokens long, the model's context is 96",
        ),
    ],
)
def test_bad_input_is_named_and_nothing_is_written(given, tmp_path, options, message):
    (given / "cut.jsonl").write_text('{"question": "Who?", "ans')
    write_rows(given / "long.jsonl", [{"question": "Tell?", "answer": "x y " * 200}])
    if not (given / "other").exists():
        small = micro._model(micro.lm().tokenizer, 0, hidden_size=16)
        save(LM(small, micro.lm().tokenizer, micro.lm().prompt, "small"), given / "other")
    before = sorted(p.name for p in given.iterdir())
    out = tmp_path / "out.json"
    done = go(given, f"--json={out}", *(option.format(given) for option in options))
    assert done.exit_code != 0 and isinstance(done.exception, (ValueError, OSError)), done.output
    with pytest.raises(type(done.exception), match=message):
        raise done.exception
    assert not out.exists() and sorted(p.name for p in given.iterdir()) == before


@pytest.mark.parametrize("rows", [0, -1])
def test_at_least_one_row(model, rows):
    with pytest.raises(ValueError, match=f"at least one row is needed, got rows={rows}"):
        losses(model, None, BENCH.forget, BENCH.retain, rows)


def test_long_rows_are_named_together(model):
    rows = [{"question": f"Who is {i}?", "answer": "very " * 90} for i in range(3)]
    with pytest.raises(ValueError, match=r"'Who is 0.*'Who is 1.*'Who is 2.*; and 3 more rows"):
        losses(model, None, rows, rows, rows=3)
