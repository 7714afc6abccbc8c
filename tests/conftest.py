"""Every test runs offline, on one thread, with a cache that lives as long as the session.

NGDIFF_TEST_THREADS=2 pytest gives each test two threads. What the package says of float32 is tested
in float32: oneDNN's DNNL_DEFAULT_FPMATH_MODE, by which a user may allow coarser products, is STRICT
here (its default) whatever it is outside. The cache folder is chosen before the workers of
pytest-xdist start, so they share what one of them trains. To keep it between sessions while working
on a test: NGDIFF_TEST_CACHE=/some/folder pytest.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

THREADS = os.environ.get("NGDIFF_TEST_THREADS", "1")
os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": THREADS,
    **dict.fromkeys(("DNNL_DEFAULT_FPMATH_MODE", "ONEDNN_DEFAULT_FPMATH_MODE"), "STRICT"),
    "TOKENIZERS_PARALLELISM": "false",
    "MPLBACKEND": "Agg",
}
CONTROLLER = "PYTEST_XDIST_WORKER" not in os.environ
if CONTROLLER:
    kept = os.environ.get("NGDIFF_TEST_CACHE")
    os.environ["NGDIFF_CACHE"] = kept or tempfile.mkdtemp(prefix="ngdiff-tests-")

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(int(THREADS))
# a forked child of a test has lost OpenMP's team of threads, and would wait for it for ever
os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))
settings.register_profile("ngdiff", deadline=None, derandomize=True, database=None)
settings.load_profile("ngdiff")


def pytest_unconfigure(config: pytest.Config) -> None:
    if CONTROLLER and "NGDIFF_TEST_CACHE" not in os.environ:
        shutil.rmtree(os.environ["NGDIFF_CACHE"], ignore_errors=True)


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The repository's root."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout without notebooks yet, outside git (see toy_checkout.add); the package's sources
    count as fixed.
    """
    monkeypatch.setattr("ngdiff.book.execute.fingerprint_of", lambda text: "1")
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "ngdiff"\n')
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "data/results/tiny").mkdir(parents=True)
    return tmp_path
