import re
import sys
import types

import numpy as np
import pytest

from kws.config import SourceSettings
from kws.errors import DeviceError
from kws.sources import Device, list_devices, open_source
from kws.sources.sounddevice_ import SoundDeviceSource

INPUTS = {"Speakers": 0, "MacBook Microphone": 1, "USB Array": 6}


class FakeSoundDevice(types.ModuleType):
    """The part of sounddevice that is used, with a sound system that the test plays."""

    class PortAudioError(Exception):
        pass

    def __init__(self):
        super().__init__("sounddevice")
        self.default = types.SimpleNamespace(device=[1, 0])
        self.supported = [(16_000, 1)]
        self.infos = [
            {"name": name, "max_input_channels": n, "default_samplerate": 48_000.0}
            for name, n in INPUTS.items()
        ]
        self.opened = {}
        self.calls = []
        self.active = True

    def query_devices(self, number=None):
        return self.infos if number is None else self.infos[number]

    def RawInputStream(self, **settings):
        if (settings["samplerate"], settings["channels"]) not in self.supported:
            raise self.PortAudioError("Invalid sample rate [PaErrorCode -9997]")
        self.opened = settings
        return self

    def start(self):
        self.calls.append("start")

    def close(self, *, ignore_errors):
        assert ignore_errors
        self.calls.append("close")

    def play(self, samples, *, overflow=False):
        n = self.opened["blocksize"] * self.opened["channels"]
        data = np.asarray(samples, "<i2").ravel()
        status = types.SimpleNamespace(input_overflow=overflow)
        for start in range(0, len(data), n):
            self.opened["callback"](memoryview(data[start : start + n]).cast("B"), n, None, status)


@pytest.fixture
def sound(monkeypatch):
    """A system other than Linux, without PyAudio."""
    fake = FakeSoundDevice()
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    monkeypatch.setitem(sys.modules, "pyaudio", None)
    monkeypatch.setattr("kws.sources.is_linux", lambda: False)
    return fake


def take(source, n_chunks):
    chunks = iter(source)
    return np.concatenate([next(chunks) for _ in range(n_chunks)])


def test_mic_is_sounddevice_at_16_khz_mono_on_other_systems(sound):
    ramp = np.arange(3_200, dtype=np.int16)
    with open_source(SourceSettings(chunk_ms=100)) as source:
        assert isinstance(source, SoundDeviceSource)
        assert (source.name, source.live, source.duration_s) == ("MacBook Microphone", True, None)
        sound.play(ramp)
        np.testing.assert_array_equal(take(source, 2), ramp)
        del sound.opened["callback"]
    assert sound.opened == {
        "samplerate": 16_000,
        "channels": 1,
        "dtype": "int16",
        "device": 1,
        "blocksize": 1_600,
    }
    assert sound.calls == ["start", "close"]


def test_a_device_that_knows_no_16_khz_is_resampled_from_its_own_rate(sound):
    sound.supported = [(48_000, 1)]
    with SoundDeviceSource("macbook", chunk_ms=100) as source:
        sound.play(np.full(3 * 4800, 1000))
        assert len(take(source, 1)) == 1_600


def test_a_channel_of_an_array_is_chosen(sound):
    sound.supported = [(16_000, 6)]
    with SoundDeviceSource("USB", chunk_ms=100, channel=2) as source:
        sound.play(np.tile(np.arange(6), (1600, 1)))
        assert set(take(source, 1)) == {2}


def test_losses_are_counted(sound):
    with SoundDeviceSource(None, chunk_ms=100) as source:
        sound.play(np.zeros(1600), overflow=True)
        assert source.dropped_chunks == 1


def test_an_unplugged_device_ends_the_iteration_with_an_error(sound):
    with SoundDeviceSource(None, chunk_ms=100) as source:
        sound.active = False
        with pytest.raises(DeviceError, match=r"^The microphone MacBook Microphone stopped: "):
            take(source, 1)


def test_a_device_that_opens_in_no_way_is_an_error(sound):
    sound.supported = []
    with pytest.raises(DeviceError, match=r"cannot be opened for 16-bit audio: Invalid sample"):
        SoundDeviceSource(None, chunk_ms=100)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("banana", "`--device` must name a connected microphone. Received: banana. Connected: 1 "),
        ("s", "`--device` must name one microphone. Received: s, which fits 2: "),
    ],
)
def test_a_name_that_fits_none_or_several_is_an_error(sound, wanted, message):
    sound.infos[1]["name"] = "Mic S"
    with pytest.raises(DeviceError, match=f"^{re.escape(message)}"):
        SoundDeviceSource(wanted, chunk_ms=100)


def test_the_microphones_are_listed_with_the_default(sound):
    assert list_devices() == [
        Device(id="1", name="MacBook Microphone", default=True, source="sounddevice"),
        Device(id="2", name="USB Array", default=False, source="sounddevice"),
    ]
    sound.infos = []
    with pytest.raises(DeviceError, match=r"^No microphone is connected\."):
        SoundDeviceSource(None, chunk_ms=100)


def test_without_the_library_the_remedy_is_named(sound, monkeypatch):
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(DeviceError, match=r"needs sounddevice \(.*Run `pip install 'kws\[mic\]'`"):
        open_source(SourceSettings())
