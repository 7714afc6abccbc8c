"""The content of a value, code included: the cache key of what a user wrote in a notebook cell.

A rule of your own has no file whose hash could stand for it. `content(value)` therefore goes
through the value itself: fields, the byte code of its class and of every function that this code
calls, the values of the globals it reads. Equal content gives an equal description in every
process; a changed line of code, constant or field changes it.

Code of this package counts by `ngdiff.store.code`, code of an installed library by its name and
version, everything else by its byte code.
"""

from __future__ import annotations

import dataclasses
import dis
import hashlib
import sys
import sysconfig
import types
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, ClassVar

from ngdiff.store import code

LIBRARY = tuple(
    {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
)
# of a class: what Python adds by itself
ADDED = {
    *("__module__", "__dict__", "__weakref__", "__doc__", "__annotations__", "__slotnames__"),
    *("__abstractmethods__", "_abc_impl", "__parameters__", "__orig_bases__", "__match_args__"),
    *("__firstlineno__", "__static_attributes__", "__dataclass_params__", "__dataclass_fields__"),
    *("__annotate__", "__annotate_func__", "__annotations_cache__", "__getstate__"),
}
GLOBALS = ("LOAD_GLOBAL", "LOAD_NAME")


def content(value: Any) -> Any:
    """Return a description of the value in lists, texts and numbers.

    Errors: TypeError for a value that cannot be described, such as an open file.
    """
    return _Walk().of(value)


class _Walk:
    """One description.

    Code that has been met before is named by its number, and so is a value that holds itself: this
    is where circles end.
    """

    def __init__(self) -> None:
        self.met: dict[int, int] = {}
        self.inside: list[int] = []  # the values that are being described
        self.kept: list[Any] = []  # so that no id is used twice

    def of(self, value: Any) -> Any:
        if value is None or isinstance(value, (bool, int, str)):
            return value
        if isinstance(value, (float, complex)):
            return ["number", repr(value)]
        if isinstance(value, (bytes, bytearray)):
            return ["bytes", value.hex()]
        if isinstance(value, Path):
            return ["path", str(value)]
        if isinstance(value, (type, types.FunctionType, types.ModuleType)):
            if id(value) in self.met:
                return ["met", self.met[id(value)]]
            self.met[id(value)] = len(self.met)
        elif id(value) in self.inside:
            return ["inside", self.inside.index(id(value))]
        self.kept.append(value)
        self.inside.append(id(value))
        found = self.part(value)
        self.inside.pop()
        return found

    def part(self, value: Any) -> Any:
        """Return the description of a value that may hold others."""
        for kind, describe in self.KINDS.items():
            if isinstance(value, kind):
                return describe(self, value)
        return self.array(value) if hasattr(value, "__array__") else self.instance(value)

    def a_list(self, value: Any) -> Any:
        return [type(value).__name__, *map(self.of, value)]

    def a_dict(self, value: Any) -> Any:
        return ["dict", *([self.of(k), self.of(v)] for k, v in value.items())]

    def a_set(self, value: Any) -> Any:
        return ["set", *sorted(map(self.of, value), key=repr)]

    def wrapped(self, value: Any) -> Any:
        return [type(value).__name__, self.of(value.__func__)]

    def a_property(self, value: Any) -> Any:
        return ["property", *map(self.of, (value.fget, value.fset, value.fdel))]

    def slot(self, value: Any) -> Any:
        return ["slot", value.__name__]

    def method(self, value: Any) -> Any:
        return ["method", self.of(value.__self__), self.of(value.__func__)]

    def code(self, code: types.CodeType) -> Any:
        names = [i.argval for i in dis.get_instructions(code) if isinstance(i.argval, str)]
        constants = [c for c in code.co_consts if c != _docstring(code)]
        return ["code", code.co_code.hex(), names, *map(self.of, constants)]

    def module(self, module: types.ModuleType) -> Any:
        if (elsewhere := _elsewhere(module.__name__)) is not None:
            return ["module", *elsewhere]
        values = sorted((k, v) for k, v in vars(module).items() if not k.startswith("__"))
        return ["module", module.__name__, *([k, self.of(v)] for k, v in values)]

    def function(self, function: types.FunctionType) -> Any:
        if (elsewhere := _elsewhere(function.__module__)) is not None:
            return ["function", function.__qualname__, *elsewhere]
        cells = [_cell(cell) for cell in function.__closure__ or ()]
        defaults = [function.__defaults__, function.__kwdefaults__]
        names = sorted(_globals(function.__code__) & function.__globals__.keys())
        reads = [[name, self.of(function.__globals__[name])] for name in names]
        return [
            "function",
            function.__qualname__,
            self.of(function.__code__),
            *map(self.of, (*cells, *defaults)),
            reads,
        ]

    def cls(self, cls: type) -> Any:
        if (elsewhere := _elsewhere(cls.__module__)) is not None:
            return ["class", cls.__qualname__, *elsewhere]
        members = {
            name: member
            for name, member in vars(cls).items()
            if name not in ADDED and not _generated(member)
        }
        fields = getattr(cls, "__dataclass_fields__", {})
        return [
            "class",
            cls.__qualname__,
            *map(self.of, cls.__bases__),
            *([name, self.of(members[name])] for name in sorted(members)),
            *([name, self.of(field.default)] for name, field in fields.items()),
        ]

    def array(self, value: Any) -> Any:
        numbers = repr(value.tolist()).encode()  # of an array or a tensor, every digit
        return ["array", str(value.dtype), list(value.shape), hashlib.sha256(numbers).hexdigest()]

    def instance(self, value: Any) -> Any:
        cls = self.of(type(value))
        if dataclasses.is_dataclass(value):
            fields = dataclasses.fields(value)
            return ["value", cls, *([f.name, self.of(getattr(value, f.name))] for f in fields)]
        try:
            made = value.__reduce_ex__(2)
        except TypeError as error:
            raise TypeError(
                f"the content of a {type(value).__name__} cannot be described: keep plain values "
                "in the fields of a method, such as numbers, texts and tensors"
            ) from error
        if isinstance(made, str):
            return ["value", cls, getattr(value, "__module__", None), made]
        return ["value", cls, *([self.of(list(p)) if _lazy(p) else self.of(p)] for p in made[1:])]

    KINDS: ClassVar[dict[Any, Callable[[_Walk, Any], Any]]] = {
        (list, tuple): a_list,
        dict: a_dict,
        (set, frozenset): a_set,
        types.CodeType: code,
        types.ModuleType: module,
        types.FunctionType: function,
        type: cls,
        (staticmethod, classmethod): wrapped,
        property: a_property,
        types.MemberDescriptorType: slot,
        types.MethodType: method,
    }


def _lazy(value: Any) -> bool:
    return hasattr(value, "__next__")


def _docstring(code: types.CodeType) -> str | None:
    """Return the docstring that a function's code begins with; None where it has none."""
    first = code.co_consts[0] if code.co_consts else None
    return first if isinstance(first, str) and code.co_flags & 2 else None  # CO_NEWLOCALS


def _globals(code: types.CodeType) -> set[str]:
    """Return the global names that a code object and those inside it read."""
    found = {i.argval for i in dis.get_instructions(code) if i.opname in GLOBALS}
    inner = (c for c in code.co_consts if isinstance(c, types.CodeType))
    return found.union(*map(_globals, inner))


def _cell(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not bound yet
        return None


def _generated(member: Any) -> bool:
    """Return whether a method was written by `dataclass`; its fields say the same."""
    made = getattr(member, "__wrapped__", member)
    return getattr(getattr(made, "__code__", None), "co_filename", "") == "<string>"


def _elsewhere(module: str | None) -> list[str] | None:
    """Return what stands for a module's code that is not the user's; None for the user's."""
    name = module or "builtins"
    top = name.partition(".")[0]
    if top in ("__main__", "__mp_main__"):
        return None
    if top == code.HOME.name:
        return [name, code.fingerprint(name)]
    file = getattr(sys.modules.get(name), "__file__", None)
    known = top in sys.stdlib_module_names
    if not known and not (file and file.startswith(LIBRARY)):
        return None
    try:
        return [name, version(top)]
    except PackageNotFoundError:
        return [name, sys.version.split()[0]]
