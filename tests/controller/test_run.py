"""Putting the live controller together: what it starts from, and what the unit files promise about it."""

import configparser
import shutil
import subprocess
from pathlib import Path

import pytest

from controller import run
from controller.batteries.registry import BATTERIES
from controller.inverters.registry import INVERTERS
from controller.loop import OVERRUN_MS, Ports
from controller.model.settings import CHEMISTRIES, PackSettings, Settings
from controller.ports import CommandKind, Record
from drivers.memory import HandClock, MemoryCan, MemoryEvents, MemoryRecords, MemoryRelays
from drivers.record_files import Found
from statecharts.supervisor import State
from tests.bench import Bench

SHARE = Path(run.__file__).parent / "share"
CONTROL = ("packwarden-control.service", "packwarden-control@.service")
UNITS = (*CONTROL, "packwarden-gateway.service")


def unit(name: str) -> dict[str, str]:
    """The [Service] section, the last of each key."""
    parser = configparser.ConfigParser(strict=False, interpolation=None, delimiters="=")
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(SHARE / name)
    return dict(parser["Service"])


def ms(text: str) -> int:
    return int(text.removesuffix("s")) * 1000


# --- what it starts from ---


def test_a_lost_record_is_a_lock_out_that_only_an_unlock_ends():
    bench = Bench("own", record=run._start_from(Found(lost="record-a is damaged"))).enable().run_ms(30_000)
    assert bench.at is State.LOCKED_OUT
    assert bench.stored is not None
    assert bench.stored.locked_out
    bench.command(CommandKind.ACKNOWLEDGE, "record-lost").run_ms(100)
    assert bench.at is State.LOCKED_OUT
    bench.command(CommandKind.UNLOCK).run_ms(100).enable().until(State.RUNNING)


def test_a_first_start_is_no_fault():
    bench = Bench("own", record=run._start_from(Found())).run_ms(20_000)
    assert bench.at is State.STANDBY
    assert not bench.state.supervisor.enabled


def test_one_readable_copy_is_enough():
    record = Record(seq=4, latched=("bms-fault",))
    assert run._start_from(Found(record, spoilt="record-b is damaged")) == record


def test_systemd_says_where_the_record_is_kept(tmp_path: Path):
    config = tmp_path / "c.toml"
    assert run.options(config, {"STATE_DIRECTORY": "/var/lib/packwarden/two:/x"}).folder == Path(
        "/var/lib/packwarden/two"
    )
    assert run.options(config, {}).folder == Path("/var/lib/packwarden")


def test_what_the_ports_count_is_shown_and_what_they_do_not_is_not():
    bus = MemoryCan()
    bus.lost = 3  # type: ignore[attr-defined]
    ports = Ports(bus, MemoryRelays(), HandClock(), MemoryEvents(), MemoryRecords(), inverter_bus=MemoryCan())
    assert run.counts(ports) == {"battery_bus": {"lost": 3}}


# --- what the units promise ---


@pytest.mark.parametrize("inverter", INVERTERS)
@pytest.mark.parametrize("battery", BATTERIES)
def test_a_graceful_stop_of_any_setup_fits_into_the_unit_s_stop_time(battery: str, inverter: str):
    pack = PackSettings(CHEMISTRIES["nca"], 96, 20.0, 20.0)
    wiring = BATTERIES[battery].wirings[0]
    needed_ms = run.stop_ms(Settings(battery, inverter, wiring, pack, 5000.0), INVERTERS[inverter])
    assert all(needed_ms + 5_000 <= ms(unit(name)["TimeoutStopSec"]) for name in CONTROL)


@pytest.mark.parametrize("name", CONTROL)
def test_the_watchdog_of_systemd_is_slower_than_our_own_verdict_on_a_late_tick(name: str):
    assert ms(unit(name)["WatchdogSec"]) > 4 * OVERRUN_MS
    assert unit(name)["Type"] == "notify"


def test_both_control_units_differ_in_names_and_places_only():
    one, many = unit(CONTROL[0]), unit(CONTROL[1])
    differing = {key for key in one.keys() | many.keys() if one.get(key) != many.get(key)}
    assert differing == {"ExecStart", "ExecStopPost", "StateDirectory", "RuntimeDirectory"}


@pytest.mark.parametrize("name", CONTROL)
def test_however_the_controller_ends_its_relays_are_switched_off_by_its_own_config(name: str):
    start, after = unit(name)["ExecStart"].split(), unit(name)["ExecStopPost"].split()
    assert after == [start[0], "outputs-off", "--config", start[start.index("--config") + 1]]


def test_the_gateway_has_a_user_of_its_own_and_shares_the_socket_s_group():
    gateway = unit("packwarden-gateway.service")
    assert gateway["User"] != unit(CONTROL[0])["User"]
    assert unit(CONTROL[0])["Group"] in gateway["SupplementaryGroups"].split()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize(("name", "most"), [(CONTROL[0], 20), (CONTROL[1], 20), ("packwarden-gateway.service", 18)])
def test_the_units_are_sandboxed(name: str, most: int):
    """In tenths of systemd's exposure level; below 5.0 it says OK."""
    command = ["systemd-analyze", "security", "--offline=true", f"--threshold={most}", "--no-pager", SHARE / name]
    verdict = subprocess.run(command, capture_output=True, text=True, check=False)
    assert verdict.returncode == 0, verdict.stdout[-2000:] + verdict.stderr
