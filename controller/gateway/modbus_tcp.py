"""One inverter over Modbus TCP. The only file of the gateway that imports pymodbus."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from pymodbus.client import AsyncModbusTcpClient
from pymodbus.exceptions import ModbusException
from pymodbus.pdu import ModbusPDU

from controller.gateway.brands import HOLDING, Read, Site
from controller.ports import BusError

EXCEPTIONS = {1: "function not known", 2: "no such register", 3: "value refused", 4: "it failed", 6: "busy",
              10: "gateway path", 11: "unit does not answer"}  # fmt: skip


class ModbusTcp:
    """Reads and writes whole requests, one at a time. A lost connection is made anew once, then it is a BusError.

    Writes are absolute, so sending one twice does no harm.
    """

    def __init__(self, site: Site, timeout_s: float = 3.0) -> None:
        self._site = site
        self._timeout_s = timeout_s
        self._client: AsyncModbusTcpClient | None = None
        self._lost = asyncio.Event()

    async def read(self, read: Read) -> tuple[int, ...]:
        """The raw registers. Raises BusError."""

        def ask(client: AsyncModbusTcpClient) -> Awaitable[ModbusPDU]:
            get = client.read_holding_registers if read.function == HOLDING else client.read_input_registers
            return get(read.wire, count=read.size, device_id=self._site.unit)

        answer = await self._asked(f"reading {read.size} from {read.wire}", ask)
        if len(answer.registers) != read.size:
            raise self._error(f"reading {read.size} from {read.wire}", f"{len(answer.registers)} registers came")
        return tuple(answer.registers)

    async def write(self, wire: int, values: tuple[int, ...]) -> None:
        """One register by function 6, more by function 16. Raises BusError."""

        def ask(client: AsyncModbusTcpClient) -> Awaitable[ModbusPDU]:
            unit = self._site.unit
            if len(values) == 1:
                return client.write_register(wire, values[0], device_id=unit)
            return client.write_registers(wire, list(values), device_id=unit)

        await self._asked(f"writing {', '.join(map(str, values))} to {wire}", ask)

    async def close(self) -> None:
        """Let go of the connection; the next request makes a new one."""
        if self._client is not None:
            self._client.close()
            self._client = None

    async def _asked(self, what: str, ask: Callable[[AsyncModbusTcpClient], Awaitable[ModbusPDU]]) -> ModbusPDU:
        for last in (False, True):
            try:
                client = await self._connected(what)
                answer = await self._unless_lost(ask(client))
                break
            except (ModbusException, OSError) as error:
                await self.close()
                if last:
                    raise self._error(what, "no answer") from error
        if answer.isError():
            code = answer.exception_code
            raise self._error(what, f"refused with exception {code} ({EXCEPTIONS.get(code, 'unknown')})")
        return answer

    async def _unless_lost(self, asked: Awaitable[ModbusPDU]) -> ModbusPDU:
        """The answer, without waiting for one on a connection that is gone. Raises ConnectionResetError."""
        answer, lost = asyncio.ensure_future(asked), asyncio.ensure_future(self._lost.wait())
        try:
            await asyncio.wait((answer, lost), return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                return answer.result()
            raise ConnectionResetError
        finally:
            answer.cancel()
            lost.cancel()

    async def _connected(self, what: str) -> AsyncModbusTcpClient:
        if self._client is None or not self._client.connected:
            await self.close()
            site, lost = self._site, asyncio.Event()
            client = AsyncModbusTcpClient(
                site.host, port=site.port, timeout=self._timeout_s, retries=0, reconnect_delay=0,
                trace_connect=lambda up: None if up else lost.set(),
            )  # fmt: skip
            if not await client.connect():
                client.close()
                raise self._error(what, "no connection")
            self._client, self._lost = client, lost
        return self._client

    def _error(self, what: str, why: str) -> BusError:
        site = self._site
        return BusError(f"inverter at {site.host}:{site.port} unit {site.unit}: {what}: {why}")
