"""Incident bundles: what was decided live is decided again, byte by byte; and what is no whole bundle is refused."""

import hashlib
import io
import json
import os
import random
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from controller import cli_incident, config, core
from controller.batteries.registry import BATTERIES
from controller.blackbox import VOCABULARY, BlackBox
from controller.config import Catalogue
from controller.inverters.registry import INVERTERS
from controller.loop import Loop, Ports
from controller.model.events import Event
from controller.ports import CanFrame, Command, CommandKind, Outputs, Pins, RelayError
from controller.trace import Trace
from drivers.memory import HandClock, MemoryEvents, MemoryRecords, MemoryRelays
from sim import michael
from sim.bundle import BundleError, BundleReplay, is_bundle, open_bundle
from sim.byd_can_inverter import BydCanInverter
from sim.closed_loop import Controller
from sim.garage import Build, Garage
from sim.recording import open_recording
from sim.small_packs import KgShunt, VatShunt, WatchMon
from statecharts.supervisor import State
from tests.batteries.life import Life
from tests.controller.kept import Kept
from tests.live.world import PackBus

ROOT = Path(__file__).parents[2]
CONFIG = 'schema = 1\n[mqtt]\npassword = "hunter2"\n'


def box(chunk_ms: int = 5_000, limit_bytes: int = 12 << 20) -> BlackBox:
    return BlackBox(limit_bytes, chunk_ms=chunk_ms)


def tesla(folder: Path, holding: BlackBox | None = None) -> Kept:
    """The shipped story: closes, runs, stops, closes again, and ends in FAULT with its interlock open."""
    partner = Controller()
    kept = Kept(partner.loop, folder, holding or box(), CONFIG)
    for _ in michael.record(partner, michael.pack()):
        pass
    return kept


def relays_of_ours(pack: str, wiring: str = "own") -> Callable[[Path], Kept]:
    """Feedback, pins, a link sensor, a disk that takes its time; then the emergency stop is pressed under load."""

    def live(folder: Path) -> Kept:
        garage = Garage(Build(wiring, pack))
        kept = Kept(garage.loop, folder, box(), CONFIG)
        garage.inverter.wish_w = 2_000.0
        garage.ask(CommandKind.ENABLE)
        assert garage.until(State.RUNNING)
        garage.ask(CommandKind.CAP, charge_w=1_000.0, for_ms=60_000).ask(CommandKind.ACKNOWLEDGE, "no-such-cause")
        garage.run_ms(5_000)
        garage.pins.pins = Pins(False, True)
        garage.run_ms(15_000)
        assert garage.at is State.FAULT
        return kept

    return live


def small(
    pack: Callable[[], WatchMon | VatShunt | KgShunt], name: str, **options: str | float
) -> Callable[[Path], Kept]:
    """A pack that is only measured, until it says no more."""

    def live(folder: Path) -> Kept:
        life = Life(name, pack(), **options)
        kept = Kept(life.loop, folder, box(), CONFIG)
        life.running()
        life.pack.silent = True
        life.run_ms(10_000)
        assert life.state is not State.RUNNING
        return kept

    return live


class Cable:
    """An inverter on CAN at our inverter bus."""

    def __init__(self, clock: HandClock) -> None:
        self.end, self.clock, self.sent = BydCanInverter(wish_w=1_000.0), clock, list[CanFrame]()

    def receive(self) -> list[CanFrame]:
        sent, self.sent = self.sent, []
        return [frame._replace(at_ms=self.clock.ms) for frame in self.end.step(self.clock.ms, sent, 360.0)]

    def send(self, frames: tuple[CanFrame, ...]) -> None:
        self.sent += frames


def inverter_on_can(folder: Path) -> Kept:
    settings = config.defaults_for("tesla_model3", "nca", 96, "pack", "byd_can", Catalogue(BATTERIES, INVERTERS))
    clock = HandClock()
    ports = Ports(
        PackBus(clock), MemoryRelays(), clock, MemoryEvents(), MemoryRecords(), inverter_bus=Cable(clock)
    )  # fmt: skip
    loop = Loop(core.start(settings, BATTERIES["tesla_model3"], INVERTERS["byd_can"]), ports)
    kept = Kept(loop, folder, box(), CONFIG)
    loop.commands.append(Command(CommandKind.ENABLE))
    for _ in range(4_000):
        clock.ms += 10
        loop.tick()
    assert loop.state.supervisor.state is State.RUNNING
    return kept


