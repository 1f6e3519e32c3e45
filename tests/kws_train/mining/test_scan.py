"""Peaks of a model's scores in recordings, the daemon's events, results kept in heard.jsonl."""

import json
import shutil

import msgspec
import numpy as np
import pytest
import soundfile

from kws.commands.demo import load_demo
from kws.errors import ConfigError
from kws.events import Detection, NearMiss
from kws.model import bundled_models
from kws_train.mining import scan
from kws_train.mining.scan import recordings_in, scan_files
from kws_train.parallel import Failure

RATE_HZ = 16_000
MODEL = bundled_models()["commands"]
WORDS = dict.fromkeys(("yes", "left", "go"), 0.8)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """Twelve seconds of the demonstration, in which `yes` and `left` are said, and where."""
    labels, path = load_demo()
    sound, _ = soundfile.read(path, dtype="int16")
    excerpt = tmp_path_factory.mktemp("demo") / "demo.wav"
    soundfile.write(excerpt, sound[24 * RATE_HZ : 36 * RATE_HZ], RATE_HZ)
    ends = {word.word: word.end_s - 24 for word in labels.words if word.word in ("yes", "left")}
    return ends, excerpt


def scanned(folder, *paths, thresholds=WORDS, **options):
    found = scan_files(paths, MODEL, folder / "heard.jsonl", thresholds=thresholds, **options)
    return list(found)


def beside(path, event, *, start_s):
    about = {"event": msgspec.to_builtins(event), "clip": {"start_s": start_s, "rate_hz": RATE_HZ}}
    path.with_suffix(".json").write_text(json.dumps(about))


def test_words_are_found_in_a_recording(demo, tmp_path):
    ends, path = demo
    (one,) = scanned(tmp_path, path)
    sure = {peak.keyword: peak.end_s for peak in one.peaks if peak.kind == "detection"}
    assert sure == {word: pytest.approx(end_s, abs=0.25) for word, end_s in ends.items()}
    assert len({len(peak.embedding) for peak in one.peaks}) == 1
    assert one.duration_s == 12.0


def test_a_file_heard_in_stretches_gives_the_same(demo, tmp_path, monkeypatch):
    (whole,) = scanned(tmp_path, demo[1])
    monkeypatch.setattr(scan, "_SEGMENT_S", 5.0)
    (tmp_path / "again").mkdir()
    (parts,) = scanned(tmp_path / "again", demo[1])
    assert [one.keyword for one in parts.peaks] == [one.keyword for one in whole.peaks]
    for one, other in zip(parts.peaks, whole.peaks, strict=True):
        assert one.end_s == pytest.approx(other.end_s, abs=0.1)
        assert one.score == pytest.approx(other.score, abs=0.15)


def test_a_file_is_heard_once_and_again_when_it_changes(demo, tmp_path, monkeypatch):
    path = shutil.copy(demo[1], tmp_path / "a.wav")
    first = scanned(tmp_path, path)
    with monkeypatch.context() as patched:
        patched.setattr(scan, "posterior_trace", None)  # whoever listens, fails
        assert scanned(tmp_path, path) == first
    soundfile.write(path, np.zeros(RATE_HZ, np.int16), RATE_HZ)
    (again,) = scanned(tmp_path, path)
    assert (again.peaks, again.duration_s) == ([], 1.0)


def test_results_of_an_older_folder_are_read(demo, tmp_path, monkeypatch):
    """The keys of heard.jsonl are those of its first version."""
    (first,) = scanned(tmp_path, demo[1])
    lines = (tmp_path / "heard.jsonl").read_text().splitlines()
    keys = {"path", "asked", "content", "seconds", "highest", "rises", "remark"}
    assert [set(json.loads(line)) for line in lines] == [keys]
    assert set(json.loads(lines[0])["rises"][0]) == {
        *("keyword", "score", "kind", "start_s", "end_s", "embedding")
    }
    monkeypatch.setattr(scan, "posterior_trace", None)
    assert scanned(tmp_path, demo[1]) == [first]


def test_other_thresholds_are_another_question(demo, tmp_path):
    scanned(tmp_path, demo[1])
    (one,) = scanned(tmp_path, demo[1], thresholds={"left": 0.5})
    assert {peak.keyword for peak in one.peaks} == {"left"}


