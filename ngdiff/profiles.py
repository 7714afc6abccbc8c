"""The one dial: tiny | laptop | small | paper.

A profile says how large the benchmark, the model and the budget are. Only this module knows the
names; everything else reads fields, so `dataclasses.replace(profile("tiny"), steps=40)` is a
profile like any other.

    tiny    CPU, no downloads, minutes: a transformer below a million parameters, from scratch,
            generated data
    laptop  CPU, a real language model of 135M parameters (`ngdiff fetch smollm2`), TOFU's rows
    small   one GPU, no downloads: about 100M parameters, from scratch, generated data or a local
            TOFU folder
    paper   one 80 GB GPU: the hub's models and data, the benchmark's published recipe
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ngdiff import zoo


@dataclass(frozen=True)
class TinyLM:
    """Shape of a Llama-style transformer trained from scratch (tied embeddings, rotary positions).

    Parameters ≈ layers·(4·hidden² + 3·hidden·intermediate) + vocab·hidden.  `context` is the
    longest sequence in tokens; rotary positions have no parameters, so a larger context costs
    nothing until a long row is met.
    """

    hidden: int = 96
    layers: int = 2
    heads: int = 4
    intermediate: int = 256
    vocab: int = 1024
    context: int = 1024


@dataclass(frozen=True)
class Training:
    """How the target and the reference are trained: AdamW(0.9, 0.999), linear warm-up, then decay.

    epochs           passes over forget ∪ retain (target) or retain (reference)
    pretrain_epochs  passes over the pre-training rows before that; 0 for models that come
                     pre-trained
    min_steps        updates at least: few rows are passed over more often than `epochs` says
    replay           pre-training rows mixed into an epoch of fine-tuning, as a share of them, so
                     that general facts stay known; of a model that comes pre-trained, general
                     questions with its own answers (`ngdiff.lm.replay`)
    """

    epochs: int
    pretrain_epochs: int
    lr: float
    batch_size: int
    weight_decay: float = 0.01
    warmup: float = 0.1
    replay: float = 0.0
    min_steps: int = 0


@dataclass(frozen=True)
class Profile:
    """Sizes and budgets of one reproduction.

    name            label of the rows and folders made under this profile
    authors         fictitious authors of the generated benchmark (forget10 = a tenth of them)
    questions       questions per author, at most 12
    tofu_split      the split `ngdiff.data.tofu` takes when none is named
    retain_rows     retain rows kept of TOFU, of the generated authors and of MUSE, None = all
    lume_documents  documents kept of each task and fold of SemEval's rows, None = all
    lm              shape of the model trained from scratch; None = the hub's model
    model           a name of `ngdiff.zoo`, a folder or a hub id; None = from scratch
    training        how target and reference are trained where the hub has none
    steps           unlearning steps
    batch_size      forget rows and retain rows in one unlearning step (each)
    batch_documents the same where rows are documents (MUSE, SemEval)
    rates           constant rates that the pages of the benchmarks tune over
    max_new_tokens  length limit of greedy generation
    measured        rows of every set that an evaluation takes, None = all
    device, dtype   torch names; "auto" = CUDA if there is one, else CPU; the dtype "auto" is
                    bfloat16 where the device multiplies it in hardware, else float32, and
                    unlearning is float32 under it (`ngdiff.study.trials`)
    """

    name: str
    training: Training
    lm: TinyLM | None = None
    model: str | None = None
    authors: int = 80
    questions: int = 12
    tofu_split: str = "forget10"
    retain_rows: int | None = None
    lume_documents: int | None = None
    steps: int = 80
    batch_size: int = 32
    batch_documents: int = 32
    rates: tuple[float, ...] = (1e-4, 3e-4, 1e-3)
    max_new_tokens: int = 200
    measured: int | None = None
    device: str = "auto"
    dtype: str = "float32"


_PROFILES = (
    Profile(
        name="tiny",
        lm=TinyLM(),
        training=Training(
            epochs=18, pretrain_epochs=6, lr=2.5e-3, batch_size=16, replay=0.5, min_steps=900
        ),
        tofu_split="forget01",
        retain_rows=200,
        lume_documents=12,
        steps=200,
        batch_documents=8,
        max_new_tokens=128,
        device="cpu",
    ),
    Profile(
        name="laptop",
        model="smollm2",
        training=Training(epochs=5, pretrain_epochs=0, lr=3e-4, batch_size=8, replay=0.5),
        tofu_split="forget01",
        retain_rows=160,
        lume_documents=8,
        steps=60,
        batch_size=8,
        batch_documents=4,
        max_new_tokens=96,
        measured=40,
        device="cpu",
        dtype="auto",
    ),
    Profile(
        name="small",
        lm=TinyLM(hidden=768, layers=12, heads=12, intermediate=2048, vocab=8192, context=512),
        training=Training(epochs=20, pretrain_epochs=10, lr=3e-4, batch_size=64, replay=0.25),
        authors=200,
    ),
    Profile(
        name="paper",
        model="llama-3.2-1b",
        training=Training(epochs=5, pretrain_epochs=0, lr=1e-5, batch_size=32),
        authors=200,
        steps=125,  # ten epochs of forget10
        rates=(5e-6, 1e-5, 2e-5),  # around the published 1e-5
        dtype="bfloat16",
    ),
)


def profile(name: str | Profile) -> Profile:
    """The profile of that name; "paper-<model>" is paper with another of the hub's models.

    A Profile comes back as it is.

    Raises ValueError for an unknown name, listing the known ones.
    """
    if isinstance(name, Profile):
        return name
    for known in _PROFILES:
        if known.name == name:
            return known
        if known.model and name.startswith(f"{known.name}-"):
            return replace(
                known, name=name, model=zoo.model(name.removeprefix(f"{known.name}-")).name
            )
    names = ", ".join(p.name for p in _PROFILES)
    raise ValueError(f"unknown profile {name!r}; choose one of: {names}, or pass a Profile")


def is_named(P: Profile) -> bool:
    """Return whether its name refers to exactly this profile."""
    return _known(P.name) == P


def label_of(P: Profile) -> str:
    """Return what rows call a profile: its name, or "tiny (changed)" where that is another's."""
    return P.name if _known(P.name) in (P, None) else f"{P.name} (changed)"


def _known(name: str) -> Profile | None:
    try:
        return profile(name)
    except ValueError:
        return None
