"""Every battery there is, by the name the config uses. One line for each."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from controller.batteries import batrium, juntek, leaf, tesla_model3
from controller.batteries.base import BatteryProtocol

BATTERIES: Mapping[str, BatteryProtocol] = MappingProxyType(
    {battery.name: battery for battery in (tesla_model3.PROTOCOL, leaf.PROTOCOL, batrium.PROTOCOL, juntek.PROTOCOL)}
)
