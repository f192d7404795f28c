"""The control socket: who may say what, and how much of it. Polled by the loop in the time a tick leaves over.

Nothing here waits. Each poll does a bounded amount of work, each client has at most one unanswered message, a line is
at most LINE_MAX long, and a status that is not taken in time is dropped. So no client, slow, dead or hostile, is felt
by the control: at most one command reaches the core in a tick.

`unlock` and `recovery-charge` need a person at the machine. The kernel says who is at the other end (SO_PEERCRED):
root, or the user the controller itself runs as, and with a controlling terminal. The gateway fails both ways: as a unit
it has a user of its own, as our child it has no terminal.
"""

from __future__ import annotations

import os
import select
import socket
import stat
import struct
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Final, NamedTuple

from controller.messages import LINE_MAX, Ask, MessageError, Reach, line_of, parse
from controller.ports import PortError

CLIENTS_MAX, CLIENTS_PER_USER = 24, 8
EVENTS_A_POLL: Final = 4
LINES_A_POLL: Final = 2
CHUNK: Final = 4096
IDLE_MS, STALLED_MS, SWEEP_MS = 30_000, 10_000, 1000
SOCKET_MODE: Final = 0o660
_CREDENTIALS = struct.Struct("3i")
_TTY_FIELD = 4


class Peer(NamedTuple):
    """The process at the other end, as the kernel named it when it connected."""

    pid: int
    uid: int

    def __str__(self) -> str:
        return f"user {self.uid}, process {self.pid}"


class Owed(Enum):
    """What a client waits for; nothing more is read from it meanwhile."""

    NOTHING = ""
    ANSWER = "answer"
    STATUS = "status"


@dataclass(eq=False)
class Client:
    """One connection. asked_ms: when its last message came. owed: what its unanswered message waits for.

    ended: it says nothing more. every_ms: it watches the status this often, None when it does not; due_ms: when it gets
    the next one, None for never. stalled_ms: since when it does not take what it is sent.
    """

    socket: socket.socket
    peer: Peer
    asked_ms: int
    inbox: bytearray = field(default_factory=bytearray)
    outbox: bytearray = field(default_factory=bytearray)
    stalled_ms: int | None = None
    owed: Owed = Owed.NOTHING
    ended: bool = False
    every_ms: int | None = None
    due_ms: int | None = None
    listens_for: int = 0


class Asked(NamedTuple):
    """A command somebody may give, and whom to answer."""

    ask: Ask
    client: Client

    def __str__(self) -> str:
        command, said = self.ask.command, f' "{self.ask.said}"' if self.ask.said else ""
        by = f"{self.ask.by} through {self.client.peer}" if self.ask.by else str(self.client.peer)
        if command is None:
            return f"{self.ask.do} by {by}"
        caps = "".join(
            f" {name} {watts:g} W" for name, watts in (("charge", command.charge_w), ("discharge", command.discharge_w))
            if watts is not None
        )  # fmt: skip
        lasting = f" for {command.for_ms / 1000:g} s" if command.for_ms else ""
        named = f" {command.name}" if command.name else ""
        return f"{self.ask.do}{named}{caps}{lasting}{said} by {by}"


def at_a_terminal(pid: int) -> bool:
    """Whether that process has a controlling terminal (tty_nr in proc_pid_stat(5)); False when it is gone."""
    try:
        about = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return False
    fields = about.rpartition(")")[2].split()
    return len(fields) > _TTY_FIELD and fields[_TTY_FIELD] != "0"


def listening(path: Path) -> socket.socket:
    """A socket at `path` for owner and group. What a dead process left there is replaced. Raises PortError."""
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    mask = os.umask(0o777 & ~SOCKET_MODE)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not stat.S_ISSOCK(path.stat().st_mode):
            raise PortError(f"{path} is there and is no socket")
        path.unlink(missing_ok=True)
        server.bind(str(path))
        server.listen(16)
    except OSError as error:
        server.close()
        raise PortError(f"the control socket {path} cannot be made ({error.strerror or error})") from None
    except PortError:
        server.close()
        raise
    finally:
        os.umask(mask)
    server.setblocking(False)
    return server