def test_a_list_cut_short_by_a_power_cut_costs_one_file(demo, tmp_path):
    paths = [shutil.copy(demo[1], tmp_path / name) for name in ("a.wav", "b.wav")]
    first = scanned(tmp_path, *paths)
    kept = tmp_path / "heard.jsonl"
    kept.write_bytes(kept.read_bytes()[:-40])
    assert scanned(tmp_path, *paths) == first
    assert scanned(tmp_path, *paths) == first


def test_what_cannot_be_read_is_a_failure_and_the_rest_is_heard(demo, tmp_path):
    bad, empty = tmp_path / "bad.wav", tmp_path / "empty.wav"
    bad.write_bytes(b"no audio at all")
    soundfile.write(empty, np.zeros(0, np.int16), RATE_HZ)
    found = scanned(tmp_path, bad, empty, demo[1])
    failures = [one for one in found if isinstance(one, Failure)]
    assert [one.item for one in failures] == [bad, empty]
    assert failures[0].reason.startswith(f"An audio file must be readable. Received: {bad} (")
    assert failures[1].reason == (
        f"An audio file must hold samples. Received: none in {empty}. Remove it."
    )
    assert len(found) == 3


def test_what_the_daemon_recorded_is_a_candidate_however_low_it_scores(tmp_path):
    path = tmp_path / "clip.wav"
    soundfile.write(path, np.zeros(3 * RATE_HZ, np.int16), RATE_HZ)
    event = NearMiss(keyword="go", score=0.7, start_s=101.2, end_s=101.8, model="another")
    beside(path, event, start_s=100.0)
    (one,) = scanned(tmp_path, path)
    assert [(peak.keyword, peak.kind, peak.score) for peak in one.peaks] == [
        ("go", "near_miss", pytest.approx(0.0, abs=0.05))
    ]
    assert (one.peaks[0].start_s, one.peaks[0].end_s) == pytest.approx((1.2, 1.8))


def test_the_daemons_own_score_counts_for_the_same_model(tmp_path):
    path = tmp_path / "clip.wav"
    soundfile.write(path, np.zeros(3 * RATE_HZ, np.int16), RATE_HZ)
    event = Detection(keyword="go", score=0.83, start_s=1.2, end_s=1.8, model="commands")
    beside(path, event, start_s=0.0)
    (one,) = scanned(tmp_path, path)
    assert [(peak.kind, peak.score) for peak in one.peaks] == [("detection", 0.83)]


def test_an_event_of_a_keyword_that_is_not_wanted_adds_nothing(tmp_path):
    path = tmp_path / "clip.wav"
    soundfile.write(path, np.zeros(3 * RATE_HZ, np.int16), RATE_HZ)
    event = Detection(keyword="banana", score=0.83, start_s=1.2, end_s=1.8, model="m")
    beside(path, event, start_s=0.0)
    assert scanned(tmp_path, path)[0].peaks == []


@pytest.mark.parametrize("text", ["", "[1, 2]", '{"event": {"event": "end"}}', "\xff"])
def test_a_json_of_something_else_is_remarked_and_passed_over(demo, tmp_path, text):
    path = shutil.copy(demo[1], tmp_path / "a.wav")
    path.with_suffix(".json").write_bytes(text.encode("latin-1"))
    (one,) = scanned(tmp_path, path)
    assert one.peaks
    assert one.remark.startswith("processed without a.json, which is not of the daemon: ")


def test_a_copy_has_the_same_content(demo, tmp_path):
    paths = [shutil.copy(demo[1], tmp_path / name) for name in ("a.wav", "b.wav")]
    one, other = scanned(tmp_path, *paths)
    assert (one.content_digest, one.peaks) == (other.content_digest, other.peaks)


def test_folders_and_files_are_taken_once_and_by_name(tmp_path):
    for name in ("b.wav", "a.FLAC", "notes.txt", "deep/c.ogg"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    found = recordings_in([tmp_path, tmp_path / "b.wav"])
    assert [path.name for path in found] == ["a.FLAC", "b.wav", "c.ogg"]


@pytest.mark.parametrize(("name", "what"), [("there", "none in it"), ("gone", "no such folder")])
def test_a_folder_without_recordings_is_said(tmp_path, name, what):
    (tmp_path / "there").mkdir()
    with pytest.raises(ConfigError) as raised:
        recordings_in([tmp_path / name])
    assert str(raised.value) == (
        f"`kws mine` needs recordings (WAV, FLAC, MP3, M4A or another kind of audio). Received: "
        f"{tmp_path / name}, {what}. Give the folder of `[recording]`, or of your own recordings."
    )
