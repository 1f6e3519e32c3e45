import os
import wave

import pytest
from msgspec.structs import replace

from kws.config import Config, DecisionSettings, GateSettings, ListenerSettings, SourceSettings
from kws.daemon.backlog import Piece
from kws.daemon.listeners import Channel, Listener, voices_of
from kws.daemon.source_supervisor import Ear

PIECE = 2_560


@pytest.fixture
def config(model):
    return Config(models=[ListenerSettings(name=str(model))], gate=GateSettings(enabled=False))


@pytest.fixture
def channel(config):
    (voice,) = voices_of(config)
    ear = Ear(
        SourceSettings(name="desk"), backlog_s=10, tell=lambda change: None, wake=lambda: None
    )
    return Channel(ear, [Listener.open(voice)])


@pytest.fixture
def audio(recording):
    with wave.open(str(recording)) as file:
        return file.readframes(file.getnframes())


def pieces_of(audio, *, start_sample=0, is_after_gap=False):
    for at in range(0, len(audio), PIECE):
        yield Piece(start_sample + at // 2, audio[at : at + PIECE], is_after_gap and not at)


def hear(channel, pieces, **options):
    return [one for piece in pieces for one in channel.hear(piece, **options)]


def ends_s(detections):
    return [one.end_s for one in detections]


def test_detections_name_their_source_and_their_model(channel, audio):
    found = hear(channel, pieces_of(audio)) + channel.end()
    assert [(one.keyword, one.source, one.model) for one in found] == 2 * [("stop", "desk", "loud")]
    assert channel.n_detections == 2
    assert channel.cpu_s > 0


def test_after_a_gap_time_goes_on_and_the_stages_begin_anew(channel, audio):
    first = hear(channel, pieces_of(audio))
    later = hear(channel, pieces_of(audio, start_sample=160_000, is_after_gap=True))
    assert ends_s(later) == pytest.approx([end_s + 10 for end_s in ends_s(first)])


def test_what_was_under_way_at_a_gap_is_heard_to_its_end(channel, config, audio):
    """A word that ends with the audio is found when the gap is told of, not when audio comes back.

    The average over 300 ms has not risen far enough yet.
    """
    slow = [replace(config.models[0], decision=DecisionSettings(smoothing_ms=300, threshold=0.5))]
    (voice,) = voices_of(replace(config, models=slow))
    channel.adopt([Listener.open(voice)])
    cut = audio[: 2 * int(0.5 * 16_000 + 1_600)]
    assert hear(channel, pieces_of(cut)) == []
    assert hear(channel, [Piece(len(cut) // 2, b"", True)]) == channel.end() == []
    cut = audio[: 2 * int(0.5 * 16_000 + 6_400)]
    assert len(hear(channel, pieces_of(cut)) + channel.end()) == 1


def test_what_is_muted_is_not_heard_and_counts_as_a_gap(channel, audio):
    assert hear(channel, pieces_of(audio), is_muted=True) == []
    found = hear(channel, pieces_of(audio, start_sample=48_000))
    assert len(found) == 2
    assert found[0].end_s >= 3.0


def test_the_same_voice_is_recognised_until_anything_changes(config, model):
    (voice,) = voices_of(config)
    assert voices_of(config) == [voice]
    assert voices_of(replace(config, gate=GateSettings())) != [voice]
    assert voices_of(replace(config, decision=DecisionSettings(threshold=0.1))) != [voice]
    before = model.stat()
    try:
        model.touch()
        assert voices_of(config) != [voice]
    finally:
        os.utime(model, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("at_s", [0.1, 0.45, 0.52, 0.56, 0.6, 0.7, 0.9, 1.0, 1.5, 2.0])
def test_a_word_that_a_new_model_comes_into_is_heard_once(channel, config, audio, at_s):
    expected = hear(channel, pieces_of(audio))
    channel.hear(Piece(0, b"", True))
    (voice,) = voices_of(config)
    at = 2 * int(16_000 * at_s)
    found = hear(channel, pieces_of(audio[:at]))
    found += channel.adopt([Listener.open(voice)])
    found += hear(channel, pieces_of(audio[at:], start_sample=at // 2))
    assert ends_s(found) == pytest.approx(ends_s(expected), abs=0.05)


def test_a_model_that_is_kept_keeps_its_state(channel, audio):
    kept = list(channel.listeners)
    expected = hear(channel, pieces_of(audio))
    channel.hear(Piece(0, b"", True))
    found = hear(channel, pieces_of(audio[:20_000]))
    assert channel.adopt(kept) == []
    found += hear(channel, pieces_of(audio[20_000:], start_sample=10_000))
    assert found == expected
