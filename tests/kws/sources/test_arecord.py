import re
import sys
import threading
import time

import numpy as np
import pytest

from kws.config import SourceSettings
from kws.errors import DeviceError
from kws.sources import Device, list_devices, open_source
from kws.sources.arecord import ArecordSource, has_sound_card

LISTING = """null
    Discard all samples (playback) or generate zero samples (capture)
lavrate
    Rate Converter Plugin Using Libav/FFmpeg Library
default
    Default ALSA Output (currently PulseAudio Sound Server)
mymic
hw:CARD=Device,DEV=0
    USB PnP Sound Device, USB Audio
    Direct hardware device without any conversions
plughw:CARD=Device,DEV=0
    USB PnP Sound Device, USB Audio
    Hardware device with all software conversions
plughw:CARD=Webcam,DEV=0
    USB Webcam, USB Audio
    Hardware device with all software conversions
sysdefault:CARD=Device
    USB PnP Sound Device, USB Audio
    Default Audio Device
"""


@pytest.fixture
def arecord(tmp_path, monkeypatch):
    """Put a shell script in arecord's place; its arguments are left in a file."""
    monkeypatch.setitem(sys.modules, "pyaudio", None)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr("kws.sources.arecord.has_sound_card", lambda: True)
    (tmp_path / "listing").write_text(LISTING)

    def install(script):
        program = tmp_path / "arecord"
        program.write_text(
            f'#!/bin/sh\n[ "$1" = -L ] && exec cat {tmp_path}/listing\n'
            f'echo "$@" > {tmp_path}/arguments\n{script}\n'
        )
        program.chmod(0o755)
        return tmp_path

    return install


def hear_until(source, message):
    heard = [np.zeros(0, np.int16)]
    with source, pytest.raises(DeviceError, match=f"^{re.escape(message)}$"):
        heard.extend(source)
    return np.concatenate(heard)


def ended(name, reason):
    return (
        f"{name} ended: {reason}. Close the program that uses the microphone, or choose another "
        f"with `--device`; `kws devices` lists them."
    )


def never_began(name, reason):
    return (
        f"{name} gave no audio: {reason}. Close the program that uses the microphone, or choose "
        f"another with `--device`; `kws devices` lists them."
    )


def test_mic_is_arecord_where_pyaudio_is_missing(arecord):
    ramp = np.arange(-3_200, 3_200, dtype=np.int16)
    folder = arecord('cat "$(dirname "$0")/audio"; exec sleep 60')
    (folder / "audio").write_bytes(ramp.astype("<i2").tobytes())
    with open_source(SourceSettings(chunk_ms=100)) as source:
        assert isinstance(source, ArecordSource)
        assert (source.name, source.live) == ("arecord (default device)", True)
        chunks = iter(source)
        heard = [next(chunks) for _ in range(4)]
    assert [len(chunk) for chunk in heard] == [1_600] * 4
    np.testing.assert_array_equal(np.concatenate(heard), ramp)
    assert (folder / "arguments").read_text() == (
        "-q -t raw -f S16_LE -r 16000 -c 1 --period-time=100000\n"
    )
    assert source.dropped_chunks == 0


def test_closing_ends_the_program_and_the_iteration_in_another_thread(arecord):
    arecord("exec sleep 60")
    source = ArecordSource(None, chunk_ms=80, stall_s=60)
    heard = []
    reader = threading.Thread(target=lambda: heard.extend(source))
    reader.start()
    start_s = time.monotonic()
    source.close()
    source.close()
    reader.join(5)
    assert not reader.is_alive()
    assert source._command._process.returncode is not None
    assert time.monotonic() - start_s < 5


def test_a_program_that_ignores_the_request_to_end_is_killed(arecord, monkeypatch):
    monkeypatch.setattr("kws.sources.command._TERMINATE_S", 0.2)
    folder = arecord('trap "" TERM; touch "$(dirname "$0")/ready"; while :; do sleep 0.05; done')
    with ArecordSource(None, chunk_ms=80) as source:
        while not (folder / "ready").exists():
            time.sleep(0.01)
    assert source._command._process.returncode == -9


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (
            'echo "arecord: main:831: audio open error: Device or resource busy" >&2; exit 1',
            "arecord: main:831: audio open error: Device or resource busy",
        ),
        ("printf 'a\\n\\nb\\nc\\n' >&2; exit 1", "b; c"),
        ("exit 3", "exit status 3"),
    ],
)
def test_a_program_that_dies_is_quoted(arecord, script, reason):
    arecord(script)
    source = ArecordSource("plughw:1,0", chunk_ms=80)
    assert len(hear_until(source, never_began("arecord (plughw:1,0)", reason))) == 0


