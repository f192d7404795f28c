"""Which test proves which requirement, read from the markers; and docs/safety.md, written from it.

python -m tests.requirements.matrix docs
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FunctionType, ModuleType

import pytest

from controller.safety_report import page
from tests.requirements.requirements import requirements

TESTS = Path(__file__).parents[1]
MARK = "requirement"


def marked_modules() -> list[ModuleType]:
    """Every test module that marks a requirement, and all of this folder."""
    paths = [p for p in sorted(TESTS.rglob("test_*.py")) if f"mark.{MARK}(" in p.read_text(encoding="utf-8")]
    paths += [p for p in sorted(Path(__file__).parent.glob("test_*.py")) if p not in paths]
    return [importlib.import_module(".".join(p.relative_to(TESTS.parent).with_suffix("").parts)) for p in paths]


def proofs_of(module: ModuleType) -> Iterator[tuple[str, frozenset[str]]]:
    """Each test of a module, and the ids it is marked with. "cause:{event}" stands for each value of its parameter."""
    for name, test in vars(module).items():
        if isinstance(test, FunctionType) and name.startswith("test_"):
            marks = getattr(test, "pytestmark", [])
            ids = [each for mark in marks if mark.name == MARK for each in mark.args]
            yield name, frozenset(filled for each in ids for filled in _filled(each, marks))


def _filled(template: str, marks: list[pytest.Mark]) -> Iterator[str]:
    """The id, or one for each value of the parameter it names."""
    if "{" not in template:
        yield template
        return
    for names, rows in (mark.args for mark in marks if mark.name == "parametrize"):
        listed = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
        if any(f"{{{name}}}" in template for name in listed):
            for row in rows:
                yield template.format_map(dict(zip(listed, row if len(listed) > 1 else [row], strict=True)))


def matrix() -> Mapping[str, tuple[str, ...]]:
    """Each requirement and the tests that prove it, as file::test; ids nobody knows are in it too."""
    found: dict[str, list[str]] = {name: [] for name in requirements()}
    for module in marked_modules():
        place = module.__name__.replace(".", "/") + ".py"
        for name, ids in proofs_of(module):
            for each in ids:
                found.setdefault(each, []).append(f"{place}::{name}")
    return {name: tuple(sorted(tests)) for name, tests in found.items()}


def report() -> str:
    """The page handed to a reviewer."""
    return page(requirements(), matrix())


if __name__ == "__main__":
    target = Path(sys.argv[1]) / "safety.md"
    target.write_text(report(), encoding="utf-8")
    print(target)
