"""From recordings to a folder of candidates, and again when some are labelled."""

import json
import re
import shutil

import msgspec
import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from kws.cli import cli
from kws.commands.demo import load_demo
from kws.errors import ConfigError, FormatError, ModelError
from kws.manifest import UNKNOWN, read_manifest, repack
from kws.mined.folder import MinedFolder
from kws.model import bundled_models
from kws_train.mining import scan
from kws_train.mining.collect import collect_candidates

RATE_HZ = 16_000


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """Two recordings of twelve seconds, one with `yes` and `left` in it, and one of nothing."""
    folder = tmp_path_factory.mktemp("recordings")
    _, path = load_demo()
    sound, _ = soundfile.read(path, dtype="int16")
    soundfile.write(folder / "words.wav", sound[24 * RATE_HZ : 36 * RATE_HZ], RATE_HZ)
    soundfile.write(folder / "quiet.flac", np.zeros(12 * RATE_HZ, np.int16), RATE_HZ)
    return folder


def label(folder, label):
    """Label the first candidate."""
    mined = MinedFolder(folder)
    with mined.open_label_log() as labels:
        labels.append((first := mined.candidates()[0]).id, label)
    return first


def test_candidates_are_clips_with_what_is_around_them(recordings, tmp_path):
    out = tmp_path / "out"
    found = collect_candidates("commands", [recordings], out)
    assert (found.n_files, found.n_labelled, found.left_out) == (2, 0, {})
    assert found.hours == pytest.approx(24 / 3600)
    assert MinedFolder(out).candidates() == found.candidates
    assert {"yes", "left"} <= {one.keyword for one in found.candidates}
    assert [one.rank for one in found.candidates] == list(range(1, len(found.candidates) + 1))
    for one in found.candidates:
        clip, rate_hz = soundfile.read(out / one.clip, dtype="int16")
        source, _ = soundfile.read(one.source, dtype="int16")
        start = round((one.start_s - one.word_s[0]) * RATE_HZ)
        assert rate_hz == RATE_HZ
        assert np.array_equal(clip, source[start : start + len(clip)])
        assert one.word_s[1] - one.word_s[0] == pytest.approx(one.end_s - one.start_s)
    assert (out / "left_out.csv").read_text() == "path,reason\n"


def test_the_same_again_gives_the_same(recordings, tmp_path, monkeypatch):
    first = collect_candidates("commands", [recordings], tmp_path)
    monkeypatch.setattr(scan, "posterior_trace", None)  # whoever listens, fails
    assert collect_candidates("commands", [recordings], tmp_path) == first


def test_one_keyword_and_a_few(recordings, tmp_path):
    found = collect_candidates("commands", [recordings], tmp_path / "a", keyword="left")
    assert {one.keyword for one in found.candidates} == {"left"}
    assert len(collect_candidates("commands", [recordings], tmp_path / "b", n=1).candidates) == 1


def test_a_threshold_decides_what_is_unsure(recordings, tmp_path):
    every = collect_candidates("commands", [recordings], tmp_path)
    surest = max(every.candidates, key=lambda one: one.score)
    found = collect_candidates("commands", [recordings], tmp_path, threshold=surest.score)
    assert found.candidates[0].id == surest.id


def test_what_is_labelled_stays_and_is_never_offered_again(recordings, tmp_path):
    before = collect_candidates("commands", [recordings], tmp_path)
    done = label(tmp_path, UNKNOWN)
    again = collect_candidates("commands", [recordings], tmp_path, threshold=0.55)
    assert again.n_labelled == 1
    assert again.n_peaks == before.n_peaks - 1
    assert done.id not in {one.id for one in again.candidates}
    assert MinedFolder(tmp_path).candidates()[0] == done
    assert (tmp_path / done.clip).is_file()


def test_a_copy_elsewhere_is_not_offered_again(recordings, tmp_path):
    copies = tmp_path / "copies"
    shutil.copytree(recordings, copies)
    out = tmp_path / "out"
    once = collect_candidates("commands", [recordings], out)
    both = collect_candidates("commands", [recordings, copies], out)
    assert both.n_peaks == once.n_peaks
    done = label(out, "go")
    again = collect_candidates("commands", [copies], out)
    assert done.id not in {one.id for one in again.candidates}


def test_the_folder_itself_is_not_mined(recordings, tmp_path):
    inside = tmp_path / "recordings"
    shutil.copytree(recordings, inside)
    first = collect_candidates("commands", [inside], inside / "mined")
    assert collect_candidates("commands", [inside], inside / "mined").n_files == first.n_files == 2


