"""The control socket: what it answers, who may do what, and that nobody at its other end is felt by the control."""

import json
import os
import pty
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from controller.link import (
    CHUNK,
    CLIENTS_PER_USER,
    IDLE_MS,
    STALLED_MS,
    Link,
    Peer,
    _is_person_here,
    at_a_terminal,
    listening,
)
from controller.messages import LINE_MAX, Ask, parse
from controller.ports import Command, CommandKind, Outputs, PortError
from statecharts.supervisor import State
from tests.controller.live_rig import Caller, Rig


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    yield rig
    rig.link.close()


# --- what it answers ---


def test_a_command_is_answered_after_the_core_took_it(rig: Rig):
    rig.until(State.STANDBY)
    assert rig.ask(do="enable") == {
        "version": 1, "done": True, "state": "STANDBY", "withheld": ["contactors: minimum off time"]
    }  # fmt: skip
    assert rig.live.loop.state.supervisor.enabled


def test_what_the_core_refuses_is_answered_with_its_reason(rig: Rig):
    answer = rig.ask(do="acknowledge", name="hvil-open")
    assert answer == {"version": 1, "done": False, "field": "", "why": "hvil-open is not held"}


def test_a_wrong_message_names_its_field_and_reaches_nobody(rig: Rig):
    answer = rig.ask(do="cap", charge_w=-5, for_s=60)
    assert answer["field"] == "charge_w"
    assert answer["done"] is False
    assert rig.told() == []


def test_who_asked_is_on_record(rig: Rig):
    rig.ask(do="cap", charge_w=1500, for_s=60)
    assert rig.told()[0] == f"command-given: cap charge 1500 W for 60 s by user {os.getuid()}, process {os.getpid()}"


def test_for_whom_the_other_end_asks_is_on_record_beside_who_it_is(rig: Rig):
    rig.ask(do="stop", by="MQTT bms/control")
    peer = f"user {os.getuid()}, process {os.getpid()}"
    assert rig.told()[0] == f"command-given: stop by MQTT bms/control through {peer}"


def test_the_status_is_there_at_once_and_again_as_often_as_it_is_wanted(rig: Rig):
    rig.until(State.STANDBY)
    with rig.connect() as caller:
        first = caller.ask(do="watch", every_ms=200)["status"]
        second = caller.hear()["status"]
    assert first["state"] == "STANDBY"
    assert second["t_ms"] - first["t_ms"] == 200


def test_messages_on_one_connection_are_answered_in_their_order(rig: Rig):
    with rig.connect() as caller:
        caller.say(b'{"version":1,"do":"enable"}\n{"version":1,"do":"x"}\n{"version":1,"do":"status"}\n')
        answers = [caller.hear() for _ in range(3)]
    assert [next(iter(answer.keys() - {"version"})) in ("done", "why", "field", "state", "withheld", "status")
            for answer in answers] == [True] * 3  # fmt: skip
    assert answers[0]["done"]
    assert answers[1]["field"] == "do"
    assert "status" in answers[2]


def test_a_command_of_somebody_who_hangs_up_at_once_is_still_done(rig: Rig):
    with rig.connect() as caller:
        caller.say(b'{"version":1,"do":"enable"}\n')
    rig.turns(5)
    assert rig.live.loop.state.supervisor.enabled


def test_who_only_stops_speaking_still_gets_the_answer(rig: Rig):
    with rig.connect() as caller:
        caller.say(b'{"version":1,"do":"enable"}\n').socket.shutdown(socket.SHUT_WR)
        assert caller.hear()["done"]
        assert caller.hear() == {}


@pytest.mark.parametrize(
    ("line", "field"),
    [
        (b'{"version":1,"do":"cap","for_s":60,"charge_w":%s}' % (b"1" * 400), "charge_w"),
        (b'{"version":1,"do":"status","\\ud800":1}', "\\ud800"),
    ],
)
def test_a_line_made_to_break_us_is_refused_like_any_other(line: bytes, field: str, rig: Rig):
    with rig.connect() as caller:
        assert caller.say(line + b"\n").hear()["field"] == field


