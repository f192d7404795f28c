"""BYD Battery-Box Premium HV over Modbus RTU, as a Fronius Gen24 expects it (unit 21, 9600 8N1; Gen24 is the master).

Source of every row: protocols/inverters/byd-modbus-rtu.md; checked against recorded answers of a real HVM 11.0 in
tests/inverters/test_byd_modbus.py. Register numbers are document numbers: 301 is address 300 on the wire.

What is unknown is sent as 0 (so is SoH: the Gen24 does not act on it, and 99 % would be made up), and no power is
offered in 307 and 308 while SoC, energy, pack voltage or a temperature is unknown.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType
from typing import Final

from controller.codec.registers import Block, Register, RegisterError
from controller.inverters.base import Answer, InverterProtocol
from controller.model.inverter import InverterRequest, InverterStatus, InverterView
from controller.model.settings import NO_OPTIONS, Option, OptionValue
from controller.ports import CanFrame, RegisterWrite, SerialLine

UNIT: Final = 21
OFFER_MAX_W: Final = 30_000.0
PRIMO_MAX_V: Final = 450.0
LINK_MAX_V: Final = 1_500.0
ZERO_MS: Final = 20_000
SILENT_MS: Final = 60_000

NORMAL, CHARGING, DISCHARGING = 128, 129, 130
"""Codes of register 303. No real battery was seen to send 129 or 130; every working emulator does (note, 2.5)."""

REQUEST_STANDBY, REQUEST_INACTIVE, REQUEST_ACTIVE = 0, 1, 2
"""What the inverter writes to 401."""

STATUS: Mapping[InverterStatus, int] = MappingProxyType(
    {
        InverterStatus.STANDBY: 0,
        InverterStatus.INACTIVE: 1,
        InverterStatus.ACTIVE: 3,
        InverterStatus.FAULT: 4,
        InverterStatus.UPDATING: 5,
    }
)

IDENTITY = Block(
    "101",
    first=101,
    length=68,
    registers=(
        Register(101, "magic", preset=0x5349),
        Register(102, "identity_version", preset=1),
        Register(103, "maker", width=256, text=True, preset="BYD"),
        Register(119, "model", width=256, text=True, preset="BYD Battery-Box Premium HV"),
        Register(135, "version_a", width=128, text=True, preset="5.0"),
        Register(143, "version_b", width=128, text=True, preset="3.16"),
        Register(151, "serial", width=256, text=True, preset="packwarden"),
        Register(167, "protocol_version", preset=1),
    ),
)
"""Who we are. The Gen24 reads it while it searches."""

NAMEPLATE = Block(
    "201",
    first=201,
    length=13,
    registers=(
        Register(203, "energy_full_wh", "Wh"),
        Register(204, "max_power_w", "W"),
        Register(205, "max_power_again_w", "W"),  # the lower of the two is enforced
        Register(206, "design_max_v", "V", 0.1),
        Register(207, "design_min_v", "V", 0.1),
        Register(208, "peak_power_w", "W", preset=53248),
        Register(209, "peak_s", "s", preset=10),
        Register(210, "peak_power_again_w", "W", preset=53248),
        Register(211, "peak_again_s", "s", preset=10),
    ),
)
"""Read once per start-up of the Gen24: a change is seen after its next search only."""

LIVE = Block(
    "301",
    first=301,
    length=24,
    registers=(
        Register(301, "status"),
        Register(303, "mode", preset=NORMAL),
        Register(304, "soc_pct", "%", 0.01),
        Register(305, "energy_full_wh", "Wh"),
        Register(306, "energy_remaining_wh", "Wh"),
        Register(307, "max_discharge_w", "W"),
        Register(308, "max_charge_w", "W"),
        Register(309, "outer_voltage_v", "V", 0.1),
        Register(310, "outer_discharge_w", "W", signed=True),  # negative = charging
        Register(311, "inner_voltage_v", "V", 0.1),
        Register(312, "inner_discharge_w", "W", signed=True),
        Register(313, "temp_min_c", "°C", 0.1, signed=True),
        Register(314, "temp_max_c", "°C", 0.1, signed=True),
        Register(315, "charged_wh", "Wh", width=64),
        Register(319, "discharged_wh", "Wh", width=64),
        Register(323, "device_temp_c", "°C", 0.1, signed=True),
        Register(324, "soh_pct", "%", 0.01),
    ),
)
"""Polled every 5 s."""

ASKED = Block(
    "401",
    first=401,
    length=20,
    registers=(
        Register(401, "request"),
        Register(402, "heartbeat", preset=0xFF00),  # read, inverted and written back every 57 s
        Register(403, "heartbeat_period_s", "s"),
        Register(406, "inverter_time_s", "s", width=32),  # Unix time of its start
        Register(409, "inverter_time_valid"),
        Register(410, "unexplained_410"),
        Register(411, "unexplained_411"),
        Register(418, "link_voltage_v", "V", 0.1),  # measured by the Gen24
        Register(419, "told_voltage_v", "V", 0.1),  # what it read in 309: our own word, no measurement
    ),
)
"""Written by the inverter, kept and read back."""

EMPTY = Block("1001", first=1001, length=100)  # polled every 20 s
UPDATE = Block("12289", first=12289, length=768)  # never seen to be read
ZEROS = {block.first: block.encode({}) for block in (EMPTY, UPDATE)}
BLOCKS: Mapping[int, Block] = MappingProxyType({b.first: b for b in (IDENTITY, NAMEPLATE, LIVE, ASKED, EMPTY, UPDATE)})

OPTIONS = (
    Option(
        "capacity_cap_wh",
        32_000,
        "The Gen24 is told at most this capacity; remaining energy is scaled with it, SoC is not.",
        unit="Wh",
        low=1_000,
        high=57_960,
    ),
    Option("serial", "packwarden", "Serial number the Gen24 shows: 1 to 32 ASCII characters.", pattern="[ -~]{1,32}"),
    Option("primo", False, "The inverter is a Primo Gen24, which accepts at most 450 V as the pack's highest voltage."),
    Option(
        "wait_for_go",
        True,
        "Close only after the Gen24 asked for it (401 = 2). With false being polled is enough until it says otherwise, "
        "for a Gen24 that does not ask again after a restart of the controller.",
    ),
)


def nameplate(view: InverterView, cap_wh: float = 32_000, primo: bool = False) -> tuple[int, ...]:
    """Block 201."""
    highest_v = _known(view.design_max_v)
    return NAMEPLATE.encode(
        {
            "energy_full_wh": min(_known(view.energy_full_wh), cap_wh),
            "max_power_w": _known(view.max_power_w),
            "max_power_again_w": _known(view.max_power_w),
            "design_max_v": min(highest_v, PRIMO_MAX_V) if primo else highest_v,
            "design_min_v": _known(view.design_min_v),
        }
    )


def live(view: InverterView, status: InverterStatus, cap_wh: float = 32_000) -> tuple[int, ...]:
    """Block 301. 306 is 305 × 304, rounded down, in the counts the Gen24 sees, so that the three never disagree."""
    active = status is InverterStatus.ACTIVE
    wh, pct = min(_known(view.energy_full_wh), cap_wh), min(_known(view.soc_pct), 100.0)
    power_w = -_known(view.power_w) if active else 0.0
    needed = (view.soc_pct, view.energy_full_wh, view.pack_voltage_v, view.temp_min_c, view.temp_max_c)
    refused = status in (InverterStatus.FAULT, InverterStatus.UPDATING)
    unknown = any(value is None or not math.isfinite(value) for value in needed)
    offer_max_w = 0.0 if refused or unknown else OFFER_MAX_W
    words = LIVE.encode(
        {
            "status": STATUS[status],
            "soc_pct": pct,
            "energy_full_wh": wh,
            "max_discharge_w": min(_known(view.max_discharge_w), offer_max_w),
            "max_charge_w": min(_known(view.max_charge_w), offer_max_w),
            "outer_voltage_v": _known(view.outer_voltage_v) if active else 0.0,
            "outer_discharge_w": power_w,
            "inner_voltage_v": _known(view.pack_voltage_v),
            "inner_discharge_w": power_w,
            "temp_min_c": _known(view.temp_min_c),
            "temp_max_c": _known(view.temp_max_c),
            "charged_wh": _known(view.charged_wh),
            "discharged_wh": _known(view.discharged_wh),
            "device_temp_c": _known(view.temp_max_c),
            "soh_pct": min(_known(view.soh_pct), 100.0),
        }
    )
    soc, full, power = (words[number - LIVE.first] for number in (304, 305, 310))
    mode = NORMAL if power == 0 else CHARGING if power >= 0x8000 else DISCHARGING
    return LIVE.written(LIVE.written(words, 303, (mode,)), 306, (full * soc // 10_000,))


def _known(value: float | None) -> float:
    """The number, or 0 for "unknown"; so are NaN and infinity."""
    return value if value is not None and math.isfinite(value) else 0.0


class Image(Mapping[int, tuple[int, ...]]):
    """Every block by its first register, as the Gen24 reads it. Encoded when it is read: polls come every 5 s."""

    def __init__(self, state: BydModbusState, view: InverterView, status: InverterStatus) -> None:
        self._state, self._view, self._status = state, view, status

    @cached_property
    def blocks(self) -> Mapping[int, tuple[int, ...]]:
        state, view = self._state, self._view
        return {
            IDENTITY.first: state.identity,
            NAMEPLATE.first: nameplate(view, state.cap_wh, state.primo),
            LIVE.first: live(view, self._status, state.cap_wh),
            ASKED.first: state.asked,
            **ZEROS,
        }

    def __getitem__(self, first: int) -> tuple[int, ...]:
        return self.blocks[first]

    def __iter__(self) -> Iterator[int]:
        return iter(self.blocks)

    def __len__(self) -> int:
        return len(BLOCKS)


@dataclass(frozen=True, slots=True)
class BydModbusState:
    """What the Gen24 wrote and when, and what it is shown.

    go: what 401 permits, None until it was written, or once the Gen24 was silent for 60 s (it then searches anew).
    measured_at_ms: when 418 was last written; measured_v: what it said. beat_at_ms: when 402 last changed, or it was
    heard anew.
    refused: writes not taken in; refusal: what was wrong with the last of them.
    """

    cap_wh: float
    primo: bool
    wait_for_go: bool
    identity: tuple[int, ...]
    asked: tuple[int, ...] = ASKED.encode({})
    go: bool | None = None
    heard_at_ms: int | None = None
    measured_at_ms: int | None = None
    measured_v: float = 0.0
    beat_at_ms: int | None = None
    refused: int = 0
    refusal: str = ""

    def receive(
        self, frames: Sequence[CanFrame], writes: Sequence[RegisterWrite], polls: int, now_ms: int
    ) -> BydModbusState:
        """Take in register writes and the number of valid requests since the last tick."""
        if not writes and not polls:
            return self
        if self._hears(now_ms):
            state = replace(self, heard_at_ms=now_ms)
        else:
            state = replace(self, heard_at_ms=now_ms, go=None, beat_at_ms=now_ms)
        for write in writes:
            state = state._take(write, now_ms)
        return state

    def request(self, now_ms: int) -> InverterRequest:
        """What the Gen24 asks now. Its measurement of the link counts for 20 s; 0 is none, nor is what cannot be."""
        hears = self._hears(now_ms)
        go = self.go if hears else None
        if go is None and hears and not self.wait_for_go:
            go = True
        request = InverterRequest(go=go, heard_at_ms=self.heard_at_ms, beat_at_ms=self.beat_at_ms if hears else None)
        at_ms, volts = self.measured_at_ms, self.measured_v
        if at_ms is None or now_ms - at_ms > ZERO_MS or not 0 < volts <= LINK_MAX_V:
            return request
        return replace(request, link_voltage_v=volts, link_at_ms=at_ms, battery_voltage_v=volts)

    def answer(self, view: InverterView, now_ms: int) -> tuple[BydModbusState, Answer]:
        """The blocks to serve. STANDBY is shown as INACTIVE while the Gen24 has announced itself (401 = 1)."""
        announced = self.go is False and self.asked[0] == REQUEST_INACTIVE
        status = view.status
        if announced and status is InverterStatus.STANDBY:
            status = InverterStatus.INACTIVE
        return self, Answer(registers=Image(self, view, status))

    def image(self, view: InverterView) -> tuple[CanFrame, ...]:
        return ()

    def _hears(self, now_ms: int) -> bool:
        return self.heard_at_ms is not None and now_ms - self.heard_at_ms <= SILENT_MS

    def _take(self, write: RegisterWrite, now_ms: int) -> BydModbusState:
        """One write, as a whole or not at all. An unknown request code permits nothing."""
        try:
            asked = ASKED.written(self.asked, write.register, write.values)
        except RegisterError as error:
            return replace(self, refused=self.refused + 1, refusal=str(error))
        numbers = range(write.register, write.register + len(write.values))
        measured = 418 in numbers
        return replace(
            self,
            asked=asked,
            go=asked[0] == REQUEST_ACTIVE if 401 in numbers else self.go,
            measured_at_ms=now_ms if measured else self.measured_at_ms,
            measured_v=float(ASKED.decode(asked)["link_voltage_v"]) if measured else self.measured_v,
            beat_at_ms=now_ms if asked[1] != self.asked[1] else self.beat_at_ms,
        )


class BydModbus(InverterProtocol):
    """The row of the registry."""

    def start(self, options: Mapping[str, OptionValue] = NO_OPTIONS) -> BydModbusState:
        chosen = self.chosen(options)
        return BydModbusState(
            cap_wh=float(chosen["capacity_cap_wh"]),
            primo=bool(chosen["primo"]),
            wait_for_go=bool(chosen["wait_for_go"]),
            identity=IDENTITY.encode({"serial": str(chosen["serial"])}),
        )

    def check_write(self, write: RegisterWrite) -> None:
        ASKED.check_write(write.register, write.values)

    def explain(self, registers: Mapping[int, tuple[int, ...]]) -> dict[int, Mapping[str, float | str]]:
        return {first: BLOCKS[first].decode(words) for first, words in registers.items() if BLOCKS[first].registers}


UNCERTAIN = (
    "How long a running Gen24 tolerates a silent battery, and how soon it searches again.",
    "Whether it ever writes 401 = 0 or 1 in operation, and what it does when the battery does not follow.",
    "The largest energy in 203 and 305 that each firmware takes (`capacity_cap_wh`).",
    "Codes 129 and 130 in 303, which no real battery was seen to send; whether the Gen24 reads 303 at all.",
    "The sign of 310 and 312: negative while charging by one recorded battery.",
    "What 167, 209, 211, 403, 410 and 411 mean.",
)
RECORDINGS = {"byd-gen24-*.rtu": "dalathegreat/byd_battery"}

PROTOCOL = BydModbus(
    name="byd_modbus",
    title="Fronius Gen24 (BYD Battery-Box Premium HV over Modbus RTU)",
    asks=True,
    zero_ms=ZERO_MS,
    silent_ms=SILENT_MS,
    follow_ms=8_000,
    max_w=OFFER_MAX_W,
    offers_before_go=True,
    tx=frozenset(),
    options=OPTIONS,
    precharges=True,
    line=SerialLine(9600),
    unit=UNIT,
)
