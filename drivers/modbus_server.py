"""The registers an inverter polls, as one Modbus RTU unit on a wire it shares with meters. pymodbus codes the PDUs.

Only frames to our unit are answered, in the call that hears their last byte; broadcasts, other units and a wrong CRC
get nothing. Functions 3, 6, 16, 23; others → exception 1, beyond the table → 2, a bad quantity → 3.
Source: protocols/inverters/byd-modbus-rtu.md, section 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from pymodbus.pdu import ExceptionResponse, ModbusPDU
from pymodbus.pdu.register_message import (
    ReadHoldingRegistersRequest,
    ReadHoldingRegistersResponse,
    ReadWriteMultipleRegistersRequest,
    ReadWriteMultipleRegistersResponse,
    WriteMultipleRegistersRequest,
    WriteMultipleRegistersResponse,
    WriteSingleRegisterRequest,
    WriteSingleRegisterResponse,
)

from controller.codec.registers import ILLEGAL_ADDRESS, ILLEGAL_VALUE, RegisterError
from controller.codec.rtu import QUIET_MS, Frame, encode, split
from controller.ports import BusError, ClockPort, LinePort, RegisterWrite

ILLEGAL_FUNCTION: Final = 1
TABLE_WORDS: Final = 30_000
"""Words anybody may read; those in no block are 0. Served so by Battery-Emulator (note, section 1)."""

STALE_MS: Final = 200
"""Older than this nobody stands behind what was published, and no answer says so. A tick as late as this opens."""

ECHO_MS: Final = 50
"""After this time what we sent does not come back any more."""

REQUESTS: Final[Mapping[int, type[ModbusPDU]]] = {
    kind.function_code: kind
    for kind in (
        ReadHoldingRegistersRequest,
        WriteSingleRegisterRequest,
        WriteMultipleRegistersRequest,
        ReadWriteMultipleRegistersRequest,
    )
}


class ModbusServer:
    """A RegisterPort on a serial line. check_write: raises RegisterError for a write that must be refused.

    error: what the line said when the newest answer could not be sent, None when it could.
    """

    def __init__(
        self, line: LinePort, clock: ClockPort, unit: int, check_write: Callable[[RegisterWrite], None]
    ) -> None:
        self.line, self.clock, self.unit, self.check_write = line, clock, unit, check_write
        self.error: BusError | None = None
        self._blocks: Mapping[int, tuple[int, ...]] = {}
        self._published_ms = 0
        self._written: dict[int, int] = {}
        self._heard, self._heard_ms = b"", 0
        self._echo, self._sent_ms = b"", 0

    def publish(self, registers: Mapping[int, tuple[int, ...]]) -> None:
        """Nothing is answered from an empty `registers`: the last image is withdrawn.

        Writes handed out since the last call are in `registers` by now, or their taker meant otherwise.
        """
        self._blocks, self._written, self._published_ms = registers, {}, self.clock.now_ms()

    def requests(self) -> tuple[Sequence[RegisterWrite], int]:
        """Answers the newest request. An older one in the same call is taken in, but whoever asked has given up."""
        now_ms = self.clock.now_ms()
        writes: list[RegisterWrite] = []
        polls, answer = 0, None
        for frame in self._frames(now_ms):
            answer = None
            if frame.unit != self.unit or frame.request is False:
                continue
            try:
                answer = self._answer(frame.pdu, writes)
                polls += 1
            except RegisterError as error:
                answer = ExceptionResponse(frame.pdu[0], error.code)
        if answer is not None and self._blocks and now_ms - self._published_ms <= STALE_MS:
            self._send(encode(self.unit, bytes([answer.function_code]) + answer.encode()), now_ms)
        return writes, polls

    def _frames(self, now_ms: int) -> list[Frame]:
        """What has been heard completely."""
        data = self.line.receive()
        if data:
            self._heard, self._heard_ms = self._heard + data, now_ms
        silent_ms = now_ms - self._heard_ms
        if self._awaits_echo(min(silent_ms, now_ms - self._sent_ms)):
            return []
        pieces, self._heard = split(self._heard, silent_ms >= QUIET_MS)
        return [piece for piece in pieces if isinstance(piece, Frame)]

    def _awaits_echo(self, silent_ms: int) -> bool:
        """Some adapters hear what they send: True while what was heard may be that. Whole, it is dropped."""
        if self._echo and self._heard.startswith(self._echo):
            self._heard, self._echo = self._heard[len(self._echo) :], b""
        elif silent_ms >= ECHO_MS or not self._echo.startswith(self._heard):
            self._echo = b""
        return bool(self._echo)

    def _send(self, frame: bytes, now_ms: int) -> None:
        try:
            self.line.send(frame)
            self.error, self._echo, self._sent_ms = None, frame, now_ms
        except BusError as error:
            self.error = error

    def _answer(self, pdu: bytes, writes: list[RegisterWrite]) -> ModbusPDU:
        """Serve one request, adding to `writes`. Raises RegisterError."""
        kind = REQUESTS.get(pdu[0])
        if kind is None:
            raise RegisterError(f"function {pdu[0]}", ILLEGAL_FUNCTION)
        request = kind()
        try:
            request.decode(pdu[1:])
        except ValueError as error:
            raise RegisterError(str(error), ILLEGAL_VALUE) from None
        match request:
            case WriteSingleRegisterRequest():
                self._write(request.address, request.registers, writes)
                return WriteSingleRegisterResponse(address=request.address, registers=request.registers)
            case WriteMultipleRegistersRequest():
                if not request.byte_count == 2 * request.count == 2 * len(request.registers):
                    raise RegisterError(f"{request.count} registers in {request.byte_count} bytes", ILLEGAL_VALUE)
                self._write(request.address, request.registers, writes)
                return WriteMultipleRegistersResponse(address=request.address, count=request.count)
            case ReadWriteMultipleRegistersRequest():
                count, size = request.write_count, request.write_byte_count
                if not size == 2 * count == 2 * len(request.write_registers):
                    raise RegisterError(f"{count} registers in {size} bytes", ILLEGAL_VALUE)
                self._read(request.read_address, request.read_count)  # what cannot be read writes nothing either
                self._write(request.write_address, request.write_registers, writes)
                words = self._read(request.read_address, request.read_count)
                return ReadWriteMultipleRegistersResponse(registers=words)
        return ReadHoldingRegistersResponse(registers=self._read(request.address, request.count))

    def _read(self, address: int, count: int) -> list[int]:
        if address + count > TABLE_WORDS:
            raise RegisterError(f"registers {address + 1} to {address + count}", ILLEGAL_ADDRESS)
        words = {first + n: word for first, block in self._blocks.items() for n, word in enumerate(block)}
        words |= self._written
        return [words.get(number, 0) for number in range(address + 1, address + 1 + count)]

    def _write(self, address: int, values: Sequence[int], writes: list[RegisterWrite]) -> None:
        write = RegisterWrite(address + 1, tuple(values))
        self.check_write(write)
        writes.append(write)
        self._written |= dict(enumerate(write.values, write.register))
