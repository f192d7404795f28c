"""The gateway's life: residents that fail alone, a clean end, and what systemd is told."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from controller.gateway.hub import Hub
from controller.gateway.serve import AGAIN_S, HEALTHY_S, HubLimits, Journal, Resident, kept, serve
from drivers.systemd import Systemd
from tests.gateway import statuses
from tests.gateway.test_link import scenario, soon
from tests.live.world import CONFIG


def test_a_resident_that_crashes_starts_again_and_takes_nobody_down():
    async def story() -> None:
        stop, steady, said = asyncio.Event(), asyncio.Event(), []
        crashes = 0

        async def crashing() -> None:
            nonlocal crashes
            crashes += 1
            raise RuntimeError("boom")

        async def steadily() -> None:
            try:
                await asyncio.sleep(3600)
            finally:
                steady.set()

        async def twice_then_stop(_: float) -> None:
            if crashes >= 3:
                assert not steady.is_set()
                stop.set()
                await asyncio.sleep(3600)

        residents = [
            Resident("crashing", lambda: kept(Resident("c", crashing), said.append, pause=twice_then_stop)),
            Resident("steady", steadily),
        ]
        await serve(residents, Hub(), Systemd({}), stop, said.append)
        assert crashes == 3
        assert steady.is_set()
        assert "RuntimeError: boom" in said[0]
        assert "Traceback" in said[0]

    scenario(story)


def test_a_resident_that_is_cancelled_from_inside_starts_again_as_well():
    async def story() -> None:
        lives = 0

        async def cancelling_itself() -> None:
            nonlocal lives
            lives += 1
            if lives > 2:
                await asyncio.sleep(3600)
            raise asyncio.CancelledError

        task = asyncio.create_task(
            kept(Resident("x", cancelling_itself), lambda _: None, pause=lambda _: asyncio.sleep(0))
        )
        await soon(lambda: lives == 3)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    scenario(story)


def test_a_resident_that_swallows_its_cancellation_ends_all_the_same():
    async def story() -> None:
        began = asyncio.Event()

        async def deaf() -> None:
            began.set()
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(3600)

        task = asyncio.create_task(kept(Resident("x", deaf), lambda _: None))
        await began.wait()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    scenario(story)


def test_it_is_started_again_later_and_later_but_soon_after_a_good_while():
    async def story() -> None:
        waits: list[float] = []
        clock = [0.0]

        async def ending() -> None:
            clock[0] += HEALTHY_S if len(waits) == 8 else 1.0

        async def pause(seconds: float) -> None:
            waits.append(seconds)
            if len(waits) == 10:
                raise asyncio.CancelledError

        with pytest.raises(asyncio.CancelledError):
            await kept(Resident("x", ending), lambda _: None, pause=pause, now_s=lambda: clock[0])
        assert waits[:8] == [*AGAIN_S[1:], AGAIN_S[-1], AGAIN_S[-1], AGAIN_S[-1]]
        assert waits[8:] == [AGAIN_S[0], AGAIN_S[1]]

    scenario(story)


def test_systemd_hears_ready_alive_and_stopping(tmp_path: Path):
    async def story() -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ears:
            ears.bind(str(tmp_path / "notify"))
            ears.setblocking(False)
            systemd = Systemd({"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "30000000"})
            stop = asyncio.Event()
            loop = asyncio.get_running_loop()
            heard: list[str] = []
            task = asyncio.create_task(serve([], Hub(), systemd, stop, lambda _: None))
            while "STOPPING=1" not in heard:
                heard.append((await loop.sock_recv(ears, 4096)).decode())
                if "WATCHDOG=1" in heard:
                    stop.set()
            await task
            assert heard[0] == "READY=1"

    scenario(story)


def test_the_journal_says_the_same_once_a_minute_and_forgets(capsys: pytest.CaptureFixture[str]):
    clock = [0.0]
    journal = Journal(lambda: clock[0])
    for second in (0, 1, 59, 61):
        clock[0] = second
        journal("gone")
    assert capsys.readouterr().err == "gone\ngone\n"
    for number in range(1000):
        journal(f"line {number}")
    assert len(journal._said) == 100


def test_the_dispatcher_gets_controls_limits_with_their_age():
    async def story() -> None:
        hub = Hub(now_s=lambda: 12.0)
        assert await HubLimits(hub).newest() is None
        hub.publish(statuses.running())
        live = await HubLimits(hub).newest()
        assert live is not None
        assert (live.charge_w, live.running, live.fault, live.at_s) == (5000, True, False, 12.0)
        hub.lose("gone")
        assert await HubLimits(hub).newest() is None

    scenario(story)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_with_0_when_it_is_told_to(tmp_path: Path, number: signal.Signals):
    """No control process, no broker: it runs all the same."""
    config = tmp_path / "controller.toml"
    config.write_text(CONFIG)
    command = [sys.executable, "-m", "controller", "gateway", "--config", str(config),
               "--socket", str(tmp_path / "none.sock"), "--gateway-socket", str(tmp_path / "gateway.sock")]  # fmt: skip
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ears:
        ears.bind(str(tmp_path / "notify"))
        ears.settimeout(60)
        environ = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify"), "STATE_DIRECTORY": str(tmp_path)}
        with subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True) as process:
            assert ears.recv(4096) == b"READY=1"
            process.send_signal(number)
            _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")


def test_a_missing_config_is_one_line_and_exit_2(tmp_path: Path):
    command = [sys.executable, "-m", "controller", "gateway", "--config", str(tmp_path / "none.toml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "none.toml" in done.stderr
