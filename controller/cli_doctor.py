"""`controller doctor`: shows what was looked at and how to mend what was found."""

from __future__ import annotations

import json
import os
from pathlib import Path

import typer
from rich.markup import escape
from rich.table import Table

from controller import config as configs
from controller.batteries.registry import BATTERIES
from controller.catalogue import CATALOGUE
from controller.config import ConfigError
from controller.console import ConfigOption, JsonOption, out
from controller.doctor import Here, Reading, Setup, examine
from controller.inverters.registry import INVERTERS

CONFIG_MEND = "controller config check says what is wrong; controller config init writes a new one"


def doctor(
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check buses, serial ports, pins, permissions, clock, watchdog, disk, service. Exit 1 when something is wrong."""
    readings = list(_readings(config))
    found = [reading for reading in readings if reading.mend]
    if as_json:
        typer.echo(json.dumps({"schema": 1, "readings": [r._asdict() for r in readings], "findings": len(found)}))
    else:
        _tell(readings, len(found))
    if found:
        raise typer.Exit(1)


def _readings(option: Path | None) -> list[Reading]:
    path = configs.search(option, os.environ, Path.cwd())
    if path is None:
        return [Reading("config", "there is none", "controller config init"), *examine(Here(), None)]
    try:
        config = configs.read(path, CATALOGUE)
    except ConfigError as error:
        return [Reading("config", str(error).splitlines()[0], CONFIG_MEND), *examine(Here(), None)]
    setup = Setup(config, BATTERIES[config.settings.battery], INVERTERS[config.settings.inverter])
    return [Reading("config", f"{path}: nothing wrong"), *examine(Here(), setup)]


def _tell(readings: list[Reading], found: int) -> None:
    table = Table("", "looked at", "found", "to mend it", box=None, pad_edge=False)
    for name, what, mend in readings:
        mark = "[red]✗[/red]" if mend else "[green]✓[/green]"
        table.add_row(mark, name, escape(what), escape(mend))
    out.print(table)
    out.print(f"{found} to mend" if found else "nothing to mend")