class Link:
    """All connections. Used by one thread, the loop's."""

    def __init__(self, server: socket.socket, may_unlock: Callable[[Peer], bool] | None = None) -> None:
        self.refused = 0
        self._server, self._may_unlock = server, may_unlock or _is_person_here
        self._clients: dict[int, Client] = {}
        self._lines: deque[Client] = deque()
        self._commands: deque[Asked] = deque()
        self._swept_ms = 0
        self._epoll = select.epoll()
        self._epoll.register(server.fileno(), select.EPOLLIN)

    def poll(self, now_ms: int) -> None:
        """Take in and send off what can be without waiting. Never raises."""
        for handle, events in self._epoll.poll(0, EVENTS_A_POLL):
            if handle == self._server.fileno():
                self._accept(now_ms)
            elif client := self._clients.get(handle):
                self._serve(client, events, now_ms)
        for _ in range(min(LINES_A_POLL, len(self._lines))):
            client = self._lines.popleft()
            try:
                self._read_line(client, now_ms)
            except Exception:  # noqa: BLE001 - whatever was said, only who said it is hung up on
                self.refused += 1
                self._drop(client)
        if now_ms - self._swept_ms >= SWEEP_MS:
            self._swept_ms = now_ms
            self._sweep(now_ms)

    def take(self) -> Asked | None:
        """The next command for the core."""
        return self._commands.popleft() if self._commands else None

    def answer(self, asked: Asked, reply: Mapping[str, Any], now_ms: int) -> None:
        """What became of a command."""
        self._reply(asked.client, reply, now_ms)

    def wanted(self, now_ms: int) -> bool:
        """Is a status due to anybody who can take one?"""
        return any(_due(client, now_ms) for client in self._clients.values())

    def publish(self, status: Mapping[str, Any], now_ms: int) -> None:
        """Hand the status to everybody it is due to. Who has not taken the last one yet misses this one."""
        line = line_of({"status": status})
        for client in [c for c in self._clients.values() if _due(c, now_ms)]:
            client.due_ms = None if client.every_ms is None else now_ms + client.every_ms
            if client.owed is Owed.STATUS:
                client.owed = Owed.NOTHING
            self._send(client, line, now_ms)

    def close(self) -> None:
        for client in list(self._clients.values()):
            self._drop(client)
        self._epoll.close()
        self._server.close()

    # --- one connection ---

    def _accept(self, now_ms: int) -> None:
        with suppress(OSError):
            connection, _ = self._server.accept()
            connection.setblocking(False)
            raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            pid, uid, _gid = _CREDENTIALS.unpack(raw)
            client = Client(connection, Peer(pid, uid), now_ms)
            alike = sum(1 for other in self._clients.values() if other.peer.uid == uid)
            if alike >= CLIENTS_PER_USER or len(self._clients) >= CLIENTS_MAX:
                self.refused += 1
                with suppress(OSError):
                    connection.send(_wrong("", "too many connections"))
                connection.close()
                return
            self._clients[connection.fileno()] = client
            self._epoll.register(connection.fileno(), 0)
            self._listen_for(client)

    def _serve(self, client: Client, events: int, now_ms: int) -> None:
        if events & select.EPOLLIN:
            self._receive(client, now_ms)
        elif events & select.EPOLLOUT:
            self._flush(client, now_ms)
        elif client.owed is Owed.NOTHING:  # it is gone; what it asked for before is still done
            self._drop(client)

    def _receive(self, client: Client, now_ms: int) -> None:
        try:
            data = client.socket.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            self._drop(client)
            return
        client.inbox += data
        client.ended = client.ended or not data
        if b"\n" in client.inbox:
            self._queue(client)
        elif len(client.inbox) >= LINE_MAX:
            client.ended = True
            self._reply(client, {"done": False, "field": "", "why": f"a line is at most {LINE_MAX} bytes"}, now_ms)
        self._listen_for(client)
        self._finish(client)

    def _queue(self, client: Client) -> None:
        """Its next line is read when it is its turn."""
        client.owed = Owed.ANSWER
        self._lines.append(client)

    def _read_line(self, client: Client, now_ms: int) -> None:
        if client.socket.fileno() not in self._clients:
            return
        line, _, rest = bytes(client.inbox).partition(b"\n")
        client.inbox, client.asked_ms = bytearray(rest), now_ms
        try:
            ask = parse(line)
            if ask.reach is Reach.MACHINE and not self._may_unlock(client.peer):
                raise MessageError("do", f"{ask.do} needs a person at a terminal of this machine, with sudo")
        except MessageError as error:
            self.refused += 1
            self._reply(client, {"done": False, "field": error.field, "why": error.why}, now_ms)
            return
        if ask.do in ("status", "watch"):
            client.owed, client.every_ms, client.due_ms = Owed.STATUS, ask.every_ms or None, now_ms
        else:
            self._commands.append(Asked(ask, client))

    def _reply(self, client: Client, reply: Mapping[str, Any], now_ms: int) -> None:
        client.owed = Owed.NOTHING
        self._send(client, line_of(reply), now_ms)

    def _send(self, client: Client, line: bytes, now_ms: int) -> None:
        if client.socket.fileno() not in self._clients:
            return
        client.outbox += line
        self._flush(client, now_ms)

    def _flush(self, client: Client, now_ms: int) -> None:
        try:
            sent = client.socket.send(client.outbox)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._drop(client)
            return
        if sent:
            del client.outbox[:sent]
            client.stalled_ms = None
        if client.outbox and client.stalled_ms is None:
            client.stalled_ms = now_ms
        if not client.outbox and client.owed is Owed.NOTHING and b"\n" in client.inbox:
            self._queue(client)
        self._listen_for(client)
        self._finish(client)

    def _listen_for(self, client: Client) -> None:
        """Nothing is read from whom an answer is owed, or who does not take it."""
        if client.socket.fileno() not in self._clients:
            return
        reads = client.owed is Owed.NOTHING and not client.outbox and not client.ended
        events = (select.EPOLLIN if reads else 0) | (select.EPOLLOUT if client.outbox else 0)
        if events != client.listens_for:
            client.listens_for = events
            self._epoll.modify(client.socket.fileno(), events)

    def _finish(self, client: Client) -> None:
        """Close to whom nothing more is owed and who has nothing more to say."""
        if client.ended and client.owed is Owed.NOTHING and not client.outbox and client.due_ms is None:
            self._drop(client)

    def _sweep(self, now_ms: int) -> None:
        """Drop who keeps a connection and says nothing, or does not take what it asked for."""
        for client in list(self._clients.values()):
            stalled = client.stalled_ms is not None and now_ms - client.stalled_ms >= STALLED_MS
            idle = client.every_ms is None and client.owed is Owed.NOTHING and now_ms - client.asked_ms >= IDLE_MS
            if stalled or idle:
                self._drop(client)

    def _drop(self, client: Client) -> None:
        handle = client.socket.fileno()
        if self._clients.pop(handle, None) is not None:
            self._epoll.unregister(handle)
            client.socket.close()


def _due(client: Client, now_ms: int) -> bool:
    return client.due_ms is not None and now_ms >= client.due_ms and not client.outbox


def _wrong(field: str, why: str) -> bytes:
    return line_of({"done": False, "field": field, "why": why})


def _is_person_here(peer: Peer) -> bool:
    return peer.uid in (0, os.geteuid()) and at_a_terminal(peer.pid)