def test_unreadable_files_are_listed_and_counted(recordings, tmp_path, caplog):
    folder = tmp_path / "recordings"
    shutil.copytree(recordings, folder)
    (folder / "broken.flac").write_bytes(b"fLaC, but not really")
    found = collect_candidates("commands", [folder], tmp_path / "out")
    assert list(found.left_out) == [folder / "broken.flac"]
    rows = (tmp_path / "out" / "left_out.csv").read_text().splitlines()
    assert len(rows) == 2
    assert rows[1].startswith(f"{folder}/broken.flac,")
    assert "left out: An audio file must be readable." in caplog.text


def test_only_unreadable_files_are_an_error(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"?")
    message = "^There must be a recording that can be read. Received: 1, none of them readable: An "
    with pytest.raises(FormatError, match=message):
        collect_candidates("commands", [tmp_path], tmp_path / "out")


def test_nothing_like_a_keyword_is_an_error_with_the_highest_score(recordings, tmp_path):
    message = (
        r"^Recordings must have a score of 0\.1 or more for a keyword \(left\)\. Received: 0\.00 h "
        r"in 1 files, in which the highest is 0\.\d\d\. Give more recordings, or the model that "
        r"made them\.$"
    )
    with pytest.raises(ConfigError, match=message):
        collect_candidates("commands", [recordings / "quiet.flac"], tmp_path, keyword="left")


def test_a_keyword_that_the_model_does_not_know_is_said(recordings, tmp_path):
    message = (
        "`--keyword` must be one of the model's. Received: `lef`. Did you mean `left`? It knows: "
        "yes, no, up, down, left, right, on, off, stop, go."
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        collect_candidates("commands", [recordings], tmp_path, keyword="lef")


def test_the_speech_embedding_is_no_model_to_mine_with(recordings, tmp_path):
    with pytest.raises(ModelError, match=r"^A model to mine with must have keywords\."):
        collect_candidates("speech_embedding", [recordings], tmp_path)


def test_a_model_whose_keyword_leaves_the_folder_is_refused(recordings, tmp_path):
    manifest, content = read_manifest(bundled_models()["commands"])
    labels = (*manifest.labels[:-1], "../go")
    bad = tmp_path / "bad.tflite"
    bad.write_bytes(
        repack(content, msgspec.structs.replace(manifest, labels=labels, calibration=()))
    )
    with pytest.raises(ModelError, match=r"must be names of folders\. Received: '\.\./go'"):
        collect_candidates(str(bad), [recordings], tmp_path / "out")


def test_recordings_of_the_daemon_are_candidates_with_their_event(recordings, tmp_path):
    clip = tmp_path / "recordings" / "20260101_near-miss_yes.flac"
    clip.parent.mkdir()
    shutil.copy(recordings / "quiet.flac", clip)
    event = {"event": "near_miss", "keyword": "yes", "score": 0.61}
    event |= {"start_s": 51.0, "end_s": 51.5, "model": "commands"}
    about = {"event": event, "clip": {"start_s": 50.0, "rate_hz": RATE_HZ, "duration_s": 12.0}}
    clip.with_suffix(".json").write_text(json.dumps(about))
    (one,) = collect_candidates("commands", [clip.parent], tmp_path / "out").candidates
    assert (one.keyword, one.kind, one.score) == ("yes", "near_miss", 0.61)
    assert (one.start_s, one.end_s) == (1.0, 1.5)


def test_the_command_says_what_it_did_and_what_is_next(recordings, tmp_path):
    out = tmp_path / "out"
    done = CliRunner().invoke(cli, ["mine", "commands", str(recordings), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert re.fullmatch(
        rf"{out}: 2 files processed, 0\.01 h; (\d+) peaks, \1 selected; 0 already labelled; "
        rf"0 files skipped\n{out}/words: no clips, nothing is labelled yet\n",
        done.stdout,
    )
    label(out, "left")
    again = CliRunner().invoke(cli, ["mine", "--out", str(out)])
    assert again.stdout == (
        f"{out}/words: left 1\n"
        f"Next: kws train --fine-tune {out} --start RUN --data DATA --out RUN2\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["commands"], "Give MODEL and DIR, or neither to label what --out holds."),
        (["--label"], "--label needs a terminal. Run it in one, or leave --label out."),
        (
            ["commands", ".", "--threshold", "nan"],
            "--threshold must be a number from 0 to 1. Received: nan.",
        ),
    ],
)
def test_a_command_that_asks_for_nothing_is_a_usage_error(arguments, message, tmp_path):
    done = CliRunner().invoke(cli, ["mine", *arguments, "--out", str(tmp_path)])
    assert done.exit_code == 2
    assert done.output.splitlines()[-1] == f"Error: {message}"


def test_a_folder_that_was_never_mined_cannot_be_labelled(tmp_path):
    done = CliRunner().invoke(cli, ["mine", "--out", str(tmp_path)])
    assert isinstance(done.exception, ConfigError)
