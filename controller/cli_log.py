"""`controller log`: what is in a recording."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from controller.batteries.registry import BATTERIES
from controller.console import JsonOption, fail, out
from controller.inverters.registry import INVERTERS
from sim import decoding
from sim import identify as identifying
from sim.recording import RecordingError, locate, open_recording

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Look into recordings.")


@app.command("identify")
def log_identify(log: str, as_json: JsonOption = False) -> None:
    """Tell what is in a recording."""
    try:
        recording = open_recording(locate(log))
        identity = identifying.identify(recording, BATTERIES)
    except RecordingError as error:
        fail(str(error))
    found = {
        "schema": 1, "log": str(recording.path), "format": recording.format,
        "battery": identity.battery.name if identity.battery else None, "cells": identity.kind.cells,
        "chemistry": identity.kind.chemistry, "partner": identity.partner,
        "ids": [f"{i:03X}" for i in sorted(identity.ids)],
    }  # fmt: skip
    if as_json:
        typer.echo(json.dumps(found))
        return
    if identity.battery:
        who = f"{identity.battery.title} ({identity.battery.name})"
        out.print(f"{recording.path}: {who}, {identity.kind.text}", markup=False)
    else:
        what = f"the inverter's side: {identity.partner}" if identity.partner else "no pack known here"
        out.print(f"{recording.path}: {what}", markup=False)
    ids = "" if recording.format == "rtu" else f", {len(identity.ids)} ids in the first seconds"
    out.print(f"{recording.format}{ids}")


@app.command("decode")
def log_decode(
    log: str,
    name: Annotated[str | None, typer.Option("--as", help="Decode as this battery; else told from the ids.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line a frame.")] = False,
) -> None:
    """Print every frame of a recording with the names and values this project gives it."""
    if name is not None and name not in (*BATTERIES, *INVERTERS):
        fail(f"--as {name}: not known; one of {', '.join((*BATTERIES, *INVERTERS))}")
    try:
        for line in decoding.lines(locate(log), name, BATTERIES, INVERTERS):
            typer.echo(json.dumps(line, ensure_ascii=False) if as_json else decoding.text(line))
    except RecordingError as error:
        fail(str(error))
