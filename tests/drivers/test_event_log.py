"""The journal: every event once, none a flood, and nobody waits for it."""

import os
import socket
import threading
from pathlib import Path

import pytest

from controller.model.events import Event, Notice, Severity
from drivers.event_log import DETAILS_PER_ID, MINUTE_MS, QUEUE_MAX, EventLog, Journal, Line, Quiet, Terminal, sink

HVIL = Notice(Event.HVIL_OPEN, Severity.OPEN, "contactors CLOSED")
CLEARED = Notice(Event.HVIL_OPEN, Severity.INFO, "cleared")


def words(event: Event) -> str:
    return f"The words of {event.value}."


def test_the_same_message_comes_once_a_minute_and_then_with_the_number_of_the_others():
    quiet = Quiet()
    assert quiet.admit((HVIL, CLEARED), 0) == [Line(HVIL, 0), Line(CLEARED, 0)]
    for now_ms in range(10, 30_000, 10):
        assert quiet.admit((HVIL,), now_ms) == []
    assert quiet.admit((), MINUTE_MS) == [Line(HVIL, 2999)]
    assert quiet.admit((), 2 * MINUTE_MS) == []
    assert quiet.admit((HVIL,), 2 * MINUTE_MS) == [Line(HVIL, 0)]


def test_changing_numbers_are_no_way_around_it():
    quiet = Quiet()
    lines = [
        line for amps in range(500) for line in quiet.admit((HVIL._replace(detail=f"current_a {amps}"),), 10 * amps)
    ]
    assert len(lines) == DETAILS_PER_ID + 1
    assert quiet.admit((), MINUTE_MS + 5000)[-1].more == 500 - DETAILS_PER_ID - 1


def test_another_event_is_not_held_back_by_a_flood():
    quiet = Quiet()
    for amps in range(500):
        quiet.admit((HVIL._replace(detail=f"{amps}"),), 0)
    stop = Notice(Event.OPERATOR_STOP, Severity.INFO, "")
    assert quiet.admit((stop,), 0) == [Line(stop, 0)]


def test_a_stuck_reader_makes_nobody_wait_and_the_loss_is_counted():
    let_go, seen = threading.Event(), []

    def stuck(line: Line) -> None:
        let_go.wait(30)
        seen.append(line)

    log = EventLog(stuck)
    notices = [Notice(event, Severity.INFO, f"{n}") for event in Event for n in range(9)]
    log.write(notices, 0)
    assert log.lost >= len(notices) - QUEUE_MAX - 1
    let_go.set()
    log.close(30)
    assert len(seen) + log.lost == len(notices)


def test_a_reader_that_went_away_ends_nothing():
    seen = []

    def gone(line: Line) -> None:
        seen.append(line)
        raise BrokenPipeError

    log = EventLog(gone)
    log.write((HVIL, CLEARED), 0)
    log.close(30)
    assert [line.notice for line in seen] == [HVIL, CLEARED]


def test_a_line_for_the_journal_carries_the_id_as_a_field(tmp_path: Path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(tmp_path / "journal"))
        Journal(words, str(tmp_path / "journal"))(Line(HVIL, 3))
        fields = dict(line.split("=", 1) for line in journal.recv(5000).decode().splitlines())
    assert fields == {
        "MESSAGE": "hvil-open: The words of hvil-open. (contactors CLOSED) (3 more in the last minute)",
        "PRIORITY": "2", "SYSLOG_IDENTIFIER": "packwarden", "PACKWARDEN_EVENT": "hvil-open",
        "PACKWARDEN_SEVERITY": "open", "PACKWARDEN_DETAIL": "contactors CLOSED",
    }  # fmt: skip


def test_what_somebody_typed_cannot_forge_a_field(tmp_path: Path):
    typed = Notice(Event.COMMAND_GIVEN, Severity.INFO, "unlock\nPRIORITY=0\x1b[2J")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(tmp_path / "journal"))
        Journal(words, str(tmp_path / "journal"))(Line(typed, 0))
        lines = journal.recv(5000).decode().splitlines()
    assert [line for line in lines if line.startswith("PRIORITY")] == ["PRIORITY=6"]
    assert "\x1b" not in "".join(lines)


def test_a_line_on_a_terminal_is_a_sentence(capsys: pytest.CaptureFixture[str]):
    Terminal(words)(Line(HVIL, 0))
    Terminal(words)(Line(Notice(Event.STARTED, Severity.INFO, "packwarden 1"), 0))
    first, second = capsys.readouterr().err.splitlines()
    assert first.endswith("open       hvil-open: The words of hvil-open. (contactors CLOSED)")
    assert second.endswith("info       started: packwarden 1")


def test_only_the_stream_that_systemd_made_for_us_is_taken_for_the_journal():
    assert isinstance(sink({}, words), Terminal)
    stream = os.fstat(2)
    there = Path("/run/systemd/journal/socket").exists()
    chosen = sink({"JOURNAL_STREAM": f"{stream.st_dev}:{stream.st_ino}"}, words)
    assert isinstance(chosen, Journal if there else Terminal)
    assert isinstance(sink({"JOURNAL_STREAM": "8:0"}, words), Terminal)
