"""The folder of candidates: every answer is kept at once, and clips follow the last one."""

import re

import numpy as np
import pytest
import soundfile

from kws.errors import ConfigError
from kws.manifest import UNKNOWN
from kws.mined.clip_file import write_clip
from kws.mined.folder import UNSURE, Candidate, MinedFolder
from kws_train.data.splits import official_split
from kws_train.mining.training_clips import write_training_clips

RATE_HZ = 16_000


def candidate(i, *, word_s=(1.0, 1.5), keyword="go"):
    name = f"00000000000{i}-{1500 + i:08d}-{keyword}"
    return Candidate(
        id=name,
        keyword=keyword,
        score=0.6,
        kind="detection",
        source=f"/recordings/{i}.wav",
        start_s=1.0,
        end_s=1.5,
        clip=f"clips/{name}.flac",
        word_s=word_s,
        rank=i,
        embedding=b"\x01",
    )


def sound(*, word_s=(1.0, 1.5), seconds=3.0, seed=1):
    random = np.random.default_rng(seed)
    samples = random.normal(0, 20, round(seconds * RATE_HZ))
    first, last = (round(at * RATE_HZ) for at in word_s)
    samples[first:last] += random.normal(0, 3000, last - first)
    return samples.astype(np.int16)


@pytest.fixture
def folder(tmp_path, manifest):
    mined = MinedFolder(tmp_path)
    found = [candidate(i) for i in (1, 2, 3)]
    for one in found:
        write_clip(tmp_path / one.clip, sound())
    mined.write_candidates(found, manifest=manifest)
    return mined


def answer(folder, *pairs):
    with folder.open_label_log() as labels:
        for i, label in pairs:
            labels.append(folder.candidates()[i].id, label)


def files(path):
    return sorted(str(one.relative_to(path)) for one in path.rglob("*.flac"))


def test_what_is_written_is_read(folder):
    assert folder.candidates() == [candidate(i) for i in (1, 2, 3)]
    assert folder.keywords() == ["go", "stop"]


def test_the_last_answer_counts_and_can_be_taken_back(folder):
    answer(folder, (0, "go"), (1, UNKNOWN), (0, "stop"), (1, None), (2, UNSURE))
    ids = [one.id for one in folder.candidates()]
    assert folder.labels() == {ids[0]: "stop", ids[2]: UNSURE}


def test_an_answer_is_on_the_disk_before_the_next_one(folder):
    with folder.open_label_log() as labels:
        labels.append(folder.candidates()[0].id, "go")
        assert list(folder.labels().values()) == ["go"]


def test_half_a_line_of_a_power_cut_costs_that_answer_alone(folder):
    answer(folder, (0, "go"), (1, "go"))
    path = folder.path / "labels.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    answer(folder, (2, "stop"))
    ids = [one.id for one in folder.candidates()]
    assert folder.labels() == {ids[0]: "go", ids[2]: "stop"}


def test_two_cannot_label_at_once(folder):
    message = (
        f"Only one process can label a folder. Another `kws mine` has {folder.path} open; stop "
        f"that one first."
    )
    with folder.open_label_log(), pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):  # noqa: SIM117
        with folder.open_label_log():
            pass


def test_clips_of_words_follow_the_labels(folder):
    answer(folder, (0, "go"), (1, UNKNOWN), (2, UNSURE))
    assert write_training_clips(folder) == {UNKNOWN: 1, "go": 1}
    assert files(folder.words) == [
        "_unknown_/000000000002_nohash_00001502-go.flac",
        "go/000000000001_nohash_00001501-go.flac",
    ]
    assert files(folder.speech) == ["000000000002-00001502-go.flac"]
    answer(folder, (0, "stop"), (1, None))
    assert write_training_clips(folder) == {"stop": 1}
    assert files(folder.words) == ["stop/000000000001_nohash_00001501-go.flac"]
    assert files(folder.speech) == []


