"""The content of a value, code included: the cache key of what a user wrote in a notebook cell.

A rule of your own has no file whose hash could stand for it. `content(value)` therefore goes
through the value itself: fields, the byte code of its class and of every function that this code
calls, the values of the globals it reads. Equal content gives an equal description in every
process; a changed line of code, constant or field changes it.

Code of this package counts by `ngdiff.store.code`, code of an installed library by its name and
version, everything else by its byte code.
"""

from __future__ import annotations

import copyreg
import dataclasses
import dis
import functools
import hashlib
import pickle
import sys
import types
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, ClassVar

from ngdiff.store import code

INSTALLED = {"site-packages", "dist-packages"}  # folders of installed libraries
# of a class: what Python adds by itself
ADDED = {
    *("__module__", "__dict__", "__weakref__", "__doc__", "__annotations__", "__slotnames__"),
    *("__abstractmethods__", "_abc_impl", "__parameters__", "__orig_bases__", "__match_args__"),
    *("__firstlineno__", "__static_attributes__", "__dataclass_params__", "__dataclass_fields__"),
    *("__annotate__", "__annotate_func__", "__annotations_cache__", "__getstate__"),
}
GLOBALS = ("LOAD_GLOBAL", "LOAD_NAME")
PLAIN = (type(None), bool, int, str)


