"""`controller incident`: the bundles there are and what is in them; and what `controller sim` shows of one."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from controller.client import Client, LinkError, Refused, socket_path
from controller.console import JsonOption, SocketOption, err, fail, out
from controller.model.texts import TEXTS
from drivers.incidents import bundles
from sim.bundle import BundleError, BundleReplay, is_bundle, manifest_of
from sim.plot import PlotData, PlotRecorder
from sim.replay import Result

STATE_FOLDER = Path("/var/lib/packwarden")
FOLDER_HELP = "Where the bundles are. Else incidents/ in $STATE_DIRECTORY, in /var/lib/packwarden."
FolderOption = Annotated[Path | None, typer.Option("--folder", help=FOLDER_HELP)]
NameArgument = Annotated[str, typer.Argument(help="Its name or number as `list` has it, `newest`, or a path.")]
HEADS = ("version", "program", "python", "machine", "boot_id")

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="The last ten minutes before a fault or a stop, as bundles."
)


@app.command("list")
def list_(folder: FolderOption = None, as_json: JsonOption = False) -> None:
    """Every bundle, oldest first."""
    where = _folder(folder)
    rows = [(path, *_said(path)) for path in _bundles(where)]
    if as_json:
        told = [{"name": path.name, "bytes": path.stat().st_size, "damaged": wrong or None, **_head(manifest)}
                for path, manifest, wrong in rows]  # fmt: skip
        typer.echo(json.dumps({"schema": 1, "folder": str(where), "incidents": told}, ensure_ascii=False))
        return
    if not rows:
        out.print(f"no incident in {where}", markup=False)
        return
    for path, manifest, wrong in rows:
        span = "" if wrong else f", {float(manifest.get('span_s', 0)):.0f} s"
        out.print(f"[bold]{escape(path.name)}[/bold]  {path.stat().st_size / 1024:.0f} KiB{span}")
        why = f"[red]{escape(wrong)}[/red]" if wrong else escape(why_of(manifest))
        out.print(f"  {_when(manifest).partition(' (')[0]}  {why}")


@app.command()
def show(name: NameArgument, folder: FolderOption = None, as_json: JsonOption = False) -> None:
    """Who wrote it, when and why, and what it holds."""
    path = _find(name, folder)
    manifest, wrong = _said(path)
    if wrong:
        fail(wrong)
    if as_json:
        typer.echo(json.dumps({"name": path.name, "path": str(path), **manifest}, ensure_ascii=False))
        return
    out.print(f"[bold]{escape(str(path))}[/bold]")
    rows = {
        "why": why_of(manifest), "written": _when(manifest), "program": f"packwarden {manifest.get('program')}",
        "on": f"Python {manifest.get('python')}, {manifest.get('machine')}, boot {manifest.get('boot_id')}",
        "holds": f"{manifest.get('span_s')} s, {manifest.get('ticks')} ticks, {manifest.get('frames')} frames",
    }  # fmt: skip
    for what, words in rows.items():
        out.print(f"  {what:<8} {clean(words)}", markup=False)
    out.print(f"replay it:       controller sim --replay {path}", markup=False, soft_wrap=True)
    out.print(f"only the frames: unzip -p {path} frames.log", markup=False, soft_wrap=True)


@app.command()
def export(
    name: NameArgument,
    output: Annotated[Path, typer.Option("-o", "--output", help="Where it goes: a file that is not there yet.")],
    folder: FolderOption = None,
) -> None:
    """Copy a bundle out, to be kept or sent. Passwords are not in it; the pack's serial number may be."""
    path = _find(name, folder)
    manifest, wrong = _said(path)
    if wrong:
        fail(wrong)
    target = output / path.name if output.is_dir() else output
    try:
        with path.open("rb") as source, target.open("xb") as copy:
            shutil.copyfileobj(source, copy)
    except FileExistsError:
        fail(f"{target} is there already, and it is kept")
    except OSError as error:
        fail(f"{target} cannot be written ({error.strerror})")
    out.print(f"{target}: {why_of(manifest)}", markup=False, soft_wrap=True)


@app.command()
def write(socket: SocketOption = None) -> None:
    """Have the running controller write one now."""
    try:
        with Client(socket_path(socket)) as client:
            reply = client.command("incident")
    except LinkError as error:
        fail(str(error))
    except Refused as error:
        err.print(f"controller: refused: {error}", markup=False, soft_wrap=True)
        raise typer.Exit(1) from None
    out.print(f"being written: {reply['incident']}", markup=False)


def _folder(option: Path | None) -> Path:
    state = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    return option or (Path(state) if state else STATE_FOLDER) / "incidents"


def _bundles(folder: Path) -> list[Path]:
    try:
        return bundles(folder)
    except OSError as error:
        fail(f"{folder} cannot be read ({error.strerror}): join the group packwarden, or use sudo")


