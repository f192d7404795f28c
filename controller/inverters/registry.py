"""Every inverter we speak to, by the name it has in the config."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from controller.inverters import byd_can, byd_modbus, sungrow_sbr
from controller.inverters.base import InverterProtocol

INVERTERS: Mapping[str, InverterProtocol] = MappingProxyType(
    {protocol.name: protocol for protocol in (byd_modbus.PROTOCOL, byd_can.PROTOCOL, sungrow_sbr.PROTOCOL)}
)
