"""What every command prints through, and how one that cannot go on says so."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn, TextIO

import typer
from rich.console import Console

FILE_WIDTH = 120
"""How wide a table is in a file or a pipe."""
CONFIG_HELP = "The config file. Else $CONTROLLER_CONFIG, ./controller.toml, /etc/packwarden/controller.toml."
SOCKET_HELP = "The controller's socket. Else $CONTROLLER_SOCKET, /run/packwarden/control.sock."
ConfigOption = Annotated[Path | None, typer.Option("--config", help=CONFIG_HELP)]
SocketOption = Annotated[Path | None, typer.Option("--socket", help=SOCKET_HELP)]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


class _Console(Console):
    """A line is broken by a terminal only, never in a file or a pipe; a reader may go away (`| head`)."""

    def print(self, *objects: Any, **how: Any) -> None:
        if all(isinstance(each, str) for each in objects) and not self.is_terminal:
            how["soft_wrap"] = True
        super().print(*objects, **how)

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def _console(stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream and stream.isatty() else FILE_WIDTH
    return _Console(stderr=stderr, width=width, highlight=False, emoji=False)


out, err = _console(False), _console(True)


def fail(message: str) -> NoReturn:
    """Wrong use, nobody there, an unreadable file, a bad config: one clear line on stderr, exit 2."""
    err.print(f"controller: {message}", markup=False, soft_wrap=True)
    raise typer.Exit(2)


@contextmanager
def written(path: Path) -> Iterator[TextIO]:
    """A file written beside its place and put there at the end; what was there stays when anything fails."""
    if path.exists() and not path.is_file():
        with path.open("w", encoding="utf-8") as device:
            yield device
        return
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with fresh.open("w", encoding="utf-8", newline="\n") as out_file:
            yield out_file
        fresh.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        fresh.unlink(missing_ok=True)


def write(path: Path, text: str) -> None:
    with written(path) as out_file:
        out_file.write(text)
