"""docs/extending.md: every diff is short, applies to a copy, and does what it says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "extending.md"
SECTIONS = re.split(r"^## ", PAGE.read_text("utf-8"), flags=re.M)[1:]
NEW = "/dev/null"


def blocks(section: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", section, flags=re.M | re.S)


def apply(diff: str, root: Path) -> None:
    """Apply a unified diff without line numbers: each hunk is found by its context, which stands
    just once in the file.
    """
    for part in re.split(r"^--- ", diff, flags=re.M)[1:]:
        old, new, *rest = part.splitlines()
        target = root / new.removeprefix("+++ b/")
        hunks = re.split(r"^@@\n", "\n".join(rest) + "\n", flags=re.M)[1:]
        if old.strip() == NEW:
            target.write_text("".join(f"{line[1:]}\n" for line in hunks[0].splitlines()), "utf-8")
            continue
        text = target.read_text("utf-8")
        for hunk in hunks:
            lines = hunk.splitlines()
            before = "".join(f"{line[1:]}\n" for line in lines if line[:1] != "+")
            after = "".join(f"{line[1:]}\n" for line in lines if line[:1] != "-")
            assert text.count(before) == 1, f"{target}: this context is not found once:\n{before}"
            text = text.replace(before, after)
        target.write_text(text, "utf-8")


def test_the_page_has_its_six_sections() -> None:
    wanted = ["A direction rule", "A method", "An objective", "A metric", "A benchmark"]
    assert [section.partition("\n")[0] for section in SECTIONS] == [*wanted, "A notebook"]


@pytest.mark.parametrize("section", SECTIONS, ids=lambda s: s.partition("\n")[0])
def test_a_diff_has_at_most_fifteen_lines(section: str) -> None:
    (diff,) = blocks(section, "diff")
    changed = [line for line in diff.splitlines() if re.match(r"[+-](?![+-]{2} )", line)]
    assert 0 < len(changed) <= 15, len(changed)


def test_every_diff_applies_and_does_what_it_says(tmp_path: Path) -> None:
    """All of them, one after the other, in one copy; then the code of each section."""
    ignored = shutil.ignore_patterns("__pycache__", "*.ipynb")
    for folder in ("ngdiff", "notebooks", "tests/helpers"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    code = []
    for section in SECTIONS:
        (diff,) = blocks(section, "diff")
        apply(diff, tmp_path)
        code += [f"print({section.partition(chr(10))[0]!r})\n", *blocks(section, "python")]
    script = tmp_path / "check.py"
    script.write_text("\n".join(code), "utf-8")
    env = os.environ | {"PYTHONPATH": str(tmp_path), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
