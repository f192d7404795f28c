"""What may be said to the controller: a closed set, wrong ones refused as a whole with the field that is wrong."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.messages import KINDS, LINE_MAX, MessageError, Reach, line_of, parse
from controller.ports import Command, CommandKind


def said(**fields: object) -> bytes:
    return json.dumps({"version": 1} | fields).encode()


def test_each_wish_of_a_person_becomes_its_command():
    assert parse(said(do="enable")).command == Command(CommandKind.ENABLE)
    assert parse(said(do="stop")).command == Command(CommandKind.STOP)
    assert parse(said(do="acknowledge", name="hvil-open")).command == Command(CommandKind.ACKNOWLEDGE, "hvil-open")
    cap = Command(CommandKind.CAP, charge_w=2000, discharge_w=None, for_ms=7_200_000)
    assert parse(said(do="cap", charge_w=2000, for_s=7200)).command == cap
    assert parse(said(do="status")).command is None
    assert parse(said(do="watch", every_ms=250)).every_ms == 250


def test_only_unlocking_and_a_recovery_charge_need_a_person_at_the_machine():
    messages = {"acknowledge": {"name": "x"}, "cap": {"charge_w": 0, "for_s": 1}, "unlock": {"inspected": "K1"}}
    reach = {do: parse(said(do=do, **messages.get(do, {}))).reach for do in KINDS if do != "relay"}
    here = {do for do, from_where in reach.items() if from_where is Reach.MACHINE}
    assert here == {"unlock", "recovery-charge"}


def test_nobody_can_ask_for_a_service_stop_over_the_socket():
    with pytest.raises(MessageError, match="do: must be one of"):
        parse(said(do="service-stop"))


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ({"version": 2, "do": "enable"}, "version"),
        ({"version": True, "do": "enable"}, "version"),
        ({"version": "1", "do": "enable"}, "version"),
        ({"do": "close"}, "do"),
        ({"do": ["enable"]}, "do"),
        ({}, "do"),
        ({"do": "enable", "now": True}, "now"),
        ({"do": "enable", "by": 7}, "by"),
        ({"do": "enable", "by": "a\nb"}, "by"),
        ({"do": "acknowledge"}, "name"),
        ({"do": "acknowledge", "name": ""}, "name"),
        ({"do": "acknowledge", "name": 7}, "name"),
        ({"do": "acknowledge", "name": "a\nb"}, "name"),
        ({"do": "acknowledge", "name": "x" * 201}, "name"),
        ({"do": "cap", "for_s": 60}, "charge_w"),
        ({"do": "cap", "charge_w": 1}, "for_s"),
        ({"do": "cap", "charge_w": -1, "for_s": 60}, "charge_w"),
        ({"do": "cap", "charge_w": "1", "for_s": 60}, "charge_w"),
        ({"do": "cap", "charge_w": True, "for_s": 60}, "charge_w"),
        ({"do": "cap", "charge_w": None, "for_s": 60}, "charge_w"),
        ({"do": "cap", "charge_w": 1, "discharge_w": 2e6, "for_s": 60}, "discharge_w"),
        ({"do": "cap", "charge_w": 10**400, "for_s": 60}, "charge_w"),
        ({"do": "cap", "charge_w": 1, "for_s": 0}, "for_s"),
        ({"do": "cap", "charge_w": 1, "for_s": 1e9}, "for_s"),
        ({"do": "watch", "every_ms": 10}, "every_ms"),
        ({"do": "unlock", "inspected": "   "}, "inspected"),
        ({"do": "relay", "id": 0, "on": "on"}, "on"),
        ({"do": "relay", "id": 0, "on": True}, "id"),
    ],
)
def test_a_wrong_message_is_refused_and_the_wrong_field_named(message: dict[str, object], field: str):
    with pytest.raises(MessageError) as refused:
        parse(said(**message))
    assert refused.value.field == field


@pytest.mark.parametrize(
    "line",
    [
        b"", b"enable", b"[]", b'"enable"', b"\xff\xfe", b"null", b"[" * 4000, b'{"a":' * 800, b"9" * 4096,
        b'{"version": 1, "do": "cap", "charge_w": NaN, "for_s": 5}', b'{"version": 1, "do": "stop", "do": "enable"}',
        b'{"version": 1, "do": "cap", "charge_w": 1e999, "for_s": 5}',
    ],
)  # fmt: skip
def test_what_is_no_message_is_refused(line: bytes):
    with pytest.raises(MessageError):
        parse(line)


@given(st.binary(max_size=LINE_MAX))
def test_no_line_does_anything_but_be_refused_unless_it_is_a_message(line: bytes):
    with pytest.raises(MessageError):
        parse(line)


def test_any_text_can_be_sent_and_is_read_back_as_it_was():
    said_back = {"version": 1, "done": False, "field": "\ud800", "why": "ü€🔋\udfff"}
    assert json.loads(line_of(said_back)) == said_back


TEXT = st.text(st.characters(exclude_categories=()), max_size=8)
NUMBER = st.integers() | st.floats() | st.integers(1, 9).map(lambda digit: digit * 10**400)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBER | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
FIELDS = ["name", "inspected", "charge_w", "discharge_w", "for_s", "every_ms", "id", "on"]


@given(st.sampled_from([*KINDS, "x"]), st.dictionaries(st.sampled_from(FIELDS) | TEXT, JSON, max_size=4))
def test_whatever_the_fields_hold_the_answer_is_a_message_or_a_reason_that_can_be_sent(
    do: str, fields: dict[str, object]
):
    line = json.dumps({"version": 1, "do": do} | fields).encode()
    try:
        ask = parse(line)
    except MessageError as error:
        reply = {"version": 1, "field": error.field, "why": error.why}
        assert json.loads(line_of(reply)) == reply
        return
    assert ask.do == do
    assert ask.command is None or all(
        watts is None or 0 <= watts <= 1e6 for watts in (ask.command.charge_w, ask.command.discharge_w)
    )
