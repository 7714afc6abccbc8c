"""A checkout of trivial notebooks, for the tests of what builds, runs and reports notebooks."""

from __future__ import annotations

from pathlib import Path

HEADER = "# ---\n# jupyter:\n#   ngdiff:\n#     question: what?\n#     needs: [{needs}]\n# ---\n\n"
HEAD = """# %% [markdown]
# # A notebook

# %% tags=["parameters"]
profile = "tiny"
seeds = (0, 1, 2)
refresh = False
smoke = False

"""
OPEN = """# %%
from ngdiff.book.page import opened
page = opened(profile=profile, seeds=seeds, refresh=refresh, smoke=smoke)
"""
WRITE = (
    OPEN
    + """# %%
import pathlib
from ngdiff.store.rows import write_rows
count = pathlib.Path("../data/results/tiny/{name}.count")
n = int(count.read_text()) + 1 if count.exists() else 1
count.write_text(str(n))
row = {{"name": "{name}", "value": {value}, "tolerance": 0.1}}
write_rows(page.rows / "{name}_summary.jsonl", [row])
"""
)


def add(repo: Path, name: str, body: str, needs: str = "") -> Path:
    """Write notebooks/<name>.py: header with its needs, title, parameters, `body`."""
    path = repo / "notebooks" / f"{name}.py"
    path.write_text((HEADER.format(needs=needs) if needs else "") + HEAD + body)
    return path
