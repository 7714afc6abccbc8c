"""What a step is given: loss callables, and what a loss may report beside its value."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor


class Loss:
    """A loss callable that may report more than its value: subclass it, or use `Reported`.

    A call gives a scalar, or a 1-D tensor of addends (rows) whose sum is the loss. It must give
    the same at every call.

    ce: the cross-entropy of the last forward, for stops and logs; None: the loss itself.
    floor: the gradient norm that is rounding noise. KL(start‖θ) has an exactly zero gradient at the
    start, which float32 renders as noise.
    """

    ce: Tensor | None = None
    floor: float = 0.0

    def __call__(self) -> Tensor:
        raise NotImplementedError


Given = Callable[[], Tensor]
Phase = Given | Sequence[Given]  # microbatches: their losses carry their token weights and add up


class Reported(Loss):
    """Any callable as a `Loss`, with what it reports."""

    def __init__(self, call: Given, ce: Tensor | None = None, floor: float = 0.0) -> None:
        self.call, self.ce, self.floor = call, ce, floor

    def __call__(self) -> Tensor:
        return self.call()


def losses_of(phase: Phase) -> list[Loss]:
    """The losses of a phase.

    Errors: ValueError where there is none; TypeError for a callable that has `ce` or `floor`, but
    is no `Loss`: both would be overlooked.
    """
    given = [phase] if callable(phase) else list(phase)
    if not given:
        empty = "the forget or the retain batch is empty"
        raise ValueError(f"a phase needs at least one loss callable: {empty}")
    for loss in given:
        if not isinstance(loss, Loss) and (hasattr(loss, "ce") or hasattr(loss, "floor")):
            known = "one that reports ce or floor must be a Loss (ngdiff.core.losses.Reported)"
            raise TypeError(f"the loss {loss!r} has ce or floor, which would be ignored: {known}")
    return [loss if isinstance(loss, Loss) else Reported(loss) for loss in given]


def noise_floor(phase: Sequence[Loss]) -> float:
    """The gradient norm that is rounding noise for these losses."""
    return max(float(loss.floor) for loss in phase)