def what_breaks(folder: Path) -> Kept:
    """Exceptions before the inputs are read, in the core and behind it; relays that fail; late ticks."""
    garage = Garage(Build("own", "leaf"))
    kept = Kept(garage.loop, folder, box(), CONFIG)
    chance, ports = random.Random(3), garage.loop.ports
    garage.ask(CommandKind.ENABLE)

    def now_and_then(error: Exception, real: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object) -> object:
            if chance.random() < 0.002:
                raise error
            return real(*arguments)

        return call

    garage.pins.read = now_and_then(ValueError("a pin"), garage.pins.read)  # type: ignore[method-assign]
    garage.events.write = now_and_then(ValueError("a log"), garage.events.write)  # type: ignore[method-assign]
    ports.relays.write = now_and_then(RelayError("a relay"), ports.relays.write)  # type: ignore[method-assign]
    garage.run_ms(1_000).ask(CommandKind.CAP, charge_w="ten", for_ms=1_000).run_ms(10)  # type: ignore[arg-type]
    assert isinstance(garage.loop.error, TypeError)
    for _ in range(20):
        garage.run_ms(1_000).acknowledge_all().stall(chance.choice((0, 30, 80)))
    assert {Event.EXCEPTION, Event.RELAY_FAILED, Event.TICK_LATE} <= {notice.id for _, notice in garage.events.seen}
    return kept


LIVES: dict[str, Callable[[Path], Kept]] = {
    "tesla": tesla,
    "leaf behind our relays": relays_of_ours("leaf"),
    "tesla with a relay of ours": relays_of_ours("tesla", "pack+inverter"),
    "batrium": small(WatchMon, "batrium"),
    "juntek vat": small(VatShunt, "juntek", capacity_ah=100.0),
    "juntek kg": small(KgShunt, "juntek", model="kg-f", capacity_ah=100.0),
    "inverter on CAN": inverter_on_can,
    "what breaks": what_breaks,
}


@pytest.fixture(scope="module")
def michaels(tmp_path_factory: pytest.TempPathFactory) -> tuple[Kept, Path]:
    """The end of the story: the box is so small that the beginning was dropped."""
    kept = tesla(tmp_path_factory.mktemp("incidents"), box(2_000, limit_bytes=800_000))
    return kept, kept.bundle()


@pytest.fixture
def bundle(michaels: tuple[Kept, Path], tmp_path: Path) -> Path:
    """A bundle of one's own, to be spoilt."""
    path = tmp_path / "bundle.zip"
    path.write_bytes(michaels[1].read_bytes())
    return path


def replayed(path: Path, begin: int = 0) -> BundleReplay:
    replay = BundleReplay(open_bundle(path), begin=begin)
    replay.run()
    return replay


def rewritten(path: Path, change: Callable[[dict[str, bytes]], None], honest: bool = False) -> Path:
    """The bundle with other files. honest: with the checksums that belong to them."""
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    change(files)
    if honest:
        manifest = json.loads(files["manifest.json"])
        manifest["sha256"] = {n: hashlib.sha256(d).hexdigest() for n, d in files.items() if n != "manifest.json"}
        files["manifest.json"] = json.dumps(manifest).encode()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def controller(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "controller", *arguments], capture_output=True, text=True, cwd=ROOT, timeout=120,
        env={**os.environ, **environ},
    )  # fmt: skip


# --- the live trace, again ---


