"""A controller as a process, started as systemd would start it, and waited for by what it says."""

from __future__ import annotations

import os
import pty
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from controller.client import Client
from tests.live.world import CONFIG

PATIENCE_S = 120.0
ROOT = Path(__file__).parents[2]


class Service:
    """One process. `command` gets the paths of config and socket; the record is kept in the folder `state`.

    heard: what it told systemd. journal: what it wrote to stderr, once it has ended.
    """

    def __init__(self, folder: Path, command: Callable[[Path, Path], Sequence[str]] | None = None) -> None:
        self.folder, self.config, self.socket = folder, folder / "controller.toml", folder / "control.sock"
        self.heard: list[str] = []
        self._command = command or (
            lambda config, control: (sys.executable, "-m", "tests.live.world", str(config), str(control))
        )
        if not self.config.exists():
            self.config.write_text(CONFIG)
        self._ear = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._ear.bind(str(folder / "notify"))
        self._said = threading.Condition()
        threading.Thread(target=self._listen, daemon=True).start()
        self.state = folder / "state"
        self.process: subprocess.Popen[str] | None = None
        self._log = folder / "journal"

    def start(self) -> Self:
        self.begin()
        return self.until_said("READY=1")

    def begin(self) -> Self:
        """Started, and not waited for."""
        environ = {
            **os.environ, "NOTIFY_SOCKET": str(self.folder / "notify"), "WATCHDOG_USEC": "2000000",
            "STATE_DIRECTORY": str(self.state), "PYTHONPATH": str(ROOT),
        }  # fmt: skip
        with self._log.open("a") as log:
            self.process = subprocess.Popen(
                self._command(self.config, self.socket), env=environ, cwd=ROOT, stderr=log, text=True
            )
        return self

    @property
    def journal(self) -> str:
        return self._log.read_text()

    def _listen(self) -> None:
        with suppress(OSError):
            while message := self._ear.recv(10_000).decode():
                with self._said:
                    self.heard.append(message)
                    self._said.notify_all()

    def until_said(self, message: str) -> Self:
        """Until it has told systemd this; an assertion fails when it has ended without."""
        assert self.process is not None
        with self._said:
            while message not in self.heard:
                heard = self._said.wait(1.0)
                assert heard or self.process.poll() is None, self.journal
        return self

    def until(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first status of which this is true."""
        give_up_s = time.monotonic() + PATIENCE_S
        with Client(self.socket, PATIENCE_S) as client:
            for status in client.watch(200):
                if wanted(status):
                    return status
                assert time.monotonic() < give_up_s, (status["state"], status["cause"], status["withheld"])
        raise AssertionError

    def until_state(self, state: str) -> dict[str, Any]:
        return self.until(lambda status: status["state"] == state)

    def signal(self, number: int) -> Self:
        assert self.process is not None
        self.process.send_signal(number)
        return self

    def while_stalled_ms(self, duration_ms: int) -> Self:
        """It is stopped, and the time it does not see goes by."""
        time.sleep(duration_ms / 1000)
        return self

    def ended(self) -> int:
        """Its exit status."""
        assert self.process is not None
        return self.process.wait(PATIENCE_S)

    def controller(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A command of a person without a terminal."""
        command = [sys.executable, "-m", "controller", *words, "--socket", str(self.socket)]
        return subprocess.run(
            command, capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE_S, start_new_session=True, check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip

    def at_a_terminal(self, *words: str) -> int:
        """The same, at a terminal. The exit status."""
        pid, terminal = pty.fork()
        if pid == 0:
            os.chdir(ROOT)
            os.environ["PYTHONPATH"] = str(ROOT)
            os.execv(sys.executable, [sys.executable, "-m", "controller", *words, "--socket", str(self.socket)])
        try:
            while os.read(terminal, 4096):
                pass
        except OSError:  # its end of the terminal is closed
            pass
        os.close(terminal)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._ear.shutdown(socket.SHUT_RDWR)
        self._ear.close()


def second(service: Service) -> Service:
    """Another one with the same config and record, and a socket of its own."""
    (service.folder / "second").mkdir()
    other = Service(service.folder / "second")
    other.state = service.state
    return other


KILL, STOP, TERM, CONT, INT = signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM, signal.SIGCONT, signal.SIGINT
