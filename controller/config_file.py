"""The file of a config: read with one clear error, written as a whole or not at all, by one program at a time."""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from controller.config_check import ConfigError, Problem

SIZE_MAX: Final = 256 * 1024


def text_of(path: Path) -> str:
    """The file's text with its line ends as they are. Everything that can be wrong with a file is one ConfigError."""

    def error(message: str, fix: str, line: int | None = None) -> ConfigError:
        return ConfigError(str(path), [Problem(line, "", message, fix)])

    try:
        with path.open("rb") as file:
            data = file.read(SIZE_MAX + 1)
    except FileNotFoundError:
        raise error("there is no such file", "`controller config init` writes one") from None
    except OSError as problem:
        raise error(f"it cannot be read ({problem.strerror})", "give the path of a readable file") from None
    if len(data) > SIZE_MAX:
        raise error(f"it is larger than {SIZE_MAX // 1024} KiB", "give the path of a config file")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        line = data.count(b"\n", 0, problem.start) + 1
        raise error("this is no text in UTF-8", "give the path of a config file, saved as UTF-8", line) from None


@contextmanager
def alone(target: Path) -> Iterator[None]:
    """One change at a time: the folder is locked, since the file itself is replaced."""
    try:
        folder = os.open(target.parent, os.O_RDONLY)
    except OSError:  # reading the file will say what is wrong
        yield
        return
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def written_beside(target: Path, text: str, mode: int = 0o644) -> Path:
    """A new file beside `target`, safely on disk, with mode and owner of the old one, else `mode`. Raises OSError."""
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    fresh = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(text.encode("utf-8"))
            file.flush()
            old = target.stat() if target.exists() else None
            os.fchmod(file.fileno(), stat.S_IMODE(old.st_mode) if old else mode)
            if old:
                with suppress(PermissionError):
                    os.fchown(file.fileno(), old.st_uid, old.st_gid)
            os.fsync(file.fileno())
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    return fresh
