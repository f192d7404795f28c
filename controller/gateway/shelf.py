"""A folder of files that come and go: what is there, and which of it goes when there is too much."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,79}")


def kept(folder: Path, pattern: re.Pattern[str] = NAME) -> list[Path]:
    """What is there, newest first. Raises OSError."""
    found = [path for path in folder.iterdir() if pattern.fullmatch(path.name)] if folder.exists() else []
    return sorted(found, key=lambda path: path.stat().st_mtime_ns, reverse=True)


def trim(folder: Path, most: int, pattern: re.Pattern[str] = NAME) -> None:
    """The oldest go. Raises OSError."""
    for old in kept(folder, pattern)[most:]:
        old.unlink(missing_ok=True)
