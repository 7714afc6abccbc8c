"""The real model, where it is: tests have a cache of their own, so they are told its folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ngdiff.lm.obtain import obtained

HERE = Path(__file__).resolve().parents[2] / ".cache" / "ngdiff" / "fetched" / "smollm2"


def smollm2() -> Path:
    """Return the folder that NGDIFF_SMOLLM2 names, or the checkout's; without a model it skips."""
    folder = Path(os.environ.get("NGDIFF_SMOLLM2") or HERE)
    if obtained(folder) is None:
        pytest.skip(f"no model in {folder}: `ngdiff fetch smollm2`, or name it in NGDIFF_SMOLLM2")
    return folder
