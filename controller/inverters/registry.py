"""Every inverter we speak to, by the name it has in the config."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from controller.inverters import byd_modbus
from controller.inverters.base import InverterProtocol

INVERTERS: Mapping[str, InverterProtocol] = MappingProxyType({byd_modbus.PROTOCOL.name: byd_modbus.PROTOCOL})
