"""`controller log`: what is in a recording."""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Annotated

import typer

from controller import config as configs
from controller.batteries.registry import BATTERIES
from controller.catalogue import CATALOGUE
from controller.codec import candump
from controller.config import ConfigError
from controller.console import ConfigOption, JsonOption, fail, out, written
from controller.inverters.registry import INVERTERS
from controller.ports import PortError
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


@app.command("capture")
def log_capture(
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write here; else to the terminal.")] = None,
    lasting: Annotated[str, typer.Option("--for", help="How long: 90s, 30m, 2h.")] = "1m",
    bus: Annotated[str, typer.Option(help="Which bus of the config: can, or inverter_can.")] = "can",
    config: ConfigOption = None,
) -> None:
    """Record a CAN bus as candump text, beside a controller that runs. Until its time is over, or Ctrl-C."""
    from controller.cli_live import seconds
    from drivers.can_ear import CanEar

    path = configs.search(config, os.environ, Path.cwd())
    try:
        values = {} if path is None else configs.read(path, CATALOGUE).values
        if path is None or f"{bus}.channel" not in values:
            fail(f"--bus {bus}: the config {path or ''} has no such bus")
        channel, interface = values[f"{bus}.channel"], values[f"{bus}.interface"]
        ends_s, frames = time.monotonic() + seconds(lasting), 0
        with ExitStack() as stack:
            ear = CanEar(interface, channel)
            stack.callback(ear.close)
            out_file = sys.stdout if output is None else stack.enter_context(written(output))
            stack.enter_context(suppress(KeyboardInterrupt))
            while time.monotonic() < ends_s:
                if (heard := ear.hear(0.25)) is not None:
                    stamp_us, frame = heard
                    print(candump.line(stamp_us, frame.id, frame.extended, frame.data, channel), file=out_file)
                    frames += 1
    except (ConfigError, PortError) as error:
        fail(str(error))
    if output is not None:
        out.print(f"{output}: {frames} frames of {channel}", markup=False)


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
