"""Statuses as the real control process tells them: a pack model and a Gen24 in simulated time."""

from __future__ import annotations

import copy
import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from controller.model.events import Event
from controller.ports import Record
from statecharts.supervisor import State
from tests.controller.live_rig import Rig

Status = dict[str, Any]


def running() -> Status:
    """RUNNING for a while, all cells seen."""
    return copy.deepcopy(_running())


def held() -> Status:
    """In FAULT, held by an interlock that was open before the start."""
    return copy.deepcopy(_held())


def unheard() -> Status:
    """Just started: nothing of the pack is known yet."""
    return copy.deepcopy(_unheard())


def later(status: Status, seconds: float, *events: tuple[str, str]) -> Status:
    """The same so much later, after these events (id, detail)."""
    now_s = status["t_ms"] / 1000 + seconds
    told = [{"t_s": now_s, "id": name, "severity": "info", "detail": detail} for name, detail in events]
    return {**status, "t_ms": round(now_s * 1000), "events": [*status["events"], *told][-50:]}


def _of(rig: Rig) -> Status:
    now_ms = rig.clock.now_ms()
    rig.link.close()
    told = json.loads(json.dumps(rig.live.status(now_ms)))
    assert isinstance(told, dict)
    return told


@cache
def _running() -> Status:
    with tempfile.TemporaryDirectory() as folder:
        return _of(Rig(Path(folder)).until(State.STANDBY).running().turns(4_000))


@cache
def _held() -> Status:
    with tempfile.TemporaryDirectory() as folder:
        rig = Rig(Path(folder), record=Record(latched=(Event.HVIL_OPEN.value,))).turns(500)
        return _of(rig)


@cache
def _unheard() -> Status:
    with tempfile.TemporaryDirectory() as folder:
        return _of(Rig(Path(folder)).turns(1))
