import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import sounds

from kws.commands.demo import load_demo
from kws.commands.enroll import enroll, recordings_in, word_span
from kws.commands.record import write_take
from kws.config import SourceSettings
from kws.errors import ConfigError, ModelError
from kws.manifest import read_manifest
from kws.model import EnrolledModel, backbone_path, background_path, bundled_models, open_model
from kws.sources import open_source
from kws.spotter import Spotter
from kws.templates import TemplateHead

RATE = 16_000


@pytest.fixture(scope="module")
def demo():
    labels, path = load_demo()
    with open_source(SourceSettings(input=str(path))) as source:
        return labels.words, np.concatenate(list(source)), path


@pytest.fixture(scope="module")
def recordings(demo, tmp_path_factory):
    """One word at four speeds, a stand-in for four takes."""
    words, samples, _ = demo
    word = max(words, key=lambda one: one.end_s - one.start_s)
    cut = samples[round((word.start_s - 0.1) * RATE) : round((word.end_s + 0.1) * RATE)]
    folder = tmp_path_factory.mktemp("takes")
    for speed in (0.94, 0.98, 1.0, 1.04):
        at = np.arange(0, len(cut) - 1, speed)
        stretched = np.interp(at, np.arange(len(cut)), cut).astype(np.int16)
        write_take(folder, stretched, speaker="me")
    return folder, cut


@pytest.fixture(scope="module")
def enrolled(recordings, tmp_path_factory):
    out = tmp_path_factory.mktemp("model") / "own.tflite"
    return out, enroll("my word", recordings_in([recordings[0]]), out)


def test_an_enrolled_word_is_heard_and_silence_is_not(enrolled, recordings):
    out, done = enrolled
    assert len(done.scores) == 4
    assert min(done.scores.values()) > 0.5
    spotter = Spotter(open_model(out))
    room = np.random.default_rng(1).normal(0, 3, 2 * RATE).astype(np.int16)
    heard = spotter.process(np.concatenate((room, recordings[1], room))) + spotter.flush()
    assert [one.keyword for one in heard] == ["my word"]
    assert 2.0 < heard[0].end_s < 2.0 + len(recordings[1]) / RATE + 0.4
    assert spotter.process(np.tile(room, 3)) + spotter.flush() == []


