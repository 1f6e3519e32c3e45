import os
import re
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from kws.config import SourceSettings
from kws.errors import AudioError, ConfigError, DeviceError, FormatError
from kws.sources import open_source
from kws.sources.command import CommandSource
from kws.sources.pcm import Layout

RAMP = np.arange(-3_200, 3_200, dtype=np.int16)


@pytest.fixture
def audio(tmp_path):
    file = tmp_path / "audio"
    file.write_bytes(RAMP.astype("<i2").tobytes())
    return file


def sh(line, *arguments):
    return ["/bin/sh", "-c", line, "sh", *map(str, arguments)]


def hear_until(source, kind):
    heard = [np.zeros(0, np.int16)]
    with source, pytest.raises(kind) as caught:
        heard.extend(source)
    return np.concatenate(heard), str(caught.value)


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(happened):
    deadline_s = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_a_command_is_heard_to_its_good_end(audio):
    with open_source(SourceSettings(command=["cat", str(audio)], chunk_ms=100)) as source:
        assert (source.name, source.live) == (f"`cat {audio}`", True)
        chunks = list(source)
    assert [len(chunk) for chunk in chunks] == [1600] * 4
    np.testing.assert_array_equal(np.concatenate(chunks), RAMP)


def test_a_string_is_split_without_a_shell(audio):
    with open_source(SourceSettings(command=f"cat '{audio}'")) as source:
        np.testing.assert_array_equal(np.concatenate(list(source)), RAMP)


def test_a_wav_says_itself_what_it_is(tmp_path, make_wav):
    stereo = np.stack([RAMP, 0 * RAMP], axis=1)
    (tmp_path / "a.wav").write_bytes(make_wav(stereo.tobytes(), n_channels=2))
    settings = SourceSettings(command=["cat", str(tmp_path / "a.wav")], n_channels=2, channel=0)
    with open_source(settings) as source:
        np.testing.assert_array_equal(np.concatenate(list(source)), RAMP)


@pytest.mark.parametrize("channel", [0, 1])
def test_one_channel_of_several_is_heard(tmp_path, channel):
    (tmp_path / "raw").write_bytes(np.stack([RAMP, 7 - RAMP], axis=1).tobytes())
    settings = SourceSettings(command=["cat", str(tmp_path / "raw")], n_channels=2, channel=channel)
    with open_source(settings) as source:
        np.testing.assert_array_equal(np.concatenate(list(source)), [RAMP, 7 - RAMP][channel])


def test_another_rate_is_resampled(tmp_path):
    t = np.arange(48_000) / 48_000
    (tmp_path / "raw").write_bytes((9_000 * np.sin(2 * np.pi * 440 * t)).astype("<i2").tobytes())
    with open_source(SourceSettings(command=["cat", str(tmp_path / "raw")], rate_hz=48_000)) as it:
        heard = np.concatenate(list(it))
    assert len(heard) == 16_000
    wanted = 9_000 * np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)
    assert np.abs(heard - wanted)[200:-200].max() < 20


def test_samples_do_not_depend_on_how_the_program_writes_them(audio):
    line = "dd if=$1 bs=333 iflag=fullblock | dd bs=7 count=300 iflag=fullblock; exit 0"
    with CommandSource(sh(line, audio), chunk_ms=80) as source:
        np.testing.assert_array_equal(np.concatenate(list(source)), RAMP[:1050])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "echo first >&2; echo busy >&2; exit 3",
            "NAME, with exit status 3. stderr: busy.",
        ),
        ("exit 4", "NAME, with exit status 4. stderr: none."),
        ("kill -KILL $$", "NAME, with signal 9. stderr: none."),
    ],
)
def test_a_command_that_dies_is_quoted_after_all_it_gave(audio, line, said):
    source = CommandSource(sh(f"cat $1; {line}", audio), chunk_ms=80)
    heard, message = hear_until(source, DeviceError)
    np.testing.assert_array_equal(heard, RAMP)
    said = said.replace("NAME", source.name)
    assert message == f"The command of a source ended: {said} Try it in a terminal."


def test_a_command_that_says_nothing_more_is_an_error(audio):
    source = CommandSource(
        sh("cat $1; while :; do echo busy >&2; sleep 0.05; done", audio), chunk_ms=80, stall_s=0.4
    )
    heard, message = hear_until(source, DeviceError)
    np.testing.assert_array_equal(heard, RAMP)
    assert "wrote no audio for 0.4 s: " in message
    assert message.endswith(" stderr: busy. Try it in a terminal.")


def test_closing_ends_the_whole_group_and_the_iteration_in_another_thread(tmp_path):
    line = 'sleep 60 & echo $! > "$1"; echo $$ >> "$1"; wait'
    source = CommandSource(sh(line, tmp_path / "pids"), chunk_ms=80, stall_s=60)
    reader = threading.Thread(target=lambda: list(source))
    reader.start()
    wait_until(
        lambda: (tmp_path / "pids").exists() and len((tmp_path / "pids").read_text().split()) == 2
    )
    before = time.monotonic()
    source.close()
    source.close()
    reader.join(5)
    assert not reader.is_alive()
    assert time.monotonic() - before < 5
    wait_until(lambda: not any(map(is_running, (tmp_path / "pids").read_text().split())))


