"""A copy of the tree to spoil, and the fast tests that judge it."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
UNIT = (
    "tests/controller/test_rules.py", "tests/controller/test_monitor.py", "tests/controller/test_guards.py",
    "tests/controller/test_envelope.py", "tests/controller/test_gate.py",
)  # fmt: skip
CHART = (
    "tests/statecharts/test_each_interlock.py", "tests/statecharts/test_chart.py", "tests/statecharts/test_runner.py",
    "tests/statecharts/test_interlocks.py",
)  # fmt: skip
BENCH = ("tests/controller/test_loop.py", "tests/properties/test_sweeps.py", "tests/requirements")
FAST = '"not slow and not campaign and not pi"'


def copy_tree(folder: Path | str) -> Path:
    """A copy, in `folder`, of what git knows and of what it does not ignore."""
    target = Path(tempfile.mkdtemp(prefix="copy-", dir=folder))
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    return target
