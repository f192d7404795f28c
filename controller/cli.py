"""The `controller` command. Exit status 0: nothing was wrong; 1: the thing examined is at fault; 2: wrong use."""

from __future__ import annotations

import io
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Annotated, TextIO, cast

import typer
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from controller import cli_doctor, cli_gateway, cli_incident, cli_live, cli_sim, story
from controller import config as configs
from controller.batteries.base import BatteryProtocol
from controller.batteries.registry import BATTERIES
from controller.config import Catalogue, ConfigError
from controller.console import ConfigOption, JsonOption, err, fail, out
from controller.core import CoreState
from controller.gateway.commands import dispatch
from controller.inverters.base import InverterProtocol
from controller.inverters.registry import INVERTERS
from controller.model.settings import NO_OPTIONS, Settings
from controller.model.texts import TEXTS
from controller.ports import Outputs, PortError
from sim import decoding
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
from statecharts import render
from statecharts.interlocks import verify as verify_chart
from statecharts.shadow import SHADOW
from statecharts.supervisor import SUPERVISOR, State

CATALOGUE = Catalogue(BATTERIES, INVERTERS)
UsageError = cast(type[Exception], typer.BadParameter.__mro__[2])
"""What typer raises for wrong use, and for nothing else; it has had more than one home."""
CHARTS = {chart.name: chart for chart in (SUPERVISOR, SHADOW)}
SYNTHETIC = "synthetic: a recording of packwarden's own Tesla pack model, not of a car"

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
                  help="A safety-first controller for second-life EV batteries.")  # fmt: skip
config_app = typer.Typer(no_args_is_help=True, help="controller.toml: write, check, change.")
log_app = typer.Typer(no_args_is_help=True, help="Look into recordings.")
cli_live.mount(app)
app.command()(cli_doctor.doctor)
app.command()(dispatch)
app.add_typer(config_app, name="config")
app.add_typer(cli_gateway.app, name="gateway")
app.add_typer(cli_incident.app, name="incident")
app.add_typer(log_app, name="log")


def version() -> str:
    try:
        return installed_version("packwarden")
    except PackageNotFoundError:
        return "not installed"


def _show_version(wanted: bool) -> None:
    if wanted:
        out.print(f"packwarden {version()}")
        raise typer.Exit