def test_every_recording_is_read_once(recordings, tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(
        "kws.commands.enroll.open_source",
        lambda settings: read.append(settings.input) or open_source(settings),
    )
    enroll("my word", paths := recordings_in([recordings[0]]), tmp_path / "own.tflite")
    assert read == [str(path) for path in paths]


def test_what_is_heard_does_not_depend_on_chunk_size(enrolled, recordings):
    stream = np.pad(recordings[1], (RATE, RATE))
    heard = []
    for size in (333, 1280, len(stream)):
        spotter = Spotter(open_model(enrolled[0]))
        chunks = [stream[i : i + size] for i in range(0, len(stream), size)]
        heard.append([one for chunk in chunks for one in spotter.process(chunk)])
    assert heard[0]
    assert heard[0] == heard[1] == heard[2]


def test_the_model_is_an_ordinary_small_file(enrolled):
    manifest, content = read_manifest(enrolled[0])
    assert isinstance(open_model(enrolled[0]), EnrolledModel)
    assert (manifest.keywords, manifest.name) == (("my word",), "own")
    assert len(content) < 100_000


def test_the_backbone_alone_is_no_bundled_word():
    assert "backbone" not in bundled_models()
    assert read_manifest(backbone_path())[0].keywords == ()


def test_too_few_recordings_are_refused(recordings, tmp_path):
    paths = recordings_in([recordings[0]])
    with pytest.raises(ConfigError, match=r"from 3 recordings or more. Received: 1\. Make more"):
        enroll("word", paths[:1], tmp_path / "out.tflite")
    empty = write_take(tmp_path, np.zeros(RATE, np.int16), speaker="me")
    with pytest.raises(ConfigError, match=r"Received: 2 usable of 3: .* is empty"):
        enroll("word", [*paths[:2], empty], tmp_path / "out.tflite")
    assert not (tmp_path / "out.tflite").exists()


def test_background_speech_lies_beside_its_backbone(tmp_path):
    assert background_path(backbone_path()).name == "enroll_background.npz"
    assert background_path(backbone_path()).is_file()
    assert background_path(tmp_path / "own.tflite") == tmp_path / "own.npz"


def test_a_model_of_posteriors_is_no_backbone(recordings, tmp_path):
    paths = recordings_in([recordings[0]])
    with pytest.raises(ConfigError, match=r"must give embeddings\. Received: .*commands"):
        enroll("w", paths, tmp_path / "out", backbone=bundled_models()["commands"])


def test_a_head_without_templates_cannot_listen():
    head = read_manifest(backbone_path())[0].head
    with pytest.raises(ModelError, match=r"templates for each of its keywords\. Received: others"):
        TemplateHead(head, keywords=("word",), n_values=64)


def test_a_word_lies_where_it_is_loud_across_a_short_pause():
    levels = np.array([1, 1, 1, 1, 9, 9, 9, 2, 2, 9, 9, 1, 1, 1, 1, 1, 1], np.float32)
    start, end = word_span(levels)
    assert 3 <= start <= 4
    assert 11 <= end <= 15


def test_files_that_cannot_be_read_are_left_out_and_said(recordings, tmp_path, no_ffmpeg):
    takes = shutil.copytree(recordings[0], tmp_path / "takes")
    whole = recordings_in([takes])
    named_otherwise = Path(os.fsdecode(os.fsencode(takes) + b"/gr\xfcn.wav"))
    whole[0].rename(named_otherwise)
    (takes / "._take.wav").write_bytes(b"\0\5\x16\7")
    (takes / "empty.wav").touch()
    (takes / "phone.m4a").write_bytes(b"no matter what")
    done = enroll("my word", recordings_in([takes]), tmp_path / "own.tflite")
    assert set(done.scores) == {named_otherwise, *whole[1:]}
    assert {path.name for path in done.refused} == {"._take.wav", "empty.wav", "phone.m4a"}
    assert "needs ffmpeg" in done.refused[takes / "phone.m4a"]


def test_a_word_is_enrolled_in_one_form_of_unicode(recordings, tmp_path):
    """A hook for the composed name did not know the word of a decomposed one."""
    out = tmp_path / "own.tflite"
    enroll("gru\u0308n", recordings_in([recordings[0]]), out)
    assert read_manifest(out)[0].keywords == ("gr\u00fcn",)


@pytest.mark.parametrize(
    ("given", "name"), [(None, "anna_s"), ("kitchen", "kitchen"), ("Jürgen", "J_rgen")]
)
def test_the_model_is_named_after_its_file_unless_a_name_is_given(
    recordings, tmp_path, given, name
):
    out = tmp_path / "anna's.tflite"
    enroll("my word", recordings_in([recordings[0]]), out, name=given)
    assert read_manifest(out)[0].name == name


def test_of_many_recordings_the_ten_that_the_others_match_best_are_templates(recordings, tmp_path):
    """Thirty recordings were refused."""
    _, cut = recordings
    many = tmp_path / "many"
    for i in range(13):
        at = np.arange(0, len(cut) - 1, 0.94 + 0.01 * i)
        stretched = np.interp(at, np.arange(len(cut)), cut).astype(np.int16)
        write_take(many, stretched, speaker=f"s{i:02d}")
    write_take(many, sounds.voice(0.7), speaker="other")
    out = tmp_path / "own.tflite"
    done = enroll("my word", recordings_in([many]), out)
    assert len(done.scores) + len(done.refused) == 14
    head = read_manifest(out)[0].head
    assert len(head.templates) == 10
    others = [score for path, score in done.scores.items() if "other" not in path.name]
    assert min(others) > 0.5
    (other,) = (score for path, score in done.scores.items() if "other" in path.name)
    assert other < 0.5
