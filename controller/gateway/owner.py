"""What the owner does at the machine: `controller gateway passwd` and `controller gateway export`."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from controller.console import fail
from controller.gateway.accounts import PasswordError, PasswordFile, hashed
from controller.gateway.history_export import export as write_export
from controller.gateway.history_store import LEVEL_OF, HistoryError, Store
from controller.gateway.people import STATE_FOLDER

STATE_HELP = "The gateway's folder. Else $STATE_DIRECTORY, /var/lib/packwarden-gateway."
StateOption = Annotated[Path | None, typer.Option("--state", help=STATE_HELP)]


def state_folder(option: Path | None, environ: Mapping[str, str] = os.environ) -> Path:
    """Where the gateway keeps what is its own."""
    told = environ.get("STATE_DIRECTORY", "").partition(":")[0]
    return option or Path(told or STATE_FOLDER)


def passwd(
    state: StateOption = None,
    remove: Annotated[bool, typer.Option("--remove", help="No password: the page is for this machine only.")] = False,
) -> None:
    """Set the page's password, typed twice, or as a line from a pipe. The running gateway follows within seconds."""
    file = PasswordFile(state_folder(state))
    try:
        if remove:
            typer.echo("the password is removed" if file.remove() else "there was none")
            return
        if sys.stdin.isatty():
            text = typer.prompt("New password", hide_input=True, confirmation_prompt="Once more")
        else:
            text = sys.stdin.readline().rstrip("\r\n")
        file.write(hashed(text))
    except PasswordError as error:
        fail(str(error))
    typer.echo("the password is set; everybody is logged out, and the page is served by HTTPS")


def export(
    output: Annotated[Path, typer.Option("-o", "--output", help="A name that ends in .csv or .parquet.")],
    level: Annotated[str, typer.Option(help="seconds, minutes or hours.")] = "minutes",
    begin: Annotated[str, typer.Option("--from", help="Local time, 2026-11-25 or 2026-11-25T18:00. Else: all.")] = "",
    end: Annotated[str, typer.Option("--to", help="The same. Else: now.")] = "",
    history: Annotated[Path | None, typer.Option("--history", help="The history's folder. Else the gateway's.")] = None,
) -> None:
    """Write the history to a file."""
    if level not in LEVEL_OF:
        fail(f"{level}: the level is {', '.join(LEVEL_OF)}")
    try:
        count = write_export(
            Store(state_folder(history)), LEVEL_OF[level], _utc_s(begin, 0.0), _utc_s(end, time.time()), output
        )
    except (HistoryError, ValueError) as error:
        fail(str(error))
    except OSError as error:
        fail(f"{output} cannot be written ({error.strerror})")
    typer.echo(f"{output}: {count} rows")


def _utc_s(text: str, default: float) -> float:
    """Raises ValueError."""
    return datetime.fromisoformat(text).astimezone().timestamp() if text else default
