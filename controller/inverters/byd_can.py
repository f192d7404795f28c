"""BYD Battery-Box Premium over CAN, as Sungrow, GoodWe and Deye hybrids expect it (500 kbit/s; the inverter begins).

Source of every row: byd_can.dbc beside this file; checked against a recorded HVM 8.3 in
tests/inverters/test_byd_can.py.

The battery is silent until an inverter is heard. While a number that is told is unknown, 0x110 says 0 A and everything
else is left out; when that lasts, the silence itself makes the inverter let go of the battery (within about 30 s).
An unknown SoH is told as 0 unless a person states it. The protocol has neither a go nor a refusal of the inverter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple

from controller.codec import dbc
from controller.inverters.base import SILENCE, Answer, InverterProtocol
from controller.model.inverter import InverterRequest, InverterStatus, InverterView
from controller.model.settings import NO_OPTIONS, Option, OptionValue
from controller.ports import CanFrame, RegisterWrite
from controller.schedule import Beat, Schedule

TABLES: Final = dbc.load(Path(__file__).with_name("byd_can.dbc"))

LIMITS, ALARM, TEMPERATURES, VALUES, STATE = 0x110, 0x190, 0x210, 0x1D0, 0x150
NAMEPLATE, SERIAL, MAKER, MODEL = 0x250, 0x290, 0x2D0, 0x3D0
MEASURED, SOC, TIME, BRAND, UNEXPLAINED = 0x091, 0x0D1, 0x111, 0x151, 0x191

CYCLE: Mapping[int, Beat] = MappingProxyType(
    {
        LIMITS: Beat(1_900),
        ALARM: Beat(59_900, 500),
        TEMPERATURES: Beat(9_900, 1_000),
        VALUES: Beat(9_900, 1_500),
        STATE: Beat(9_900, 2_000),
    }
)
"""Order and distance of the recorded battery, each 0.1 s earlier than its 2, 10 and 60 s (can_byd_sim.py)."""

BLIND_MS: Final = 10_000
"""How long 0 A are told while numbers are unknown, before we fall silent."""
MEASURED_MS: Final = 25_000
"""How long the voltage of 0x091 counts: two of its rounds of 10 s and a half."""
LINK_MAX_V: Final = 1_500.0
LARGEST_A: Final = 3_276.7
"""What fits the field, signed or not."""
CREDIBLE: Final = 1e9
"""No number that is told is larger; NaN and infinity are not either."""
NOT_READY, READY = 2, 3


class Profile(NamedTuple):
    """What differs between inverters.

    brand: what it says in 0x151, empty where that is not known. max_a: no more is offered. margin_v: how far the told
    voltage limits lie inside the pack's. stops_by_soc: it ignores 0 A, and stops at an SoC of 100 or 0 % only.
    """

    brand: str
    max_a: float = LARGEST_A
    margin_v: float = 2.0
    stops_by_soc: bool = False


PROFILES: Mapping[str, Profile] = MappingProxyType(
    {
        "sungrow": Profile("SUNGROW"),
        "goodwe": Profile("GOODWE"),
        "deye": Profile("", max_a=150.0, stops_by_soc=True),
    }
)
"""dalathegreat/Battery-Emulator: wiki pages of each, issues 552 (Sungrow), 28 (GoodWe), 1534 (Deye)."""

OPTIONS = (
    Option("profile", "sungrow", "Which inverter listens.", choices=tuple(PROFILES), yours=True),
    Option("soh_pct", 0.0, "State of health told while the pack does not say its own.", unit="%", low=0, high=100),
)


def known(view: InverterView) -> bool:
    """Every number that is told is there. Zero volts is a pack not measured."""
    needed = (
        view.soc_pct, view.energy_full_wh, view.pack_voltage_v, view.current_a, view.temp_min_c, view.temp_max_c,
        view.design_max_v, view.design_min_v,
    )  # fmt: skip
    return all(value is not None and abs(value) <= CREDIBLE for value in needed) and number(view.pack_voltage_v) > 0


def offered_a(view: InverterView, limit_w: float, profile: Profile) -> float:
    """A power limit as a current at the pack's voltage: 0 unless ACTIVE and everything known, never negative."""
    if view.status is not InverterStatus.ACTIVE or not math.isfinite(limit_w) or not known(view):
        return 0.0
    return min(max(0.0, limit_w) / number(view.pack_voltage_v), profile.max_a)


