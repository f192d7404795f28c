"""The relays of a setup that has none."""

from __future__ import annotations

from collections.abc import Mapping

from controller.ports import RelayError
from statecharts.supervisor import Contactor


class NoRelays:
    """Takes what energises no coil of ours, refuses the rest."""

    def write(self, closed: frozenset[Contactor]) -> None:
        if coils := closed - {Contactor.PACK}:
            raise RelayError(f"no relay is wired for {', '.join(sorted(coils))}")

    def feedback(self) -> Mapping[Contactor, bool | None]:
        return {}
