"""The example of docs/adding-a-battery.md, cut out of the page and made into a battery."""

from __future__ import annotations

import atexit
import importlib.util
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from controller.batteries.base import BatteryProtocol
from tests.batteries.healthy import Far, Healthy, recorded

PAGE = Path(__file__).parents[2] / "docs" / "adding-a-battery.md"
BLOCK = re.compile(r"^`([\w./-]+)`\n\n```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
"""A file's name on a line of its own, and below it the file."""


@dataclass(frozen=True)
class Example:
    """files: what the page says, by path."""

    name: str
    battery: BatteryProtocol
    healthy: tuple[Healthy, ...]
    folder: Path
    files: Mapping[str, str]


def extracted(text: str) -> Example:
    """The page's files written somewhere and loaded from there."""
    files = dict(BLOCK.findall(text))
    folder = Path(tempfile.mkdtemp(prefix="documented-"))
    atexit.register(shutil.rmtree, folder)
    for path, content in files.items():
        (folder / Path(path).name).write_text(content, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("documented_tiny_bms", folder / "tiny_bms.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)

    def from_the_page(charged: str, discharged: str) -> Callable[[float], Far]:
        return recorded(folder / charged, folder / discharged)

    row = files["tests/batteries/healthy.py"]
    rows = eval(f"{{{row}}}", {"Healthy": Healthy, "recorded": from_the_page})
    return Example("tiny_bms", module.PROTOCOL, rows["tiny_bms"], folder, files)


EXAMPLE = extracted(PAGE.read_text(encoding="utf-8"))
