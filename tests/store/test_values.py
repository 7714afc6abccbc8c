"""The content of a value: a changed line of code, constant or field is another content, and the
same in another process is not.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from ngdiff.store.content import content_key
from ngdiff.store.values import content

CLASS = "class C{base}:\n    def f(self):\n        return {{}}\nx = C()"
HELPER = "import functools\n{decorator}\ndef g(a=0):\n    return {{}}\ndef x():\n    return g()"
DATA = "from dataclasses import dataclass, field\n@dataclass({how})\nclass C:\n    {body}\n{value}"
WRAP = (
    "import functools, json\ndef own(f):\n    @functools.wraps(f)\n    def g(*a):\n"
    "        return f(*a) + {}\n    return g\nx = own(json.dumps)"
)


def key_of(source: str, file: str = "<cell>") -> str:
    """The key of `x` after the source has run as a notebook's cell does."""
    names = {"__name__": "__main__"}
    exec(compile(source, file, "exec"), names)
    return content_key(content(names["x"]))


CHANGED = {  # what is changed: a source and the two texts that stand in it
    "lambda": ("x = lambda: {}", "'a'", "'b'"),
    "star": ("def x({}a):\n    return a", "", "*"),
    "keyword only": ("def x(a, {}b):\n    return a", "", "*, "),
    "order of parameters": ("def x({}):\n    return 1", "a, b", "b, a"),
    "closure": ("def g(n):\n    return lambda: n\nx = g({})", "1", "2"),
    "default": ("def x(n={}):\n    return n", "1", "2"),
    "recursion": ("def x(n):\n    return n and x(n - {})", "1", "2"),
    "attribute of a function": ("def x():\n    return x.n\nx.n = {}", "1", "2"),
    "partial": (
        "import functools\ndef g(n):\n    return n\nx = functools.partial(g, {})",
        "1",
        "2",
    ),
    "remembered": (HELPER.format(decorator="@functools.lru_cache"), "1", "2"),
    "dispatched": (HELPER.format(decorator="@functools.singledispatch"), "1", "2"),
    "a decorator of mine over theirs": (WRAP, "'a'", "'b'"),
    "a decorator of theirs over mine": (
        "import contextlib\n@contextlib.contextmanager\ndef x():\n    yield {}",
        "1",
        "2",
    ),
    "base": ("class B:\n    n = {}\nclass C(B):\n    pass\nx = C()", "1", "2"),
    "metaclass": ("class M(type):\n    n = {}\nclass C(metaclass=M):\n    pass\nx = C()", "1", "2"),
    "property": ("class C:\n    @property\n    def f(self):\n        return {}\nx = C()", "1", "2"),
    "cached property": (
        "import functools\nclass C:\n    @functools.cached_property\n    def f(self):\n"
        "        return {}\nx = C()",
        "1",
        "2",
    ),
    **{
        f"subclass of {b}": (CLASS.format(base=f"({b})"), "1", "2") for b in ("dict", "list", "str")
    },
    "default factory": (
        DATA.format(
            how="", body="n: list = field(default_factory={})", value="def x(): return C()"
        ),
        "lambda: [1]",
        "lambda: [2]",
    ),
    "order": (DATA.format(how="order={}", body="n: int = 1", value="x = C()"), "True", "False"),
    "factory of a dict": ("from collections import defaultdict\nx = defaultdict({})", "int", "str"),
    "pattern": ("import re\nx = re.compile({})", "'a'", "'b'"),
    "array": ("import numpy\nx = numpy.array([1, {}])", "2", "3"),
    "table": ("import pandas\nx = pandas.DataFrame(dict(a=[1, {}]))", "2", "3"),
}


@pytest.mark.parametrize("what", CHANGED)
def test_a_change_is_seen_and_the_same_again_is_not(what):
    source, before, after = CHANGED[what]
    assert key_of(source.format(before)) != key_of(source.format(after))
    assert key_of(source.format(before)) == key_of(source.format(before))


def test_code_given_as_a_text_counts_too():
    """`python -c` calls its code "<string>", as dataclasses call the methods that they write."""
    keys = {key_of(CLASS.format(base="").format(n), "<string>") for n in (1, 2)}
    assert len(keys) == 2


def test_docstrings_and_annotations_change_nothing():
    assert key_of("def x(a: int):\n    'One.'\n    return a") == key_of(
        "def x(a):\n    'Two.'\n    return a"
    )


def test_what_cannot_be_described_says_what_to_do():
    with pytest.raises(ValueError, match="content of a lock cannot be described: keep plain"):
        key_of("import threading\nL = threading.Lock()\ndef x():\n    return L")


WRITE = """
import enum, sys
from dataclasses import dataclass
from ngdiff.store.content import content_key
from ngdiff.store.values import content

class Kind(enum.Enum):
    A = "a"
    B = "b"

@dataclass(frozen=True)
class One:
    n: int

WORDS = {"retain", "forget", "holdout", "start"}
KINDS = {Kind.A, Kind.B, One(1), One(2), len, max}

def helper(word):
    return word in WORDS or helper(word[1:])

@dataclass(frozen=True)
class Rule(One):
    def weights(self, gram, losses):
        return helper("x") and super().__repr__() in KINDS

if __name__ == "__main__":
    from cloudpickle import dumps
    print(content_key(content(Rule(3))), dumps(Rule(3)).hex())
"""
READ = """
import pickle, sys
from ngdiff.store.content import content_key
from ngdiff.store.values import content

print(content_key(content(pickle.loads(bytes.fromhex(sys.stdin.read())))))
"""


def test_another_process_and_a_worker_give_the_same_key(tmp_path):
    """Sets have another order there, and a worker makes the class from a pickle."""
    (tmp_path / "rule.py").write_text(WRITE)
    (tmp_path / "read.py").write_text(READ)

    def said(file: str, seed: str, given: str = "") -> list[str]:
        env = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, str(tmp_path / file)]
        return subprocess.run(
            command, env=env, input=given, capture_output=True, text=True, check=True
        ).stdout.split()

    made = [said("rule.py", seed) for seed in ("1", "2", "3")]
    (key,) = {key for key, _ in made}
    assert said("read.py", "4", made[0][1]) == [key]
