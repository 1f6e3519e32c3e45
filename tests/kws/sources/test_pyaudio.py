import os
import re
import sys
import threading
import types

import numpy as np
import pytest

from kws.config import SourceSettings
from kws.errors import AudioError, DeviceError
from kws.sources import Device, list_devices, open_source
from kws.sources.arecord import ArecordSource
from kws.sources.pyaudio_ import PyAudioSource

INPUTS = {"USB Mic": 1, "Speaker": 0, "USB Array": 6, "Built-in Audio": 2}


class FakePyAudio(types.ModuleType):
    """The part of PyAudio that is used, with a sound system that the test plays."""

    paInt16 = 8  # noqa: N815
    paContinue = 0  # noqa: N815
    paInputOverflow = 2  # noqa: N815

    def __init__(self):
        super().__init__("pyaudio")
        self.infos = [
            {"index": i, "name": name, "maxInputChannels": n, "defaultSampleRate": 48_000.0}
            for i, (name, n) in enumerate(INPUTS.items())
        ]
        self.default = 3
        self.supported = [(16_000, 1)]
        self.calls = []
        self.opened = {}
        self.active = True

    def PyAudio(self):
        os.write(2, b"ALSA lib pcm.c:2666: Unknown PCM cards.pcm.rear\n")
        if not self.infos:
            self.default = None
        self.calls.append("initialize")
        return self

    def get_device_count(self):
        return len(self.infos)

    def get_device_info_by_index(self, index):
        return self.infos[index]

    def get_default_input_device_info(self):
        if self.default is None:
            raise OSError("No Default Input Device Available")
        return self.infos[self.default]

    def open(self, **settings):
        if (settings["rate"], settings["channels"]) not in self.supported:
            raise OSError(-9997, "Invalid sample rate")
        self.opened = settings
        self.calls.append("open")
        return self

    def is_active(self):
        if self.active is None:
            raise OSError(-9988, "Stream closed")
        return self.active

    def stop_stream(self):
        self.calls.append("stop")

    def close(self):
        self.calls.append("close")

    def terminate(self):
        self.calls.append("terminate")

    def play(self, samples, *, status=0):
        n = self.opened["frames_per_buffer"] * self.opened["channels"]
        data = np.asarray(samples, "<i2").ravel()
        for start in range(0, len(data), n):
            answer = self.opened["stream_callback"](
                data[start : start + n].tobytes(), n, {}, status
            )
            assert answer == (None, self.paContinue)


@pytest.fixture
def sound(monkeypatch):
    fake = FakePyAudio()
    monkeypatch.setitem(sys.modules, "pyaudio", fake)
    return fake


def refuse(device, message, kind=DeviceError):
    with pytest.raises(kind, match=f"^{re.escape(message)}$"):
        PyAudioSource(device, chunk_ms=80)


def take(source, n_chunks):
    chunks = iter(source)
    return np.concatenate([next(chunks) for _ in range(n_chunks)])


def test_mic_is_pyaudio_at_16_khz_mono_where_it_is_installed(sound):
    ramp = np.arange(3_200, dtype=np.int16)
    with open_source(SourceSettings(chunk_ms=100)) as source:
        assert isinstance(source, PyAudioSource)
        assert (source.name, source.live, source.duration_s) == ("Built-in Audio", True, None)
        sound.play(ramp)
        np.testing.assert_array_equal(take(source, 2), ramp)
        callback = sound.opened.pop("stream_callback")
        assert callable(callback)
    assert sound.opened == {
        "format": 8,
        "channels": 1,
        "rate": 16_000,
        "input": True,
        "input_device_index": 3,
        "frames_per_buffer": 1_600,
    }


def test_the_order_of_closing_is_stop_close_terminate(sound):
    source = PyAudioSource(None, chunk_ms=80)
    source.close()
    source.close()
    assert sound.calls == ["initialize", "open", "stop", "close", "terminate"]
    assert list(source) == []


def test_a_device_that_fails_while_closing_is_still_let_go(sound, monkeypatch):
    def gone():
        raise OSError(-9988, "Stream closed")

    monkeypatch.setattr(sound, "stop_stream", gone)
    PyAudioSource(None, chunk_ms=80).close()
    assert sound.calls[-2:] == ["close", "terminate"]


@pytest.mark.parametrize(("device", "n_channels"), [("Built-in", 1), ("Array", 6)])
def test_a_device_that_refuses_16_khz_is_opened_at_its_own_rate(sound, device, n_channels):
    sound.supported = [(48_000, n_channels)]
    time_s = np.arange(48_000) / 48_000
    tone = 8_000 * np.sin(2 * np.pi * 1_000 * time_s)
    with PyAudioSource(device, chunk_ms=80) as source:
        sound.play(np.repeat(tone[:, None], n_channels, axis=1).astype(np.int16))
        heard = take(source, 11)
    assert sound.opened["frames_per_buffer"] == 3_840
    expected = 8_000 * np.sin(2 * np.pi * 1_000 * np.arange(len(heard)) / 16_000)
    assert np.abs(heard - expected)[1_000:].max() < 4


def test_a_device_that_cannot_be_opened_is_reported_and_let_go(sound):
    sound.supported = []
    refuse(
        None,
        "The microphone Built-in Audio cannot be opened for 16-bit audio: [Errno -9997] Invalid "
        "sample rate. Close the program that uses it, or choose another with `--device`; `kws "
        "devices` lists them.",
    )
    assert sound.calls == ["initialize", "terminate"]