def test_who_breaks_the_reading_of_a_line_is_hung_up_on_and_nobody_else(rig: Rig, monkeypatch: pytest.MonkeyPatch):
    def broken(line: bytes) -> Ask:
        if b"status" in line:
            raise ZeroDivisionError
        return parse(line)

    monkeypatch.setattr("controller.link.parse", broken)
    with rig.connect() as breaks, rig.connect() as asks:
        assert breaks.ask(do="status") == {}
        assert asks.ask(do="enable")["done"]
    assert not any(line.startswith("telemetry-failed") for line in rig.told())


# --- who may do what ---


def test_unlocking_is_asked_of_the_kernel_not_of_the_message(tmp_path: Path):
    rig = Rig(tmp_path, person=False)
    answer = rig.ask(do="unlock", inspected="contactors measured")
    assert "needs a person at a terminal" in answer["why"]
    assert rig.peers == [Peer(os.getpid(), os.getuid())]
    assert rig.told() == []
    assert not rig.ask(do="recovery-charge")["done"]
    rig.link.close()


def test_what_was_inspected_is_on_record(rig: Rig):
    rig.ask(do="unlock", inspected="K1 replaced")
    assert rig.told()[0].startswith('command-given: unlock "K1 replaced" by user ')


def test_a_process_without_a_terminal_is_no_person():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True)
    try:
        assert not _is_person_here(Peer(child.pid, os.geteuid()))
    finally:
        child.communicate(b"\n")
    assert not at_a_terminal(child.pid)


def test_a_process_at_a_terminal_is_unless_it_is_another_user_s():
    pid, terminal = pty.fork()
    if pid == 0:
        os.write(1, b".")
        os.read(0, 1)
        os._exit(0)
    os.read(terminal, 1)
    try:
        assert _is_person_here(Peer(pid, os.geteuid()))
        assert not _is_person_here(Peer(pid, os.geteuid() + 1000))
    finally:
        os.write(terminal, b"\n")
        os.waitpid(pid, 0)
        os.close(terminal)


def test_the_socket_is_for_owner_and_group(rig: Rig):
    assert stat.S_IMODE(rig.path.stat().st_mode) == 0o660


def test_a_socket_left_by_a_dead_process_is_replaced_and_a_file_is_not(tmp_path: Path):
    path = tmp_path / "control.sock"
    listening(path).close()
    listening(path).close()
    other = tmp_path / "notes.txt"
    other.write_text("mine")
    with pytest.raises(PortError, match="no socket"):
        listening(other)
    assert other.read_text() == "mine"


# --- hostile ends ---


def test_an_endless_line_is_cut_off(rig: Rig):
    with rig.connect() as caller:
        caller.say(b"x" * (LINE_MAX + 10))
        assert caller.hear()["why"] == f"a line is at most {LINE_MAX} bytes"
        assert caller.hear() == {}