def content(value: Any) -> Any:
    """Return a description of the value in lists, texts and numbers.

    Errors: ValueError for a value that cannot be described, such as an open file.
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
        if type(value) in PLAIN:
            return value
        if type(value) in (float, complex):
            return ["number", repr(value)]
        if type(value) in (bytes, bytearray):
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
        if (describe := self.CONTAINERS.get(type(value))) is not None:
            return describe(self, value)
        for kind, describe in self.KINDS.items():
            if isinstance(value, kind):
                return describe(self, value)
        return self.array(value) if _array(value) else self.instance(value)

    def a_list(self, value: Any) -> Any:
        return [type(value).__name__, *map(self.of, value)]

    def a_dict(self, value: Any) -> Any:
        return ["dict", *([self.of(k), self.of(v)] for k, v in value.items())]

    def a_set(self, value: Any) -> Any:
        """Describe each member as if it came first: a set has another order in each process."""
        members = []
        for member in value:
            apart = _Walk()
            apart.met, apart.inside, apart.kept = dict(self.met), [*self.inside], self.kept
            members.append(apart.of(member))
        return ["set", *sorted(members, key=repr)]

    def wrapped(self, value: Any) -> Any:
        return [type(value).__name__, self.of(value.__func__)]

    def a_property(self, value: Any) -> Any:
        return ["property", *map(self.of, (value.fget, value.fset, value.fdel))]

    def cached(self, value: Any) -> Any:
        return ["cached property", self.of(value.func)]

    def slot(self, value: Any) -> Any:
        return ["slot", value.__name__]

    def method(self, value: Any) -> Any:
        return ["method", self.of(value.__self__), self.of(value.__func__)]

    def code(self, code: types.CodeType) -> Any:
        names = [i.argval for i in dis.get_instructions(code) if isinstance(i.argval, str)]
        constants = [c for c in code.co_consts if c != _docstring(code)]
        starred = code.co_flags & 12  # *args, **kwargs
        counts = [code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, starred]
        text = [code.co_code.hex(), code.co_exceptiontable.hex()]
        return ["code", *text, counts, code.co_varnames, names, *map(self.of, constants)]

    def module(self, module: types.ModuleType) -> Any:
        if (elsewhere := _elsewhere(module.__name__)) is not None:
            return ["module", *elsewhere]
        values = sorted((k, v) for k, v in vars(module).items() if not k.startswith("__"))
        return ["module", module.__name__, *([k, self.of(v)] for k, v in values)]

    def function(self, function: types.FunctionType) -> Any:
        """Describe a function. A decorator of a library lends its code to a function that bears
        your module's name, and one of yours to a function that bears a library's.
        """
        written = function.__globals__.get("__name__")
        theirs, named = (_elsewhere(name or "__main__") for name in (written, function.__module__))
        if theirs is not None and named is not None:
            return ["function", function.__qualname__, *named]
        cells = [_cell(cell) for cell in function.__closure__ or ()]
        held = (*cells, function.__defaults__, function.__kwdefaults__, function.__dict__)
        if theirs is not None:
            return ["function", function.__qualname__, *theirs, *map(self.of, held)]
        names = sorted(_globals(function.__code__) & function.__globals__.keys())
        reads = [[name, self.of(function.__globals__[name])] for name in names]
        body = self.of(function.__code__)
        return ["function", function.__qualname__, body, *map(self.of, held), reads]

    def cls(self, cls: type) -> Any:
        if (elsewhere := _elsewhere(cls.__module__)) is not None:
            return ["class", cls.__qualname__, *elsewhere]
        members = {
            name: member
            for name, member in vars(cls).items()
            if name not in ADDED and not _generated(member)
        }
        fields = getattr(cls, "__dataclass_fields__", {}).values()
        return [
            "class",
            cls.__qualname__,
            repr(vars(cls).get("__dataclass_params__")),
            *map(self.of, (type(cls), *cls.__bases__)),
            *([name, self.of(members[name])] for name in sorted(members)),
            *([f.name, *map(self.of, (f.default, f.default_factory))] for f in fields),
        ]

    def array(self, value: Any) -> Any:
        kind, shape = str(value.dtype), list(value.shape)
        if kind == "object":
            return ["array", kind, shape, self.of(value.tolist())]
        numbers = repr(value.tolist()).encode()  # of an array or a tensor, every digit
        return ["array", kind, shape, hashlib.sha256(numbers).hexdigest()]

    def instance(self, value: Any) -> Any:
        cls = self.of(type(value))
        if dataclasses.is_dataclass(value):
            fields = dataclasses.fields(value)
            return ["value", cls, *([f.name, self.of(getattr(value, f.name))] for f in fields)]
        try:
            reduce = copyreg.dispatch_table.get(type(value))
            made = reduce(value) if reduce else value.__reduce_ex__(2)
        except (TypeError, RuntimeError, pickle.PickleError) as error:
            raise ValueError(
                f"the content of a {type(value).__name__} cannot be described: keep plain values, "
                "such as numbers, texts and tensors, in the fields of a method and in the "
                "variables that its code reads"
            ) from error
        if isinstance(made, str):  # of a function that is cached: the function
            inner = self.of(getattr(value, "__wrapped__", None))
            return ["value", cls, getattr(value, "__module__", None), made, inner]
        parts = (list(p) if isinstance(p, Iterator) else p for p in made[1:])
        return ["value", cls, *map(self.of, parts)]

    CONTAINERS: ClassVar[dict[type, Callable[[_Walk, Any], Any]]] = {
        **dict.fromkeys((list, tuple), a_list),
        **dict.fromkeys((dict, types.MappingProxyType), a_dict),
        **dict.fromkeys((set, frozenset), a_set),
    }  # a class of your own that inherits from these is an instance, with its code
    KINDS: ClassVar[dict[Any, Callable[[_Walk, Any], Any]]] = {
        types.CodeType: code,
        types.ModuleType: module,
        types.FunctionType: function,
        type: cls,
        (staticmethod, classmethod): wrapped,
        property: a_property,
        functools.cached_property: cached,
        types.MemberDescriptorType: slot,
        types.MethodType: method,
    }


def _array(value: Any) -> bool:
    """Return whether a value is an array or a number of numpy, or a tensor of torch."""
    top = type(value).__module__.partition(".")[0]
    return top in ("numpy", "torch") and hasattr(value, "tolist") and hasattr(value, "dtype")


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
    return "__create_fn__" in getattr(getattr(made, "__code__", None), "co_qualname", "")


def _elsewhere(module: str | None) -> list[str] | None:
    """Return what stands for a module's code that is not the user's; None for the user's."""
    name = module or "builtins"
    top = name.partition(".")[0]
    if top in ("__main__", "__mp_main__"):
        return None
    if top == code.HOME.name:
        return [name, code.fingerprint(name)]
    file = getattr(sys.modules.get(name), "__file__", None)
    if top not in sys.stdlib_module_names and not (file and INSTALLED & {*Path(file).parts}):
        return None
    try:
        return [name, version(top)]
    except PackageNotFoundError:  # of the standard library, or installed under another name
        return [name, str(getattr(sys.modules.get(top), "__version__", sys.version.split()[0]))]
