"""Register tables for Modbus: a block of 16-bit words as rows of data, and the way from values to words and back.

Numbers are document numbers (counted from 1; the address on the wire is one lower). Words are big-endian, the most
significant first; strings hold two characters a word, padded with zeros.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Value = float | str
"""What a register means: a number in its unit, or a text. A code or a whole number is an int."""

WORD = 1 << 16
NOISE = 1e-6
"""A value this part of a count below the next count is that count: 8.2 % is 820 though the float 8.2 * 100 is less."""

ILLEGAL_ADDRESS = 2
ILLEGAL_VALUE = 3
WRITE_MAX = 123


class RegisterError(ValueError):
    """A read or write that must be refused as a whole. code: the Modbus exception to answer with."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Register:
    """One value in one or more words.

    scale: what one count is worth. width: bits, a multiple of 16. signed: two's complement. text: ASCII instead of a
    number. preset: what it holds when nobody says otherwise.
    """

    number: int
    name: str
    unit: str = ""
    scale: float = 1
    width: int = 16
    signed: bool = False
    text: bool = False
    preset: Value = 0

    @property
    def words(self) -> int:
        return self.width // 16

    @property
    def bounds(self) -> tuple[int, int]:
        """The smallest and the largest count the words can hold."""
        span = 1 << self.width
        return (-span // 2, span // 2 - 1) if self.signed else (0, span - 1)

    def count(self, value: float) -> int:
        """The count for `value`, cut towards zero as one cuts decimals; clamped, never wrapped. NaN is a ValueError."""
        low, high = self.bounds
        exact = min(max(value / self.scale if self.scale != 1 else value, low), high)
        nearest = round(exact)
        return nearest if abs(exact - nearest) <= NOISE else int(exact)

    def encode(self, value: Value) -> tuple[int, ...]:
        """The words that say `value`. A text too long is cut, a character outside ASCII becomes "?"."""
        if isinstance(value, str) is not self.text:
            raise TypeError(f"{self.name}: {value!r}")
        if isinstance(value, str):
            raw = value.encode("ascii", "replace")[: 2 * self.words].ljust(2 * self.words, b"\0")
            return tuple(int.from_bytes(raw[at : at + 2], "big") for at in range(0, len(raw), 2))
        count = self.count(value)
        if self.width == 16:
            return (count & 0xFFFF,)
        return tuple(count >> shift & 0xFFFF for shift in range(self.width - 16, -1, -16))

    def decode(self, words: Sequence[int]) -> Value:
        """What these words say: a text, an int where one count is 1, else the float nearest to the decimal."""
        raw = b"".join(word.to_bytes(2, "big") for word in words)
        if self.text:
            return raw.rstrip(b"\0").decode("ascii", "replace")
        count = int.from_bytes(raw, "big", signed=self.signed)
        return count if self.scale == 1 else round(count * self.scale, 9)


@dataclass(frozen=True, slots=True)
class Block:
    """Neighbouring registers from the document number `first` on; words that no row claims are 0."""

    name: str
    first: int
    length: int
    registers: tuple[Register, ...] = ()

    def __post_init__(self) -> None:
        wrong: list[str] = []
        claimed: dict[int, str] = {}
        names: set[str] = set()
        for row in self.registers:
            wrong += _flaws(row)
            wrong += [f"{row.name}: the name is used twice"] if row.name in names else []
            names.add(row.name)
            for number in range(row.number, row.number + row.words):
                if not self.first <= number < self.first + self.length:
                    wrong.append(f"{row.name}: {number} lies outside the block")
                elif number in claimed:
                    wrong.append(f"{row.name}: {number} belongs to {claimed[number]}")
                claimed.setdefault(number, row.name)
        if wrong:
            raise ValueError(f"register block {self.name}: " + "; ".join(wrong))

    def encode(self, values: Mapping[str, Value]) -> tuple[int, ...]:
        """All words of the block; a row without a value holds its preset. A name without a row is a KeyError."""
        unknown = values.keys() - {row.name for row in self.registers}
        if unknown:
            raise KeyError(f"register block {self.name}: no {', '.join(sorted(unknown))}")
        words = [0] * self.length
        for row in self.registers:
            at = row.number - self.first
            words[at : at + row.words] = row.encode(values.get(row.name, row.preset))
        return tuple(words)

    def decode(self, words: Sequence[int]) -> dict[str, Value]:
        """Every row of the block by name."""
        if len(words) != self.length:
            raise ValueError(f"register block {self.name}: {len(words)} words instead of {self.length}")
        starts = ((row, row.number - self.first) for row in self.registers)
        return {row.name: row.decode(words[at : at + row.words]) for row, at in starts}

    def check_write(self, register: int, values: Sequence[int]) -> None:
        """Raises RegisterError unless `values` may be written from `register` on as a whole."""
        last = self.first + self.length - 1
        if not 1 <= len(values) <= WRITE_MAX:
            raise RegisterError(f"a write of {len(values)} registers; 1 to {WRITE_MAX} are allowed", ILLEGAL_VALUE)
        if register < self.first or register + len(values) - 1 > last:
            what = f"registers {register} to {register + len(values) - 1}"
            raise RegisterError(f"{what} cannot be written; only {self.first} to {last} can", ILLEGAL_ADDRESS)
        wrong = next((value for value in values if not 0 <= value < WORD), None)
        if wrong is not None:
            raise RegisterError(f"{wrong} does not fit a register; 0 to {WORD - 1} do", ILLEGAL_VALUE)

    def written(self, words: Sequence[int], register: int, values: Sequence[int]) -> tuple[int, ...]:
        """`words` after a write that `check_write` lets pass, else its RegisterError: all of it or nothing."""
        self.check_write(register, values)
        at = register - self.first
        return (*words[:at], *values, *words[at + len(values) :])


def _flaws(row: Register) -> list[str]:
    """What makes one row unfit, in words."""
    wrong = []
    if row.width <= 0 or row.width % 16 or (not row.text and row.width not in (16, 32, 64)):
        wrong.append(f"{row.name}: width {row.width}")
    if row.text is not isinstance(row.preset, str):
        wrong.append(f"{row.name}: preset {row.preset!r}")
    if not row.scale > 0:
        wrong.append(f"{row.name}: scale {row.scale}")
    return wrong
