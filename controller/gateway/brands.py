"""How each brand of inverter is recognised, read, steered and put back over Modbus TCP: registers and order, no I/O.

Power is W, positive while charging. `wire` is the address in the frame, `doc` the number in the maker's document. What
is uncertain about these registers is said in docs/dispatch.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, Self

HOLDING, INPUT = 3, 4


class Refused(Exception):
    """Nothing may be written; the message says why, for the person who asked."""


class Site(NamedTuple):
    """Where the inverter is and how it is steered. timeout_s: after this silence the inverter is to help itself."""

    inverter: str
    host: str
    port: int = 502
    unit: int = 1
    sungrow_mode: int = 3
    timeout_s: int = 60


class Read(NamedTuple):
    """`size` registers from `wire` on, by function 3 (HOLDING) or 4 (INPUT)."""

    function: int
    wire: int
    size: int


Seen = Mapping[Read, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Register:
    """One register that is written. said: a raw value in words. fades: it counts down by itself."""

    name: str
    doc: int
    wire: int
    said: Callable[[int], str] = field(compare=False)
    fades: bool = False


class Write(NamedTuple):
    """One request: neighbouring registers, upwards, and their raw values."""

    registers: tuple[Register, ...]
    values: tuple[int, ...]

    def without(self, known: Mapping[str, int]) -> Write | None:
        """What is left when registers at either end that hold their value already are left out; None when all do."""
        new = [n for n, (r, v) in enumerate(zip(*self, strict=True)) if known.get(r.name) != v]
        return Write(self.registers[new[0] : new[-1] + 1], self.values[new[0] : new[-1] + 1]) if new else None


class Inverter(Protocol):
    """An inverter that was recognised.

    max_w: the most it can do. polls: what is read each time, before anything is written. refresh_s: how often what is
    written has to be repeated; None when the inverter has no time-out of its own.
    """

    @property
    def title(self) -> str: ...
    @property
    def serial(self) -> str: ...
    @property
    def max_w(self) -> int: ...
    @property
    def polls(self) -> tuple[Read, ...]: ...
    @property
    def refresh_s(self) -> float | None: ...

    def kept(self, seen: Seen) -> dict[str, int]:
        """What its registers hold by name, those that fade left out: what is put back one day."""

    def judge(self, kept: Mapping[str, int]) -> None:
        """Raises Refused for values that cannot be, and when somebody else steers it."""

    def battery_w(self, seen: Seen) -> int | None:
        """What flows into the battery; None when this inverter does not tell."""

    def steer(self, power_w: int) -> tuple[Write, ...]:
        """The registers that make it so, in their order. 0 keeps the battery idle."""

    def refresh(self, power_w: int) -> tuple[Write, ...]:
        """What is repeated so that the time-out does not strike."""

    def restore(self, kept: Mapping[str, int]) -> tuple[Write, ...]:
        """The way back, in its order."""


# --- words ---


def _watts(raw: int) -> str:
    return f"{raw} W"


def _seconds(raw: int) -> str:
    return f"{raw} s" if raw else "never"


def _named(names: Mapping[int, str]) -> Callable[[int], str]:
    return lambda raw: names.get(raw, f"unknown ({raw})")


def signed(raw: int) -> int:
    """A 16-bit register as a signed number."""
    return raw - 0x10000 if raw & 0x8000 else raw


def signed32(high: int, low: int) -> int:
    """Two registers as one signed number."""
    raw = high << 16 | low
    return raw - (1 << 32) if raw & 1 << 31 else raw


def _text(registers: Iterable[int]) -> str:
    """Two characters in each register, without padding; what is no ASCII becomes a question mark."""
    data = b"".join(raw.to_bytes(2, "big") for raw in registers)
    return data.decode("ascii", "replace").replace("�", "?").strip("\0 ")


def _identity(serial: str, brand: str) -> str:
    if not serial.isalnum():
        raise Refused(f"this is no {brand} inverter: its serial number reads {serial!r}")
    return serial


def _battery_there(volts: float, soc_pct: float | None = None) -> None:
    """An inverter that does not see its battery is not steered."""
    if not 40 <= volts <= 1000:
        raise Refused(f"implausible: a battery of {volts:g} V")
    if soc_pct is not None and not 0 <= soc_pct <= 100:
        raise Refused(f"implausible: a battery with an SoC of {soc_pct:g} %")


def _plausible_max(watts: int) -> int:
    if not 500 <= watts <= 100_000:
        raise Refused(f"implausible: an inverter of {watts} W")
    return watts


# --- Sungrow ---

S_CHARGE, S_DISCHARGE, S_STOP, S_SELF = 0xAA, 0xBB, 0xCC, 0
S_MODE = Register(
    "EMS mode", 13050, 13049,
    _named({0: "self-consumption", 2: "forced", 3: "external EMS", 4: "VPP", 8: "microgrid"}),
)  # fmt: skip
S_COMMAND = Register(
    "forced command", 13051, 13050, _named({S_CHARGE: "charge", S_DISCHARGE: "discharge", S_STOP: "stop"})
)
S_POWER = Register("forced power", 13052, 13051, _watts)
S_HEARTBEAT = Register("heartbeat", 13080, 13079, _seconds, fades=True)

S_WHO, S_BATTERY = Read(INPUT, 4989, 12), Read(INPUT, 13019, 4)
S_CONTROL, S_FLOW = Read(HOLDING, 13049, 3), Read(INPUT, 5213, 2)
S_ALIVE = Read(HOLDING, 13079, 1)


@dataclass(frozen=True, slots=True)
class Sungrow:
    """SHxxRT, SHxxRS, SHxxT. mode: 2 has no time-out, 3 falls back when the heartbeat runs out.

    mkaiser/Sungrow-SHx-Inverter-Modbus-Home-Assistant `modbus_sungrow.yaml`; evcc-io/evcc `sungrow-hybrid.yaml`.
    """

    title: str
    serial: str
    max_w: int
    mode: int
    timeout_s: int

    @classmethod
    def recognise(cls, site: Site, seen: Seen) -> Read | Self:
        """Serial number (10 registers), device type and nominal power in 100 W, then voltage and SoC of the battery."""
        for read in (S_WHO, S_BATTERY):
            if read not in seen:
                return read
        *serial, kind, nominal = seen[S_WHO]
        volts, _, _, soc = seen[S_BATTERY]
        who = _identity(_text(serial), "Sungrow")
        if kind >> 8 not in (0x0D, 0x0E):
            raise Refused(f"this is no Sungrow hybrid inverter: device type 0x{kind:04X}")
        _battery_there(volts / 10, soc / 10)
        max_w = _plausible_max(nominal * 100)
        return cls(f"Sungrow type 0x{kind:04X}", who, max_w, site.sungrow_mode, site.timeout_s)

    @property
    def polls(self) -> tuple[Read, ...]:
        return (S_CONTROL, S_FLOW, S_ALIVE) if self.mode == 3 else (S_CONTROL, S_FLOW)

    @property
    def refresh_s(self) -> float | None:
        return self.timeout_s / 2 if self.mode == 3 else None

    def kept(self, seen: Seen) -> dict[str, int]:
        names = (S_MODE.name, S_COMMAND.name, S_POWER.name)
        return dict(zip(names, seen[S_CONTROL], strict=True))

    def judge(self, kept: Mapping[str, int]) -> None:
        if kept[S_COMMAND.name] not in (S_CHARGE, S_DISCHARGE, S_STOP):
            raise Refused(f"implausible: {S_COMMAND.doc} holds 0x{kept[S_COMMAND.name]:04X}")
        _nobody_else(S_MODE, kept, S_SELF)

    def battery_w(self, seen: Seen) -> int | None:
        """5214 is negative while charging, low word first."""
        low, high = seen[S_FLOW]
        return -signed32(high, low)

    def steer(self, power_w: int) -> tuple[Write, ...]:
        power, mode = Write((S_POWER,), (abs(power_w),)), Write((S_MODE,), (self.mode,))
        alive = self.refresh(power_w)
        if power_w == 0:
            return Write((S_COMMAND,), (S_STOP,)), power, *alive, mode
        return power, Write((S_COMMAND,), (S_CHARGE if power_w > 0 else S_DISCHARGE,)), *alive, mode

    def refresh(self, power_w: int) -> tuple[Write, ...]:
        return (Write((S_HEARTBEAT,), (self.timeout_s,)),) if self.mode == 3 else ()

    def restore(self, kept: Mapping[str, int]) -> tuple[Write, ...]:
        """Stop, no power, the mode; then power and command as they were, which do nothing in that mode."""
        before = {r: kept[r.name] for r in (S_MODE, S_COMMAND, S_POWER)}
        back = [Write((S_COMMAND,), (S_STOP,)), Write((S_POWER,), (0,)), Write((S_MODE,), (before[S_MODE],))]
        if before[S_POWER] != 0:
            back.append(Write((S_POWER,), (before[S_POWER],)))
        if before[S_COMMAND] != S_STOP:
            back.append(Write((S_COMMAND,), (before[S_COMMAND],)))
        return tuple(back)


# --- Fronius ---

SUNS, FIRST_MODEL, LAST_MODEL, MODELS_MAX = (0x5375, 0x6E53), 40002, 0xFFFF, 40
CHARGE_BOUND, DISCHARGE_BOUND = 1, 2


@dataclass(frozen=True, slots=True)
class Fronius:
    """Gen24: SunSpec model 124. at: wire address of its data; mppt: that of model 160, which tells the battery's power.

    full: the raw rate of 100 %. A negative rate forces the other direction. callifo/fronius_modbus
    `froniusmodbusclient.py`; SunSpec models 1, 124, 160.
    """

    title: str
    serial: str
    max_w: int
    at: int
    full: int
    timeout_s: int
    mppt: int | None = None

    @classmethod
    def recognise(cls, site: Site, seen: Seen) -> Read | Self:
        """Walk the list of models, then read the common block and the storage block."""
        models = _models(seen)
        if isinstance(models, Read):
            return models
        if 1 not in models or 124 not in models:
            raise Refused("this is no Fronius inverter with a battery: SunSpec model 124 is missing")
        who, storage = Read(HOLDING, models[1][0], 65), Read(HOLDING, models[124][0], 24)
        for read in (who, storage):
            if read not in seen:
                return read
        maker, model, serial = _text(seen[who][:16]), _text(seen[who][16:32]), _text(seen[who][48:64])
        if not maker.startswith("Fronius"):
            raise Refused(f"this is no Fronius inverter: it is made by {maker!r}")
        block = seen[storage]
        full = round(100 / 10.0 ** _scale("InOutWRte_SF", block[23], -2, 0))
        max_w = round(block[0] * 10.0 ** _scale("WChaMax_SF", block[16], -2, 3))
        mppt, length = models.get(160, (None, 0))
        return cls(
            f"{maker} {model}", _identity(serial, "Fronius"), _plausible_max(max_w), models[124][0], full,
            site.timeout_s, mppt if length >= 88 else None,
        )  # fmt: skip

    @property
    def registers(self) -> tuple[Register, Register, Register, Register]:
        """Mode, discharge rate, charge rate, time-out. The maker's documents count from 1."""

        def rate(raw: int) -> str:
            return f"{100 * signed(raw) / self.full:.2f} %"

        mode = {0: "automatic", 1: "charge bounded", 2: "discharge bounded", 3: "both bounded"}
        rows = (("StorCtl_Mod", 3, _named(mode)), ("OutWRte", 10, rate), ("InWRte", 11, rate),
                ("InOutWRte_RvrtTms", 13, _seconds))  # fmt: skip
        one, two, three, four = (Register(name, self.at + n + 1, self.at + n, said) for name, n, said in rows)
        return one, two, three, four

    @property
    def polls(self) -> tuple[Read, ...]:
        block = Read(HOLDING, self.at, 24)
        return (block,) if self.mppt is None else (block, Read(HOLDING, self.mppt, 88))

    @property
    def refresh_s(self) -> float | None:
        return self.timeout_s / 2

    def kept(self, seen: Seen) -> dict[str, int]:
        block = seen[self.polls[0]]
        return {register.name: block[register.wire - self.at] for register in self.registers}

    def judge(self, kept: Mapping[str, int]) -> None:
        mode, out_rate, in_rate = kept["StorCtl_Mod"], signed(kept["OutWRte"]), signed(kept["InWRte"])
        if mode not in range(4) or abs(out_rate) > self.full or abs(in_rate) > self.full:
            raise Refused(f"implausible: StorCtl_Mod {mode}, OutWRte {out_rate}, InWRte {in_rate}")
        if (mode & DISCHARGE_BOUND and out_rate < 0) or (mode & CHARGE_BOUND and in_rate < 0):
            raise Refused(f"{self.title} is steered by somebody else already (OutWRte {out_rate}, InWRte {in_rate})")

    def battery_w(self, seen: Seen) -> int | None:
        """Model 160: scale factor at 2, module count at 6, 20 registers a module from 8 on; its power is the 12th."""
        if self.mppt is None:
            return None
        block = seen[self.polls[1]]
        charging, discharging = block[8 + 40 + 11], block[8 + 60 + 11]
        if block[6] < 4 or 0xFFFF in (charging, discharging):
            return None
        return round((charging - discharging) * 10.0 ** _scale("DCW_SF", block[2], -4, 3))

    def steer(self, power_w: int) -> tuple[Write, ...]:
        mode, out_rate, in_rate, timeout = self.registers
        rate = min(self.full, round(abs(power_w) / self.max_w * self.full))
        if rate == 0:
            which, rates = CHARGE_BOUND | DISCHARGE_BOUND, (0, 0)
        elif power_w > 0:
            which, rates = DISCHARGE_BOUND, (-rate & 0xFFFF, self.full)
        else:
            which, rates = CHARGE_BOUND, (self.full, -rate & 0xFFFF)
        return Write((timeout,), (self.timeout_s,)), Write((out_rate, in_rate), rates), Write((mode,), (which,))

    def refresh(self, power_w: int) -> tuple[Write, ...]:
        """All of it: which write restarts the time is not documented."""
        return self.steer(power_w)

    def restore(self, kept: Mapping[str, int]) -> tuple[Write, ...]:
        mode, out_rate, in_rate, timeout = self.registers
        rates = (kept[out_rate.name], kept[in_rate.name])
        return (
            Write((out_rate, in_rate), rates), Write((mode,), (kept[mode.name],)),
            Write((timeout,), (kept[timeout.name],)),
        )  # fmt: skip


