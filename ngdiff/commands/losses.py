"""Every objective's value and gradient norm on a few rows: how the field compares implementations.

The value is the one that is *minimised*, as papers print it: R of a retain objective, −F of a
forget objective. All rows are one right-padded batch, in eval mode. The objectives are those that
unlearn (`ngdiff.methods.objectives`, `ngdiff.methods.baselines`). Under `convention` they are what
published code makes of them (`Convention.objective`).

    ce_retain, kl, rmu_retain                     on the retain rows
    ce_forget (= −CE), npo, simnpo, undial, wga, satimp, ceu, rmu (c = 2)      on the forget rows
    dpo                                           forget row i against retain row i, which plays its
                                                  refusal

kl and rmu_retain are KL(start‖θ) and the distance of activations alone, without a forget term. RMU
looks at layer 7, or at the last one of a smaller model, and its direction is torch.rand(1, 1, d)
under torch.manual_seed(0), over its norm.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch

from ngdiff.commands.comparison import Comparison
from ngdiff.core.probe import evaluating
from ngdiff.data import files
from ngdiff.data.benchmark import Row
from ngdiff.engine.device import device_named
from ngdiff.evaluation import conventions
from ngdiff.evaluation.conventions import Convention
from ngdiff.evaluation.definition import Encoded, unanswered
from ngdiff.evaluation.report import asking
from ngdiff.lm.model import LM, load
from ngdiff.lm.tokens import Example, named
from ngdiff.methods.loss import RowsLoss, batch_of, start_of
from ngdiff.methods.objectives import Objective, token_counts
from ngdiff.methods.recipes import named_objectives
from ngdiff.store.document import text
from ngdiff.store.rows import stamp, write_document

OBJECTIVES = named_objectives()  # name -> (rows, objective); those on retain rows are minimised


def losses(
    model: LM,
    start: LM | None,
    forget: Sequence[Row],
    retain: Sequence[Row],
    rows: int = 4,
    convention: str | Convention = "ngdiff",
    names: tuple[str, str] = ("forget", "retain"),
) -> dict[str, dict[str, float]]:
    """{objective: {"loss", "grad_norm"}} on the first `rows` rows of each set, in the model's own
    precision.

    start: the model before unlearning; None: the model itself, as it is. grad_norm: L2 over the
    trainable parameters (of a model with an adapter, those of the adapter). names: of the sets, in
    messages. Errors: ValueError for fewer rows than wanted, a row longer than the context, a
    convention that is not known, and a start of another size.
    """
    rule, start = conventions.convention(convention).training(), start or model
    _enough(dict(zip(names, (forget, retain), strict=True)), rows)
    _alike(model, start)
    texts = _texts(rule, model, {"forget": forget[:rows], "retain": retain[:rows]})
    texts["pairs"] = [
        text for pair in zip(texts["forget"], texts["retain"], strict=True) for text in pair
    ]
    params, found = [p for p in model.model.parameters() if p.requires_grad], {}
    with evaluating(model.model), evaluating(start.model):
        for name, (on, objective) in OBJECTIVES.items():
            objective = rule.objective(objective)
            phase = _phase(model, start, objective, texts["pairs" if objective.pairs else on], rule)
            value = phase().sum()
            grads = torch.autograd.grad(value, params, allow_unused=True)
            norms = [
                g.norm().double().cpu() for g in grads if g is not None
            ]  # None: a parameter that takes no part
            loss = value.item() if on == "retain" else 0.0 - value.item()  # minimised; never −0
            found[name] = {"loss": loss, "grad_norm": torch.stack(norms).norm().item()}
    return found


def command(asked: Comparison) -> None:
    """`ngdiff losses`: {"objectives": …, "asked": …, "stamp": …} in the file `json`, which appears
    whole or not at all, or printed.

    Everything is float32. A value that is not finite is null. Errors: those of `losses`,
    `ngdiff.data.files.read` and `ngdiff.load`, which name the file.
    """
    json, result = asked.json, _compared(asked)
    if json is None:
        print(text(result), end="")
        return
    write_document(json, result)
    print(f"wrote {json}", file=sys.stderr)


def _compared(asked: Comparison) -> dict[str, Any]:
    """Return what is written: the values of every objective, and the stamp."""
    began, rule = time.perf_counter(), conventions.convention(asked.convention)
    names, sets = (
        (f"--forget {asked.forget}", f"--retain {asked.retain}"),
        (files.read(asked.forget), files.read(asked.retain)),
    )
    _enough(dict(zip(names, sets, strict=True)), asked.rows)
    options: dict[str, Any] = {"device": device_named(asked.device)} | asked.asked()
    lm = load(asked.model, **options)
    before = None if asked.start is None else load(asked.start, **options)
    if before is None:
        print(
            "no --start: kl, npo, dpo, undial and rmu_retain compare the model with itself",
            file=sys.stderr,
        )
    found = losses(lm, before, sets[0], sets[1], asked.rows, rule, names)
    config = asdict(asked) | {"convention": rule.name}
    config = {name: value for name, value in config.items() if name not in ("json", "device")}
    return {
        "objectives": found,
        "asked": asking(lm, rule),
        "stamp": stamp(config, None, time.perf_counter() - began),
    }


def _texts(rule: Convention, model: LM, sets: dict[str, Sequence[Row]]) -> dict[str, list[Example]]:
    """Return each set as tokens. Errors: ValueError that names all rows that cannot be."""
    texts: dict[str, list[Example]] = {name: [] for name in sets}
    faults = []
    for name, rows in sets.items():
        for row in rows:
            try:
                texts[name].append(_encoded(rule, model, row))
            except ValueError as error:
                faults.append(str(error))
    if faults:
        more = f"; and {len(faults) - 3} more rows" if len(faults) > 3 else ""
        raise ValueError("; ".join(faults[:3]) + more)
    return texts


def _encoded(rule: Convention, model: LM, row: Row) -> Encoded:
    found = rule.encode(model, row["question"], row["answer"])
    if unanswered(found):
        raise ValueError(
            f"{named(row['question'], row['answer'])} has no answer within the first {len(found)} "
            f"tokens, all that it keeps under {rule.name}"
        )
    return found


def _phase(
    model: LM, start: LM, objective: Objective, texts: Sequence[Example], rule: Convention
) -> RowsLoss:
    width = rule.width(model) if objective.everywhere else None
    batch = batch_of(texts, rule.padding(model), model.device, objective.everywhere, width)
    mask = rule.mask(model, batch["input_ids"], batch["attention_mask"], texts)
    batch["attention_mask"] = mask
    values = (
        torch.cat(start_of(start.model, batch, objective)).to(model.device)
        if objective.start
        else None
    )
    total, tokens = (
        objective.counts(batch["labels"]).sum().item(),
        int(token_counts(batch["labels"]).sum()),
    )
    return RowsLoss(model.model, objective, batch, values, total or 1, tokens or 1)


def _enough(sets: dict[str, Sequence[Row]], rows: int) -> None:
    if rows < 1:
        raise ValueError(f"at least one row is needed, got rows={rows}")
    counts = ", ".join(f"{name}: {len(found)}" for name, found in sets.items())
    if short := [name for name, found in sets.items() if len(found) < rows]:
        raise ValueError(
            f"{short[0]} has fewer than the {rows} rows asked for ({counts}): as many are taken "
            "of both sets, and dpo pairs "
            "them; ask for fewer (--rows)"
        )


def _alike(model: LM, start: LM) -> None:
    """Errors: ValueError where the two do not compare number by number."""
    for name in ("vocab_size", "hidden_size", "num_hidden_layers"):
        mine, its = (getattr(lm.model.config, name, None) for lm in (model, start))
        if mine != its:
            raise ValueError(
                f"the start has {name} {its}, the model {mine}: --start takes the model before "
                "unlearning"
            )
