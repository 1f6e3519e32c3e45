import errno
import json
import logging
import os
import re
import stat
import sys
import time
import wave
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import soundfile

from kws.config import Config, RecordingSettings, SourceSettings
from kws.errors import ConfigError
from kws.events import Detection, End, NearMiss, Peak
from kws.sinks import clip_folder as clips_module
from kws.sinks.clip_folder import ClipFolder
from kws.sinks.clip_recorder import ClipCounts, ClipRecorder

RAMP = np.arange(16_000 * 10).astype(np.int16)  # wraps around: each second differs
NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


class Clock:
    def __init__(self):
        self.now_s = NOON.timestamp()

    def __call__(self):
        self.now_s += 1.0
        return self.now_s


def detection(start_s, end_s, *, keyword="stop", source="kitchen", score=0.9):
    return Detection(
        keyword=keyword, score=score, start_s=start_s, end_s=end_s, model="m", source=source
    )


def near_miss(score):
    return NearMiss(
        keyword="stop", score=score, start_s=1.0, end_s=1.5, model="m", source="kitchen"
    )


@pytest.fixture
def recorder(tmp_path):
    opened = []

    def open_recording(*, config=None, **settings):
        settings = {"folder": str(tmp_path / "clips")} | settings
        opened.append(ClipRecorder(RecordingSettings(**settings), config=config, clock=Clock()))
        return opened[-1]

    yield open_recording
    for one in opened:
        one.close()


def play(recording, samples, *, step=1_280, source="kitchen", start=0):
    for i in range(0, len(samples), step):
        recording.feed(source, samples[i : i + step].tobytes(), start_sample=start + i)


def files(folder, ending="*"):
    return sorted(path.name for path in Path(folder).glob(f"*.{ending}"))


def wait_until(happened):
    deadline_s = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_nothing_is_recorded_unless_a_folder_is_set(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    recording = ClipRecorder(RecordingSettings())
    play(recording, RAMP)
    recording.send(detection(1.0, 1.5))
    recording.close()
    assert (recording.is_on, list(tmp_path.iterdir()), caplog.messages) == (False, [], [])


def test_a_detection_is_kept_with_what_came_before_and_after(recorder, tmp_path, caplog):
    source = SourceSettings(name="kitchen", gain_db=3.0)
    recording = recorder(config=Config(source=source), pre_roll_s=0.5, post_roll_s=0.25)
    play(recording, RAMP[:27_000])
    recording.send(detection(1.0, 1.5))
    play(recording, RAMP[27_000:40_000], start=27_000)
    recording.close()
    stem = "20260102T120002.000Z_kitchen_stop"
    assert files(tmp_path / "clips") == [f"{stem}.json", f"{stem}.wav"]
    with wave.open(str(tmp_path / "clips" / f"{stem}.wav")) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 16_000)
        heard = np.frombuffer(file.readframes(10**6), "<i2")
    np.testing.assert_array_equal(heard, RAMP[8_000:28_000])
    about = json.loads((tmp_path / "clips" / f"{stem}.json").read_text())
    assert about["event"] == {
        "event": "detection",
        "keyword": "stop",
        "score": 0.9,
        "start_s": 1.0,
        "end_s": 1.5,
        "model": "m",
        "source": "kitchen",
    }
    assert about["time"] == "2026-01-02T12:00:02.000Z"
    assert about["clip"] == {"rate_hz": 16_000, "start_s": 0.5, "duration_s": 1.25}
    assert about["settings"]["sources"][0]["gain_db"] == 3.0
    assert "hooks" not in about["settings"]
    assert caplog.messages == [
        f"Recording is on: clips are kept in {tmp_path}/clips, at most 1000 clips, 30 days, 500 MB."
    ]
    assert recording.counts == ClipCounts(written=1)


def test_after_some_time_a_clip_still_has_the_audio_before_its_word(recorder, tmp_path):
    recording = recorder(pre_roll_s=0.5, post_roll_s=0.25)
    end = 16_000 * 9
    play(recording, RAMP[:end])
    recording.send(detection(8.0, 8.5))
    recording.close()
    (clip,) = (tmp_path / "clips").glob("*.wav")
    with wave.open(str(clip)) as file:
        heard = np.frombuffer(file.readframes(10**6), "<i2")
    np.testing.assert_array_equal(heard, RAMP[end - 24_000 : end - 4_000])