def _find(name: str, option: Path | None) -> Path:
    """A bundle by its name, its number, as a path, or the newest one; exit 2 when there is none."""
    if os.sep in name or is_bundle(Path(name)):
        return Path(name)
    folder = _folder(option)
    there = _bundles(folder)
    number = int(name) if name.isdecimal() else -1
    found = [path for path in there if name == path.name or int(path.name.partition("-")[0]) == number]
    found = there[-1:] if name == "newest" else found
    if not found:
        fail(f"there is no incident {name} in {folder}; `controller incident list` shows those there are")
    return found[0]


def _said(path: Path) -> tuple[Mapping[str, Any], str]:
    """What it says of itself, or why it cannot be read."""
    try:
        return manifest_of(path), ""
    except BundleError as error:
        return {}, str(error)


def _head(manifest: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in manifest.items() if name not in ("schema", "chunks", "sha256")}


def why_of(manifest: Mapping[str, Any]) -> str:
    """ "fault: hvil-open"."""
    causes, words = manifest.get("causes"), manifest.get("words")
    told = [str(cause) for cause in causes] if isinstance(causes, list) else []
    return clean(f"{manifest.get('reason')}: {', '.join(told + [str(words)] * bool(words))}".removesuffix(": "))


def clean(text: object) -> str:
    """A word of a file from anywhere, with nothing in it that steers a terminal."""
    return "".join(char if char.isprintable() else "�" for char in str(text))


def _when(manifest: Mapping[str, Any]) -> str:
    """Local time with its offset, and whether the clock was right."""
    try:
        local = datetime.fromisoformat(str(manifest.get("written_utc"))).astimezone()
    except ValueError:
        return "–"
    trust = {True: "", False: " (clock not synchronised)"}.get(manifest.get("clock_synchronised"), " (clock unsure)")  # type: ignore[arg-type]
    return f"{local:%Y-%m-%d %H:%M:%S%z}{trust}"


# --- what `controller sim --replay BUNDLE` shows ---


def about(replay: BundleReplay, result: Result, version: str, wall_s: float) -> dict[str, object]:
    """The head of the JSON object."""
    bundle, setup = replay.bundle, replay.state.setup
    differs = replay.differs
    return {
        "bundle": str(bundle.path), **_head(bundle.manifest), "battery": setup.battery.name,
        "inverter": setup.inverter.name, "wiring": setup.settings.wiring, "cells": setup.settings.pack.cells,
        "chemistry": setup.settings.pack.chemistry.name, "version": version, "from_ms": replay.from_ms,
        "duration_s": bundle.manifest.get("span_s"), "wall_s": round(wall_s, 3), "reproduced": differs is None,
        "first_difference_t_ms": differs,
    }  # fmt: skip


def verdict(replay: BundleReplay, result: Result, version: str) -> str:
    """Whether the core decided the same again."""
    if replay.differs is None:
        return f"the live trace is reproduced: {result.ticks:,} ticks"
    program = clean(replay.bundle.manifest.get("program"))
    other = "" if program == version else f"; it was written by packwarden {program}, this is {version}"
    first = f"the first tick that differs is t_ms {replay.differs} ({(replay.differs - replay.from_ms) / 1000:.2f} s)"
    return f"the live trace is not reproduced: {first}{other}"


def headline(replay: BundleReplay, result: Result, version: str, wall_s: float) -> list[str]:
    """What stands above the story."""
    bundle, setup = replay.bundle, replay.state.setup
    style = "green" if replay.differs is None else "bold red"
    shadow = "listening only: nothing was sent and no relay moved" if setup.shadow else ""
    return [
        f"[bold]{escape(str(bundle.path))}[/bold]   {escape(why_of(bundle.manifest))}",
        f"{setup.battery.title}, wiring {setup.settings.wiring}; {setup.inverter.title}",
        f"written {_when(bundle.manifest)} by packwarden {escape(clean(bundle.manifest.get('program')))}; "
        f"0 s here is t_ms {replay.from_ms} in the trace",
        f"[{style}]{escape(verdict(replay, result, version))}[/{style}] in {wall_s:.2f} s",
        shadow,
    ]


def plot_data(replay: BundleReplay, result: Result, recorder: PlotRecorder, version: str) -> PlotData:
    """The picture of a bundle."""
    events = [
        {"t_s": t_ms / 1000, "id": n.id.value, "severity": n.severity.value, "detail": n.detail,
         "text": f"{TEXTS[n.id].what} {TEXTS[n.id].todo}"}
        for t_ms, n in result.events
    ]  # fmt: skip
    setup, span_s = replay.state.setup, replay.bundle.manifest.get("span_s")
    return PlotData(
        replay.bundle.path.name, f"{setup.battery.title}, {setup.inverter.title}: {why_of(replay.bundle.manifest)}",
        float(span_s) if isinstance(span_s, (int, float)) else 0.0,
        states=[(c.t_ms / 1000, c.state, c.cause) for c in result.states], events=events,
        series=recorder.series(), bands=recorder.bands(), cells_v=result.cells_v,
        inverter_image={str(block): list(words) for block, words in result.registers.items() if block < 1000},
        notes=[verdict(replay, result, version)], badges=["incident"],
    )  # fmt: skip