def test_a_device_that_would_need_soxr_is_let_go_without_it(sound, monkeypatch):
    sound.supported = [(48_000, 1)]
    monkeypatch.setitem(sys.modules, "soxr", None)
    refuse(
        None,
        "Audio must be at 16000 Hz unless soxr is there to resample it. Received: 48000 Hz. "
        "Run `pip install soxr`, or convert it first.",
        AudioError,
    )
    assert sound.calls[-3:] == ["stop", "close", "terminate"]


def test_silence_of_the_callback_is_an_error_after_what_came(sound):
    message = (
        "No audio from USB Mic for 0.05 s. Check its plug and that no other program holds it; "
        "`kws devices` lists the microphones."
    )
    heard = []
    exactly = f"^{re.escape(message)}$"
    with PyAudioSource("0", chunk_ms=80, stall_s=0.05) as source:
        sound.play(np.ones(1_300))
        with pytest.raises(DeviceError, match=exactly):
            heard.extend(source)
    assert [len(chunk) for chunk in heard] == [1_280, 20]


@pytest.mark.parametrize("active", [False, None])
def test_a_stream_that_has_ended_is_an_error_at_once(sound, active):
    heard = []
    message = (
        "The microphone USB Mic stopped: it was unplugged, or the sound system ended. Check its "
        "plug; `kws devices` lists the microphones."
    )
    with PyAudioSource("0", chunk_ms=80, stall_s=600) as source:
        sound.play(np.ones(1_280))
        sound.active = active
        with pytest.raises(DeviceError, match=f"^{re.escape(message)}$"):
            heard.extend(source)
    assert [len(chunk) for chunk in heard] == [1_280]


def test_a_device_that_hangs_while_closing_is_left_behind(sound, monkeypatch):
    mended = threading.Event()
    monkeypatch.setattr(sound, "stop_stream", lambda: mended.wait(60))
    monkeypatch.setattr("kws.sources.pyaudio_._CLOSE_S", 0.1)
    source = PyAudioSource(None, chunk_ms=80)
    sound.active = False
    source.close()
    assert list(source) == []
    assert sound.calls == ["initialize", "open"]
    mended.set()


@pytest.mark.parametrize(
    ("device", "message"),
    [
        (
            "usb",
            "`--device` must name one microphone. Received: usb, which fits 2: 0 (USB Mic), "
            "2 (USB Array). Give its number or more of its name.",
        ),
        (
            "USB Aray",
            "`--device` must name a connected microphone. Received: USB Aray. Did you mean "
            "`USB Array`? Connected: 0 (USB Mic), 2 (USB Array), 3 (Built-in Audio).",
        ),
        (
            "1",
            "`--device` must name a connected microphone. Received: 1. Connected: "
            "0 (USB Mic), 2 (USB Array), 3 (Built-in Audio).",
        ),
    ],
)
def test_an_unknown_or_ambiguous_device_lists_what_there_is(sound, device, message):
    refuse(device, message)
    assert sound.calls == ["initialize", "terminate"]


def test_no_device_at_all_is_an_error(sound):
    sound.infos = []
    refuse(
        None,
        "No microphone is connected. Plug one in; `kws devices` lists the microphones.",
    )


def test_without_a_default_the_first_input_is_taken(sound):
    sound.default = None
    with PyAudioSource(None, chunk_ms=80) as source:
        assert source.name == "USB Mic"


def test_a_reader_that_is_too_slow_loses_the_oldest_chunks(sound):
    with PyAudioSource(None, chunk_ms=1_000) as source:
        sound.play(np.repeat(np.arange(13), 16_000))
        assert source.dropped_chunks == 3
        assert take(source, 10)[::16_000].tolist() == list(range(3, 13))
        sound.play(np.zeros(16_000), status=sound.paInputOverflow)
        assert source.dropped_chunks == 4


def test_closing_ends_an_iteration_in_another_thread(sound):
    source = PyAudioSource(None, chunk_ms=80, stall_s=60)
    heard = []
    reader = threading.Thread(target=lambda: heard.extend(source))
    reader.start()
    source.close()
    reader.join(5)
    assert not reader.is_alive()


def test_the_sound_system_does_not_chatter_on_standard_error(sound, capfd):
    with PyAudioSource(None, chunk_ms=80):
        os.write(2, b"heard\n")
    assert capfd.readouterr().err == "heard\n"


def test_a_sound_system_that_does_not_start_is_reported(sound, monkeypatch):
    def broken():
        raise OSError(-10000, "PortAudio not initialized")

    monkeypatch.setattr(sound, "PyAudio", broken)
    refuse(
        None,
        "PortAudio cannot start: [Errno -10000] PortAudio not initialized. Check that the sound "
        "system runs: `arecord -l` lists the cards.",
    )


def test_inputs_are_listed(sound):
    assert list_devices() == [
        Device(id="0", name="USB Mic", default=False, source="pyaudio"),
        Device(id="2", name="USB Array", default=False, source="pyaudio"),
        Device(id="3", name="Built-in Audio", default=True, source="pyaudio"),
    ]
    assert sound.calls == ["initialize", "terminate"]


def test_an_alsa_string_goes_to_arecord_where_there_is_one(sound, tmp_path, monkeypatch):
    sound.infos[0]["name"] = "USB Mic: - (hw:1,0)"
    monkeypatch.setenv("PATH", str(tmp_path))
    with open_source(SourceSettings(device="hw:1,0")) as source:
        assert source.name == "USB Mic: - (hw:1,0)"
    (tmp_path / "arecord").write_text("#!/bin/sh\nexit 0\n")
    (tmp_path / "arecord").chmod(0o755)
    with open_source(SourceSettings(device="hw:1,0")) as source:
        assert isinstance(source, ArecordSource)