def test_old_clips_are_removed_though_no_new_one_comes(recorder, tmp_path, monkeypatch):
    monkeypatch.setattr("kws.sinks.clip_recorder._SWEEP_S", 0.05)
    usual, sweeps = ClipFolder.sweep, []

    def sweep(*given, **now):
        left = usual(*given, **now)
        sweeps.append(left)
        return left

    monkeypatch.setattr(ClipFolder, "sweep", sweep)
    recorder(max_clips=1)
    wait_until(lambda: sweeps)  # the one at the start
    folder = tmp_path / "clips"
    folder.mkdir(mode=0o700)
    for n in (1, 2):
        (folder / f"20260102T12000{n}.000Z_kitchen_stop.wav").write_bytes(b"")
    wait_until(lambda: files(folder) == ["20260102T120002.000Z_kitchen_stop.wav"])


def test_a_clip_is_named_by_its_time_in_milliseconds(tmp_path):
    folder = ClipFolder(tmp_path / "clips", max_clips=9, max_bytes=99, max_days=9.0)
    stem = folder.write("stop", {"wav": b""}, now=NOON + timedelta(milliseconds=987))
    folder.close()
    assert stem == "20260102T120000.987Z_stop"
    assert files(tmp_path / "clips") == [f"{stem}.wav"]


def test_after_the_end_nothing_is_recorded(recorder, tmp_path):
    recording = recorder()
    play(recording, RAMP[:40_000])
    recording.close()
    play(recording, RAMP[40_000:80_000], start=40_000)
    recording.send(detection(1.0, 1.5))
    recording.close()
    assert files(tmp_path / "clips") == []


def test_a_clip_of_a_word_whose_start_is_unknown_begins_before_its_end(recorder, tmp_path):
    recording = recorder(pre_roll_s=0.5, post_roll_s=0.25)
    play(recording, RAMP[:40_000])
    recording.send(detection(None, 2.0))
    recording.close()
    (path,) = (tmp_path / "clips").glob("*.json")
    assert _json(path)["clip"] == {"rate_hz": 16_000, "start_s": 0.9, "duration_s": 1.35}


@pytest.mark.parametrize(
    "command", ["ffmpeg -i rtsp://me:secret@camera", ["ffmpeg", "rtsp://me:secret@camera"]]
)
def test_arguments_of_commands_are_not_kept_with_clips(recorder, tmp_path, command):
    source = SourceSettings(name="kitchen", command=command)
    recording = recorder(config=Config(source=source))
    play(recording, RAMP[:40_000])
    recording.send(detection(1.0, 1.5))
    recording.close()
    (path,) = (tmp_path / "clips").glob("*.json")
    assert _json(path)["settings"]["sources"][0]["command"] == ["ffmpeg", "..."]
    assert "secret" not in path.read_text()


def test_the_peak_of_a_detection_is_kept_with_its_clip(recorder, tmp_path):
    recording = recorder()
    play(recording, RAMP[:25_000])
    for score in (0.8, 0.9):
        recording.send(detection(1.0, 1.5, score=score))
    recording.send(Peak(**detection(1.0, 1.5, score=0.9).fields(), peak=0.97))
    recording.close()
    texts = (tmp_path / "clips" / name for name in files(tmp_path / "clips", "json"))
    written = {about["event"]["score"]: about.get("peak") for about in map(_json, texts)}
    assert written == {0.8: None, 0.9: 0.97}


def _json(path):
    return json.loads(path.read_text())


def test_files_are_for_their_owner_alone(recorder, tmp_path):
    old = os.umask(0)
    try:
        recording = recorder()
        play(recording, RAMP)
        recording.send(detection(1.0, 1.5))
        recording.close()
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "clips").stat().st_mode) == 0o700
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "clips").iterdir()}
    assert modes == {0o600}


