"""What a step warns of: steps that go on and do not do what was meant."""

from __future__ import annotations

import math
import warnings

from ngdiff.core.info import Info

STREAK = 3  # steps without a finite number before a warning
STEPS, SPAN = 20, 5  # updates after which the forget cross-entropy is looked at, and means over
FALL = 0.9
CLASSES = 18  # 2¹⁸ is more than a vocabulary has


class Advice:
    """Warnings of one `UnlearningStep`, each given once."""

    def __init__(self) -> None:
        self.lost = 0  # steps in a row without a finite number
        self.ce: list[float] = []  # forget cross-entropies of the first updates

    def see(self, info: Info) -> None:
        """Look at one more step."""
        self.lost = self.lost + 1 if info.outcome == "nonfinite" else 0
        if self.lost == STREAK:
            _say(
                f"{STREAK} steps in a row made no update: R = {info.retain}, F = {info.forget}, "
                f"‖g_R‖ = {info.norm_R}, ‖g_F‖ = {info.norm_F}. Weights that have become NaN stay "
                "so: end the loop at info.outcome == 'nonfinite', go back to the last good "
                "weights, and take a smaller rate"
            )
        if info.step == 0 and (beta := minimised(info.forget)):
            _say(
                f"the forget loss is (2/β)·ln 2 with β = {beta:g}, which is what NPO and DPO "
                f"minimise, at the start. {ASCENDED}"
            )
        if info.updated and info.b > 0 and info.forget_ce != info.forget:
            self._follow(info.forget_ce)

    def _follow(self, ce: float) -> None:
        if len(self.ce) < STEPS:
            self.ce.append(ce)
            first, last = (math.fsum(part) / SPAN for part in (self.ce[:SPAN], self.ce[-SPAN:]))
            if len(self.ce) == STEPS and last < FALL * first:
                _say(
                    f"the forget cross-entropy fell from {first:.3g} to {last:.3g} in {STEPS} "
                    f"steps: the forget rows are being learned. {ASCENDED}"
                )


ASCENDED = "The forget callable is ascended: return minus the loss that a paper minimises"


def minimised(F: float) -> float | None:
    """β where F = (2/β)·ln 2 for a β of two digits, which is NPO's and DPO's loss at the start.

    A cross-entropy is k·ln 2 where a model is uniform over 2ᵏ classes: that is not reported.
    """
    if not (math.isfinite(F) and F > 0):
        return None
    k = F / math.log(2)
    beta = float(f"{2 / k:.2g}")
    classes = round(k) <= CLASSES and abs(k - round(k)) < 1e-4
    return beta if abs(2 / k - beta) <= 1e-5 * beta and beta <= 10 and not classes else None


def _say(text: str) -> None:
    warnings.warn(text, stacklevel=4)
