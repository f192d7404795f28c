"""`controller sim`: recordings, stories and generated lives, on the bench."""

from __future__ import annotations

import json
import os
import secrets
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TextIO

import typer
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from controller import cli_incident, cli_sim, story
from controller import config as configs
from controller.batteries.base import BatteryProtocol
from controller.batteries.registry import BATTERIES
from controller.catalogue import CATALOGUE
from controller.config import ConfigError
from controller.console import ConfigOption, JsonOption, err, fail, out, write, written
from controller.core import CoreState
from controller.inverters.base import InverterProtocol
from controller.inverters.registry import INVERTERS
from controller.model.settings import NO_OPTIONS, Settings
from controller.model.texts import TEXTS
from controller.ports import Outputs, PortError
from controller.version import program
from sim import identify as identifying
from sim import lives as generated
from sim.bundle import BundleError, BundleReplay, is_bundle, open_bundle
from sim.lives import Life
from sim.plot import PlotData, PlotRecorder, page
from sim.recording import Recording, RecordingError, locate, open_recording, shipped
from sim.replay import Replay, Result, Watcher
from sim.scenarios import SCENARIOS
from sim.scenarios import run as run_scenario
from sim.vcan import VirtualBus
from statecharts.supervisor import State

SYNTHETIC = "synthetic: a recording of packwarden's own Tesla pack model, not of a car"


@dataclass(frozen=True)
class Run:
    """A replay that is ready to go. assumed: what was not told and had to be taken for granted, in words."""

    recording: Recording
    battery: BatteryProtocol
    inverter: InverterProtocol
    settings: Settings
    config: Path | None
    assumed: tuple[str, ...]
    synthetic: bool


