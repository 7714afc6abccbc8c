"""The command line and the repository as a whole."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from ngdiff.commands import cli


def ngdiff(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, as a shell would run it."""
    code = (
        "import sys; sys.path.insert(0, sys.argv.pop(1)); from ngdiff.commands.cli import "
        "main; main()"
    )
    package = str(Path(__file__).resolve().parents[2])
    return subprocess.run(
        [sys.executable, "-c", code, package, *arguments], cwd=cwd, capture_output=True, text=True
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["reproduce"], "no ngdiff checkout"),
        (["reproduce", "--profile", "huge"], "tiny"),
        (["reproduce", "--seeds", "a"], "--seeds takes whole numbers"),
        (["reproduce", "--data", "nowhere"], "no such folder"),
        (["reproduce", "--data", "news"], "--data news is generated: leave it out"),
        (["reproduce", "--data", "wmdp:hub"], "unknown benchmark 'wmdp'"),
        (["reproduce", "--data", "."], "forget01.json is missing; get the folder with"),
        (["reproduce", "--seeds", "0,100"], "seed 100 chooses the rates"),
        (["sweep", "nothing.toml"], "no grid file"),
        (["data", "authors", "taken"], "cannot write to taken"),
        (["data", "authors", "n" * 300], "too long"),
    ],
)
def test_an_error_is_one_line_and_exit_code_2(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    """In this process, which has imported what the commands need; see the test below."""
    (tmp_path / "taken").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["ngdiff", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.startswith("ngdiff: ") and message in said
    assert said.count("\n") == 1 and said.endswith("\n")
    monkeypatch.setattr(sys, "argv", ["ngdiff", "--debug", *arguments])
    with pytest.raises(cli.ERRORS, match=re.escape(message)):  # which Python prints as a traceback
        cli.main()


def test_a_process_ends_with_that_code_and_that_line(tmp_path: Path) -> None:
    done = ngdiff("sweep", "nothing.toml", cwd=tmp_path)
    assert done.returncode == 2 and "no grid file" in done.stderr and "Traceback" not in done.stderr
    assert "Traceback" in ngdiff("--debug", "sweep", "nothing.toml", cwd=tmp_path).stderr


def tracked(root: Path) -> list[Path]:
    names = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True)
    if names.returncode or not names.stdout:
        pytest.skip("no git, so it is not known which files belong to the repository")
    return [path for name in names.stdout.split("\0") if name and (path := root / name).is_file()]


def test_no_line_is_longer_than_a_megabyte(checkout: Path) -> None:
    for path in tracked(checkout):
        assert max(map(len, path.read_bytes().split(b"\n"))) < 1_000_000, path


def test_every_dependency_has_its_pin(checkout: Path) -> None:
    project = tomllib.loads((checkout / "pyproject.toml").read_text())["project"]
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)$", (checkout / "constraints.txt").read_text(), re.M))
    names = {re.sub(r"[-_.]+", "-", name).lower() for name in pins}
    extras = project["optional-dependencies"]
    own = [re.fullmatch(r"ngdiff\[([\w-]+)\]", line) for line in extras["test"]]
    wanted = [line for found in own if found for line in extras[found[1]]]
    wanted += [line for line, found in zip(extras["test"], own, strict=True) if not found]
    for line in project["dependencies"] + wanted:
        name = re.match(r"[\w.-]+", line)
        assert name and name[0].lower() in names, f"{line} has no pin in constraints.txt"
    assert pins["torch"] == "2.13.0" and "torch==2.13.0" in project["dependencies"]