@pytest.mark.parametrize("name", LIVES)
def test_the_live_trace_comes_again_from_whichever_chunk_of_the_bundle(name: str, tmp_path: Path):
    kept = LIVES[name](tmp_path)
    path = kept.bundle()
    bundle = open_bundle(path)
    assert len(bundle.chunks) >= 4
    for begin in (0, len(bundle.chunks) // 2, len(bundle.chunks) - 1):
        replay = replayed(path, begin)
        assert replay.differs is None
        assert VOCABULARY.dumps(replay.state) == VOCABULARY.dumps(kept.loop.state)


def test_the_trace_of_a_bundle_is_the_one_that_was_written_live(tmp_path: Path):
    partner, live = Controller(), io.StringIO()
    trace = Trace(live)
    kept = Kept(partner.loop, tmp_path, box(600_000))
    real = partner.loop.tick

    def tick() -> Outputs:
        outputs = real()
        trace.add(partner.clock.ms, partner.loop.state, outputs)
        return outputs

    partner.loop.tick = tick  # type: ignore[method-assign]
    for n, _ in enumerate(michael.record(partner, michael.pack())):
        if n == 3_000:
            break
    again = io.StringIO()
    bundle = open_bundle(kept.bundle())
    result = BundleReplay(bundle, again).run()
    assert again.getvalue() == live.getvalue()
    assert result.trace_sha256 == trace.sha256 == bundle.chunks[0].trace_sha256


def test_a_life_whose_beginning_was_dropped_is_replayed_from_where_the_box_begins(bundle: Path):
    opened = open_bundle(bundle)
    assert opened.from_ms > 30_000
    replay = BundleReplay(opened)
    result = replay.run()
    assert replay.differs is None
    assert (result.states[0].t_ms, result.final_state) == (0, "FAULT")
    assert result.ticks == opened.manifest["ticks"]


def test_a_fault_writes_a_bundle_by_itself_with_what_it_led_to(michaels: tuple[Kept, Path], tmp_path: Path):
    garage = Garage(Build("own", "leaf"))
    kept = Kept(garage.loop, tmp_path)
    garage.ask(CommandKind.ENABLE)
    assert garage.until(State.RUNNING)
    garage.pins.pins = Pins(False, True)
    pressed_ms = garage.now_ms
    garage.run_ms(12_000)
    ((begun_ms, name),) = kept.begun
    assert 10_000 <= begun_ms - pressed_ms <= 10_100
    assert name.endswith("-fault.zip")
    kept.bundle()
    bundle = open_bundle(tmp_path / name)
    assert bundle.manifest["causes"] == ["e-stop-open"]
    result = BundleReplay(bundle).run()
    assert "e-stop-open" in [notice.id.value for _, notice in result.events]
    assert result.final_state == "FAULT"


def test_the_same_bundle_gives_the_same_trace_whatever_the_hash_seed(bundle: Path):
    stories = [
        json.loads(controller("sim", "--replay", str(bundle), "--json", PYTHONHASHSEED=seed).stdout)
        for seed in ("1", "4711")
    ]
    assert [story["reproduced"] for story in stories] == [True, True]
    assert stories[0]["trace_sha256"] == stories[1]["trace_sha256"]


def test_other_tools_read_the_frames(bundle: Path, tmp_path: Path):
    log = tmp_path / "frames.log"
    with zipfile.ZipFile(bundle) as archive:
        log.write_bytes(archive.read("frames.log"))
    recording = open_recording(log)
    frames = sum(1 for _ in recording)
    assert recording.format == "candump"
    assert recording.rejected == 0
    assert frames == open_bundle(bundle).manifest["frames"]


def test_the_config_is_in_it_and_its_password_is_not(bundle: Path):
    assert open_bundle(bundle).config == CONFIG.replace("hunter2", "***")
    with zipfile.ZipFile(bundle) as archive:
        assert not [name for name in archive.namelist() if b"hunter2" in archive.read(name)]


def test_who_gave_a_command_is_in_it(tmp_path: Path):
    garage = Garage(Build("own", "leaf"))
    kept = Kept(garage.loop, tmp_path)
    kept.by = "enable by user 1000, process 7"
    garage.ask(CommandKind.ENABLE).run_ms(100)
    first, second, *_ = open_bundle(kept.bundle()).ticks()
    assert first.by == "enable by user 1000, process 7"
    assert first.inputs is not None
    assert list(first.inputs.commands) == [Command(CommandKind.ENABLE)]
    assert second.by == ""


# --- what is not the live trace is named ---


def test_the_first_tick_that_differs_is_named(bundle: Path):
    def warmer(files: dict[str, bytes]) -> None:
        lines = files["frames.log"].splitlines(keepends=True)
        at = next(n for n, line in enumerate(lines) if line.startswith(b"(60.") and b" 132#" in line)
        head, _, data = lines[at].partition(b"#")
        lines[at] = head + b"#0090" + data[4:]
        stamps.append(round(1000 * float(head[1 : head.index(b")")])))
        files["frames.log"] = b"".join(lines)

    stamps: list[int] = []
    replay = replayed(rewritten(bundle, warmer, honest=True))
    assert [replay.differs] == stamps


def test_a_command_that_nobody_gave_is_found_out(bundle: Path):
    def give(files: dict[str, bytes]) -> None:
        lines = files["ticks.jsonl"].splitlines()
        lines[1_700] = lines[1_700][:-1] + b',"commands":[{"kind":"stop"}]}'
        files["ticks.jsonl"] = b"\n".join(lines) + b"\n"

    assert replayed(rewritten(bundle, give, honest=True)).differs == open_bundle(bundle).from_ms + 17_000


def test_ticks_that_are_missing_at_the_end_of_a_chunk_are_found_out(bundle: Path):
    def shorten(files: dict[str, bytes]) -> None:
        files["ticks.jsonl"] = b"".join(files["ticks.jsonl"].splitlines(keepends=True)[:-5])

    assert replayed(rewritten(bundle, shorten, honest=True)).differs is not None


# --- what is no whole bundle is refused ---


def refused(path: Path) -> str:
    """The one line it is refused with."""
    with pytest.raises(BundleError) as error:
        replayed(path)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_bundle_that_was_cut_off_is_refused_wherever_it_was(bundle: Path):
    data = bundle.read_bytes()
    for length in (4, 100, len(data) // 3, len(data) // 2, len(data) - 30, len(data) - 1):
        bundle.write_bytes(data[:length])
        assert "torn or damaged" in refused(bundle)


def test_a_flipped_bit_is_refused_or_changes_nothing(bundle: Path):
    data = bundle.read_bytes()
    for at in random.Random(5).sample(range(len(data)), 60):
        bundle.write_bytes(data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :])
        try:
            same = open_bundle(bundle)
        except BundleError:
            continue
        assert replayed(bundle).differs is None  # a stamp or a flag of the zip, of which nothing is made
        assert same.manifest["reason"] == "stop"


@pytest.mark.parametrize("name", ["frames.log", "ticks.jsonl", "config.toml", "states/0.json"])
def test_a_file_that_is_not_as_it_was_written_is_refused(bundle: Path, name: str):
    def spoil(files: dict[str, bytes]) -> None:
        files[name] = files[name].replace(b"1", b"2", 1) if b"1" in files[name] else files[name] + b"x"

    assert f"{name} is not as it was written" in refused(rewritten(bundle, spoil))


@pytest.mark.parametrize("name", ["frames.log", "config.toml", "states/0.json", "manifest.json"])
def test_a_file_that_is_missing_is_refused(bundle: Path, name: str):
    refused(rewritten(bundle, lambda files: files.pop(name)))  # type: ignore[arg-type, return-value]


def test_a_file_that_is_too_many_is_refused(bundle: Path):
    assert "does not hold" in refused(rewritten(bundle, lambda files: files.update({"../../evil": b"x"})))


def test_a_newer_bundle_is_refused_in_one_sentence(bundle: Path):
    def newer(files: dict[str, bytes]) -> None:
        files["manifest.json"] = files["manifest.json"].replace(b'"schema": 1', b'"schema": 2')

    assert "a bundle of version 2, this program reads 1: update the program" in refused(rewritten(bundle, newer))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("states/0.json", b'{"is":"os:system","command":"id"}'), ("states/0.json", b"null"), ("states/0.json", b"[[["),
        ("ticks.jsonl", b"nonsense\n"), ("ticks.jsonl", b'{"t_ms":0,"can0":999999}\n'), ("ticks.jsonl", b"[]\n"),
        ("ticks.jsonl", b'{"t_ms":0}\n'), ("frames.log", b"nonsense\n"), ("frames.log", b""),
    ],
)  # fmt: skip
def test_a_forged_bundle_is_one_line_and_runs_nothing(bundle: Path, name: str, text: bytes):
    refused(rewritten(bundle, lambda files: files.update({name: text}), honest=True))