def sim(
    replay: Annotated[str | None, typer.Option("--replay", help="A recording, or the name of a shipped one.")] = None,
    scenario: Annotated[str | None, typer.Option(help="A story of a simulated garage; `list` shows them.")] = None,
    campaign: Annotated[int | None, typer.Option(min=1, help="So many generated lives of a simulated garage.")] = None,
    battery: Annotated[str | None, typer.Option(help="Which battery it is; else told from the ids in it.")] = None,
    inverter: Annotated[str | None, typer.Option(help="The inverter that would read it.")] = None,
    as_json: JsonOption = False,
    trace: Annotated[Path | None, typer.Option(help="Write the trace, one JSON line a tick.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Write one self-contained HTML page.")] = None,
    realtime: Annotated[bool, typer.Option("--realtime", help="Only as fast as it was recorded.")] = False,
    bus: Annotated[str | None, typer.Option(help="Play the frames onto this virtual CAN bus, in real time.")] = None,
    expect_state: Annotated[str | None, typer.Option(help="Exit 1 unless the run ends in this state.")] = None,
    config: ConfigOption = None,
    seed: Annotated[
        int | None,
        typer.Option(help="Of the first life (campaign; else drawn and printed), or of the sensors' noise (scenario)."),
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes of a campaign; else one for each core.")] = None,
    dask: Annotated[str | None, typer.Option(help="Spread a campaign over the Dask scheduler at this address.")] = None,
    only: Annotated[str | None, typer.Option(help="Of one life: these of its troubles, by number, or none.")] = None,
    until: Annotated[float | None, typer.Option(min=0, help="Of one life: heal it after so many seconds.")] = None,
    export: Annotated[Path | None, typer.Option(help="Write failing lives as candump log and inputs here.")] = None,
) -> None:
    """Run a recording, a story or generated lives through the whole controller.

    A recording runs in shadow: the pack in it answers to somebody else.
    """
    if (replay is not None) + (scenario is not None) + (campaign is not None) != 1:
        fail("sim: one of --replay LOG, --scenario NAME and --campaign N")
    if battery is not None and battery not in BATTERIES:
        fail(f"--battery {battery}: not known; one of {', '.join(BATTERIES)}")
    if inverter is not None and inverter not in INVERTERS:
        fail(f"--inverter {inverter}: not known; one of {', '.join(INVERTERS)}")
    if expect_state is not None and expect_state not in State.__members__:
        fail(f"--expect-state {expect_state}: no such state; one of {', '.join(State.__members__)}")
    if campaign is not None:
        _campaign(_work(campaign, seed, only, until), workers or os.cpu_count() or 1, dask, export, as_json)
        return
    if scenario is not None:
        _scenario(scenario, seed, trace, plot, expect_state, as_json)
        return
    assert replay is not None
    if is_bundle(locate(replay)):
        if battery or inverter or config or bus:
            fail(f"{replay} is an incident bundle: battery, inverter and config are in it, and it plays onto no bus")
        _bundle(locate(replay), trace, plot, realtime, expect_state, as_json)
        return
    _keep_apart(locate(replay), trace, plot, config)
    began_s = time.perf_counter()
    recorder = PlotRecorder() if plot is not None else None
    try:
        run = _prepare(replay, battery, inverter, config, everything=bus is not None)
        result = _run(run, trace, recorder, realtime or bus is not None, bus, show_progress=not as_json)
    except (RecordingError, PortError, ConfigError) as error:
        fail(str(error))
    about = _about(run, result, time.perf_counter() - began_s)
    if plot is not None and recorder is not None:
        write(plot, page(_plot_data(run, result, recorder)))
    if as_json:
        typer.echo(json.dumps(story.json_of(result, about), ensure_ascii=False))
    else:
        story.tell(out, result, _headline(run, result, about))
        for what, where in (("trace", trace), ("plot", plot)):
            if where is not None:
                out.print(f"{what}: {where}")
    if expect_state is not None and result.final_state != expect_state:
        err.print(f"controller: the run ended in {result.final_state}, not in {expect_state}")
        raise typer.Exit(1)


def _work(lives: int, seed: int | None, only: str | None, until: float | None) -> list[tuple[Life, bool]]:
    """The lives of a campaign; with --only or --until it is one, as it was shrunk."""
    first = secrets.randbelow(1_000_000_000) if seed is None else seed
    if only is None and until is None:
        err.print(f"seeds {first} to {first + lives - 1}", highlight=False)
        return generated.tasks(lives, first)
    if lives != 1 or seed is None:
        fail("--only and --until belong to one life: --campaign 1 --seed S")
    try:
        chosen = None if only is None else tuple(int(n) for n in only.split(",") if n != "none")
        life = Life(first, chosen, None if until is None else round(until * 1000))
        life.drawn()
    except (ValueError, IndexError):
        fail(f"--only {only}: numbers of this life's troubles from 0 on, with commas between, or none")
    return [(life, False)]


def _campaign(
    work: list[tuple[Life, bool]], workers: int, dask: str | None, folder: Path | None, as_json: bool
) -> None:  # fmt: skip
    """Live them, say what they showed; exit 1 when anything was violated, or a large campaign has holes."""
    began_s = time.perf_counter()
    bar = not as_json and sys.stdout.isatty()
    summary = cli_sim.campaign(out, work, min(workers, len(work)), dask, bar)
    wall_s, small = time.perf_counter() - began_s, cli_sim.shrunk(summary)
    if as_json:
        typer.echo(json.dumps(cli_sim.campaign_json(summary, small, wall_s), ensure_ascii=False))
    else:
        cli_sim.tell_campaign(out, summary, small, wall_s)
    if folder is not None:
        for path in cli_sim.export(small, folder):
            err.print(f"written: {path}", markup=False, highlight=False)
    if summary.failed:
        raise typer.Exit(1)


def _scenario(
    name: str, seed: int | None, trace: Path | None, plot: Path | None, expect_state: str | None, as_json: bool
) -> None:  # fmt: skip
    """Tell one story; exit 1 when an invariant was violated, or it ends elsewhere than expected."""
    if name == "list":
        for each in SCENARIOS.values():
            out.print(f"{each.name:<18} {each.duration_ms // 1000:>4} s  {each.text}", markup=False, highlight=False)
        return
    if name not in SCENARIOS:
        fail(f"--scenario {name}: not known; one of {', '.join(SCENARIOS)}")
    _keep_apart(trace, plot)
    scenario, began_s = SCENARIOS[name], time.perf_counter()
    recorder = PlotRecorder() if plot is not None else None
    watchers = [] if recorder is None else [cli_sim.recording_into(recorder)]
    with ExitStack() as stack:
        trace_out = None if trace is None else stack.enter_context(written(trace))
        result, garage = run_scenario(scenario, seed, trace_out, watchers)
    about = cli_sim.about(scenario, result, garage, program(), time.perf_counter() - began_s)
    if plot is not None and recorder is not None:
        write(plot, page(cli_sim.plot_data(scenario, result, recorder)))
    if as_json:
        typer.echo(json.dumps(story.json_of(result, about), ensure_ascii=False))
    else:
        story.tell(out, result, cli_sim.headline(scenario, result, garage, about))
    if garage.broken:
        raise typer.Exit(1)
    if expect_state is not None and result.final_state != expect_state:
        err.print(f"controller: the run ended in {result.final_state}, not in {expect_state}")
        raise typer.Exit(1)


def _bundle(
    path: Path, trace: Path | None, plot: Path | None, realtime: bool, expect_state: str | None, as_json: bool
) -> None:  # fmt: skip
    """Let the core decide again what it decided live; exit 1 when that is not what is in the bundle."""
    _keep_apart(path, trace, plot)
    began_s = time.perf_counter()
    recorder = PlotRecorder() if plot is not None else None
    try:
        with ExitStack() as stack:
            replay = BundleReplay(open_bundle(path), stack.enter_context(written(trace)) if trace else None)
            replay.pace = _pacer() if realtime else None
            result = replay.run(() if recorder is None else (_recording_into(recorder),))
    except BundleError as error:
        fail(str(error))
    wall_s = time.perf_counter() - began_s
    if plot is not None and recorder is not None:
        write(plot, page(cli_incident.plot_data(replay, result, recorder, program())))
    if as_json:
        about = cli_incident.about(replay, result, program(), wall_s)
        typer.echo(json.dumps(story.json_of(result, about), ensure_ascii=False))
    else:
        story.tell(out, result, cli_incident.headline(replay, result, program(), wall_s))
    if replay.differs is not None:
        raise typer.Exit(1)
    if expect_state is not None and result.final_state != expect_state:
        err.print(f"controller: the run ended in {result.final_state}, not in {expect_state}")
        raise typer.Exit(1)


def _keep_apart(*paths: Path | None) -> None:
    """What is written must be no file that is read, nor be written twice. Fails before anything is opened."""
    named = [path for path in paths if path is not None]
    for n, path in enumerate(named):
        for other in named[n + 1 :]:
            same = os.path.realpath(path) == os.path.realpath(other)
            if same or (path.exists() and other.exists() and os.path.samefile(path, other)):
                fail(f"{other}: the same file is read or written twice")


def _prepare(name: str, battery: str | None, inverter: str | None, config: Path | None, everything: bool) -> Run:
    """Find the recording, tell what speaks in it, settle the settings. Raises RecordingError, ConfigError."""
    path = locate(name)
    recording = open_recording(path)
    found = configs.search(config, os.environ, Path.cwd())
    stated = None if found is None else configs.load(found, CATALOGUE)
    wanted = battery or (stated.battery if stated and config is not None else None)
    options = stated.battery_options if stated is not None and stated.battery == wanted else NO_OPTIONS
    identity = identifying.identify(recording, BATTERIES, wanted, options=options)
    if identity.partner:
        raise RecordingError(f"{path}: a recording of the inverter's side ({identity.partner}), not of a pack")
    if identity.battery is None:
        if wanted and (other := identifying.identify(recording, BATTERIES).battery):
            raise RecordingError(f"{path}: no {wanted} speaks in it; it looks like {other.name}")
        some = ", ".join(f"{i:03X}" for i in identity.ids[:8])
        raise RecordingError(f"{path}: no pack known here speaks in it (ids {some} …); known: {', '.join(BATTERIES)}")
    protocol, assumed = identity.battery, list[str]()
    if stated is not None and stated.battery == protocol.name:
        told, own = identity.kind, stated.pack
        kinds = (told.chemistry, *told.perhaps)
        if told.cells not in (None, own.cells) or (told.chemistry and own.chemistry.name not in kinds):
            stated_kind = f"{own.cells} cells {own.chemistry.name.upper()}"
            assumed.append(f"this pack looks like {told.text}; the config says {stated_kind}")
    else:
        chemistry, cells = identity.kind.chemistry, identity.kind.cells
        if chemistry is None or cells is None:
            assumed.append("cell count and chemistry are not told by the recording: 96 cells and the battery's first")
        chemistry, cells = chemistry or protocol.chemistries[0], cells or 96
        which = inverter or next(iter(INVERTERS))
        stated = configs.defaults_for(protocol.name, chemistry, cells, protocol.wirings[0], which, CATALOGUE)
        assumed.insert(0, f"no config: the defaults of {cells} cells {chemistry.upper()}, 20 A, 5 kW")
        found = None
    chosen = INVERTERS[inverter or stated.inverter]
    ids = None if everything else protocol.ids(stated.battery_options)
    return Run(
        open_recording(path, ids), protocol, chosen, stated, found, tuple(assumed),
        synthetic=shipped(path.name) is not None and path == shipped(path.name),
    )  # fmt: skip


def _run(
    run: Run, trace: Path | None, recorder: PlotRecorder | None, realtime: bool, bus: str | None, show_progress: bool
) -> Result:
    """Run it, with whatever the options ask for beside it."""
    with ExitStack() as stack:
        trace_out: TextIO | None = None
        if trace is not None:
            trace_out = stack.enter_context(written(trace))
        replay = Replay(run.recording, run.settings, run.battery, run.inverter, trace_out)
        watchers: list[Watcher] = []
        if bus is not None:
            virtual = stack.enter_context(VirtualBus(bus))
            replay.on_frames = virtual.send
        if realtime:
            replay.pace = _pacer()
        if recorder is not None:
            watchers.append(_recording_into(recorder))
        if show_progress and sys.stdout.isatty():
            watchers.append(_progress(stack, run.recording))
        return replay.run(tuple(watchers))


def _pacer() -> Callable[[int], None]:
    """Waits for each tick's time on the wall."""
    began_s = time.monotonic()

    def wait(now_ms: int) -> None:
        left_s = began_s + now_ms / 1000 - time.monotonic()
        if left_s > 0:
            time.sleep(left_s)

    return wait


def _progress(stack: ExitStack, recording: Recording) -> Watcher:
    bar = stack.enter_context(
        Progress(TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:3.0f}%"),
                 TimeRemainingColumn(), console=out, transient=True)
    )  # fmt: skip
    task = bar.add_task(recording.path.name, total=max(1, recording.size))

    def advance(now_ms: int, core: CoreState, outputs: Outputs) -> None:
        if now_ms % 500 == 0:
            bar.update(task, completed=recording.position(), description=f"{recording.path.name} {now_ms / 1000:.0f} s")

    return advance