def test_who_says_nothing_is_hung_up_on(rig: Rig):
    with rig.connect() as caller:
        assert caller.hear(within=IDLE_MS // 10 + 200) == {}


def test_who_never_reads_is_hung_up_on_and_holds_back_one_status_at_most(rig: Rig):
    with rig.connect() as caller:
        caller.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        caller.say(b'{"version":1,"do":"watch","every_ms":200}\n')
        rig.turns(2)
        (client,) = rig.link._clients.values()
        while not client.outbox:
            rig.turns()
        waiting = len(client.outbox)
        rig.turns(500)
        assert len(client.outbox) == waiting
        rig.turns(STALLED_MS // 10 + 200)
        assert not rig.link._clients


def test_one_user_cannot_take_all_connections(rig: Rig):
    callers = [rig.connect() for _ in range(CLIENTS_PER_USER)]
    rig.turns(CLIENTS_PER_USER + 2)
    with rig.connect() as one_more:
        assert one_more.hear()["why"] == "too many connections"
        assert one_more.hear() == {}
    for caller in callers:
        caller.socket.close()
    rig.turns(20)
    assert rig.ask(do="stop")["done"]


Attack = Callable[[Rig, list[Caller]], None]


def garbage(rig: Rig, callers: list[Caller]) -> None:
    with rig.connect() as caller:
        caller.say(bytes(range(256)) * 10 + b"\n" + b"\x00" * 500)


def huge_lines(rig: Rig, callers: list[Caller]) -> None:
    with rig.connect() as caller:
        caller.say(b"[" * 60_000)


def half_open(rig: Rig, callers: list[Caller]) -> None:
    if len(callers) < 20:
        callers.append(rig.connect().say(b'{"version":1,'))


def deaf(rig: Rig, callers: list[Caller]) -> None:
    if len(callers) < 20:
        callers.append(rig.connect().say(b'{"version":1,"do":"status"}\n' * 200))


def comes_and_goes(rig: Rig, callers: list[Caller]) -> None:
    for _ in range(5):
        rig.connect().socket.close()


def nested(rig: Rig, callers: list[Caller]) -> None:
    with rig.connect() as caller:
        caller.say(b'{"a":' * 700 + b"\n")


ATTACKS = (garbage, huge_lines, half_open, deaf, comes_and_goes, nested)


def day(rig: Rig, attack: Attack | None) -> list[Outputs]:
    """Twenty seconds of a pack that is closed after two; what each tick decided."""
    callers: list[Caller] = []
    for turn in range(2_000):
        if attack is not None and turn % 3 == 0:
            with suppress(BlockingIOError):  # its queue is full
                attack(rig, callers)
        if turn == 200:
            rig.live.loop.commands.append(Command(CommandKind.ENABLE))
        rig.turns()
    for caller in callers:
        caller.socket.close()
    return rig.decided


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_client_changes_a_tick(attack: Attack, tmp_path: Path):
    (tmp_path / "alone").mkdir()
    (tmp_path / "attacked").mkdir()
    alone, attacked = Rig(tmp_path / "alone"), Rig(tmp_path / "attacked")
    assert day(alone, None) == day(attacked, attack)
    assert attacked.state is State.RUNNING
    assert attacked.ended is None
    alone.link.close()
    attacked.link.close()


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_command_gets_through_a_flood_from_another_user(attack: Attack, rig: Rig, monkeypatch: pytest.MonkeyPatch):
    callers: list[Caller] = []
    rig.turns(300)
    for _ in range(100):
        with suppress(BlockingIOError):
            attack(rig, callers)
        rig.turns()
    monkeypatch.setattr("controller.link.CLIENTS_PER_USER", 24)  # the other user's share
    for _ in range(100):
        try:
            with rig.connect() as caller:
                caller.say(b'{"version":1,"do":"cap","charge_w":1234,"for_s":600}\n')
            break
        except BlockingIOError:
            rig.turns()
    rig.turns(100)
    cap = rig.live.loop.state.cap.charge
    assert cap is not None
    assert cap.limit_w == 1234
    for caller in callers:
        caller.socket.close()


def test_commands_without_end_reach_the_core_one_a_tick_and_are_not_hoarded(rig: Rig):
    flood = b'{"version":1,"do":"acknowledge","name":"hvil-open"}\n' * 2_000
    callers = [rig.connect() for _ in range(CLIENTS_PER_USER)]
    for _ in range(100):
        for caller in callers:
            with suppress(BlockingIOError):
                caller.socket.send(flood)
        rig.turns()
    assert max(len(outputs.events) for outputs in rig.decided) <= 2
    assert len(rig.link._commands) <= CLIENTS_PER_USER
    assert max(len(client.inbox) for client in rig.link._clients.values()) <= LINE_MAX + CHUNK
    for caller in callers:
        caller.socket.close()
    rig.turns(2_000)
    assert not rig.link._clients


def test_a_link_without_clients_costs_no_status(rig: Rig, monkeypatch: pytest.MonkeyPatch):
    def unwanted(*_: object) -> None:
        raise AssertionError("a status was made for nobody")

    monkeypatch.setattr("controller.status.status", unwanted)
    rig.turns(300)


def test_overload_takes_the_status_first_and_commands_never(rig: Rig):
    rig.pace.spare = -2000
    with rig.connect() as watching, rig.connect() as asking:
        times = [watching.ask(do="watch", every_ms=200)["status"]["t_ms"], watching.hear()["status"]["t_ms"]]
        assert times[1] - times[0] >= 2000
        before = rig.clock.ms
        assert asking.ask(do="stop")["done"]
        assert rig.clock.ms - before <= 50


def test_the_link_needs_no_client_code_of_ours(rig: Rig):
    line = json.dumps({"version": 1, "do": "status"}) + "\n"
    with rig.connect() as caller:
        assert caller.say(line.encode()).hear()["status"]["schema"] == 1


def test_closing_it_hangs_up(tmp_path: Path):
    path = tmp_path / "s"
    link = Link(listening(path))
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(path))
        link.poll(0)
        link.close()
        assert caller.recv(10) == b""