def test_a_command_that_ignores_the_request_to_end_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr("kws.sources.command._TERMINATE_S", 0.2)
    line = 'trap "" TERM; touch "$1"; while :; do sleep 0.05; done'
    with CommandSource(sh(line, tmp_path / "ready"), chunk_ms=80) as source:
        wait_until((tmp_path / "ready").exists)
    assert source._process.returncode == -9


def test_a_fast_command_waits_for_a_slow_reader_and_nothing_is_lost():
    n_bytes = 8_000_000
    with CommandSource(["head", "-c", str(n_bytes), "/dev/zero"], chunk_ms=1000) as source:
        time.sleep(0.3)
        assert sum(map(len, source)) == n_bytes // 2
        assert source.dropped_chunks == 0


def test_overruns_that_the_command_tells_of_are_counted(audio):
    said = "overrun!!! (at least 3.2 ms long)\\nhello\\n[alsa @ 0x1] ALSA buffer xrun.\\nover"
    line = f'printf "{said}" >&2; sleep 0.2; echo "run!!!" >&2; sleep 0.2; cat $1'
    with CommandSource(sh(line, audio), chunk_ms=80) as source:
        np.testing.assert_array_equal(np.concatenate(list(source)), RAMP)
        assert source.dropped_chunks == 3


def test_much_on_standard_error_holds_nothing_up(audio):
    line = "head -c 1000000 /dev/zero | tr '\\0' x >&2; cat $1"
    with CommandSource(sh(line, audio), chunk_ms=80) as source:
        np.testing.assert_array_equal(np.concatenate(list(source)), RAMP)
        assert len(source._stderr_tail) <= 2048


@pytest.mark.parametrize(
    ("line", "n", "problem"),
    [
        ("printf ''", 0, "must carry audio. Received: nothing before its end."),
        ("printf abc", 1, "must end on a whole 16-bit sample. Received: 1 byte after 1 samples"),
        ("printf fLaCxxxx", 0, "must be raw 16000 Hz mono s16le, or WAV. Received: FLAC."),
    ],
)
def test_output_that_is_no_audio_is_an_error(line, n, problem):
    heard, message = hear_until(CommandSource(sh(line), chunk_ms=80), FormatError)
    assert len(heard) == n
    assert problem in message


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        (
            SourceSettings(command=["no-such-recorder"]),
            DeviceError,
            "The program of `[source] command` must exist and be executable. Received: "
            "`no-such-recorder`. Install it, or write its whole path.",
        ),
        (
            SourceSettings(command="arecord 'x"),
            ConfigError,
            "`[source] command` must have its quotes in pairs. Received: `arecord 'x` (No closing "
            "quotation). Add the missing quote, or write it as a list of words.",
        ),
        (
            SourceSettings(command=[]),
            ConfigError,
            "`[source] command` must name a program, without NUL characters. Received: []. Write "
            'one, such as `command = ["parec", "--raw"]`.',
        ),
        (
            SourceSettings(command="true", input="a.wav"),
            ConfigError,
            "A source must have either `input` or `command`. Received: both, `a.wav` and a "
            "command. Leave one out.",
        ),
        (
            SourceSettings(command="true", n_channels=2, channel=2),
            ConfigError,
            "`channel` counts from 0 and must be less than `n_channels`. Received: 2 of 2. Set "
            "`n_channels` to what the source gives.",
        ),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, kind, message):
    with pytest.raises(kind, match=f"^{re.escape(message)}$"):
        open_source(settings)


def test_a_channel_that_a_file_lacks_is_refused(tmp_path, make_wav):
    (tmp_path / "a.wav").write_bytes(make_wav(RAMP.tobytes()))
    with (
        open_source(SourceSettings(input=str(tmp_path / "a.wav"), channel=1)) as source,
        pytest.raises(FormatError, match=r"^`channel` counts from 0 .* Received: 1 of 1 in "),
    ):
        list(source)


def test_nothing_stays_open():
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        with (
            CommandSource(["true"], chunk_ms=80, layout=Layout()) as source,
            pytest.raises(AudioError),
        ):
            list(source)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_root_runs_no_program_that_every_user_may_change(tmp_path, monkeypatch):
    program = tmp_path / "record"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o757)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(DeviceError, match=r"^The program of a source of root must not be writable"):
        CommandSource([str(program)], chunk_ms=80)


def test_the_last_words_of_a_command_are_escaped_and_cut():
    line = r"printf '\033[2J\nERROR: root\n' >&2; head -c 300 /dev/zero | tr '\0' x >&2; exit 1"
    with CommandSource(["/bin/sh", "-c", line], chunk_ms=80) as source:
        with pytest.raises(DeviceError, match=rf"stderr: {200 * 'x'}\."):
            list(source)
        assert source.stderr_lines(3) == [r"\x1b[2J", "ERROR: root", 200 * "x"]