PLOTTED = (
    "pack_voltage_v", "link_voltage_v", "current_a", "soc_pct", "cell_min_v", "cell_max_v", "temp_min_c", "temp_max_c",
    "max_charge_w", "max_discharge_w", "contactor_state", "hvil_ok",
)  # fmt: skip


def _recording_into(recorder: PlotRecorder) -> Watcher:
    def add(now_ms: int, core: CoreState, outputs: Outputs) -> None:
        values: dict[str, object] = {name: getattr(core.pack, name) for name in PLOTTED}
        values["charge_limit_w"], values["discharge_limit_w"] = core.limits.charge_w, core.limits.discharge_w
        recorder.add(now_ms / 1000, values)  # type: ignore[arg-type]

    return add


def _about(run: Run, result: Result, wall_s: float) -> dict[str, object]:
    """The head of the JSON object."""
    recording = run.recording
    assert result.core is not None
    pack = result.core.pack
    return {
        "log": str(recording.path), "synthetic": run.synthetic, "battery": run.battery.name,
        "inverter": run.inverter.name, "cells": run.settings.pack.cells,
        "chemistry": run.settings.pack.chemistry.name, "config": str(run.config) if run.config else None,
        "assumed": list(run.assumed), "version": program(), "format": recording.format, "frames": recording.frames,
        "decoded_frames": pack.decoded_frames, "rejected_frames": recording.rejected + pack.corrupt_frames,
        "skipped_frames": recording.skipped, "stepped_back": recording.stepped_back,
        "stepped_forward": recording.stepped_forward,
        "first_rejection": list(recording.first_rejection) if recording.first_rejection else None,
        "duration_s": round(recording.duration_us / 1e6, 6), "wall_s": round(wall_s, 3),
    }  # fmt: skip