@app.callback()
def _main(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """A safety-first controller for second-life EV batteries."""


# --- sim ---


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


@app.command()
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
        _write(plot, page(_plot_data(run, result, recorder)))
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
        trace_out = None if trace is None else stack.enter_context(_written(trace))
        result, garage = run_scenario(scenario, seed, trace_out, watchers)
    about = cli_sim.about(scenario, result, garage, version(), time.perf_counter() - began_s)
    if plot is not None and recorder is not None:
        _write(plot, page(cli_sim.plot_data(scenario, result, recorder)))
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
            replay = BundleReplay(open_bundle(path), stack.enter_context(_written(trace)) if trace else None)
            replay.pace = _pacer() if realtime else None
            result = replay.run(() if recorder is None else (_recording_into(recorder),))
    except BundleError as error:
        fail(str(error))
    wall_s = time.perf_counter() - began_s
    if plot is not None and recorder is not None:
        _write(plot, page(cli_incident.plot_data(replay, result, recorder, version())))
    if as_json:
        about = cli_incident.about(replay, result, version(), wall_s)
        typer.echo(json.dumps(story.json_of(result, about), ensure_ascii=False))
    else:
        story.tell(out, result, cli_incident.headline(replay, result, version(), wall_s))
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


@contextmanager
def _written(path: Path) -> Iterator[TextIO]:
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
            trace_out = stack.enter_context(_written(trace))
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
        "assumed": list(run.assumed), "version": version(), "format": recording.format, "frames": recording.frames,
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


def _write(path: Path, text: str) -> None:
    with _written(path) as out_file:
        out_file.write(text)


# --- the chart ---


@app.command()
def diagram(
    format: Annotated[str, typer.Option("--format", help=", ".join((*render.FORMATS, "svg")))] = "mermaid",
    chart: Annotated[str, typer.Option(help="supervisor, or shadow: the one that follows a recording.")] = "supervisor",
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write to this file.")] = None,
) -> None:
    """Draw the state machine."""
    if format not in (*render.FORMATS, "svg"):
        fail(f"--format {format}: not known; one of {', '.join((*render.FORMATS, 'svg'))}")
    if chart not in CHARTS:
        fail(f"--chart {chart}: not known; one of {', '.join(CHARTS)}")
    try:
        text = render.render(CHARTS[chart], format)
    except (render.MissingTool, subprocess.TimeoutExpired) as error:
        fail(str(error))
    if output is None:
        typer.echo(text, nl=False)
    else:
        _write(output, text)


@app.command()
def verify(
    as_json: JsonOption = False,
) -> None:
    """Check the state machine: interlocks, stop causes, reachability, bounded stay. Exit 1 with a counter-example."""
    began_s = time.perf_counter()
    verdict = verify_chart(SUPERVISOR)
    wall_s = time.perf_counter() - began_s
    if as_json:
        typer.echo(json.dumps(story.verdict_json(verdict, wall_s)))
    else:
        story.verdict(out, verdict, wall_s)
    if verdict.broken:
        raise typer.Exit(1)


# --- config ---


@config_app.command("init")
def config_init(
    battery: Annotated[str, typer.Option()] = "tesla_model3",
    inverter: Annotated[str, typer.Option()] = "byd_modbus",
    wiring: Annotated[str | None, typer.Option(help="pack, pack+inverter, own or none.")] = None,
    chemistry: Annotated[str | None, typer.Option()] = None,
    cells: Annotated[int, typer.Option(help="Cells in series.")] = 96,
    output: Annotated[Path, typer.Option("-o", "--output")] = Path("controller.toml"),
) -> None:
    """Write a commented config. An existing file is never overwritten."""
    chosen = wiring or (BATTERIES[battery].wirings[0] if battery in BATTERIES else "pack")
    try:
        configs.init_file(output, configs.template(CATALOGUE, battery, inverter, chosen, chemistry, cells))
    except ConfigError as error:
        fail(str(error))
    out.print(f"{output}: written. Look at every line marked YOURS TO SET, then: controller config check")


@config_app.command("check")
def config_check(config: ConfigOption = None) -> None:
    """Say everything that is wrong, with line numbers. Exit 1 when something is."""
    path = _config_path(config)
    try:
        configs.load(path, CATALOGUE)
    except ConfigError as error:
        err.print(str(error), markup=False, soft_wrap=True)
        raise typer.Exit(2 if not path.is_file() else 1) from None
    out.print(f"{path}: nothing wrong")


@config_app.command("show")
def config_show(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Every key with its effective value, its bound, and where it comes from."""
    path = _config_path(config)
    try:
        shown = configs.show(configs.read(path, CATALOGUE))
    except ConfigError as error:
        fail(str(error))
    if as_json:
        typer.echo(json.dumps({"schema": 1, "file": str(path), "values": {k: v._asdict() for k, v in shown.items()}}))
        return
    table = Table("key", "value", "unit", "from", "bound")
    for key, value in shown.items():
        table.add_row(key, escape(_as_written(value.value)), value.unit, value.origin, escape(value.bound))
    out.print(table)


def _as_written(value: object) -> str:
    """A value as one would type it; – where none is stated."""
    return "–" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


@config_app.command("set", context_settings={"ignore_unknown_options": True})
def config_set(key: str, value: str, config: ConfigOption = None) -> None:
    """Change one key; comments and everything else stay as they are. Not written when it makes anything wrong."""
    path = _config_path(config)
    try:
        changed = configs.set_value(path, key, value, CATALOGUE)
    except ConfigError as error:
        fail(str(error))
    out.print(f"{path}: {key} = {configs.HIDDEN if changed.key.secret else value}", markup=False)
    if changed.left:
        err.print(f"still to mend:\n{ConfigError(str(path), changed.left)}", markup=False, soft_wrap=True)


@config_app.command("schema")
def config_schema() -> None:
    """The JSON schema of controller.toml, for editors."""
    typer.echo(json.dumps(configs.schema(CATALOGUE), indent=2, ensure_ascii=False))


def _config_path(option: Path | None) -> Path:
    path = configs.search(option, os.environ, Path.cwd())
    if path is None:
        fail("no config found: --config, $CONTROLLER_CONFIG, ./controller.toml or /etc/packwarden/controller.toml; "
             "`controller config init` writes one")  # fmt: skip
    return path


# --- log ---


@log_app.command("identify")
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


@log_app.command("decode")
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


def main() -> None:
    """Entry point of the `controller` command: whatever goes wrong outside is one line and exit 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = app(standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
    except UsageError as error:
        code = _told(str(error.format_message()))  # type: ignore[attr-defined]
    except (typer.Abort, KeyboardInterrupt):
        code = _told("stopped")
    except BrokenPipeError:
        code = 0
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        code = _told(f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error))
        if sys.stdout is not None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code if isinstance(code, int) else 0)


def _told(message: str) -> int:
    """One line on stderr; exit status 2."""
    if message:  # empty: the help was shown instead
        err.print("controller: " + " ".join(message.split("\n")), markup=False, soft_wrap=True)
    return 2


if __name__ == "__main__":
    main()