def test_flac_holds_the_same_samples(recorder, tmp_path):
    recording = recorder(format="flac", pre_roll_s=0.0, post_roll_s=0.0)
    play(recording, RAMP)
    recording.send(detection(1.0, 1.5))
    recording.close()
    (name,) = files(tmp_path / "clips", "flac")
    heard, rate_hz = soundfile.read(tmp_path / "clips" / name, dtype="int16")
    np.testing.assert_array_equal(heard, RAMP[16_000:24_000])
    assert rate_hz == 16_000


def test_near_misses_are_kept_from_a_score_on(recorder, tmp_path):
    recording = recorder(min_score=0.4)
    play(recording, RAMP)
    for event in (near_miss(0.39), near_miss(0.4), End(audio_s=1.0, detections=0, cpu_s=0.1)):
        recording.send(event)
    recording.close()
    assert files(tmp_path / "clips", "wav") == ["20260102T120002.000Z_kitchen_near-miss_stop.wav"]


def test_without_a_score_no_near_miss_is_kept(recorder, tmp_path):
    recording = recorder()
    play(recording, RAMP)
    recording.send(near_miss(0.99))
    recording.close()
    assert recording.counts == ClipCounts()


def test_a_gap_and_the_end_cut_clips_short(recorder, tmp_path):
    recording = recorder(pre_roll_s=0.0, post_roll_s=5.0)
    play(recording, RAMP[:32_000])
    recording.send(detection(1.0, 1.5))
    play(recording, RAMP[:3_200], start=64_000)
    recording.send(detection(4.0, 4.1))
    recording.close()
    sizes = [
        soundfile.info(tmp_path / "clips" / n).frames for n in files(tmp_path / "clips", "wav")
    ]
    assert sizes == [16_000, 3_200]


def test_sources_do_not_mix_and_names_are_harmless(recorder, tmp_path):
    recording = recorder(pre_roll_s=0.0, post_roll_s=0.0)
    play(recording, RAMP, source="../../a b")
    play(recording, -RAMP, source="hall")
    recording.send(detection(1.0, 1.1, source="../../a b", keyword="ö/.."))
    recording.send(detection(1.0, 1.1, source="hall"))
    recording.send(detection(1.0, 1.1, source="never heard"))
    recording.close()
    names = files(tmp_path / "clips", "wav")
    assert [name[21:] for name in names] == ["a-b_-.wav", "hall_stop.wav"]
    heard, _ = soundfile.read(tmp_path / "clips" / names[1], dtype="int16")
    np.testing.assert_array_equal(heard, -RAMP[16_000:17_600])


def test_memory_is_bounded(recorder):
    recording = recorder(pre_roll_s=1.0, post_roll_s=1.0)
    for start in range(0, 16_000 * 600, 16_000):
        recording.feed("kitchen", bytes(32_000), start_sample=start)
    (buffer,) = recording._buffers.values()
    assert len(buffer._audio) <= 2 * 16_000 * 12
    for _ in range(100):
        recording.send(detection(598.0, 599.9))
    assert len(buffer.pending) == 32
    assert recording.counts.dropped == 68


def test_a_slow_disk_delays_nobody_and_what_is_too_much_is_dropped(recorder, monkeypatch):
    recording = recorder(pre_roll_s=0.0, post_roll_s=0.0)
    write = clips_module._write_new

    def slow(name, content, *, folder):
        time.sleep(0.1)
        write(name, content, folder=folder)

    monkeypatch.setattr(clips_module, "_write_new", slow)
    monkeypatch.setattr("kws.sinks.clip_recorder._CLOSE_S", 20.0)  # for a busy machine
    play(recording, RAMP)
    before_s = time.monotonic()
    for _ in range(30):
        recording.send(detection(1.0, 1.1))
    assert time.monotonic() - before_s < 0.1
    recording.close()
    assert recording.counts.dropped >= 20
    assert recording.counts.written + recording.counts.dropped == 30


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_is_full_or_read_only_is_told_once_and_so_is_its_return(
    recorder, tmp_path, monkeypatch, caplog, number
):
    recording = recorder(pre_roll_s=0.0, post_roll_s=0.0)
    play(recording, RAMP)
    with monkeypatch.context() as patch:

        def fail(name, content, *, folder):
            (tmp_path / "clips" / name).write_bytes(content[:10])
            raise OSError(number, os.strerror(number))

        patch.setattr(clips_module, "_write_new", fail)
        for n in range(1, 4):
            recording.send(detection(1.0, 1.1))
            wait_until(lambda n=n: recording.counts.failed == n)
        assert list((tmp_path / "clips").iterdir()) == []
    for _ in range(2):
        recording.send(detection(1.0, 1.1))
    recording.close()
    assert recording.counts == ClipCounts(written=2, failed=3)
    assert caplog.messages[1:] == [
        f"Clips cannot be written: [Errno {number}] {os.strerror(number)}. Detection continues; "
        f"recording is retried with each clip.",
        "Recording works again; 3 clips were lost.",
    ]


