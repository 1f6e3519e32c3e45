import asyncio
import itertools
import os
import time
import wave

import pytest
from msgspec.structs import replace

from kws.config import (
    Config,
    DecisionSettings,
    GateSettings,
    ListenerSettings,
    RecordingSettings,
    SourceSettings,
    UiSettings,
)
from kws.daemon.backlog import AudioBlock
from kws.daemon.listeners import Listener, SourceListeners, listener_keys
from kws.daemon.source_supervisor import SourceSupervisor
from kws.errors import ModelError

BLOCK_BYTES = 2_560


@pytest.fixture
def config(model):
    return Config(models=[ListenerSettings(name=str(model))], gate=GateSettings(enabled=False))


@pytest.fixture
def source(config):
    (key,) = listener_keys(config)
    supervisor = SourceSupervisor(
        SourceSettings(name="desk"),
        backlog_s=10,
        on_change=lambda change: None,
        on_audio=lambda: None,
    )
    return SourceListeners(supervisor, [Listener.open(key)])


@pytest.fixture
def audio(recording):
    with wave.open(str(recording)) as file:
        return file.readframes(file.getnframes())


def blocks_of(audio, *, start_sample=0, is_after_gap=False):
    for at in range(0, len(audio), BLOCK_BYTES):
        yield AudioBlock(
            start_sample + at // 2, audio[at : at + BLOCK_BYTES], is_after_gap and not at
        )


def process(source, blocks, **options):
    return [one for block in blocks for one in source.process(block, **options)]


def ends_s(detections):
    return [one.end_s for one in detections]


def test_detections_name_their_source_and_their_model(source, audio):
    found = process(source, blocks_of(audio)) + source.flush()
    assert [(one.keyword, one.source, one.model) for one in found] == 2 * [("stop", "desk", "loud")]
    assert source.n_detections == 2
    assert source.cpu_s > 0


def test_after_a_gap_time_goes_on_and_the_stages_begin_anew(source, audio):
    first = process(source, blocks_of(audio))
    later = process(source, blocks_of(audio, start_sample=160_000, is_after_gap=True))
    assert ends_s(later) == pytest.approx([end_s + 10 for end_s in ends_s(first)])


def test_peaks_come_after_their_detections_in_the_time_of_the_source(source, audio):
    found = process(source, blocks_of(audio, start_sample=32_000))
    peaks = source.take_peaks()
    assert [replace(one, source=None).fields() for one in found] == [
        {key: value for key, value in replace(one, source=None).fields().items() if key != "peak"}
        for one in peaks
    ]
    assert all(one.source == source.supervisor.label for one in peaks)
    assert source.take_peaks() == []


def test_a_peak_that_ends_at_a_gap_keeps_the_time_before_it(source, audio):
    n_bytes = 2 * int(0.52 * 16_000)  # within the first word
    (detection,) = process(source, blocks_of(audio[:n_bytes]))
    process(source, blocks_of(audio[:3_200], start_sample=160_000, is_after_gap=True))
    (peak,) = source.take_peaks()
    assert peak.end_s == detection.end_s < 1


def test_posteriors_are_in_the_time_of_the_source(source, audio):
    source.keep_posteriors(True)
    process(source, blocks_of(audio[:16_000], start_sample=32_000, is_after_gap=True))
    ends_s = [one.end_s for one in source.take_posteriors()]
    assert 2.0 < ends_s[0] < ends_s[-1] <= 2.5
    assert source.take_posteriors() == []
    source.keep_posteriors(False)
    process(source, blocks_of(audio[:16_000], start_sample=40_000))
    assert source.take_posteriors() == []


@pytest.mark.parametrize(
    ("folder", "port", "least"),
    [(None, None, None), ("clips", None, 0.4), (None, 8420, 0.3), ("clips", 8420, 0.3)],
)
def test_near_misses_are_collected_for_the_recordings_and_for_the_page(config, folder, port, least):
    wanted = replace(
        config,
        recording=RecordingSettings(folder=folder, min_score=0.4),
        ui=UiSettings(port=port),
    )
    (key,) = listener_keys(wanted)
    assert key.near_miss_score == least


