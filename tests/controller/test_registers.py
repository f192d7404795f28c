"""The register tables: what a number becomes in 16-bit words, and what must be refused."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.codec.registers import ILLEGAL_ADDRESS, ILLEGAL_VALUE, Block, Register, RegisterError

TENTH = Register(1, "x", scale=0.1)
HUNDREDTH = Register(1, "x", scale=0.01)


@pytest.mark.parametrize(
    ("row", "value", "count"),
    [
        (HUNDREDTH, 49.1, 4910),
        (HUNDREDTH, 8.2, 820),
        (HUNDREDTH, 88.30694275274057, 8830),
        (HUNDREDTH, 4.35, 435),
        (HUNDREDTH, 0.57, 57),
        (TENTH, 402.56, 4025),
        (TENTH, 242.14000000000001, 2421),
        (TENTH, 361.92, 3619),
        (TENTH, 97 * 4.15, 4025),
        (TENTH, 4.35 * 100, 4350),
        (TENTH, 0.1 + 0.2, 3),
        (Register(1, "x", scale=10), 129, 12),
    ],
)
def test_a_number_is_cut_as_one_cuts_its_decimals(row: Register, value: float, count: int) -> None:
    assert row.count(value) == count


def test_cutting_goes_towards_zero_on_both_sides() -> None:
    row = Register(1, "x", scale=0.1, signed=True)
    assert (row.count(3.69), row.count(-3.69)) == (36, -36)


@given(st.integers(-40_000, 40_000), st.integers(0, 9_999), st.sampled_from(["0.01", "0.1", "1", "10"]))
def test_counting_agrees_with_decimal_arithmetic(whole: int, fraction: int, scale: str) -> None:
    value = Decimal(f"{whole}.{fraction:04d}") if whole >= 0 else -Decimal(f"{-whole}.{fraction:04d}")
    row = Register(1, "x", scale=float(scale), width=32, signed=True)
    assert row.count(float(value)) == int(value / Decimal(scale))


@given(
    st.floats(allow_nan=False),
    st.sampled_from([16, 32, 64]),
    st.booleans(),
    st.sampled_from([0.01, 0.1, 1.0, 10.0]),
)
def test_every_number_fits_its_words_and_comes_back_within_one_count_or_clamped(
    value: float, width: int, signed: bool, scale: float
) -> None:
    row = Register(1, "x", scale=scale, width=width, signed=signed)
    words = row.encode(value)
    assert len(words) == width // 16
    assert all(0 <= word <= 0xFFFF for word in words)
    back = float(row.decode(words))
    low, high = (bound * scale for bound in row.bounds)
    wanted = min(max(value, low), high)
    assert abs(back - wanted) <= scale * 1.000001 + abs(wanted) * 1e-15
    assert back * wanted >= 0
    assert abs(back) <= abs(wanted) + scale * 1e-6 + abs(wanted) * 1e-15


@given(st.integers(0, 2**64 - 1))
def test_a_64_bit_count_survives_to_the_last_digit(wh: int) -> None:
    row = Register(1, "x", width=64)
    assert row.decode(row.encode(wh)) == wh


def test_a_number_beyond_the_register_is_clamped_and_never_wraps() -> None:
    signed = Register(1, "x", signed=True)
    assert (TENTH.encode(70_000.0), TENTH.encode(-1.0)) == ((0xFFFF,), (0,))
    assert (signed.encode(40_000), signed.encode(-40_000)) == ((0x7FFF,), (0x8000,))
    assert (TENTH.encode(float("inf")), signed.encode(float("-inf"))) == ((0xFFFF,), (0x8000,))


def test_what_is_no_number_is_an_error() -> None:
    with pytest.raises(ValueError, match="NaN"):
        TENTH.encode(float("nan"))


def test_the_most_significant_word_comes_first() -> None:
    assert Register(1, "x", width=64).encode(1_071_317) == (0, 0, 16, 22741)


def test_a_text_has_two_characters_a_word_and_is_padded_with_zeros() -> None:
    row = Register(1, "x", width=64, text=True, preset="")
    assert row.encode("5.0") == (13614, 12288, 0, 0)
    assert row.decode((13614, 12288, 0, 0)) == "5.0"


def test_a_text_too_long_is_cut_and_foreign_characters_are_marked() -> None:
    row = Register(1, "x", width=64, text=True, preset="")
    assert row.decode(row.encode("Müsli-Riegel")) == "M?sli-Ri"


def test_text_and_number_are_not_mixed_up() -> None:
    with pytest.raises(TypeError):
        TENTH.encode("12")


def test_a_block_fills_presets_and_leaves_unclaimed_words_zero() -> None:
    block = Block("trial", 1, 4, (Register(2, "a", preset=7), Register(4, "b")))
    assert block.encode({"b": 3}) == (0, 7, 0, 3)
    assert block.decode((0, 7, 0, 3)) == {"a": 7, "b": 3}


def test_a_value_without_a_row_is_an_error() -> None:
    with pytest.raises(KeyError, match="no volt"):
        Block("trial", 1, 4, (Register(2, "volts"),)).encode({"volt": 1.0})


def test_a_wrong_table_cannot_be_built_and_says_everything_that_is_wrong() -> None:
    with pytest.raises(ValueError, match="register block trial") as caught:
        Block(
            "trial", 101, 4, (Register(101, "a", width=32), Register(102, "b"), Register(105, "c"), Register(104, "a"))
        )
    assert str(caught.value) == (
        "register block trial: b: 102 belongs to a; c: 105 lies outside the block; a: the name is used twice"
    )
    with pytest.raises(ValueError, match=r"width 8.*preset 0.*scale 0"):
        Block("trial", 1, 4, (Register(1, "a", width=8), Register(2, "b", text=True), Register(3, "c", scale=0)))


WORDS = tuple(range(20))
ASKED = Block("asked", 401, 20)


@given(st.integers(401, 420), st.lists(st.integers(0, 0xFFFF), min_size=1, max_size=20))
def test_a_write_inside_changes_exactly_its_own_words(register: int, values: list[int]) -> None:
    if register + len(values) > 421:
        with pytest.raises(RegisterError):
            ASKED.written(WORDS, register, values)
        return
    after = dict(zip(range(401, 421), ASKED.written(WORDS, register, values), strict=True))
    before = dict(zip(range(401, 421), WORDS, strict=True))
    assert after == before | dict(zip(range(register, register + len(values)), values, strict=True))


@pytest.mark.parametrize(
    ("register", "values", "code", "says"),
    [
        (400, (1,), ILLEGAL_ADDRESS, "registers 400 to 400 cannot be written; only 401 to 420 can"),
        (419, (1, 2, 3), ILLEGAL_ADDRESS, "registers 419 to 421 cannot be written; only 401 to 420 can"),
        (401, (0,) * 124, ILLEGAL_VALUE, "a write of 124 registers; 1 to 123 are allowed"),
        (401, (), ILLEGAL_VALUE, "a write of 0 registers; 1 to 123 are allowed"),
        (401, (1, 70_000), ILLEGAL_VALUE, "70000 does not fit a register; 0 to 65535 do"),
        (401, (-1,), ILLEGAL_VALUE, "-1 does not fit a register; 0 to 65535 do"),
    ],
)
def test_a_bad_write_is_refused_with_its_reason(register: int, values: tuple[int, ...], code: int, says: str) -> None:
    with pytest.raises(RegisterError) as caught:
        ASKED.written(WORDS, register, values)
    assert (str(caught.value), caught.value.code) == (says, code)


def test_the_words_of_a_block_must_be_complete() -> None:
    with pytest.raises(ValueError, match="19 words instead of 20"):
        ASKED.decode((0,) * 19)