def limits(view: InverterView, profile: Profile) -> dict[str, float]:
    """0x110. The highest voltage is rounded down, the lowest up."""
    return {
        "highest_voltage_v": max(0.0, number(view.design_max_v) - profile.margin_v),
        "lowest_voltage_v": math.ceil(10 * (number(view.design_min_v) + profile.margin_v) - dbc.NOISE) / 10,
        "max_discharge_a": offered_a(view, view.max_discharge_w, profile),
        "max_charge_a": offered_a(view, view.max_charge_w, profile),
    }


def state(view: InverterView, profile: Profile) -> dict[str, float]:
    """0x150. Charge in Ah is energy over the middle of the voltage window, so that the full one stays what it is."""
    middle_v = (number(view.design_max_v) + number(view.design_min_v)) / 2
    full_ah = number(view.energy_full_wh) / middle_v if middle_v >= 1 else 0.0
    soc_pct = min(max(0.0, number(view.soc_pct)), 100.0)
    return {
        "soc_pct": soc_pct,
        "soh_pct": min(max(0.0, number(view.soh_pct)), 100.0),
        "charge_remaining_ah": full_ah * soc_pct / 100,
        "charge_full_ah": full_ah,
    }


def stopping_soc_pct(view: InverterView, profile: Profile, told_pct: float | None) -> float | None:
    """The SoC to tell in place of the true one where only that stops the inverter; None where the true one is told.

    100 % for "no charging", 0 % for "no discharging". For neither what was told before (told_pct), since the other end
    would let it do what it was just kept from; else the end that is nearer.
    """
    if not profile.stops_by_soc:
        return None
    refused = Refusals.of(view, profile)
    if refused.charge and refused.discharge:
        return told_pct if told_pct is not None else 100.0 if number(view.soc_pct) >= 50.0 else 0.0
    return 100.0 if refused.charge else 0.0 if refused.discharge else None


def values(view: InverterView, profile: Profile) -> dict[str, float]:
    """0x1D0. Of the two temperatures their mean."""
    return {
        "pack_voltage_v": number(view.pack_voltage_v),
        "current_a": number(view.current_a),
        "temp_c": (number(view.temp_min_c) + number(view.temp_max_c)) / 2,
        "ready": READY if view.status is InverterStatus.ACTIVE else NOT_READY,
        "always_8": 8,
    }


def temperatures(view: InverterView, profile: Profile) -> dict[str, float]:
    return {"temp_max_c": number(view.temp_max_c), "temp_min_c": number(view.temp_min_c)}


def alarm(view: InverterView, profile: Profile) -> dict[str, float]:
    """0x190 says nothing anybody could read; these are the bytes of BYD-CAN.cpp in dalathegreat/Battery-Emulator."""
    return {"alarm": 0x0000_0300, "alarm_count": 0}


TOLD: Mapping[int, tuple[str, Callable[[InverterView, Profile], dict[str, float]]]] = MappingProxyType(
    {
        LIMITS: ("BYD_limits", limits),
        ALARM: ("BYD_alarm", alarm),
        TEMPERATURES: ("BYD_temperatures", temperatures),
        VALUES: ("BYD_values", values),
        STATE: ("BYD_state", state),
    }
)
"""What each cyclic frame says."""

MODEL_NAME: Final = "Battery-Box Premium HVS"


def identity(view: InverterView) -> tuple[CanFrame, ...]:
    """Who we are, in the order the inverter is told it."""
    nameplate = {
        "firmware": 0x0329, "always_102": 0x66, "energy_full_wh": number(view.energy_full_wh), "modules": 2,
        "family": 9,
    }  # fmt: skip
    pieces = [MODEL_NAME[at : at + 7] for at in range(0, len(MODEL_NAME), 7)]
    return (
        CanFrame(NAMEPLATE, TABLES.encode("BYD_nameplate", nameplate)),
        CanFrame(SERIAL, TABLES.encode("BYD_serial", {"serial": 0x063710D9})),
        CanFrame(MAKER, TABLES.encode("BYD_maker", {"maker_text": _packed("BYD")})),
        *(
            CanFrame(MODEL, TABLES.encode("BYD_model", {"fragment": n, "model_text": _packed(piece)}))
            for n, piece in enumerate(pieces)
        ),
    )


def _packed(text: str) -> int:
    """Seven characters as the number they are in a frame."""
    return int.from_bytes(text.encode("ascii").ljust(7, b"\0"), "big")


def text_of(number: float) -> str:
    return int(number).to_bytes(7, "big").rstrip(b"\0").decode("ascii", "replace")


def number(value: float | None) -> float:
    """The number; 0 for unknown, which `known` keeps from being told."""
    return value if value is not None and abs(value) <= CREDIBLE else 0.0


