"""Names in prose: what docstrings, the README, docs and notebooks call by name is there."""

from __future__ import annotations

import importlib
import itertools
import re
from pathlib import Path

from tests.test_architecture import ORDER, PACKAGE, ROOT, modules

NAMED = re.compile(rf"`((?:{'|'.join(('ngdiff', *ORDER[:-3]))})(?:\.[A-Za-z_]\w*)+)")


def there(dotted: str) -> bool:
    """True where a name read off the package, with or without its `ngdiff.`, is something."""
    parts = dotted.removeprefix("ngdiff.").split(".")
    home = next(
        (n for n in range(len(parts), -1, -1) if ".".join(parts[:n]) in {"", *modules()}), 0
    )
    value = importlib.import_module(".".join(["ngdiff", *parts[:home]]))
    for part in parts[home:]:
        if part in getattr(value, "__dataclass_fields__", {}):
            return True
        if not hasattr(value, part):
            return False
        value = getattr(value, part)
    return True


def test_which_names_are_there() -> None:
    named = NAMED.findall("`ngdiff.store.paths.kind`, `store.paths`, `data/x.py`, `study.no(1)`")
    assert named == ["ngdiff.store.paths.kind", "store.paths", "study.no"]
    assert [there(name) for name in named] == [True, True, False]
    assert there("ngdiff.timing.case.Case.size") and not there("ngdiff.engine.footprint.Watch")


def test_every_name_of_the_package_in_prose_is_there() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *ROOT.glob("notebooks/*.py")]
    files = itertools.chain(pages, PACKAGE.rglob("*.py"), (ROOT / "tests").rglob("*.py"))
    found = {path: set(NAMED.findall(path.read_text("utf-8"))) for path in files}
    found.pop(Path(__file__).resolve())
    lost = {
        f"{path.relative_to(ROOT)}: {name}"
        for path, names in found.items()
        for name in names
        if not there(name)
    }
    assert not lost, f"names that are nowhere, moved or renamed: {sorted(lost)}"
