"""Every battery and inverter a config may name."""

from __future__ import annotations

from typing import Final

from controller.batteries.registry import BATTERIES
from controller.config import Catalogue
from controller.inverters.registry import INVERTERS

CATALOGUE: Final = Catalogue(BATTERIES, INVERTERS)