def nothing(amps: float) -> bool:
    """It is told as 0."""
    return amps < 0.1 - dbc.NOISE


class Refusals(NamedTuple):
    """What the inverter must not do; a new one is told at once, an end of one in its turn."""

    charge: bool = False
    discharge: bool = False
    connect: bool = False

    @classmethod
    def of(cls, view: InverterView, profile: Profile) -> Refusals:
        return cls(
            charge=nothing(offered_a(view, view.max_charge_w, profile)),
            discharge=nothing(offered_a(view, view.max_discharge_w, profile)),
            connect=view.status is not InverterStatus.ACTIVE,
        )

    def beyond(self, told: Refusals) -> bool:
        return any(now and not before for now, before in zip(self, told, strict=True))


NOTHING_REFUSED: Final = Refusals()
PRESSING: Final = (LIMITS, VALUES, STATE)
"""Sent at once when there is a new refusal."""


@dataclass(frozen=True, slots=True)
class BydCanState:
    """What the inverter said and when, and what is on its way to it.

    brand: its name from 0x151. asked: it waits for our identity. soc_pct: what it was told in place of the true one
    to stop it, None while it was not. volts: what it measured last, at volts_at_ms; None when that cannot be. schedule:
    None while we are silent. told: the refusals it knows of. waiting: frames to come in the next ticks. blind_since_ms:
    since when a number is unknown, None while none is.
    """

    profile: Profile
    soh_pct: float = 0.0
    heard_at_ms: int | None = None
    brand: str = ""
    asked: bool = False
    soc_pct: float | None = None
    volts: float | None = None
    volts_at_ms: int = 0
    schedule: Schedule | None = None
    told: Refusals = NOTHING_REFUSED
    waiting: tuple[CanFrame, ...] = ()
    blind_since_ms: int | None = None

    def receive(
        self, frames: Sequence[CanFrame], writes: Sequence[RegisterWrite], polls: int, now_ms: int
    ) -> BydCanState:
        """Take in frames. Foreign ids, 29-bit ids and other lengths than 8 change nothing."""
        heard = self
        for frame in frames:
            if frame.id in PROTOCOL.rx and not frame.extended and len(frame.data) == 8:
                heard = heard._take(frame, now_ms)
        return heard

    def _take(self, frame: CanFrame, now_ms: int) -> BydCanState:
        heard = replace(self, heard_at_ms=now_ms)
        if frame.id == MEASURED:
            volts = number(TABLES.explain(MEASURED, frame.data)[0][1]["battery_voltage_v"])
            return replace(heard, volts=volts if 0 < volts <= LINK_MAX_V else None, volts_at_ms=now_ms)
        if frame.id != BRAND:
            return heard
        if frame.data[0] == 0:
            heard = replace(heard, brand=text_of(int.from_bytes(frame.data[1:], "big")))
        return replace(heard, asked=True) if frame.data[0] & 1 else heard

    def request(self, now_ms: int) -> InverterRequest:
        """It never says go. Its measurement of the link counts for MEASURED_MS; 0 V there is none."""
        if self.volts is None or now_ms - self.volts_at_ms > MEASURED_MS:
            return InverterRequest(heard_at_ms=self.heard_at_ms)
        return InverterRequest(
            heard_at_ms=self.heard_at_ms, link_voltage_v=self.volts, link_at_ms=self.volts_at_ms,
            battery_voltage_v=self.volts,
        )  # fmt: skip

    def answer(self, view: InverterView, now_ms: int) -> tuple[BydCanState, Answer]:
        """The frames due. Never two of one id in a tick: a CAN port keeps only the newest of them."""
        if self.heard_at_ms is None:
            return self, SILENCE
        awake = self._awake(known(view), now_ms)
        if awake.schedule is None:
            return awake, SILENCE
        schedule, due = awake.schedule.tick(now_ms)
        refused = Refusals.of(view, self.profile)
        pressing = refused.beyond(awake.told)
        ids = [can_id for n, can_id in enumerate(CYCLE) if n in due or (pressing and can_id in PRESSING)]
        waiting, asked = awake.waiting, awake.asked
        soc_pct = stopping_soc_pct(view, self.profile, self.soc_pct)
        if awake.blind_since_ms is not None:
            ids = [can_id for can_id in ids if can_id == LIMITS]
            refused = refused._replace(connect=awake.told.connect)
        elif asked and not waiting:
            waiting, asked = identity(view), False
        if not ids and not waiting and schedule is awake.schedule:
            return awake, SILENCE
        now, later = next_frames(waiting)
        after = replace(awake, schedule=schedule, waiting=later, asked=asked, told=refused, soc_pct=soc_pct)
        return after, Answer((*now, *after._said(ids, view)))

    def _awake(self, sees: bool, now_ms: int) -> BydCanState:
        """Begin to speak once everything is known, and stop when it has not been for BLIND_MS."""
        blind_since_ms = None if sees else now_ms if self.blind_since_ms is None else self.blind_since_ms
        schedule, waiting, asked = self.schedule, self.waiting, self.asked
        if blind_since_ms is not None and now_ms - blind_since_ms >= BLIND_MS:
            schedule, waiting = None, ()
        elif sees and schedule is None:
            schedule, asked = Schedule(tuple(CYCLE.values())), True
        if (blind_since_ms, schedule, asked) == (self.blind_since_ms, self.schedule, self.asked):
            return self
        return replace(self, blind_since_ms=blind_since_ms, schedule=schedule, waiting=waiting, asked=asked)

    def image(self, view: InverterView) -> tuple[CanFrame, ...]:
        """Identity and every cyclic frame; nothing while a number is unknown."""
        if not known(view):
            return ()
        shown = replace(self, soc_pct=stopping_soc_pct(view, self.profile, self.soc_pct))
        return (*identity(view), *shown._said(tuple(CYCLE), view))

    def _said(self, ids: Sequence[int], view: InverterView) -> tuple[CanFrame, ...]:
        if view.soh_pct is None:
            view = view._replace(soh_pct=self.soh_pct)
        instead = {STATE: {"soc_pct": self.soc_pct}} if self.soc_pct is not None else {}
        return tuple(
            CanFrame(can_id, TABLES.encode(message, says(view, self.profile) | instead.get(can_id, {})))
            for can_id in ids
            for message, says in (TOLD[can_id],)
        )


