"""What is labelled on the page is a folder of `kws mine`: it resumes there, and trains."""

import json

import pytest
import soundfile

from kws.clip_sidecar import read_sidecar
from kws.commands.demo import load_demo
from kws.errors import ConfigError
from kws.events import Detection
from kws.manifest import UNKNOWN, read_manifest
from kws.mined.folder import UNSURE, MinedFolder
from kws.mined.recorded import label_recorded_clip
from kws.model import model_path
from kws_train.mining.collect import collect_candidates
from kws_train.mining.training_clips import write_training_clips


@pytest.fixture
def recorded(tmp_path):
    """A clip with a detection of `on` in it, as the daemon records it."""
    samples, rate = soundfile.read(
        load_demo()[1], dtype="int16", start=9 * 16_000, stop=14 * 16_000
    )
    assert rate == 16_000
    folder = tmp_path / "clips"
    folder.mkdir()
    path = folder / "20260131T120000.000Z_kitchen_on.wav"
    soundfile.write(path, samples, rate)
    event = Detection(
        keyword="on", score=0.88, start_s=11.2, end_s=11.6, model="commands", source="kitchen"
    )
    about = {"event": {"event": "detection"} | event.fields(), "time": "2026-01-31T12:00:00.000Z",
             "clip": {"start_s": 9.0, "duration_s": 5.0}}  # fmt: skip
    path.with_suffix(".json").write_text(json.dumps(about))
    return path, samples


def give(folder, recorded, label):
    path, samples = recorded
    label_recorded_clip(
        folder,
        path,
        path.read_bytes(),
        samples,
        read_sidecar(path.with_suffix(".json").read_bytes()),
        label=label,
        manifest=read_manifest(model_path("commands"))[0],
    )


def test_a_label_makes_a_candidate_that_trains(recorded, tmp_path):
    folder = MinedFolder(tmp_path / "mined")
    give(folder, recorded, "on")
    (one,) = folder.candidates()
    assert (one.keyword, one.kind, one.score) == ("on", "detection", 0.88)
    assert (one.start_s, one.end_s) == pytest.approx((2.2, 2.6))
    assert one.word_s == pytest.approx((1.5, 1.9))
    assert soundfile.info(folder.path / one.clip).duration == pytest.approx(2.9, abs=0.01)
    assert folder.labels_of_recordings() == {(recorded[0].stem, "on"): "on"}
    assert write_training_clips(folder) == {"on": 1}
    give(folder, recorded, UNKNOWN)
    assert len(folder.candidates()) == 1
    assert write_training_clips(folder) == {UNKNOWN: 1}
    give(folder, recorded, UNSURE)
    assert write_training_clips(folder) == {}
    give(folder, recorded, None)
    assert folder.labels() == {}


def test_kws_mine_offers_what_is_labelled_there_no_more(recorded, tmp_path):
    folder = MinedFolder(tmp_path / "mined")
    give(folder, recorded, "on")
    before = folder.candidates()
    found = collect_candidates("commands", [recorded[0].parent], folder.path)
    assert found.n_labelled == 1
    assert all(abs(one.end_s - before[0].end_s) >= 0.8 for one in found.candidates)
    after = {one.id: one for one in folder.candidates()}
    assert after[before[0].id] == before[0]
    # The candidate is the one that `kws mine` would have made itself.
    other = MinedFolder(tmp_path / "other")
    collect_candidates("commands", [recorded[0].parent], other.path)
    same = next(one for one in other.candidates() if one.id == before[0].id)
    assert (same.clip, same.word_s, same.embedding) == (
        before[0].clip,
        before[0].word_s,
        before[0].embedding,
    )


def test_only_one_process_labels_a_folder(recorded, tmp_path):
    folder = MinedFolder(tmp_path / "mined")
    give(folder, recorded, "on")
    with folder.open_label_log(), pytest.raises(ConfigError, match="Only one process can label"):
        give(folder, recorded, UNKNOWN)