def _headline(run: Run, result: Result, about: dict[str, object]) -> list[str]:
    pack, recording = run.settings.pack, run.recording
    lines = [
        f"[bold]{escape(str(recording.path))}[/bold]" + (f"   [yellow]{SYNTHETIC}[/yellow]" if run.synthetic else ""),
        f"{run.battery.title}, {pack.cells} cells {pack.chemistry.name.upper()}, wiring {run.settings.wiring}; "
        f"read by {run.inverter.title}",
        f"{about['frames']:,} frames ({about['decoded_frames']:,} of this pack, {about['rejected_frames']} rejected) "
        f"in {about['duration_s']} s; {result.ticks:,} ticks in {about['wall_s']} s",
        "in shadow: the pack answers to somebody else, nothing is sent and no relay moves",
        f"config: {run.config}" if run.config else "",
        *run.assumed,
    ]
    if recording.first_rejection:
        line, reason = recording.first_rejection
        lines.append(f"[yellow]{recording.rejected} lines not read; the first, line {line}: {escape(reason)}[/yellow]")
    if recording.stepped_forward:
        lines.append(
            f"[yellow]{recording.stepped_forward} stamps more than an hour ahead: the gap is left out[/yellow]"
        )
    if result.core is not None and (held := result.core.faults.held):
        names = ", ".join(rule.id.value for rule in held)
        lines.append(f"[yellow]a live controller would have opened and be held by: {names}[/yellow]")
    return [line for line in lines if line]


def _plot_data(run: Run, result: Result, recorder: PlotRecorder) -> PlotData:
    assert result.core is not None
    notes = ["In shadow: the pack answers to somebody else, nothing is sent and no relay moves.", *run.assumed]
    if run.synthetic:
        notes.insert(0, SYNTHETIC)
    return PlotData(
        title=run.recording.path.name,
        subtitle=f"{run.battery.title}, read by {run.inverter.title}",
        duration_s=run.recording.duration_us / 1e6,
        states=[(change.t_ms / 1000, change.state, change.cause) for change in result.states],
        events=[
            {"t_s": t_ms / 1000, "id": n.id.value, "severity": n.severity.value, "detail": n.detail,
             "text": TEXTS[n.id].what}
            for t_ms, n in result.events
        ],
        series=recorder.series(),
        bands=recorder.bands(),
        cells_v=result.cells_v,
        inverter_image={str(block): list(words) for block, words in result.registers.items() if block < 1000},
        notes=notes,
        badges=["synthetic recording"] if run.synthetic else ["recording"],
    )  # fmt: skip
