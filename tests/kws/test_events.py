import json
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from kws.events import Detection, End, NearMiss, StateChange, from_json, rfc3339, to_json

STOP = Detection(keyword="stop", score=0.97, start_s=12.34, end_s=12.81, model="commands")


def test_a_detection_is_the_object_of_the_contract():
    assert to_json(STOP) == (
        '{"event":"detection","keyword":"stop","score":0.97,'
        '"start_s":12.34,"end_s":12.81,"model":"commands"}'
    )


def test_an_end_is_the_object_of_the_contract():
    assert to_json(End(audio_s=60.0, detections=2, cpu_s=0.25)) == (
        '{"event":"end","audio_s":60.0,"detections":2,"cpu_s":0.25}'
    )


def test_the_daemon_names_the_source_last():
    assert to_json(replace(STOP, source="desk")) == (
        '{"event":"detection","keyword":"stop","score":0.97,'
        '"start_s":12.34,"end_s":12.81,"model":"commands","source":"desk"}'
    )


def test_a_change_of_state_leaves_out_what_it_does_not_say():
    time = "2026-01-31T12:00:00.000Z"
    stalled = StateChange(event="stalled", time=time, source="desk", detail="unplugged")
    assert to_json(stalled) == (
        '{"event":"stalled","time":"2026-01-31T12:00:00.000Z","source":"desk","detail":"unplugged"}'
    )
    assert to_json(StateChange(event="start", time=time)) == f'{{"event":"start","time":"{time}"}}'


def test_a_moment_is_told_to_the_millisecond():
    moment = datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert rfc3339(moment) == "2026-01-31T12:00:00.000Z"
    assert rfc3339(moment + timedelta(microseconds=12_999)) == "2026-01-31T12:00:00.012Z"


@pytest.mark.parametrize(
    "event",
    [
        STOP,
        NearMiss(keyword="stop", score=0.4, start_s=1.0, end_s=1.5, model="commands"),
        End(audio_s=1.0, detections=0, cpu_s=0.1, source="desk"),
        StateChange(event="recovered", time="2026-01-31T12:00:00.000Z", source="desk"),
    ],
)
def test_every_kind_survives_json(event):
    assert from_json(to_json(event)) == event


@pytest.mark.parametrize(
    "line", ["", "{}", "[]", '{"event": "odd", "time": ""}', '{"event": "end"}']
)
def test_what_is_no_event_is_refused(line):
    with pytest.raises(msgspec.DecodeError):
        from_json(line)


def test_an_event_cannot_be_changed():
    with pytest.raises(AttributeError):
        STOP.score = 1.0


def test_fields_are_named_on_construction():
    with pytest.raises(TypeError):
        Detection("stop", 0.97, 12.34, 12.81, "commands")


seconds = st.floats(min_value=0, max_value=1e9, allow_nan=False)


@given(
    keyword=st.text(alphabet=st.characters(exclude_categories=["Cs"])),
    score=st.floats(0, 1),
    start_s=seconds,
    end_s=seconds,
)
def test_every_detection_survives_json_on_one_line(keyword, score, start_s, end_s):
    event = Detection(keyword=keyword, score=score, start_s=start_s, end_s=end_s, model="m")
    line = to_json(event)
    assert "\n" not in line
    assert from_json(line) == event
    assert json.loads(line)["keyword"] == keyword


def test_fields_that_are_not_set_are_left_out():
    heard = Detection(keyword="go", score=0.9, start_s=None, end_s=1.0, model="m")
    expected = {"keyword": "go", "score": 0.9, "start_s": None, "end_s": 1.0, "model": "m"}
    assert heard.fields() == expected
    assert replace(heard, speaker=0.7).fields() == {**expected, "speaker": 0.7}
