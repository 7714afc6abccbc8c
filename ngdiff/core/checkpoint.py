"""A run on disk: one safetensors file, written atomically, never pickle.

Weights and optimizer state are the file's tensors. Everything else is one JSON text in its
metadata, with a tensor's name in the place of each tensor. Beside it is the sha256 of all of this.
A killed run leaves the last whole checkpoint or none.

Of several processes the first one writes the file, and all read it. Sharded tensors are put
together one by one, so a run may go on with another number of processes.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from ngdiff.core import rng
from ngdiff.core.sharding import gathered, like
from ngdiff.store.cache import atomic_write, probe_writable

if TYPE_CHECKING:
    from ngdiff.core.step import UnlearningStep

FORMAT = 4  # of the saved state


def save(path: Path | str, name: str, step: UnlearningStep, history: list[dict[str, Any]]) -> None:
    """Save weights, buffers, optimizer, step-size state and history of the run called `name`.

    All processes must call.
    """
    tensors: dict[str, Tensor] | None = {} if step.processes.rank == 0 else None
    # of every process, in their order
    random = [step.processes.gather(x).split(len(x)) for x in rng.state()]
    state = {"theta": [*step.params, *_buffers(step)], "step": step.state_dict(), "random": random}
    _write(Path(path), name, history, _strip(state, "", tensors), tensors)
    step.processes.wait()


def write(path: Path, name: str, state: Any, history: list[Any]) -> None:
    """Save any state of one process: dictionaries and lists of tensors, numbers and texts."""
    tensors: dict[str, Tensor] = {}
    _write(path, name, history, _strip(state, "", tensors), tensors)


def _write(
    path: Path, name: str, history: list[Any], stripped: Any, tensors: dict[str, Tensor] | None
) -> None:
    if tensors is None:
        return
    text = json.dumps({"format": FORMAT, "name": name, "history": history, "state": stripped})
    with atomic_write(path) as temporary:
        save_file(tensors, temporary, metadata={"run": text, "sha256": _digest(text, tensors)})


def load(path: Path | str, name: str, step: UnlearningStep) -> list[dict[str, Any]]:
    """Put a saved run back into `step` and return its history; an absent file is an empty history.

    Errors, before anything is put back: PermissionError when the folder cannot be written.
    ValueError when the file is damaged, of another version, or of another run. Both say what to do.
    """
    path = Path(path)
    saved = read(path)
    if saved is None:
        return []
    state, theta = saved["state"], [*step.params, *_buffers(step)]
    if saved["name"] != name or [q.shape for q in state["theta"]] != [p.shape for p in theta]:
        raise ValueError(
            f"checkpoint {path} belongs to another run:\n  {saved['name']}\nnot\n  {name}\n"
            "give this run its own file, or move that one away"
        )
    with torch.no_grad():
        for p, q in zip(theta, state["theta"], strict=True):
            p.copy_(like(q, p))
    step.load_state_dict(state["step"])
    # a process that was not there before keeps its own
    if step.processes.rank < len(state["random"][0]):
        rng.restore([of_all[step.processes.rank] for of_all in state["random"]])
    return saved["history"]


def read(path: Path) -> dict[str, Any] | None:
    """Return the name, the history and the state that a file holds; None where there is none.

    Errors: PermissionError when the folder cannot be written. ValueError when the file is damaged
    or of another version. Both say what to do.
    """
    probe_writable(path.parent)
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            text, digest = (file.metadata()[key] for key in ("run", "sha256"))
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        if digest != _digest(text, tensors):
            raise ValueError("its contents have changed since it was saved")
        saved = json.loads(text)
        saved["state"] = _fill(saved["state"], tensors)
    except Exception as error:
        raise ValueError(
            f"checkpoint {path} is damaged ({error}); move it away to start the run anew"
        ) from error
    if saved.get("format") != FORMAT:
        raise ValueError(
            f"checkpoint {path} was written by another version of ngdiff; move it away to start "
            "the run anew"
        )
    return saved


def saved_steps(path: Path) -> int:
    """Return the number of steps behind a checkpoint, which is not checked."""
    with safe_open(path, framework="pt") as file:
        return len(json.loads(file.metadata()["run"])["history"])


def start(step: UnlearningStep) -> str:
    """The sha256 of the weights that a run starts from, hex.

    It is that of all the module's tensors, frozen ones too, and of what the optimizer keeps of them
    beside (the low bits of a `Master`). All processes must call; their number makes no difference.
    """
    seen = hashlib.sha256()
    module = step.module
    every = step.params if module is None else [*module.parameters(), *module.buffers()]
    _strip(step.optimizer.state_dict(), "", found := _Hashed(seen))
    for i, x in enumerate(every):
        found[str(i)] = gathered(x)
    return seen.hexdigest()


class _Hashed(dict[str, Tensor]):
    """Tensors that are added to a sha256 one by one and not kept."""

    def __init__(self, seen: Any) -> None:
        self.seen = seen

    def __setitem__(self, name: str, x: Tensor) -> None:
        self.seen.update(name.encode())
        self.seen.update(_bytes(x.detach().cpu()))


def _bytes(x: Tensor) -> Any:
    return x.contiguous().reshape(-1).view(torch.uint8).numpy().data


def _buffers(step: UnlearningStep) -> list[Tensor]:
    """Return what the module changes besides its parameters, such as running means."""
    return [] if step.module is None else list(step.module.buffers())


def _digest(text: str, tensors: dict[str, Tensor]) -> str:
    """sha256 of the text and of every tensor's bytes, hex."""
    seen = hashlib.sha256(text.encode())
    for key in sorted(tensors):
        seen.update(key.encode())
        seen.update(_bytes(tensors[key]))
    return seen.hexdigest()


def _strip(value: Any, name: str, tensors: dict[str, Tensor] | None) -> Any:
    """`value` with each tensor moved into `tensors`, its name left in its place.

    tensors: None for a process that only helps to gather.
    """
    if isinstance(value, Tensor):
        whole = gathered(value)
        if tensors is not None:
            tensors[name] = whole.detach().cpu().contiguous().clone()
        return {"tensor": name}
    if isinstance(value, dict):
        return {
            "items": [[key, _strip(item, f"{name}.{key}", tensors)] for key, item in value.items()]
        }
    if isinstance(value, (list, tuple)):
        return [_strip(item, f"{name}.{i}", tensors) for i, item in enumerate(value)]
    return value


def _fill(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, dict):
        if "tensor" in value:
            return tensors[value["tensor"]]
        return {key: _fill(item, tensors) for key, item in value["items"]}
    return [_fill(item, tensors) for item in value] if isinstance(value, list) else value