def test_a_state_of_wrong_types_is_one_line(bundle: Path):
    def wrong(files: dict[str, bytes]) -> None:
        state = json.loads(files["states/0.json"])
        state["limits"] = state["pack"] = 7
        files["states/0.json"] = json.dumps(state).encode()

    refused(rewritten(bundle, wrong, honest=True))


@pytest.mark.parametrize(
    "manifest",
    [b"", b"[]", b"{}", b'{"schema":"1"}', b'{"schema":0}', b'{"schema":1}', b'{"schema":1,"chunks":[],"sha256":{}}',
     b'{"schema":1,"chunks":[{"state":1}],"sha256":{}}', b"[" * 100_000],
)  # fmt: skip
def test_a_manifest_that_says_nothing_is_one_line(bundle: Path, manifest: bytes):
    refused(rewritten(bundle, lambda files: files.update({"manifest.json": manifest})))


def test_a_zip_of_something_else_is_no_bundle(tmp_path: Path):
    path = tmp_path / "photos.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "a")
    assert is_bundle(path)
    assert "this is no incident bundle" in refused(path)
    assert not is_bundle(tmp_path / "nothing.zip")


def test_a_bundle_that_would_unpack_to_more_than_any_can_hold_is_refused(bundle: Path):
    assert "too large" in refused(rewritten(bundle, lambda files: files.update({"manifest.json": bytes(20 << 20)})))


