"""What happened, as lines for people: into the systemd journal with the event's id as a field, else onto stderr.

A thread writes; the tick only hands over. The same message comes at most once a minute, with the number of the others.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from queue import SimpleQueue
from typing import NamedTuple

from controller.model.events import Event, Notice, Severity

MINUTE_MS = 60_000
QUEUE_MAX = 256
DETAILS_PER_ID = 10
OTHERS = "…"
JOURNAL = "/run/systemd/journal/socket"
PRIORITY = {
    Severity.INFO: 6, Severity.WARNING: 4, Severity.NO_CLOSING: 4, Severity.LIMIT: 4, Severity.GRACEFUL: 3,
    Severity.OPEN: 2, Severity.LOCK_OUT: 1,
}  # fmt: skip
"""The journal's priorities: 1 alert, 2 critical, 3 error, 4 warning, 6 information."""

Words = Callable[[Event], str]
"""An event's sentence."""


class Line(NamedTuple):
    """more: how often the same came since it was written last."""

    notice: Notice
    more: int


class Quiet:
    """Lets the same notice through once a minute. What is held back is told at the end of its minute, with its number.

    Of one event and severity at most ten details are told apart; the others count as one.
    """

    def __init__(self) -> None:
        self._seen: dict[Notice, tuple[int, int]] = {}

    def admit(self, notices: Sequence[Notice], now_ms: int) -> list[Line]:
        lines = self._over(now_ms)
        for notice in notices:
            key = self._key(notice)
            if (seen := self._seen.get(key)) is None:
                self._seen[key] = (now_ms, 0)
                lines.append(Line(notice, 0))
            else:
                self._seen[key] = (seen[0], seen[1] + 1)
        return lines

    def _key(self, notice: Notice) -> Notice:
        if notice in self._seen:
            return notice
        alike = sum(1 for seen in self._seen if seen[:2] == notice[:2])
        return notice if alike < DETAILS_PER_ID else notice._replace(detail=OTHERS)

    def _over(self, now_ms: int) -> list[Line]:
        """The notices whose minute is over: told again when there were more."""
        over = [(notice, more) for notice, (at_ms, more) in self._seen.items() if now_ms - at_ms >= MINUTE_MS]
        for notice, more in over:
            if more:
                self._seen[notice] = (now_ms, 0)
            else:
                del self._seen[notice]
        return [Line(notice, more) for notice, more in over if more]


class EventLog:
    """An EventPort. `write(())` from time to time lets out what was held back."""

    def __init__(self, sink: Callable[[Line], None]) -> None:
        self.lost = 0
        self._quiet, self._sink = Quiet(), sink
        self._queue: SimpleQueue[Line | None] = SimpleQueue()
        self._writer = threading.Thread(target=self._write_all, name="events", daemon=True)
        self._writer.start()

    def write(self, notices: Sequence[Notice], now_ms: int) -> None:
        for line in self._quiet.admit(notices, now_ms):
            if self._queue.qsize() < QUEUE_MAX:
                self._queue.put(line)
            else:
                self.lost += 1

    def close(self, within_s: float) -> None:
        self._queue.put(None)
        self._writer.join(within_s)

    def _write_all(self) -> None:
        while (line := self._queue.get()) is not None:
            with suppress(OSError, ValueError):  # a terminal that went away, a closed stderr
                self._sink(line)


def sink(environ: Mapping[str, str], words: Words) -> Callable[[Line], None]:
    """Where this process's lines belong: the journal when stderr is connected to it, else stderr."""
    return Journal(words) if _in_journal(environ) else Terminal(words)


def _in_journal(environ: Mapping[str, str]) -> bool:
    """$JOURNAL_STREAM names the device and inode of the stream systemd made for us (systemd.exec(5))."""
    with suppress(OSError, ValueError):
        stream = os.fstat(2)
        return environ.get("JOURNAL_STREAM") == f"{stream.st_dev}:{stream.st_ino}" and os.path.exists(JOURNAL)
    return False


class Journal:
    """The journal's native protocol: one datagram of FIELD=value lines; `journalctl PACKWARDEN_EVENT=hvil-open`."""

    def __init__(self, words: Words, address: str = JOURNAL) -> None:
        self._words, self._address = words, address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)

    def __call__(self, line: Line) -> None:
        notice = line.notice
        fields = {
            "MESSAGE": _sentence(line, self._words), "PRIORITY": PRIORITY[notice.severity],
            "SYSLOG_IDENTIFIER": "packwarden", "PACKWARDEN_EVENT": notice.id.value,
            "PACKWARDEN_SEVERITY": notice.severity.value, "PACKWARDEN_DETAIL": _plain(notice.detail),
        }  # fmt: skip
        text = "".join(f"{name}={value}\n" for name, value in fields.items())
        self._socket.sendto(text.encode(errors="backslashreplace"), self._address)


class Terminal:
    """stderr, with the local time."""

    def __init__(self, words: Words) -> None:
        self._words = words

    def __call__(self, line: Line) -> None:
        stamp = time.strftime("%H:%M:%S")
        print(f"{stamp}  {line.notice.severity.value:<10} {_sentence(line, self._words)}", file=sys.stderr, flush=True)


def _sentence(line: Line, words: Words) -> str:
    notice, more = line
    told = [] if notice.severity is Severity.INFO else [words(notice.id)]
    if notice.detail:
        told.append(f"({_plain(notice.detail)})" if told else _plain(notice.detail))
    if more:
        told.append(f"({more} more in the last minute)")
    return f"{notice.id.value}: {' '.join(told)}" if told else notice.id.value


def _plain(text: str) -> str:
    """One line, whatever somebody typed."""
    return "".join(char if char.isprintable() else " " for char in text)