def test_a_microphone_that_is_unplugged_gives_all_it_heard(arecord):
    arecord('head -c 2601 /dev/zero; echo "read error: No such device" >&2; exit 1')
    message = ended("arecord (default device)", "read error: No such device")
    assert len(hear_until(ArecordSource(None, chunk_ms=80), message)) == 1_300


def test_a_program_that_hangs_is_an_error(arecord):
    arecord("exec sleep 60")
    hear_until(
        ArecordSource(None, chunk_ms=80, stall_s=0.1),
        "No audio from arecord (default device) for 0.1 s. Check its plug and that no other "
        "program holds it; `kws devices` lists the microphones.",
    )


def test_overruns_are_counted_and_are_no_reason(arecord, monkeypatch):
    arecord('[ $LC_ALL = C ] && echo "overrun!!! (at least 3.2 ms long)" >&2; exit 1')
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    source = ArecordSource(None, chunk_ms=80)
    hear_until(source, never_began("arecord (default device)", "exit status 1"))
    assert source.dropped_chunks == 1


def test_a_program_that_cannot_run_is_an_error(arecord):
    folder = arecord("")
    (folder / "arecord").write_text("#!/no/such/shell\n")
    message = (
        f"The program of a source must have its interpreter. Received: {folder}/arecord; its first "
        f"line, `#!/no/such/shell`, names no program: install it, or correct the line."
    )
    with pytest.raises(DeviceError, match=f"^{re.escape(message)}"):
        ArecordSource(None, chunk_ms=80)


@pytest.mark.parametrize(
    ("device", "pcm"),
    [
        ("plughw:1,0", "plughw:1,0"),
        ("1", "plughw:1"),
        ("usb pnp", "plughw:CARD=Device,DEV=0"),
        ("default", "default"),
        ("unlisted", "unlisted"),
    ],
)
def test_a_device_is_an_alsa_string_a_card_or_part_of_a_name(arecord, device, pcm):
    arecord("exit 0")
    with ArecordSource(device, chunk_ms=80) as source:
        assert source.name == f"arecord ({pcm})"
        assert source._command._process.args[-2:] == ["-D", pcm]


def test_an_ambiguous_name_lists_what_it_fits(arecord):
    arecord("exit 0")
    end = "USB Audio, Hardware device with all software conversions"
    message = (
        f"`--device` must name one microphone. Received: usb, which fits 2: "
        f"plughw:CARD=Device,DEV=0 (USB PnP Sound Device, {end}), "
        f"plughw:CARD=Webcam,DEV=0 (USB Webcam, {end}). Give its number or more of its name."
    )
    with pytest.raises(DeviceError, match=f"^{re.escape(message)}$"):
        ArecordSource("usb", chunk_ms=80)


def test_microphones_are_listed_without_plugins_and_aliases(arecord):
    arecord("exit 0")
    end = "USB Audio, Hardware device with all software conversions"
    described = [
        ("default", "Default ALSA Output (currently PulseAudio Sound Server)"),
        ("mymic", "mymic"),
        ("plughw:CARD=Device,DEV=0", f"USB PnP Sound Device, {end}"),
        ("plughw:CARD=Webcam,DEV=0", f"USB Webcam, {end}"),
    ]
    assert list_devices() == [
        Device(id=pcm, name=name, default=pcm == "default", source="alsa")
        for pcm, name in described
    ]


def test_a_listing_that_fails_is_an_error(arecord):
    folder = arecord("")
    (folder / "arecord").write_text("#!/bin/sh\nexit 7\n")
    message = (
        f"`arecord -L` cannot list the microphones: Command '['{folder}/arecord', '-L']' returned "
        f"non-zero exit status 7. Check that the sound system runs."
    )
    with pytest.raises(DeviceError, match=f"^{re.escape(message)}$"):
        list_devices()


def test_a_system_without_a_sound_card_is_told_from_a_busy_one(arecord, monkeypatch, tmp_path):
    arecord("echo 'arecord: main:831: audio open error: No such file or directory' >&2; exit 1")
    monkeypatch.setattr("kws.sources.arecord.has_sound_card", lambda: has_sound_card(tmp_path))
    source = ArecordSource(None, chunk_ms=80)
    hear_until(
        source,
        "arecord (default device) gave no audio: arecord: main:831: audio open error: No such file "
        "or directory. This system has no sound card that records: plug in a microphone, or name a "
        "file or a port as the input.",
    )
    (tmp_path / "pcmC0D0p").touch()
    assert not has_sound_card(tmp_path)
    (tmp_path / "pcmC0D0c").touch()
    assert has_sound_card(tmp_path)
