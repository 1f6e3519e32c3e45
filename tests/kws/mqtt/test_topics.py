import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kws.mqtt.topics import Topics, hermes_detected, identifier


@pytest.mark.parametrize("name", ["stop", "hey_computer", "kws-b827eb123456", "living-room 2"])
def test_a_plain_name_keeps_its_form(name):
    assert identifier(name) == name.replace(" ", "_")


def test_other_names_get_a_part_of_their_digest():
    assert re.fullmatch(r"kuche_[0-9a-f]{6}", identifier("Küche"))
    assert re.fullmatch(r"[0-9a-f]{6}", identifier("厨房"))
    assert re.fullmatch(r"a_b_[0-9a-f]{6}", identifier("a/b"))


@given(st.text(min_size=1, max_size=60))
def test_an_identifier_is_what_home_assistant_takes(name):
    assert re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", identifier(name))


@given(st.lists(st.text(alphabet="aÄ _-/1", min_size=1, max_size=4), unique=True, max_size=30))
def test_different_names_have_different_identifiers(names):
    blanks_are_lines = {name.replace(" ", "_") for name in names}
    assert len({identifier(name) for name in names}) >= len(blanks_are_lines)


@pytest.mark.parametrize(
    ("keyword", "level"), [("hey computer", "hey computer"), ("a/b+#", "a_b__"), ("où", "où")]
)
def test_a_hermes_topic_holds_the_keyword_as_one_level(keyword, level):
    assert hermes_detected(keyword) == f"hermes/hotword/{level}/detected"


def test_the_topics_of_a_device():
    topics = Topics("kitchen", "ha/discovery")
    assert topics.config == "ha/discovery/device/kitchen/config"
    assert topics.birth == "ha/discovery/status"
    assert topics.detected("hey computer") == "kws/kitchen/detected/hey_computer"
    assert topics.level("USB Mic").startswith("kws/kitchen/level/usb_mic_")
