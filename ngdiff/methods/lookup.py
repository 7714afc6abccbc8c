"""Methods by name or value: what a name means, and how tables and figures show it."""

from __future__ import annotations

import os
import pkgutil
import sys
from collections.abc import Iterable
from typing import Any

from ngdiff.core.directions import NGDiff
from ngdiff.methods.definition import Look, Method
from ngdiff.methods.objectives import Objective
from ngdiff.methods.recipes import METHODS, MIXED, family, mixtures, named


def method(name: str | Any) -> Method:
    """Return the method that a name, a value or a place stands for.

    name: a key of `METHODS`, a `Method`, a direction rule, an objective, or "module:name" for such
    a value in a module of your own. A direction rule works on cross-entropies (it is the package's
    method where that has the rule). An objective is ascended by NGDiff.
    Errors: ValueError that lists the known names, or says what the place holds instead. ValueError
    for a class in place of a value, and for a method of yours with the name of one of the
    package's.
    """
    if isinstance(name, str):
        return named(name) or _at(name)
    if isinstance(name, type):
        raise ValueError(f"{name.__name__} is a class: pass a value of it, {name.__name__}(…)")
    if isinstance(name, Method):
        own = name
    elif isinstance(name, Objective):
        own = Method(f"NGDiff on {_shown(name)}", NGDiff(), forget=name)
    elif callable(getattr(name, "weights", None)):
        same = (m for m in METHODS.values() if m.plain and m.direction == name)
        own = next(same, None) or Method(_shown(name), name)
    else:
        raise ValueError(
            f"{name!r} is no method: pass a Method, a direction rule or an objective, or the name "
            "of one"
        )
    by_name = {m.name: m for m in METHODS.values()}
    ours = named(own.key) or by_name.get(own.name, own)
    if own != ours:
        raise ValueError(
            f"{own.name!r} (key {own.key}) is the name of another method of the package: choose "
            "another name"
        )
    return ours


def _shown(value: Any) -> str:
    """Return the repr of a rule or an objective; its class's name where Python's own repr would
    show an address.
    """
    named = type(value).__repr__ is not object.__repr__
    return repr(value) if named else type(value).__name__


def _at(place: str) -> Method:
    """Return the method at "module:name". Errors: ValueError where there is none."""
    if ":" not in place:
        raise ValueError(
            f"unknown method {place!r}; choose one of: {', '.join(METHODS)}; or write module:name "
            "for a Method of your own"
        )
    if not {"", os.getcwd()} & set(sys.path):
        sys.path.insert(0, os.getcwd())  # a module beside the user, whatever started Python
    try:
        value = pkgutil.resolve_name(place)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"method {place!r}: {error}; write module:name, of a module that can be "
            "imported from here"
        ) from error
    if isinstance(value, str):
        raise ValueError(f"method {place!r} is the text {value!r}, and no Method")
    try:
        return method(value() if isinstance(value, type) else value)
    except TypeError as error:  # a class whose fields have no defaults
        raise ValueError(
            f"method {place!r}: {error}; write a value of it into the module, and its name here"
        ) from error


_OWN: dict[str, tuple[str, Look]] = {}  # label and look of methods that are not the package's


def remember(key: str, label: str, look: Look) -> None:
    """Keep how tables and figures of this process name and draw a method of a user."""
    _OWN[key] = label, look


def known(name: str) -> Method | None:
    """Return the package's method behind a key, a label or a rule's repr; None for any other."""
    if ours := named(name):
        return ours
    by_name = {m.name: m for m in METHODS.values()}
    by_rule = {repr(m.direction): m for m in reversed(METHODS.values()) if m.plain}
    return by_name.get(name) or by_rule.get(name)


def label(name: str) -> str:
    """Return what a method is called in legends and tables."""
    found = known(name)
    return found.name if found else _OWN.get(name, (name,))[0]


def ordered(names: Iterable[str]) -> list[str]:
    """Return methods in the order of every table; those of a user come last, by name."""
    place = {key: i for i, key in enumerate(METHODS)}

    def at(name: str) -> tuple[int, float, str]:
        found = known(name)
        if found is None:
            return len(place), 0.0, name
        return place.get(_root(found.key), len(place)), _weight(found.key), name

    return sorted(names, key=at)


def _root(key: str) -> str:
    """Return the key whose place in the tables a key shares: that of its base method."""
    return mixtures()[0] if key.startswith(MIXED) else family(key)


def _weight(key: str) -> float:
    """Return the retain weight in a key, 0 without one."""
    number = key.rpartition("-")[2]
    return float(number) if number.replace(".", "", 1).isdigit() else 0.0


def look(name: str) -> Look:
    """Return how a method is drawn; an unknown one is grey."""
    found, own = known(name), {label: look for label, look in _OWN.values()}
    grey = Look("#999999")
    return found.look if found else _OWN.get(name, (name, own.get(name, grey)))[1]
