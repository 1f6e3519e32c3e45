import pytest

from kws.daemon.muting import Muting


@pytest.fixture
def hooks():
    return [False]


@pytest.fixture
def muting(hooks):
    return Muting(lambda: hooks[0])


def test_nothing_is_muted_at_first(muting):
    assert muting.reasons("desk") == []


def test_hooks_mute_live_sources_and_the_switch_all(muting, hooks):
    hooks[0] = True
    assert (muting.reasons("desk"), muting.reasons("a.wav", is_file=True)) == (["a hook"], [])
    muting.switch = True
    assert muting.reasons("desk") == ["a hook", "the switch"]
    assert muting.reasons("a.wav", is_file=True) == ["the switch"]
    muting.switch = False
    assert muting.reasons("a.wav", is_file=True) == []


def test_a_source_is_muted_until_every_reason_is_taken_back(muting):
    muting.mute("desk", "ttsSay")
    muting.mute("desk", "playAudio")
    assert muting.reasons("desk") == ["Hermes playAudio", "Hermes ttsSay"]
    assert muting.reasons("door") == []
    muting.unmute("desk", "ttsSay")
    assert muting.reasons("desk") == ["Hermes playAudio"]
    muting.unmute("desk", "dialogueSession")
    muting.unmute("door", "playAudio")
    assert muting.reasons("desk") == ["Hermes playAudio"]
    muting.unmute("desk", "playAudio")
    assert muting.reasons("desk") == []


def test_the_empty_reason_takes_back_all_others(muting):
    muting.mute("desk", "ttsSay")
    muting.mute("desk", "")
    assert muting.reasons("desk") == ["Hermes", "Hermes ttsSay"]
    muting.unmute("desk", "")
    assert muting.reasons("desk") == []


def test_all_of_them_can_be_ended(muting, hooks):
    hooks[0] = muting.switch = True
    muting.mute("desk", "")
    muting.end_all()
    assert muting.reasons("desk") == ["a hook"]


def test_passing_reasons_end_with_the_connection_and_the_others_stay(muting):
    muting.switch = True
    muting.mute("desk", "dialogueSession")
    muting.mute("desk", "")
    muting.end_passing()
    assert muting.reasons("desk") == ["the switch", "Hermes"]
