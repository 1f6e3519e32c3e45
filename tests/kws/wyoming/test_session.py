import wave

import numpy as np
import pytest
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.info import Describe, Info
from wyoming.ping import Ping
from wyoming.wake import Detect, Detection

from kws.spotter import Spotter

from .conftest import ask, client_of, stream

SILENCE = bytes(32_000)


@pytest.mark.parametrize(
    ("rate", "width", "channels"),
    [(16_000, 2, 1), (44_100, 2, 2), (48_000, 4, 1), (22_050, 3, 3), (16_000, 1, 2)],
)
def test_detections_equal_those_of_a_spotter_on_the_file(
    rate, width, channels, demo_samples, scenario, tmp_path
):
    path = tmp_path / "speech.wav"
    data = _written(path, demo_samples, rate=rate, width=width, channels=channels)
    expected = [(one.keyword, round(1000 * one.end_s)) for one in Spotter().listen(path)]
    assert len(expected) >= 6

    async def steps(server):
        async with client_of(server) as client:
            audio = {"rate": rate, "width": width, "channels": channels}
            return await stream(client, data, **audio, timestamp=None)

    assert _detections(scenario(steps)) == expected


@pytest.mark.parametrize("chunk_ms", [10, 250, 5000])
def test_chunks_of_any_length_give_the_same(chunk_ms, demo_samples, scenario, demo):
    async def steps(server):
        async with client_of(server) as client:
            return await stream(client, demo_samples.tobytes(), chunk_ms=chunk_ms)

    expected = [(one.keyword, round(1000 * one.end_s)) for one in Spotter().listen(demo)]
    assert _detections(scenario(steps)) == expected


def test_the_timestamp_is_in_the_clients_time(demo_samples, scenario, demo):
    async def steps(server):
        async with client_of(server) as client:
            data = demo_samples.tobytes()
            later = await stream(client, data, timestamp=1_700_000_000_000)
            without = await stream(client, data, timestamp=None)
            return later, without

    later, without = map(_detections, scenario(steps))
    expected = [(one.keyword, round(1000 * one.end_s)) for one in Spotter().listen(demo)]
    assert without == expected
    assert later == [(keyword, at + 1_700_000_000_000) for keyword, at in expected]


def test_only_keywords_that_were_asked_for_are_reported(demo_samples, scenario):
    async def steps(server):
        async with client_of(server) as client:
            some = await stream(client, demo_samples.tobytes(), names=["Down", "yes"])
            every = await stream(client, demo_samples.tobytes(), names=["commands"])
            return some, every

    some, every = map(_detections, scenario(steps))
    # The name comes as it was asked for: Home Assistant compares it.
    assert {name for name, _ in some} == {"Down", "yes"}
    assert [(one.lower(), at) for one, at in some] == [
        (name, at) for name, at in every if name in {"down", "yes"}
    ]


def test_a_stream_without_a_keyword_ends_with_not_detected(scenario):
    async def steps(server):
        async with client_of(server) as client:
            return await stream(client, SILENCE)

    assert [event.type for event in scenario(steps)] == ["not-detected"]


def test_a_stream_with_a_keyword_does_not(demo_samples, scenario):
    async def steps(server):
        async with client_of(server) as client:
            return await stream(client, demo_samples.tobytes())

    assert {event.type for event in scenario(steps)} == {"detection"}


def test_audio_may_follow_detect_without_a_start_as_from_a_satellite(demo_samples, scenario):
    async def steps(server):
        async with client_of(server) as client:
            data = demo_samples.tobytes()
            first = await stream(client, data, names=[], start=False, stop=False)
            second = await stream(client, data, names=[], start=False, stop=False)
            return first, second

    first, second = scenario(steps)
    assert _detections(first) == _detections(second) != []


def test_audio_before_any_request_is_an_error_once(scenario):
    async def steps(server):
        async with client_of(server) as client:
            return await stream(client, SILENCE, start=False)

    error, ended = scenario(steps)
    assert (error.type, error.data["code"]) == ("error", "no-audio-start")
    assert error.data["text"] == (
        "Audio must come after `audio-start` or `detect`. Received: a chunk before either. Send "
        "one of them first."
    )
    assert ended.type == "not-detected"