def test_a_folder_that_vanishes_is_made_again(recorder, tmp_path):
    recording = recorder()
    play(recording, RAMP)
    recording.send(detection(1.0, 1.1))
    wait_until(lambda: recording.counts.written == 1)
    for path in (tmp_path / "clips").iterdir():
        path.unlink()
    (tmp_path / "clips").rmdir()
    recording.send(detection(1.0, 1.1))
    recording.close()
    assert len(files(tmp_path / "clips", "wav")) == 1


def test_a_folder_that_others_may_enter_is_refused(tmp_path):
    (tmp_path / "open").mkdir(mode=0o755)
    (tmp_path / "open").chmod(0o755)
    message = (
        f"`[recording] folder` must be one that only its owner may enter. Received: "
        f"{tmp_path}/open with mode 755. Run `chmod 700 {tmp_path}/open`, or name a new "
        f"one."
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        ClipRecorder(RecordingSettings(folder=str(tmp_path / "open")))


def test_a_link_and_a_folder_of_somebody_else_are_refused(tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    start = "`[recording] folder` must be a folder of the user of kws, and no link. Received: "
    with pytest.raises(ConfigError) as caught:
        ClipRecorder(RecordingSettings(folder=str(tmp_path / "link")))
    assert str(caught.value) == f"{start}{tmp_path}/link, a link. Name another."
    owner = (tmp_path / "folder").stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(ConfigError) as caught:
        ClipRecorder(RecordingSettings(folder=str(tmp_path / "folder")))
    assert str(caught.value) == (
        f"{start}{tmp_path}/folder, which belongs to user {owner}. Name another."
    )


def test_flac_without_soundfile_names_its_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "soundfile", None)
    message = (
        '`[recording] format = "flac"` needs soundfile (import of soundfile halted; None in '
        "sys.modules). Run `pip install 'kws[files]'`, or record wav."
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        ClipRecorder(RecordingSettings(folder=str(tmp_path / "clips"), format="flac"))


def folder_of(tmp_path, **limits):
    limits = {"max_clips": 1_000, "max_bytes": 10**9, "max_days": 1_000.0} | limits
    return ClipFolder(tmp_path, **limits)


def write(folder, n, *, n_bytes=100):
    for i in range(n):
        now = NOON + timedelta(seconds=i)
        folder.write("stop", {"wav": bytes(n_bytes), "json": b"{}"}, now=now)


def test_no_more_clips_than_allowed_and_the_oldest_go_first_also_those_of_before(tmp_path):
    write(folder_of(tmp_path), 10)
    (tmp_path / "mine.wav").write_bytes(bytes(1_000))
    folder = folder_of(tmp_path, max_clips=3)
    folder.write("go", {"wav": b"x"}, now=NOON + timedelta(hours=1))
    assert files(tmp_path, "wav") == [
        "20260102T120008.000Z_stop.wav",
        "20260102T120009.000Z_stop.wav",
        "20260102T130000.000Z_go.wav",
        "mine.wav",
    ]
    assert len(files(tmp_path, "json")) == 2
    assert folder.n_removed == 8


def test_bytes_are_never_more_than_allowed_not_even_while_writing(tmp_path, monkeypatch):
    most = []
    write_new = clips_module._write_new

    def watch(name, content, *, folder):
        write_new(name, content, folder=folder)
        most.append(sum(file.stat().st_size for file in tmp_path.iterdir()))

    monkeypatch.setattr(clips_module, "_write_new", watch)
    write(folder_of(tmp_path, max_bytes=1_000), 50, n_bytes=123)
    assert 875 <= max(most) <= 1_000
    with pytest.raises(OSError, match="more than `max_mb` allows"):
        write(folder_of(tmp_path, max_bytes=1_000), 1, n_bytes=2_000)
    assert len(files(tmp_path, "wav")) == 8


DAY_S = 86_400.0


def test_old_clips_go_without_new_ones(tmp_path):
    clock = iter([0.0, 0.0, 0.0, 0.0, DAY_S + 1.5])
    folder = folder_of(tmp_path, max_days=1.0, monotonic=lambda: next(clock))
    write(folder, 3)
    folder.sweep(now=NOON + timedelta(days=1, seconds=1.5))
    assert files(tmp_path, "wav") == ["20260102T120002.000Z_stop.wav"]


@pytest.mark.parametrize("days", [-10_000, -40, 40, 10_000])
def test_a_wrong_clock_removes_no_clip(tmp_path, days):
    """At the start, or set while kws runs; clips are written at that time too."""
    write(folder_of(tmp_path), 3)
    for folder in (folder_of(tmp_path, max_days=30.0), folder_of(tmp_path, max_days=30.0)):
        folder.sweep(now=NOON + timedelta(seconds=3))
        folder.sweep(now=NOON + timedelta(days=days))
    fresh = folder_of(tmp_path, max_days=30.0)
    for hour in range(3):
        fresh.write("go", {"wav": b"x"}, now=NOON + timedelta(days=days, hours=hour))
    assert fresh.n_removed == 0
    assert len(files(tmp_path, "wav")) == 6
    fresh.sweep(now=NOON + timedelta(days=1))  # the time came from the network
    assert fresh.n_removed == 0


def test_age_counts_from_the_newest_clip_that_is_not_of_the_future(tmp_path):
    folder = folder_of(tmp_path)
    for days in (0, 20, 40, 9_999):
        folder.write("stop", {"wav": b"x"}, now=NOON + timedelta(days=days))
    folder_of(tmp_path, max_days=30.0).sweep(now=NOON + timedelta(days=45))
    assert [name[:8] for name in files(tmp_path, "wav")] == ["20260122", "20260211", "20530519"]


def test_what_is_removed_is_logged_with_its_reason(tmp_path, caplog):
    write(folder_of(tmp_path), 4)
    with caplog.at_level(logging.INFO, "kws.recording"):
        folder_of(tmp_path, max_clips=2).sweep(now=NOON)
        folder_of(tmp_path, max_bytes=150).sweep(now=NOON)
        folder_of(tmp_path).write("go", {"wav": b"x"}, now=NOON + timedelta(days=2))
        folder_of(tmp_path, max_days=1.0).sweep(now=NOON + timedelta(days=2))
    assert caplog.messages == [
        "Removed 2 clips, 20260102T120000.000Z_stop to 20260102T120001.000Z_stop: more than 2, "
        "`max_clips`.",
        "Removed 20260102T120002.000Z_stop: more than 0.00015 MB, `max_mb`.",
        "Removed 20260102T120003.000Z_stop: older than 1 days, `max_days`.",
    ]


def test_a_name_without_a_date_is_never_too_old(tmp_path):
    (tmp_path / "20260631T120000.000Z_stop.wav").write_bytes(b"x")
    folder_of(tmp_path, max_days=1.0).sweep(now=NOON + timedelta(days=400))
    assert len(files(tmp_path, "wav")) == 1


def test_what_a_crash_left_half_written_is_removed(tmp_path):
    (tmp_path / ".20260102T120002.000Z_stop.wav.part").write_bytes(b"half")
    (tmp_path / ".mine.part").write_bytes(b"not ours")
    write(folder_of(tmp_path), 1)
    assert (tmp_path / ".mine.part").exists()
    assert len(list(tmp_path.iterdir())) == 3


def test_clips_of_the_same_moment_are_all_kept(tmp_path):
    folder = folder_of(tmp_path)
    stems = [folder.write("stop", {"wav": b"x"}, now=NOON) for _ in range(3)]
    assert len(set(stems)) == 3
    assert len(files(tmp_path, "wav")) == 3


def test_room_that_cannot_be_made_keeps_a_clip_from_being_written(tmp_path, monkeypatch):
    write(folder_of(tmp_path), 3)

    def refuse(name, *, dir_fd):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "unlink", refuse)
    with pytest.raises(OSError, match="Read-only"):
        write(folder_of(tmp_path, max_clips=3), 1)
    assert len(files(tmp_path, "wav")) == 3


@pytest.fixture
def clips(tmp_path):
    folder = folder_of(tmp_path / "clips")
    yield folder
    folder.close()


def test_the_folder_is_used_by_its_descriptor_whatever_is_put_in_its_place(clips, tmp_path):
    write(clips, 1)
    clips.path.rename(tmp_path / "moved")
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / files(tmp_path / "moved", "wav")[0]).write_bytes(b"precious")
    clips.path.symlink_to(tmp_path / "theirs")
    write(clips, 3)
    clips.sweep(now=NOON, for_clips=1_000_000)  # room for more than may be kept
    assert len(list((tmp_path / "theirs").iterdir())) == 1
    assert list((tmp_path / "moved").iterdir()) == []