def test_what_others_put_among_the_words_stays(folder):
    answer(folder, (0, "go"))
    write_training_clips(folder)
    own = folder.words / "go" / "me_nohash_0.flac"
    write_clip(own, sound())
    answer(folder, (0, None))
    write_training_clips(folder)
    assert files(folder.words) == ["go/me_nohash_0.flac"]


def test_words_are_written_once(folder):
    answer(folder, (0, "go"))
    write_training_clips(folder)
    (path,) = folder.words.rglob("*.flac")
    before = path.stat().st_mtime_ns
    write_training_clips(folder)
    assert path.stat().st_mtime_ns == before


def test_a_word_is_cut_in_the_pauses_around_it(folder):
    clip = folder.path / folder.candidates()[0].clip
    write_clip(clip, sound(word_s=(0.9, 1.6)))  # longer than it usually is
    answer(folder, (0, "go"))
    write_training_clips(folder)
    (path,) = folder.words.rglob("*.flac")
    samples, rate_hz = soundfile.read(path, dtype="int16")
    loud = np.flatnonzero(np.abs(samples) > 500)
    assert rate_hz == RATE_HZ
    assert loud[-1] - loud[0] == pytest.approx(0.7 * RATE_HZ, abs=50)
    assert len(samples) <= 1.05 * RATE_HZ


def test_a_word_at_the_very_ends_of_its_clip_is_cut_there(tmp_path, manifest):
    mined = MinedFolder(tmp_path)
    one = candidate(1, word_s=(0.0, 0.5))
    write_clip(tmp_path / one.clip, sound(word_s=(0.0, 0.5), seconds=0.5))
    mined.write_candidates([one], manifest=manifest)
    answer(mined, (0, "go"))
    assert write_training_clips(mined) == {"go": 1}
    (path,) = mined.words.rglob("*.flac")
    assert len(soundfile.read(path)[0]) == RATE_HZ // 2


def test_whole_clips_without_a_keyword_are_speech(folder):
    answer(folder, (0, UNKNOWN), (1, "go"))
    write_training_clips(folder)
    (path,) = folder.speech.glob("*.flac")
    assert path.read_bytes() == (folder.path / folder.candidates()[0].clip).read_bytes()


def test_clips_of_one_file_are_in_one_split(folder):
    answer(folder, (0, "go"), (1, "go"), (2, "go"))
    write_training_clips(folder)
    paths = list(folder.words.rglob("*.flac"))
    assert {official_split(path) for path in paths} == {
        official_split(folder.words / f"{path.name[:12]}_nohash_7.flac") for path in paths
    }


def test_a_new_list_removes_the_clips_that_it_lacks(folder, manifest):
    folder.write_candidates(folder.candidates()[:1], manifest=manifest)
    assert files(folder.path) == [folder.candidates()[0].clip]


@pytest.mark.parametrize("label", ["../up", "a/b", "..", ""])
def test_a_label_that_is_no_folders_name_is_refused(folder, label):
    answer(folder, (0, label))
    message = (
        f"A keyword to mine must be usable as a folder's name. Received: {label!r}. "
        f"Train the model with another keyword."
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        write_training_clips(folder)


def test_a_folder_that_was_never_mined_is_said(tmp_path):
    message = (
        f"A folder of candidates must be one that `kws mine` made. Received: {tmp_path} without "
        f"candidates.jsonl. Run `kws mine MODEL DIR --out {tmp_path}`."
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        MinedFolder(tmp_path).candidates()


def test_a_full_disk_leaves_no_half_clip(folder, monkeypatch):
    def full(path, *_args, **_options):
        path.write_bytes(b"half")
        raise soundfile.LibsndfileError(1, "No space left on device")

    monkeypatch.setattr(soundfile, "write", full)
    answer(folder, (0, "go"))
    with pytest.raises(OSError, match="could not be written"):
        write_training_clips(folder)
    assert [path for path in folder.words.rglob("*") if path.is_file()] == []
