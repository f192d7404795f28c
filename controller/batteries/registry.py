"""Every battery there is, by the name the config uses. One line for each."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from controller.batteries import tesla_model3
from controller.batteries.base import BatteryProtocol

BATTERIES: Mapping[str, BatteryProtocol] = MappingProxyType({tesla_model3.PROTOCOL.name: tesla_model3.PROTOCOL})
