"""The text of can-utils: one frame a line, as `candump -l` writes and `canplayer` reads it."""

from __future__ import annotations


def line(stamp_us: int, can_id: int, extended: bool, data: bytes, channel: str) -> str:
    """`(1700000000.010000) can0 132#7D83D5FFE23FFF0F`, without a line end. stamp_us: not negative."""
    ident = f"{can_id:08X}" if extended else f"{can_id:03X}"
    return f"({stamp_us // 1_000_000}.{stamp_us % 1_000_000:06d}) {channel} {ident}#{data.hex().upper()}"
