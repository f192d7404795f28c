"""Our frozen records as JSON and back, exactly, by name from a closed list; nothing in a file can be called.

    Mailbox(tables=TABLES, latest={PAGE: Latest(PAGE, b"\\x01", 40, None)}, accepted=1)
    {"is": "controller.codec.dbc:Mailbox", "tables": {"=": "…tesla_model3:TABLES"},
     "latest": {"map": [[{"=": "…tesla_model3:TABLES/BMS_status"}, {"is": "…:Latest", …}]]}, "accepted": 1}

`is` names a record's class, `=` one constant of ours: a table, a page of one, a member of an enumeration, a protocol.
A list is a tuple. What is only worked out again from the rest (a cache) comes back empty.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from inspect import signature
from types import MappingProxyType, ModuleType
from typing import Any

from controller.codec.dbc import Latest, Tables

PLAIN = (type(None), bool, int, float, str)


class FrozenError(ValueError):
    """This cannot be written, or is not what this program reads: one line."""


class Vocabulary:
    """Every record and constant of these modules. Whatever else is met is refused, both ways."""

    def __init__(self, modules: Iterable[ModuleType]) -> None:
        modules = tuple(modules)
        self._classes: dict[str, type] = {}
        self._constants: dict[str, object] = {}
        self._names: dict[int, str] = {}
        for module, name, value in _globals(modules):
            if isinstance(value, type) and value.__module__ == module:
                self._learn(f"{module}:{name}", value)
        for module, name, value in _globals(modules):
            if name.isupper() and self._is_record(value[0] if type(value) is tuple and value else value):
                self._name(f"{module}:{name}", value)

    def _learn(self, name: str, cls: type) -> None:
        if issubclass(cls, Enum):
            for member in cls:
                self._name(f"{name}.{member.name}", member)
        elif _fields_of(cls) is not None:
            self._classes[name] = cls

    def _is_record(self, value: object) -> bool:
        return self._classes.get(_name_of(type(value))) is type(value)

    def _name(self, name: str, value: object) -> None:
        """Its first name counts."""
        if id(value) in self._names:
            return
        self._names[id(value)] = name
        self._constants[name] = value
        if isinstance(value, Tables):
            for place, page in _pages(value):
                self._name(f"{name}/{place}", page)

    # --- out ---

    def dumps(self, value: object) -> str:
        """The value as JSON. FrozenError: it holds something this vocabulary has no word for."""
        return json.dumps(self._plain(value), separators=(",", ":"), ensure_ascii=False)

    def _plain(self, value: Any) -> Any:
        kind = type(value)
        if kind in PLAIN:
            return value
        if (name := self._names.get(id(value))) is not None:
            return {"=": name}
        if kind is tuple:
            return [self._plain(item) for item in value]
        if (write := _WRITERS.get(kind)) is not None:
            return write(self, value)
        if not self._is_record(value):
            raise FrozenError(f"{_name_of(kind)} is no record that can be written")
        return {"is": _name_of(kind)} | {field: self._plain(getattr(value, field)) for field in _fields_of(kind) or ()}

    def _pairs(self, mapping: Mapping[Any, Any]) -> list[list[Any]]:
        return [[self._plain(key), self._plain(item)] for key, item in mapping.items()]

    # --- in ---

    def loads(self, text: str | bytes) -> Any:
        """What was written. FrozenError: it is torn, or not of this program."""
        try:
            return self._value(json.loads(text))
        except FrozenError:
            raise
        except (ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
            raise FrozenError(f"it cannot be read ({' '.join(str(error).split())[:120]})") from None

    def _value(self, said: Any) -> Any:
        if isinstance(said, list):
            return tuple([self._value(item) for item in said])
        if not isinstance(said, dict):
            return said
        if "is" in said:
            return self._record(said)
        if len(said) != 1:
            raise FrozenError(f"an object of {len(said)} keys is no record")
        ((key, inside),) = said.items()
        if key == "=":
            if not isinstance(inside, str) or inside not in self._constants:
                raise FrozenError(f"there is no {inside}")
            return self._constants[inside]
        if key not in _READERS:
            raise FrozenError(f"{key} is no kind of value")
        return _READERS[key](self, inside)

    def _record(self, said: Mapping[str, Any]) -> Any:
        name = said["is"]
        cls = self._classes.get(name) if isinstance(name, str) else None
        if cls is None:
            raise FrozenError(f"there is no record {name}")
        wanted = _fields_of(cls) or ()
        given = {field: self._value(inside) for field, inside in said.items() if field != "is"}
        if given.keys() != set(wanted):
            strange = ", ".join(sorted(given.keys() ^ set(wanted)))
            raise FrozenError(f"{name} has other fields in this program ({strange})")
        return Latest(**given, before=None) if cls is Latest else cls(**given)

    def _mapping(self, pairs: Any) -> dict[Any, Any]:
        return {self._value(key): self._value(item) for key, item in pairs}


def _globals(modules: Iterable[ModuleType]) -> Iterator[tuple[str, str, Any]]:
    return ((module.__name__, name, value) for module in modules for name, value in vars(module).items())


def _name_of(cls: type) -> str:
    return f"{cls.__module__}:{cls.__qualname__}"


def _pages(tables: Tables) -> Iterator[tuple[str, object]]:
    """Every page of a .dbc: message, and its multiplexer value where it has one."""
    for layout in tables.layouts.values():
        for page in (*layout.pages.values(), *([layout.unlisted] if layout.unlisted else [])):
            yield layout.name if page.index is None else f"{layout.name}/{page.index}", page


def _fields_of(cls: type) -> tuple[str, ...] | None:
    """What a record is made of; () for a cache, which begins anew; None: this is no record."""
    if cls is Latest:
        return ("page", "data", "at_ms", "heard_ms")
    if issubclass(cls, tuple):
        return getattr(cls, "_fields", None)
    if is_dataclass(cls):
        return tuple(field.name for field in fields(cls) if field.init)
    return () if "__slots__" in vars(cls) and not signature(cls).parameters else None


_WRITERS: Mapping[type, Callable[[Vocabulary, Any], Any]] = {
    bytes: lambda words, value: {"bytes": value.hex()},
    frozenset: lambda words, value: {"set": sorted((words._plain(item) for item in value), key=json.dumps)},
    dict: lambda words, value: {"map": words._pairs(value)},
    MappingProxyType: lambda words, value: {"view": words._pairs(value)},
    object: lambda words, value: {"mark": None},
}
_READERS: Mapping[str, Callable[[Vocabulary, Any], Any]] = {
    "bytes": lambda words, inside: bytes.fromhex(inside),
    "set": lambda words, inside: frozenset(words._value(item) for item in inside),
    "map": lambda words, inside: words._mapping(inside),
    "view": lambda words, inside: MappingProxyType(words._mapping(inside)),
    "mark": lambda words, inside: object(),
}