@pytest.mark.parametrize("spoil", ["link", "mode", "owner"])
def test_a_folder_that_is_not_ours_alone_is_never_written_to(clips, tmp_path, spoil, monkeypatch):
    (tmp_path / "clips").mkdir(mode=0o700)
    if spoil == "link":
        (tmp_path / "clips").rename(tmp_path / "other")
        (tmp_path / "clips").symlink_to(tmp_path / "other")
    elif spoil == "mode":
        (tmp_path / "clips").chmod(0o710)
    else:
        owner = (tmp_path / "clips").stat().st_uid
        monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(OSError, match=r"not for the user of kws alone|Not a directory|symbolic"):
        write(clips, 1)
    assert list((tmp_path / "clips").iterdir()) == []


def test_a_clip_is_new_never_through_a_link_and_on_the_disk(clips, monkeypatch):
    write(clips, 0)
    clips.path.mkdir(mode=0o700)
    folder = os.open(clips.path, os.O_RDONLY)
    (clips.path / "victim").write_bytes(b"precious")
    (clips.path / "there").write_bytes(b"there")
    (clips.path / "link").symlink_to("victim")
    (clips.path / "dangling").symlink_to("none")
    for name in ("there", "link", "dangling"):
        with pytest.raises(FileExistsError):
            clips_module._write_new(name, b"x", folder=folder)
    assert (clips.path / "victim").read_bytes() == b"precious"
    assert not (clips.path / "none").exists()
    synced = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(os.fstat(fd).st_size), fsync(fd)))
    mask = os.umask(0)
    clips_module._write_new("new", b"123", folder=folder)
    os.umask(mask)
    assert synced == [3]
    assert stat.S_IMODE((clips.path / "new").stat().st_mode) == 0o600
    os.close(folder)


def test_the_flags_hold_each_on_its_own(clips, monkeypatch):
    """O_EXCL refuses links already; O_NOFOLLOW stands behind it."""
    flags = []
    usual = os.open

    def keep(path, how, *arguments, **options):
        flags.append(how)
        return usual(path, how, *arguments, **options)

    monkeypatch.setattr(os, "open", keep)
    write(clips, 1)
    of_files = [how for how in flags if how & os.O_CREAT]
    assert len(of_files) == 2
    assert all(how & os.O_EXCL and how & os.O_NOFOLLOW for how in of_files)
    (of_folder,) = [how for how in flags if how & os.O_DIRECTORY]
    assert of_folder & os.O_NOFOLLOW


def test_closing_leaves_no_descriptor(recorder):
    before = len(list(Path("/proc/self/fd").iterdir()))
    recording = recorder()
    play(recording, RAMP)
    recording.send(detection(1.0, 1.1))
    recording.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
