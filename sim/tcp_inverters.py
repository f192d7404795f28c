"""Simulated inverters behind Modbus TCP, on real sockets: Sungrow SH-RT, Fronius Gen24 and GoodWe ET.

Each holds registers, makes its battery do what they say, and can misbehave. Time is moved by hand. Facts: the worked
examples of the control note, SunSpec models 1, 124 and 160, and the repositories named there. Power > 0 is charging.
"""

from __future__ import annotations

import asyncio
import struct
from types import TracebackType
from typing import Self

READ_HOLDING, READ_INPUT, WRITE_ONE, WRITE_MORE = 3, 4, 6, 16
NO_FUNCTION, NO_REGISTER, FAILED, NO_UNIT = 1, 2, 4, 11


class TcpInverter:
    """A Modbus TCP server for one unit.

    frames: every request as it came. writes: (wire address, values) of those carried out. broken: addresses whose
    writes fail. stuck: addresses whose writes are answered and forgotten. dumb: addresses that cannot be read.
    deaf: it hangs up at each request. hears: so many requests are answered before it goes deaf.
    """

    def __init__(self, unit: int) -> None:
        self.unit = unit
        self.holding: dict[int, int] = {}
        self.inputs: dict[int, int] = {}
        self.frames: list[bytes] = []
        self.writes: list[tuple[int, tuple[int, ...]]] = []
        self.broken: set[int] = set()
        self.stuck: set[int] = set()
        self.dumb: set[int] = set()
        self.deaf = False
        self.hears: int | None = None
        self.host, self.port = "127.0.0.1", 0
        self._server: asyncio.Server | None = None
        self._callers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._talk, self.host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        self.settle()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
        for caller in self._callers:
            caller.close()

    # --- what each brand does ---

    def settle(self) -> None:
        """Let the measurements follow the registers."""

    def written(self, wire: int) -> None:
        """A register was written."""

    def pass_s(self, seconds: int) -> None:
        """Let time go by."""

    def text(self, table: dict[int, int], wire: int, size: int, words: str) -> None:
        """Put words into registers, two characters in each."""
        data = words.encode().ljust(2 * size, b"\0")
        table.update({wire + n: int.from_bytes(data[2 * n : 2 * n + 2], "big") for n in range(size)})

    # --- Modbus TCP ---

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._callers.add(writer)
        try:
            while True:
                head = await reader.readexactly(6)
                rest = await reader.readexactly(int.from_bytes(head[4:6], "big"))
                self.frames.append(head + rest)
                if self.hears is not None:
                    self.deaf = self.hears <= 0
                    self.hears -= 1
                if self.deaf:
                    return
                answer = bytes([rest[0]]) + self._answer(rest[0], rest[1:])
                writer.write(head[:4] + len(answer).to_bytes(2, "big") + answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            self._callers.discard(writer)
            writer.close()

    def _answer(self, unit: int, request: bytes) -> bytes:
        function = request[0]
        code = NO_UNIT if unit != self.unit else None
        if code is None:
            result = self._do(function, request[1:])
            if isinstance(result, bytes):
                return bytes([function]) + result
            code = result
        return bytes([function | 0x80, code])

    def _do(self, function: int, body: bytes) -> bytes | int:
        """What comes after the function code, or an exception code."""
        wire, number = struct.unpack(">HH", body[:4])
        if function in (READ_HOLDING, READ_INPUT):
            table = self.holding if function == READ_HOLDING else self.inputs
            wires = range(wire, wire + number)
            if any(n not in table or n in self.dumb for n in wires):
                return NO_REGISTER
            return bytes([2 * number]) + struct.pack(f">{number}H", *(table[n] for n in wires))
        if function == WRITE_ONE:
            return self._write(wire, (number,)) or body[:4]
        if function == WRITE_MORE:
            return self._write(wire, struct.unpack(f">{number}H", body[5 : 5 + 2 * number])) or body[:4]
        return NO_FUNCTION

    def _write(self, wire: int, values: tuple[int, ...]) -> int:
        """0, or an exception code."""
        wires = range(wire, wire + len(values))
        if any(n not in self.holding for n in wires):
            return NO_REGISTER
        if self.broken & set(wires):
            return FAILED
        self.writes.append((wire, values))
        for n, value in zip(wires, values, strict=True):
            if n not in self.stuck:
                self.holding[n] = value
            self.written(n)
        self.settle()
        return 0


class SungrowSim(TcpInverter):
    """SH10RT. Looks at no limit of the battery while it is forced. percent: its forced power is % of 10 kW."""

    def __init__(self, percent: bool = False) -> None:
        super().__init__(unit=1)
        self.percent = percent
        self.text(self.inputs, 4989, 10, "A2290612345")
        self.inputs |= {4999: 0x0E03, 5000: 100, 13019: 3619, 13020: 0, 13021: 0, 13022: 988}
        self.holding |= {13049: 0, 13050: 0xCC, 13051: 0, 13079: 0}

    @property
    def battery_w(self) -> int:
        size = self.holding[13051] * (100 if self.percent else 1)
        forced = self.holding[13049] in (2, 3)
        return {0xAA: size, 0xBB: -size}.get(self.holding[13050], 0) if forced else 0

    def settle(self) -> None:
        low, high = (-self.battery_w & 0xFFFF, -self.battery_w >> 16 & 0xFFFF)
        self.inputs |= {5213: low, 5214: high}

    def pass_s(self, seconds: int) -> None:
        """In mode 3 the heartbeat counts down; at 0 the inverter is itself again."""
        if self.holding[13049] == 3:
            self.holding[13079] = max(0, self.holding[13079] - seconds)
            if self.holding[13079] == 0:
                self.holding[13049] = 0
        self.settle()


class FroniusSim(TcpInverter):
    """Gen24 with its SunSpec list. floating: the float map, 10 registers longer before the storage model."""

    def __init__(self, floating: bool = False, w_max: int = 11059) -> None:
        super().__init__(unit=1)
        self.at, self.mppt = 0, 0
        self.holding |= {40000: 0x5375, 40001: 0x6E53}
        inverter = (113, 60) if floating else (103, 50)
        wire = 40002
        for model, length in ((1, 65), inverter, (120, 26), (121, 30), (122, 44), (123, 24), (160, 88), (124, 24)):
            self.holding |= {wire: model, wire + 1: length, **{wire + 2 + n: 0 for n in range(length)}}
            self.mppt = wire + 2 if model == 160 else self.mppt
            self.at = wire + 2
            wire += 2 + length
        self.holding |= {wire: 0xFFFF, wire + 1: 0}
        self.text(self.holding, 40004, 16, "Fronius")
        self.text(self.holding, 40020, 16, "Symo GEN24 10.0")
        self.text(self.holding, 40052, 16, "29301000987160033")
        storage = {0: w_max, 3: 0, 5: 500, 6: 4910, 9: 6, 10: 10000, 11: 10000, 13: 0, 15: 1, 16: 0, 19: 0xFFFE,
                   20: 0xFFFE, 23: 0xFFFE}  # fmt: skip
        self.holding |= {self.at + n: value for n, value in storage.items()}
        self.holding |= {self.mppt + 2: 0xFFFF, self.mppt + 6: 4}  # power in 0.1 W, four modules
        self.left_s = 0

    @property
    def battery_w(self) -> int:
        """A negative rate in use forces the other direction; there is no sun to charge from otherwise."""
        mode, out_rate, in_rate = (self.holding[self.at + n] for n in (3, 10, 11))
        reference = self.holding[self.at]
        if mode & 2 and out_rate & 0x8000:
            return round((0x10000 - out_rate) / 10000 * reference)
        if mode & 1 and in_rate & 0x8000:
            return -round((0x10000 - in_rate) / 10000 * reference)
        return 0

    def settle(self) -> None:
        charging, discharging = max(0, self.battery_w), max(0, -self.battery_w)
        self.holding |= {self.mppt + 59: min(0xFFFE, charging * 10), self.mppt + 79: min(0xFFFE, discharging * 10)}

    def written(self, wire: int) -> None:
        self.left_s = self.holding[self.at + 13]

    def pass_s(self, seconds: int) -> None:
        """The limits are dropped when RvrtTms has gone by without a write."""
        self.left_s -= seconds
        if self.holding[self.at + 13] and self.left_s <= 0:
            self.holding[self.at + 3] = 0
        self.settle()


class GoodWeSim(TcpInverter):
    """GW10K-ET. Has no time-out."""

    def __init__(self) -> None:
        super().__init__(unit=247)
        self.holding |= {35000: 2, 35001: 10000, 35002: 1, 47000: 0, 47511: 1, 47512: 0}
        self.text(self.holding, 35003, 8, "9010KETU00000000")
        self.text(self.holding, 35011, 5, "GW10K-ET")
        self.holding |= {35180: 0x0E23, 35181: 0, 35182: 0, 35183: 0, 35184: 1}

    @property
    def battery_w(self) -> int:
        return {11: 1, 12: -1}.get(self.holding[47511], 0) * self.holding[47512]

    def settle(self) -> None:
        state = 1 if self.battery_w == 0 else 3 if self.battery_w > 0 else 2
        self.holding |= {35182: -self.battery_w >> 16 & 0xFFFF, 35183: -self.battery_w & 0xFFFF, 35184: state}