def test_what_was_under_way_at_a_gap_is_heard_to_its_end(source, config, audio):
    """A word that ends with the audio is found when the gap is told of, not when audio comes back.

    The average over 300 ms has not risen far enough yet.
    """
    slow = [replace(config.models[0], decision=DecisionSettings(smoothing_ms=300, threshold=0.5))]
    (key,) = listener_keys(replace(config, models=slow))
    source.replace_listeners([Listener.open(key)])
    cut = audio[: 2 * int(0.5 * 16_000 + 1_600)]
    assert process(source, blocks_of(cut)) == []
    assert process(source, [AudioBlock(len(cut) // 2, b"", True)]) == source.flush() == []
    cut = audio[: 2 * int(0.5 * 16_000 + 6_400)]
    assert len(process(source, blocks_of(cut)) + source.flush()) == 1


def test_what_is_muted_is_not_heard_and_counts_as_a_gap(source, audio):
    assert process(source, blocks_of(audio), is_muted=True) == []
    found = process(source, blocks_of(audio, start_sample=48_000))
    assert len(found) == 2
    assert found[0].end_s >= 3.0


def test_the_same_voice_is_recognised_until_anything_changes(config, model):
    (key,) = listener_keys(config)
    assert listener_keys(config) == [key]
    assert listener_keys(replace(config, gate=GateSettings())) != [key]
    assert listener_keys(replace(config, decision=DecisionSettings(threshold=0.1))) != [key]
    before = model.stat()
    try:
        model.touch()
        assert listener_keys(config) != [key]
    finally:
        os.utime(model, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("at_s", [0.1, 0.45, 0.52, 0.56, 0.6, 0.7, 0.9, 1.0, 1.5, 2.0])
def test_a_word_that_a_new_model_comes_into_is_heard_once(source, config, audio, at_s):
    expected = process(source, blocks_of(audio))
    source.process(AudioBlock(0, b"", True))
    (key,) = listener_keys(config)
    at = 2 * int(16_000 * at_s)
    found = process(source, blocks_of(audio[:at]))
    found += source.replace_listeners([Listener.open(key)])
    found += process(source, blocks_of(audio[at:], start_sample=at // 2))
    assert ends_s(found) == pytest.approx(ends_s(expected), abs=0.05)


def test_a_model_that_is_kept_keeps_its_state(source, audio):
    kept = list(source.listeners)
    expected = process(source, blocks_of(audio))
    source.process(AudioBlock(0, b"", True))
    found = process(source, blocks_of(audio[:20_000]))
    assert source.replace_listeners(kept) == []
    found += process(source, blocks_of(audio[20_000:], start_sample=10_000))
    assert found == expected


def test_a_model_that_fails_while_it_runs_is_ended_and_the_others_go_on(
    source, config, audio, monkeypatch
):
    (key,) = listener_keys(config)
    source.replace_listeners([*source.listeners, broken := Listener.open(key)])

    def fail(samples):
        raise ModelError("The model must be one that runs. Received: an error.")

    monkeypatch.setattr(broken.spotter, "process", fail)
    found = process(source, blocks_of(audio)) + source.flush()
    assert len(found) == 2
    assert broken not in source.listeners
    assert source.failures == [
        "The model `loud` has ended on desk; a reload opens it again. The model must be one that "
        "runs. Received: an error."
    ]


def test_a_new_model_that_fails_in_the_audio_before_it_is_never_used(source, config, audio):
    process(source, blocks_of(audio))
    (key,) = listener_keys(config)
    broken, before = Listener.open(key), source.listeners

    def fail(samples):
        raise ModelError("an error")

    broken.spotter.process = fail
    asyncio.run(source.warm_up([*before, broken]))
    source.replace_listeners([*before, broken])
    assert source.listeners == before
    assert len(source.failures) == 1


def test_the_loop_runs_while_a_new_model_gets_the_audio_before_it(source, config, audio):
    """A model just faster than real time takes two seconds for it; the loop waits 0.1 s at most."""
    process(source, blocks_of(audio))
    (key,) = listener_keys(config)
    slow = Listener.open(key)
    usual = slow.spotter.process
    given = []

    def take_time(samples):
        given.append(len(samples))
        time.sleep(0.4 * len(samples) / 32_000 if given[0] != len(samples) else 0)
        return usual(samples)

    slow.spotter.process = take_time
    ticks, added = [], []

    async def tick():
        while True:
            ticks.append(time.monotonic())
            await asyncio.sleep(0)
            if len(ticks) == 10:  # audio comes meanwhile
                added.extend(process(source, blocks_of(audio[:32_000], start_sample=48_000)))

    async def run():
        task = asyncio.create_task(tick())
        await source.warm_up([slow])
        task.cancel()

    asyncio.run(run())
    assert max(b - a for a, b in itertools.pairwise(ticks)) < 0.3
    assert slow.position == 48_000 + 16_000
    n_given = len(given)
    source.replace_listeners([slow])
    assert given[n_given:] == [0]
    assert len(process(source, blocks_of(audio, start_sample=64_000))) == 2


def test_a_gap_during_the_warm_up_resets_the_new_model(source, config, audio):
    process(source, blocks_of(audio))
    (key,) = listener_keys(config)
    new = Listener.open(key)

    async def run():
        task = asyncio.create_task(source.warm_up([new]))
        await asyncio.sleep(0)
        process(source, blocks_of(audio[:3_200], start_sample=48_000, is_after_gap=True))
        await task

    asyncio.run(run())
    restarts = []
    new.restart = restarts.append
    source.replace_listeners([new])
    assert (new.position, restarts) == (49_600, [])


def test_listeners_that_share_a_keyword_give_one_detection_for_an_utterance(source, audio):
    alone = process(source, blocks_of(audio)) + source.flush()
    (listener,) = source.listeners
    other = Listener.open(listener.key)
    other.spotter.manifests = (replace(other.spotter.manifests[0], name="other"),)
    for detector in other.spotter._detectors:
        detector.manifest = replace(detector.manifest, name="other")
    source.replace_listeners([Listener(listener.spotter, listener.key), other])
    source.take_peaks()
    both = process(source, blocks_of(audio, start_sample=160_000, is_after_gap=True))
    both += source.flush()
    assert [one.keyword for one in both] == [one.keyword for one in alone]
    assert ends_s(both) == pytest.approx([end_s + 10 for end_s in ends_s(alone)])
    assert len(source.take_peaks()) == len(both)
