"""MMLU through lm-eval (the extra `ngdiff[mmlu]`): 5-shot accuracy over the questions of its 57
subjects.

Each question counts once, whatever subject it is from. Prompts, few-shot rows and scoring are those
of lm-eval's own `mmlu` task. Only the place of its rows can be set: a folder instead of the hub.

References: Hendrycks et al., ICLR 2021; EleutherAI's lm-evaluation-harness.
"""

from __future__ import annotations

import copy
import json
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ngdiff.store.cache import atomic_write
from ngdiff.store.textfile import parsed, text_of

if TYPE_CHECKING:
    from ngdiff.lm.model import LM

HUB = "cais/mmlu"
THRESHOLD = 0.371  # what a 7B entry of SemEval-2025 Task 4 must stay above


def mmlu(
    lm: LM, data: str | Path = HUB, shots: int = 5, limit: int | None = None, batch_size: int = 8
) -> dict[str, Any]:
    """{"average_acc": question-weighted accuracy, "subjects": {name: {"acc", "n"}}}, the
    evaluator's metrics.json and more.

    data   the hub's data set, or a folder that `datasets.load_dataset` reads like it (a
           configuration a subject, with the splits test and dev)
    limit  questions of each subject at most; a number with a limit is no MMLU score

    Errors: ModuleNotFoundError without lm-eval, ConnectionError where the questions cannot be had;
    each says what to do.
    """
    try:
        import lm_eval
        from lm_eval.models.huggingface import HFLM
    except ImportError as error:
        raise ModuleNotFoundError(
            f"MMLU needs lm-eval ({error}): pip install 'ngdiff[mmlu]', or give a metrics.json of "
            "another run"
        ) from error
    try:
        # lm-eval settles the padding of the tokenizer it is given
        model = HFLM(
            pretrained=lm.model, tokenizer=copy.deepcopy(lm.tokenizer), batch_size=batch_size
        )
        tasks: list[Any] = [task | {"dataset_path": str(data)} for task in _tasks()]
        options = {"num_fewshot": shots, "limit": limit, "log_samples": False, "bootstrap_iters": 0}
        found = lm_eval.simple_evaluate(model=model, tasks=tasks, **options)
    except (OSError, ValueError) as error:
        if not _missing(error):
            raise
        raise _no_questions(data, error) from error
    subjects = {
        name.removeprefix("mmlu_"): {
            "acc": values["acc,none"],
            "n": found["n-samples"][name]["effective"],
        }
        for name, values in found["results"].items()
    }
    asked = sum(s["n"] for s in subjects.values())
    return {
        "average_acc": sum(s["acc"] * s["n"] for s in subjects.values()) / asked,
        "subjects": subjects,
    }


def _no_questions(data: str | Path, error: Exception) -> ConnectionError:
    """The error of questions that are not there, and what to do."""
    what = (
        f"is it a folder with the files of {HUB}?"
        if Path(data).expanduser().is_dir()
        else "connect to the hub (and unset HF_HUB_OFFLINE), or give a folder with the files of "
        f"{HUB} (--data FOLDER)"
    )
    return ConnectionError(
        f"cannot get MMLU's questions from {data} ({str(error).splitlines()[0]}): {what}"
    )


def _missing(error: Exception) -> bool:
    """Return whether the error is of questions that are not there, and of no other making."""
    said = str(error).lower()
    return isinstance(error, OSError) or "dataset" in said or "config" in said


def _tasks() -> list[dict[str, Any]]:
    """The configurations of lm-eval's 57 subjects, their template put in."""
    import yaml

    folder = resources.files("lm_eval") / "tasks" / "mmlu" / "default"
    template = yaml.safe_load((folder / "_default_template_yaml").read_text("utf-8"))
    files = [
        file
        for file in folder.iterdir()
        if file.name.startswith("mmlu_") and file.name.endswith(".yaml")
    ]
    tasks = [
        template | yaml.safe_load(file.read_text("utf-8"))
        for file in sorted(files, key=lambda f: f.name)
    ]
    return [
        {key: value for key, value in task.items() if key not in ("include", "tag")}
        for task in tasks
    ]


def read(path: Path) -> float:
    """`average_acc` of a metrics.json. Errors: FileNotFoundError; ValueError naming the file and
    what is wrong with it.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no file {path}: --mmlu takes the metrics.json of an MMLU run")
    written = text_of(Path(path))
    try:
        value = parsed(written)["average_acc"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} holds no average_acc ({error!r}): --mmlu takes the metrics.json of an MMLU run"
        ) from error
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise ValueError(f"{path}: average_acc is {value!r}, not a share between 0 and 1")
    return float(value)


def write(metrics: dict[str, Any], path: Path) -> None:
    """The evaluator's metrics.json, atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(metrics, indent=1), "utf-8")