def test_an_unknown_name_is_an_error_that_names_what_there_is(scenario, demo_samples):
    async def steps(server):
        async with client_of(server) as client:
            error = await ask(client, Detect(names=["stob"]))
            nothing = await stream(client, demo_samples.tobytes())
            corrected = await stream(client, demo_samples.tobytes(), names=["down"])
            return error, nothing, corrected

    error, nothing, corrected = scenario(steps)
    assert (error.type, error.data["code"]) == ("error", "unknown-model")
    assert error.data["text"] == (
        "`detect` must name keywords or models that are served. Received: `stob`. Did you mean "
        "`stop`? There is: yes, no, up, down, left, right, on, off, stop, go."
    )
    assert [event.type for event in nothing] == ["not-detected"]
    assert _detections(corrected)


def test_a_format_that_changes_within_a_stream_is_an_error(scenario):
    async def steps(server):
        async with client_of(server) as client:
            await client.write_event(AudioStart(rate=16_000, width=2, channels=1).event())
            chunk = AudioChunk(rate=48_000, width=2, channels=1, audio=bytes(960))
            return await ask(client, chunk)

    event = scenario(steps)
    assert event.data["code"] == "format-changed"
    assert event.data["text"] == (
        "The format of a stream must not change. Received: 48000 Hz, 16 bits, 1 channels after "
        "16000 Hz, 16 bits, 1 channels. Send `audio-start` again."
    )


@pytest.mark.parametrize(
    ("rate", "width", "channels"), [(0, 2, 1), (16_000, 5, 1), (16_000, 2, 0), ("16k", 2, 1)]
)
def test_a_format_that_is_none_is_an_error_and_the_client_stays(rate, width, channels, scenario):
    async def steps(server):
        async with client_of(server) as client:
            start = AudioStart(rate=rate, width=width, channels=channels)
            return await ask(client, start), await ask(client, Ping(text="still here"))

    error, pong = scenario(steps)
    assert (error.type, error.data["code"]) == ("error", "bad-event")
    assert error.data["text"].startswith(
        "The data of `audio-start` must follow the Wyoming protocol. Received: "
    )
    assert pong.data == {"text": "still here"}


def test_describe_tells_every_keyword_with_phrase_language_and_version(scenario):
    async def steps(server):
        async with client_of(server) as client:
            return await ask(client, Describe())

    info = Info.from_event(scenario(steps, models=["hey_computer", "commands"]))
    (program,) = info.wake
    assert (program.name, program.installed, bool(program.version)) == ("kws", True, True)
    first = program.models[0]
    assert (first.name, first.phrase, first.languages) == ("hey_computer", "hey computer", ["en"])
    assert (first.installed, len(first.version)) == (True, 12)
    assert first.attribution.name == "the kws authors"
    assert [one.name for one in program.models[1:4]] == ["yes", "no", "up"]


def test_events_that_are_not_for_a_wake_service_are_ignored(scenario):
    async def steps(server):
        async with client_of(server) as client:
            await client.write_event(AudioStop().event())
            assert (await client.read_event()).type == "not-detected"
            await client.write_event(Detection(name="x").event())
            return await ask(client, Ping())

    assert scenario(steps).type == "pong"


def _detections(events):
    return [(one.data["name"], one.data["timestamp"]) for one in events if one.type == "detection"]


def _written(path, samples, *, rate, width, channels):
    """Write 16 kHz mono as a WAV of another format; return its frames."""
    n = len(samples) * rate // 16_000
    at = np.arange(n) * 16_000 / rate
    resampled = np.interp(at, np.arange(len(samples)), samples / 32_768)
    scaled = np.rint(resampled * (2 ** (8 * width - 1) - 1)).astype(np.int64)
    if width == 1:
        data = (scaled + 128).astype(np.uint8)[:, None]
    else:
        data = scaled.astype("<i4")[:, None].view(np.uint8)[:, :width]
    data = np.repeat(data[:, None, :], channels, axis=1).tobytes()
    with wave.open(str(path), "wb") as file:
        file.setparams((channels, width, rate, 0, "NONE", ""))
        file.writeframes(data)
    return data
