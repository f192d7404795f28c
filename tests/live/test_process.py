"""`controller run` as a process: ready, asked, stopped, killed, stalled, started twice."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.coils import Coils, kept
from drivers.record_files import COPIES, OsDisk, find
from tests.live.service import CONT, INT, KILL, STOP, TERM, Service, second

pytestmark = pytest.mark.slow


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    service = Service(tmp_path)
    yield service
    service.close()


def test_a_life_from_start_to_stop(service: Service):
    service.start()
    asked = service.controller("status", "--json")
    assert asked.returncode == 0, asked.stderr
    status = json.loads(asked.stdout)
    assert status["schema"] == 1
    assert status["state"] in ("STARTING", "STANDBY")
    enabled = service.controller("enable")
    assert (enabled.returncode, enabled.stderr) == (0, "")
    assert "enabled" in enabled.stdout
    service.until_state("RUNNING")
    shown = service.controller("status").stdout
    assert "RUNNING since" in shown
    assert "closed; the limits are published" in shown
    assert find(OsDisk(service.state)).record.closed  # type: ignore[union-attr]
    assert kept(service.state) == Coils({})
    assert service.signal(TERM).ended() == 0
    service.until_said("STOPPING=1")
    assert "WATCHDOG=1" in service.heard
    assert not find(OsDisk(service.state)).record.closed  # type: ignore[union-attr]
    assert not service.socket.exists()
    for line in ("RUNNING → UNLOADING: service-stop", "VERIFYING_OPEN → STANDBY", "ended: it was told to stop"):
        assert line in service.journal


def test_killed_while_closed_it_looks_for_a_weld_before_anything_else(service: Service):
    service.start()
    assert service.controller("enable").returncode == 0
    service.until_state("RUNNING")
    assert service.signal(KILL).ended() == -KILL
    assert find(OsDisk(service.state)).record.closed  # type: ignore[union-attr]
    service.heard.clear()
    status = service.start().until(lambda status: any(e["id"] == "unclean-restart" for e in status["events"]))
    assert not status["enabled"]
    assert status["closed"] == []
    assert "STARTING → VERIFYING_OPEN: found-closed" in service.journal


def test_a_second_one_on_the_same_record_is_refused_in_one_line(service: Service):
    service.start()
    other = second(service).begin()
    assert other.ended() == 2
    said = [line for line in other.journal.splitlines() if line.startswith("controller: ")]
    assert len(said) == 1
    assert f"in use by another controller (process {service.process.pid})" in said[0]  # type: ignore[union-attr]
    assert service.controller("status").returncode == 0
    other.close()


def test_a_stall_opens_and_ends_as_failed_and_the_next_start_waits_for_a_person(service: Service):
    service.start()
    assert service.controller("enable").returncode == 0
    service.until_state("RUNNING")
    service.signal(STOP).while_stalled_ms(500).signal(CONT)
    assert service.ended() == 1
    assert "tick-overrun" in service.journal
    service.heard.clear()
    assert service.start().until_state("FAULT")["faults"][0]["id"] == "tick-overrun"
    assert service.controller("acknowledge", "hvil-open").returncode == 1
    assert service.controller("acknowledge", "tick-overrun").returncode == 0
    service.until_state("STANDBY")


def test_told_twice_it_ends_at_once(service: Service):
    service.start()
    assert service.controller("enable").returncode == 0
    service.until_state("RUNNING")
    service.signal(INT).until_said("STOPPING=1").signal(INT)
    assert service.ended() in (0, 1)  # 0: it was at rest before the second one


def test_without_a_readable_record_it_is_locked_out_until_a_person_unlocks_it_at_a_terminal(service: Service):
    service.state.mkdir()
    for name in COPIES:
        (service.state / name).write_bytes(b"\x00" * 200)
    assert service.start().until_state("LOCKED_OUT")["faults"][0]["id"] == "record-lost"
    refused = service.controller("unlock", "--inspected", "both contactors measured")
    assert refused.returncode == 1
    assert "needs a person at a terminal" in refused.stderr
    assert service.until_state("LOCKED_OUT")
    assert service.at_a_terminal("unlock", "--inspected", "both contactors measured") == 0
    service.until_state("STANDBY")
    assert '"both contactors measured" by user' in service.journal


def test_what_cannot_be_put_on_record_is_not_closed(service: Service):
    service.state = Path("/proc/packwarden")
    service.start()
    assert service.controller("enable").returncode == 0
    status = service.until(lambda status: any(event["id"] == "record-not-stored" for event in status["events"]))
    assert status["state"] == "STANDBY"
    assert status["withheld"] == ["record: not stored yet"]
    assert "cannot be stored" in status["record"]["trouble"]
    assert service.signal(TERM).ended() == 0


def test_the_config_bounds_the_black_box(service: Service):
    service.config.write_text(service.config.read_text() + "\n[incidents]\nmemory_mib = 3\n")
    assert service.start().until_state("STANDBY")["black_box"]["bytes_max"] == 3 * 1024 * 1024
    service.signal(TERM)


def test_nobody_there_is_one_line_and_exit_2(service: Service):
    for words in (["status"], ["enable"], ["watch"], ["limit", "--charge", "0", "--for", "1m"]):
        asked = service.controller(*words)
        assert asked.returncode == 2
        assert asked.stderr.startswith(f"controller: no controller answers at {service.socket}")
        assert asked.stderr.count("\n") == 1


def test_a_wrong_config_is_one_line_and_exit_2(service: Service):
    service.config.write_text("schema = 1\n")
    assert service.begin().ended() == 2
    assert "Traceback" not in service.journal
