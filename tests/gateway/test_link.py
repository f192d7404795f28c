"""The gateway's end of the control socket: what it keeps, what it hands on, and that it survives whatever is there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from controller.gateway.hub import COMMANDS_MAX, Answer, Hub
from controller.gateway.link import ControlLink
from controller.messages import line_of
from statecharts.supervisor import State
from tests.controller.live_rig import Rig
from tests.gateway import statuses

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def soon(true: Callable[[], object]) -> None:
    """Until it is so; the whole test has its time."""
    while not true():
        await asyncio.sleep(0.005)


def scenario(story: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await story()

    asyncio.run(bounded())


@asynccontextmanager
async def linked(path: Path, **options: Any) -> AsyncIterator[Hub]:
    """A link that does not wait before it connects again."""
    hub = Hub()
    task = asyncio.create_task(ControlLink(path, hub, pause=lambda _: asyncio.sleep(0.01), **options).run())
    try:
        yield hub
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.wait([task])


@asynccontextmanager
async def served(path: Path, talk: Talk) -> AsyncIterator[None]:
    """Something at control's place."""
    server = await asyncio.start_unix_server(talk, path)
    try:
        yield
    finally:
        server.close()
        path.unlink(missing_ok=True)


def says(*lines: bytes, stays: bool = True) -> Talk:
    """Answers every connection with these, whatever it is asked."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        for line in lines:
            writer.write(line)
            await asyncio.sleep(0.005)
        if stays:
            await reader.read()
        writer.close()

    return talk


@asynccontextmanager
async def controlled(folder: Path) -> AsyncIterator[Rig]:
    """The real Live and Link, in simulated time as fast as it goes."""
    rig = Rig(folder)

    async def turn() -> None:
        while True:
            rig.turns(5)
            await asyncio.sleep(0)

    task = asyncio.create_task(turn())
    try:
        yield rig
    finally:
        task.cancel()
        await asyncio.wait([task])
        rig.link.close()
        rig.path.unlink(missing_ok=True)


STATUS = line_of({"status": statuses.unheard()})


# --- with the real control process ---


def test_the_newest_status_is_kept_with_its_age_and_its_time(tmp_path: Path):
    async def story() -> None:
        async with controlled(tmp_path) as rig, linked(rig.path, watch_ms=200) as hub:
            await soon(lambda: hub.newest and hub.newest.status["state"] == "STANDBY")
            assert hub.newest is not None
            assert hub.lost == ""
            assert 0 <= (hub.age_s() or 0) < 5
            assert hub.newest.stamp.utc_s > 1_700_000_000

    scenario(story)


def test_a_command_reaches_the_core_and_its_answer_comes_back(tmp_path: Path):
    async def story() -> None:
        async with controlled(tmp_path) as rig, linked(rig.path, watch_ms=200) as hub:
            await soon(lambda: hub.newest and hub.newest.status["state"] == "STANDBY")
            answer = await hub.command({"do": "enable"})
            assert answer.done
            assert answer.told["state"] == "STANDBY"
            await soon(lambda: rig.state is State.RUNNING)
            refused = await hub.command({"do": "acknowledge", "name": "hvil-open"})
            assert refused == Answer(False, "hvil-open is not held", refused.told)
            wrong = await hub.command({"do": "cap", "charge_w": -5, "for_s": 60})
            assert wrong.why.startswith("charge_w: must be a number")

    scenario(story)


def test_what_needs_a_person_at_the_machine_is_refused_to_the_gateway(tmp_path: Path):
    async def story() -> None:
        async with controlled(tmp_path) as rig, linked(rig.path, watch_ms=200) as hub:
            rig.link._may_unlock = lambda peer: False
            answer = await hub.command({"do": "unlock", "inspected": "everything"})
            assert not answer.done
            assert "a person at a terminal" in answer.why

    scenario(story)


def test_a_control_process_that_restarts_is_found_again(tmp_path: Path):
    async def story() -> None:
        async with linked(tmp_path / "control.sock", watch_ms=200) as hub:
            await soon(lambda: "no controller answers" in hub.lost)
            for _ in range(3):
                async with controlled(tmp_path):
                    await soon(lambda: hub.newest)
                await soon(lambda: not hub.newest)
                assert not (await hub.command({"do": "stop"})).done

    scenario(story)


# --- with something else in its place ---


def test_a_status_in_pieces_is_read_when_it_is_whole(tmp_path: Path):
    async def story() -> None:
        pieces = [STATUS[at : at + 997] for at in range(0, len(STATUS), 997)]
        async with served(tmp_path / "s", says(*pieces)), linked(tmp_path / "s") as hub:
            await soon(lambda: hub.newest)
            assert hub.newest is not None
            assert hub.newest.status == statuses.unheard()

    scenario(story)


@pytest.mark.parametrize(("line", "why"), [
    (STATUS[:500], "has hung up"),
    (b"", "has hung up"),
    (b"hello\n", "this is no controller"),
    (b"[1]\n", "this is no controller"),
    (b"[" * 20_000 + b"\n", "this is no controller"),
    (b'{"status": {}}\n', "this is no controller"),
    (b"x" * 1_500_000, "this is no controller"),
    (line_of({"done": False, "field": "", "why": "too many connections"}), "too many connections"),
    (line_of({"status": [1]}), "no status"),
    (STATUS.replace(b'"version": 1', b'"version": 2', 1),
     "speaks version 2, this gateway 1; install one version of both"),
    (line_of({"status": {**statuses.unheard(), "schema": 2}}),
     "has schema 2, this gateway reads 1; install one version of both"),
])  # fmt: skip
def test_what_is_no_status_is_one_sentence_and_tried_again(tmp_path: Path, line: bytes, why: str):
    async def story() -> None:
        async with linked(tmp_path / "s") as hub:
            async with served(tmp_path / "s", says(line, stays=False)):
                await soon(lambda: why in hub.lost)
                assert hub.newest is None
                assert "\n" not in hub.lost
            async with served(tmp_path / "s", says(STATUS)):
                await soon(lambda: hub.newest)

    scenario(story)


def test_control_that_falls_silent_is_lost(tmp_path: Path):
    async def story() -> None:
        async with served(tmp_path / "s", says(STATUS)), linked(tmp_path / "s", silent_s=0.1) as hub:
            await soon(lambda: hub.newest)
            await soon(lambda: "does not answer" in hub.lost)
            assert hub.newest is None

    scenario(story)


def test_a_command_that_is_not_answered_does_not_wait_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("controller.gateway.link.ANSWER_S", 0.05)

    async def story() -> None:
        async with served(tmp_path / "s", says()), linked(tmp_path / "s") as hub:
            answer = await hub.command({"do": "stop"})
            assert not answer.done
            assert "does not answer" in answer.why

    scenario(story)


def test_so_many_commands_are_under_way_at_most(tmp_path: Path):
    async def story() -> None:
        async with served(tmp_path / "s", says()), linked(tmp_path / "s") as hub:
            under_way = [asyncio.create_task(hub.command({"do": "stop"})) for _ in range(COMMANDS_MAX)]
            await asyncio.sleep(0)
            assert await hub.command({"do": "stop"}) == Answer(False, "too many commands at once")
            for task in under_way:
                task.cancel()
            await asyncio.wait(under_way)

    scenario(story)


# --- the hub ---


def test_events_are_numbered_once_however_often_control_tells_them():
    hub = Hub()
    status = statuses.running()
    hub.publish(status)
    known = len(hub.happened)
    assert known == len(status["events"])
    hub.publish(statuses.later(status, 1))
    hub.publish(statuses.later(status, 2, ("hvil-open", "a"), ("hvil-open", "a")))
    assert [(one.number, one.detail) for one in hub.since(known)] == [(known + 1, "a"), (known + 2, "a")]


def test_the_same_thing_twice_in_one_tick_is_two_events_however_they_are_told():
    hub = Hub()
    status = {**statuses.running(), "events": []}
    twice = statuses.later(status, 1, ("hvil-open", "a"), ("hvil-open", "a"))
    hub.publish({**twice, "events": twice["events"][:1]})
    hub.publish(twice)
    assert [one.detail for one in hub.happened] == ["a", "a"]


def test_an_event_is_dated_by_its_age_in_the_status():
    hub = Hub()
    status = statuses.later(statuses.later(statuses.running(), 1, ("hvil-open", "a")), 30)
    hub.publish(status)
    assert hub.newest is not None
    assert hub.happened[-1].stamp.utc_s == pytest.approx(hub.newest.stamp.utc_s - 30, abs=0.01)


def test_events_of_a_restarted_control_process_are_new():
    hub = Hub()
    hub.publish(statuses.later(statuses.running(), 100, ("started", "one")))
    count = len(hub.happened)
    fresh = {**statuses.later(statuses.running(), 200, ("started", "two"))}
    fresh["events"] = fresh["events"][-1:]
    hub.publish(fresh)
    assert [one.detail for one in hub.since(count)] == ["two"]


def test_what_happened_is_bounded():
    hub = Hub()
    status = statuses.running()
    for second in range(3000):
        status = statuses.later(status, 1, ("hvil-open", str(second)))
        hub.publish(status)
    assert len(hub.happened) == hub.happened.maxlen == 2000
    assert hub.happened[-1].detail == "2999"


def test_a_loss_during_other_work_is_noticed_afterwards():
    async def story() -> None:
        hub = Hub()
        hub.publish(statuses.running())
        seen = await hub.changed(0)
        hub.lose("gone")
        assert await hub.changed(seen) > seen
        assert (hub.newest, hub.lost, hub.age_s()) == (None, "gone", None)

    scenario(story)


def test_before_control_is_heard_a_command_says_so():
    async def story() -> None:
        answer = await Hub().command({"do": "stop"})
        assert not answer.done
        assert "has not been heard yet" in answer.why

    scenario(story)


def test_the_status_of_a_test_is_what_control_tells():
    """The helper of these tests goes through the same JSON."""
    assert json.loads(STATUS)["status"] == statuses.unheard()
