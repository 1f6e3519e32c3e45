"""The recorded clips, and no other file, whatever a request names."""

import json

import pytest

from kws.clip_sidecar import read_sidecar
from kws.errors import FormatError
from kws.events import Detection
from kws.sinks.clip_encoders import wav_encoder
from kws.ui.clips import ClipLibrary
from kws.ui.requests import NotThereError

TIME = "2026-01-31T12:00:00.000Z"
STEM = "20260131T120000.000Z_kitchen_stop"


def record(folder, stem=STEM, *, kind="detection", score=0.9, peak=None, time=TIME, **fields):
    """Write a clip as the daemon does."""
    folder.mkdir(mode=0o700, exist_ok=True)
    event = {"event": kind, "keyword": "stop", "score": score, "start_s": 11.0, "end_s": 11.5,
             "model": "commands", "source": "kitchen"} | fields  # fmt: skip
    about = {"event": event, "time": time, "settings": {},
             "clip": {"rate_hz": 16_000, "start_s": 10.0, "duration_s": 2.0}}  # fmt: skip
    if peak is not None:
        about["peak"] = peak
    (folder / f"{stem}.wav").write_bytes(wav_encoder(16_000)(bytes(64_000)))
    (folder / f"{stem}.json").write_text(json.dumps(about))


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "clips"


def test_a_clip_is_listed_with_its_word_and_its_greatest_score(folder):
    record(folder, peak=0.97)
    record(folder, "20260131T120001.000Z_kitchen_near-miss_stop", kind="near_miss", score=0.4)
    newest, oldest = ClipLibrary().list(folder)
    assert (oldest.keyword, oldest.kind, oldest.score) == ("stop", "detection", 0.97)
    assert (oldest.word_s, oldest.duration_s) == ((1.0, 1.5), 2.0)
    assert (newest.kind, newest.score) == ("near_miss", 0.4)


def test_no_folder_and_no_clip_are_no_error(folder):
    library = ClipLibrary()
    assert library.list(None) == library.list(folder) == []
    folder.mkdir()
    assert library.list(folder) == []


def test_what_is_no_clip_of_the_daemon_is_left_out(folder):
    record(folder)
    (folder / "notes.json").write_text("{}")
    (folder / "20260131T120002.000Z_x.json").write_text("{}")
    (folder / "20260131T120002.000Z_x.wav").write_bytes(b"")
    (folder / "20260131T120003.000Z_y.json").write_text("{")
    record(folder, "20260131T120004.000Z_z")
    (folder / "20260131T120004.000Z_z.wav").unlink()
    assert [one.id for one in ClipLibrary().list(folder)] == [STEM]


def test_a_changed_file_is_read_again_and_others_are_not(folder, monkeypatch):
    record(folder)
    library = ClipLibrary()
    library.list(folder)
    monkeypatch.setattr("kws.ui.clips._read_file", lambda *_, **__: pytest.fail("read again"))
    assert library.list(folder)[0].score == 0.9
    monkeypatch.undo()
    (folder / f"{STEM}.json").unlink()
    record(folder, score=0.8)
    assert library.list(folder)[0].score == 0.8


@pytest.mark.parametrize(
    "clip_id",
    ["../secret", "..", "", "secret", f"../clips/{STEM}", f"{STEM}/..", "/etc/passwd", f"{STEM}\0",
     f"x{STEM}", f"{STEM}/../../secret", "20260131T120000.000Z_../../secret"],
)  # fmt: skip
def test_a_name_that_escapes_finds_nothing(folder, clip_id):
    record(folder)
    (folder.parent / "secret.wav").write_bytes(b"secret")
    (folder.parent / "secret.json").write_bytes(b"secret")
    for ending in ("wav", "json"):
        with pytest.raises(NotThereError, match="The clip is not there, or no longer"):
            ClipLibrary().read(folder, clip_id, ending=ending)


def test_links_and_pipes_are_no_clips(folder, tmp_path):
    import os

    record(folder)
    (tmp_path / "secret").write_bytes(b"secret")
    for stem, make in {
        "20260131T120005.000Z_link": lambda path: path.symlink_to(tmp_path / "secret"),
        "20260131T120006.000Z_pipe": os.mkfifo,
        "20260131T120007.000Z_folder": os.mkdir,
    }.items():
        make(folder / f"{stem}.wav")
        with pytest.raises(NotThereError):
            ClipLibrary().read(folder, stem, ending="wav")
    linked = tmp_path / "linked"
    linked.symlink_to(folder)
    with pytest.raises(OSError):
        ClipLibrary().read(linked, STEM, ending="wav")
    with pytest.raises(NotThereError):
        ClipLibrary().read(folder, STEM, ending="toml")


def test_a_clip_that_was_removed_is_said_to_be_gone(folder):
    record(folder)
    library = ClipLibrary()
    assert library.read(folder, STEM, ending="wav")[:4] == b"RIFF"
    (folder / f"{STEM}.wav").unlink()
    for find in (
        lambda: library.read(folder, STEM, ending="wav"),
        lambda: library.find(folder, STEM),
    ):
        with pytest.raises(NotThereError, match="limits of `\\[recording\\]`"):
            find()


def test_the_daemons_json_is_read_with_what_is_unknown_to_it():
    about = read_sidecar(
        b'{"event": {"event": "detection", "keyword": "a", "score": 0.5, "start_s": null, '
        b'"end_s": 3.0, "model": "m"}, "clip": {"start_s": 2.0}, "new": 1}'
    )
    assert isinstance(about.event, Detection)
    assert about.word_s == pytest.approx((0.4, 1.0))
    assert (about.kind, about.score) == ("detection", 0.5)
    with pytest.raises(FormatError, match=r"must be that of the daemon\. Received: "):
        read_sidecar(b"{}")