def _models(seen: Seen) -> Read | dict[int, tuple[int, int]]:
    """The SunSpec list: model → (wire address of its data, length); while it is not complete, what to read next."""
    mark = Read(HOLDING, 40000, 2)
    if mark not in seen:
        return mark
    if seen[mark] != SUNS:
        raise Refused("this is no SunSpec device: 40000 does not read SunS")
    found: dict[int, tuple[int, int]] = {}
    at = FIRST_MODEL
    for _ in range(MODELS_MAX):
        header = Read(HOLDING, at, 2)
        if header not in seen:
            return header
        model, length = seen[header]
        if model == LAST_MODEL:
            return found
        if length == 0:
            break
        found.setdefault(model, (at + 2, length))
        at += 2 + length
    raise Refused("implausible: its SunSpec list has no end")


def _scale(name: str, raw: int, low: int, high: int) -> int:
    """A SunSpec scale factor as read. Raises Refused outside low…high; "not implemented" (0x8000) is."""
    if not low <= signed(raw) <= high:
        raise Refused(f"implausible: {name} reads {signed(raw)}")
    return signed(raw)


# --- GoodWe ---

G_AUTOMATIC, G_STANDBY, G_CHARGE, G_DISCHARGE = 1, 8, 11, 12
G_MODE = Register(
    "EMS mode", 47511, 47511,
    _named({1: "automatic", 2: "charge from PV", 3: "discharge + PV", 4: "import", 5: "export", 6: "conserve",
            7: "off-grid", 8: "standby", 9: "buy", 10: "sell", 11: "charge", 12: "discharge", 255: "stop"}),
)  # fmt: skip
G_POWER = Register("EMS power", 47512, 47512, _watts)
G_WHO, G_WORK, G_CONTROL, G_FLOW = (
    Read(HOLDING, 35000, 16), Read(HOLDING, 47000, 1), Read(HOLDING, 47511, 2), Read(HOLDING, 35180, 5)
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class GoodWe:
    """ET, EH, BT, BH. It has no time-out. Power and mode go in one request.

    marcelblijleven/goodwe `goodwe/et.py`, `const.py`; OpenEMS/openems `io.openems.edge.goodwe`.
    """

    title: str
    serial: str
    max_w: int
    refresh_s: float | None = None
    polls: tuple[Read, ...] = (G_CONTROL, G_FLOW)

    @classmethod
    def recognise(cls, site: Site, seen: Seen) -> Read | Self:
        """35001 rated power, 35003 serial number, 35011 model; 47000 work mode; 35180 battery voltage."""
        for read in (G_WHO, G_WORK, G_FLOW):
            if read not in seen:
                return read
        who = seen[G_WHO]
        serial, model = _text(who[3:11]), _text(who[11:16])
        if not (model.startswith("GW") and any(family in model + serial for family in ("ET", "EH", "BT", "BH"))):
            raise Refused(f"this is no GoodWe hybrid inverter: model {model!r}")
        (work,) = seen[G_WORK]
        if work == 1 or work > 5:
            raise Refused("the inverter is off-grid" if work == 1 else f"implausible: work mode {work}")
        _battery_there(seen[G_FLOW][0] / 10)
        return cls(f"GoodWe {model}", _identity(serial, "GoodWe"), _plausible_max(who[1]))

    def kept(self, seen: Seen) -> dict[str, int]:
        return dict(zip((G_MODE.name, G_POWER.name), seen[G_CONTROL], strict=True))

    def judge(self, kept: Mapping[str, int]) -> None:
        _nobody_else(G_MODE, kept, G_AUTOMATIC)

    def battery_w(self, seen: Seen) -> int | None:
        """35182 is positive while discharging, high word first."""
        return -signed32(*seen[G_FLOW][2:4])

    def steer(self, power_w: int) -> tuple[Write, ...]:
        mode = G_STANDBY if power_w == 0 else G_CHARGE if power_w > 0 else G_DISCHARGE
        return (Write((G_MODE, G_POWER), (mode, abs(power_w))),)

    def refresh(self, power_w: int) -> tuple[Write, ...]:
        return ()

    def restore(self, kept: Mapping[str, int]) -> tuple[Write, ...]:
        return (Write((G_MODE, G_POWER), (kept[G_MODE.name], kept[G_POWER.name])),)


def _nobody_else(mode: Register, kept: Mapping[str, int], free: int) -> None:
    """One writer: an inverter that is forced already is somebody else's, or was left so."""
    held = kept[mode.name]
    if held != free:
        now, wanted = mode.said(held), mode.said(free)
        raise Refused(
            f"{mode.doc} {mode.name} is {now}, not {wanted}: somebody else steers the inverter, or left it so"
        )


BRANDS: Mapping[str, Callable[[Site, Seen], Read | Inverter]] = {
    "sungrow": Sungrow.recognise,
    "fronius": Fronius.recognise,
    "goodwe": GoodWe.recognise,
}
"""Name in the config → what to read next, or the inverter. Raises Refused when it is another, or implausible."""