# --- from the command line ---


def test_the_command_says_that_the_trace_is_reproduced_and_tells_the_story(bundle: Path, tmp_path: Path):
    trace, plot = tmp_path / "trace.jsonl", tmp_path / "plot.html"
    options = ("--trace", str(trace), "--plot", str(plot), "--expect-state", "FAULT")
    done = controller("sim", "--replay", str(bundle), *options)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"the live trace is reproduced: {open_bundle(bundle).manifest['ticks']:,} ticks" in done.stdout
    assert "hvil-open" in done.stdout
    assert "hunter2" not in done.stdout
    assert '"state":"RUNNING"' in trace.read_text()
    assert "the live trace is reproduced" in plot.read_text()


def test_a_bundle_is_told_by_its_content_and_not_by_its_name(bundle: Path):
    told = bundle.rename(bundle.with_name("drive.log"))
    assert "is reproduced" in controller("sim", "--replay", str(told)).stdout


def test_a_trace_that_is_not_reproduced_is_exit_1_and_named(bundle: Path):
    def give(files: dict[str, bytes]) -> None:
        given = b'"t_ms":60000,"commands":[{"kind":"stop"}],'
        files["ticks.jsonl"] = files["ticks.jsonl"].replace(b'"t_ms":60000,', given)

    rewritten(bundle, give, honest=True)
    done = controller("sim", "--replay", str(bundle))
    assert done.returncode == 1
    assert "the first tick that differs is t_ms 60000" in done.stdout
    story = json.loads(controller("sim", "--replay", str(bundle), "--json").stdout)
    assert (story["reproduced"], story["first_difference_t_ms"]) == (False, 60_000)


def test_a_broken_bundle_is_exit_2_with_one_line(bundle: Path):
    bundle.write_bytes(bundle.read_bytes()[:5_000])
    done = controller("sim", "--replay", str(bundle))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1


def test_a_bundle_takes_no_battery_inverter_or_config(bundle: Path):
    done = controller("sim", "--replay", str(bundle), "--battery", "leaf")
    assert done.returncode == 2
    assert "are in it" in done.stderr


def test_bundles_are_listed_shown_and_exported(michaels: tuple[Kept, Path], tmp_path: Path):
    path, copy = michaels[1], tmp_path / "copy.zip"

    def incident(*arguments: str) -> Result:
        return CliRunner().invoke(cli_incident.app, [*arguments, "--folder", str(path.parent)])

    listed = json.loads(incident("list", "--json").stdout)
    assert [(row["reason"], row["name"]) for row in listed["incidents"]] == [("stop", path.name)]
    assert path.name in incident("list").stdout
    assert "stop: hvil-open" in incident("show", "newest").stdout
    assert incident("export", "1", "-o", str(copy)).exit_code == 0
    assert copy.read_bytes() == path.read_bytes()
    again = incident("export", "1", "-o", str(copy))
    assert (again.exit_code, "is there already" in again.stderr) == (2, True)
    missing = incident("show", "77")
    assert (missing.exit_code, "no incident 77" in missing.stderr) == (2, True)


def test_a_manifest_cannot_steer_the_terminal_of_who_looks_at_it(bundle: Path):
    def colour(files: dict[str, bytes]) -> None:
        files["manifest.json"] = files["manifest.json"].replace(b"it was told", b"\\u001b[2Jit was told")

    shown = CliRunner().invoke(cli_incident.app, ["show", str(rewritten(bundle, colour))])
    assert "it was told" in shown.stdout
    assert "\x1b[2J" not in shown.stdout