def next_frames(waiting: tuple[CanFrame, ...]) -> tuple[tuple[CanFrame, ...], tuple[CanFrame, ...]]:
    """What of the frames that wait can go now, and what comes later: from the first id that repeats itself."""
    seen: set[int] = set()
    for n, frame in enumerate(waiting):
        if frame.id in seen:
            return waiting[:n], waiting[n:]
        seen.add(frame.id)
    return waiting, ()


class BydCan(InverterProtocol):
    """The row of the registry."""

    def start(self, options: Mapping[str, OptionValue] = NO_OPTIONS) -> BydCanState:
        chosen = self.chosen(options)
        return BydCanState(PROFILES[str(chosen["profile"])], float(chosen["soh_pct"]))

    def explain_frame(self, frame: CanFrame) -> tuple[tuple[str, Mapping[str, float | str | None]], ...]:
        if frame.extended:
            return ()
        return tuple(
            (message, {n: text_of(v) if v is not None and n.endswith("_text") else v for n, v in said.items()})
            for message, said in TABLES.explain(frame.id, frame.data)
        )


UNCERTAIN = (
    "Whether an inverter stops on a 2 in byte 6 of 0x1D0: it does on the twin id of SMA.",
    "Whether a Sungrow heeds 0x110 in its forced mode: it seems not to.",
    "The scale and the sign of the current in 0x091, 0.1 or 0.01 A; only its voltage is used.",
    "0x190, which a real battery counts in, bytes 3, 6 and 7 of 0x250, and 0x290: sent as emulators do.",
    "Whether inverters check the identity, and when each of them gives a silent battery up; users report 30 s.",
    "0x191, and whether 0x111 is Unix time: both only count as a sign of life.",
)
RECORDINGS = {
    "byd-sungrow-discharge-30min.log": "josiahhiggs/LeafBESS",
    "goodwe-hello.log": "dalathegreat/Battery-Emulator issue 28",
}

PROTOCOL = BydCan(
    name="byd_can",
    title="Sungrow, GoodWe, Deye (BYD Battery-Box Premium over CAN)",
    asks=False,
    zero_ms=35_000,
    silent_ms=180_000,
    follow_ms=5_000,
    max_w=50_000.0,
    offers_before_go=False,
    tx=frozenset({*CYCLE, NAMEPLATE, SERIAL, MAKER, MODEL}),
    options=OPTIONS,
    bitrate=500_000,
    rx=frozenset({MEASURED, SOC, TIME, BRAND, UNEXPLAINED}),
    ignores_zero=frozenset(name for name, profile in PROFILES.items() if profile.stops_by_soc),
)
