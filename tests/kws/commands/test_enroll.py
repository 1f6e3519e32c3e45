import errno
import os
import re
import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest
import sounds
from msgspec.structs import replace

from kws.commands.demo import load_demo
from kws.commands.enroll import enroll, fit_word
from kws.commands.enrolment_data import enrolment_data_path, fill_network, read_enrolment_data
from kws.commands.enrolment_takes import recordings_in
from kws.commands.record import write_take
from kws.config import SourceSettings
from kws.errors import ConfigError, ModelError
from kws.features import Features
from kws.manifest import read_manifest, repack
from kws.model import bundled_models, embedding_reference, open_model
from kws.sources import open_source
from kws.spotter import Spotter
from kws.word_filter import scores_of

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
        "kws.commands.enrolment_takes.open_source",
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


def test_the_model_is_an_ordinary_small_head(enrolled):
    manifest, content = read_manifest(enrolled[0])
    assert (manifest.keywords, manifest.name) == (("my word",), "own")
    assert manifest.takes == embedding_reference()
    assert len(content) < 20_000


def test_the_network_gives_the_posteriors_of_the_filter(recordings, enrolled):
    fitted, _ = fit_word("my word", recordings_in([recordings[0]]))
    embedding = open_model("speech_embedding")
    frames = Features(embedding.manifest.features).whole(np.pad(recordings[1], (RATE, RATE)))
    vectors = embedding.run(frames)
    expected = [fitted.posterior(score) for score in scores_of(fitted.filter, vectors)]
    assert max(expected) > 0.5
    assert open_model(enrolled[0]).run(vectors)[:, 0] == pytest.approx(expected, abs=1e-4)


def test_an_enrolled_word_shares_the_embedding_with_other_heads(enrolled, recordings):
    spotter = Spotter([open_model(enrolled[0]), open_model(enrolled[0])])
    assert len(spotter._groups) == 1
    heard = spotter.process(np.pad(recordings[1], (RATE, RATE))) + spotter.flush()
    assert [one.keyword for one in heard] == ["my word"]


def test_thresholds_for_other_rates_are_in_the_model(enrolled):
    rates = [one.false_alarms_per_hour for one in read_manifest(enrolled[0])[0].calibration]
    thresholds = [one.thresholds["my word"] for one in read_manifest(enrolled[0])[0].calibration]
    assert rates == [0.1, 0.2, 0.5, 1.0, 2.0, 5.0]
    assert thresholds == sorted(thresholds, reverse=True)
    assert thresholds[2] == 0.5
    Spotter(open_model(enrolled[0]), false_alarms_per_hour=1.0)


def test_a_word_of_an_earlier_version_is_to_be_enrolled_again(enrolled, tmp_path):
    manifest, content = read_manifest(enrolled[0])
    old = tmp_path / "old.tflite"
    head = {"templates": msgspec.Raw(b'[{"keyword": "w", "vectors": "AAAA"}]')}
    old.write_bytes(repack(content, replace(manifest, head=head)))
    message = (
        f"An enrolled word must be a head on the speech embedding. Received: {old}, enrolled by an "
        f"earlier version of kws. Run `kws enroll` again with the same recordings."
    )
    with pytest.raises(ModelError, match=f"^{re.escape(message)}$"):
        open_model(old)


def test_background_speech_of_another_embedding_is_refused(recordings, tmp_path, monkeypatch):
    data = read_enrolment_data()._replace(embedding_sha256="0" * 64)
    monkeypatch.setattr("kws.commands.enroll.read_enrolment_data", lambda: data)
    with pytest.raises(ModelError, match=r"Received: that of 000000000000\.\.\.\. Install kws"):
        enroll("word", recordings_in([recordings[0]]), tmp_path / "out.tflite")
    assert not (tmp_path / "out.tflite").exists()


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04nothing", "cut"], ids=str)
def test_damaged_background_speech_is_said(tmp_path, content):
    path = tmp_path / "enrolment.npz"
    whole = enrolment_data_path().read_bytes()
    if content is not None:
        path.write_bytes(whole[: len(whole) // 2] if content == "cut" else content)
    with pytest.raises(ModelError, match=rf"Received: {path} \(.*\)\. Install kws again\."):
        read_enrolment_data(path)


def test_a_network_without_marks_is_not_filled():
    with pytest.raises(ModelError, match=r"hold each mark once\. Received: 0 times\."):
        fill_network(b"TFL3", np.zeros((3, 96), np.float32), 0.0)


@pytest.mark.parametrize(
    ("error", "message"),
    [(OSError(errno.ENOSPC, "No space left on device"), "No space left"), (None, "^$")],
)
def test_a_full_disk_or_an_interruption_leaves_the_old_model(
    recordings, enrolled, tmp_path, monkeypatch, error, message
):
    out = Path(shutil.copy(enrolled[0], tmp_path / "own.tflite"))
    before = out.read_bytes()
    write = Path.write_bytes

    def cut_short(path, content):
        write(path, content[:100])
        raise error or KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", cut_short)
    expected = pytest.raises(ConfigError if error else KeyboardInterrupt, match=message)
    with expected:
        enroll("my word", recordings_in([recordings[0]]), out)
    assert [path.name for path in tmp_path.iterdir()] == ["own.tflite"]
    assert out.read_bytes() == before


def test_the_speech_embedding_is_no_bundled_word():
    assert "speech_embedding" not in bundled_models()


def test_too_few_recordings_are_refused(recordings, tmp_path):
    paths = recordings_in([recordings[0]])
    with pytest.raises(ConfigError, match=r"from 3 recordings or more. Received: 1\. Make more"):
        enroll("word", paths[:1], tmp_path / "out.tflite")
    empty = write_take(tmp_path, np.zeros(RATE, np.int16), speaker="me")
    with pytest.raises(ConfigError, match=r"Received: 2 usable of 3: .* is empty"):
        enroll("word", [*paths[:2], empty], tmp_path / "out.tflite")
    assert not (tmp_path / "out.tflite").exists()


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


def test_a_recording_of_something_else_is_left_out(recordings, tmp_path):
    _, cut = recordings
    takes = tmp_path / "takes"
    for i in range(5):
        at = np.arange(0, len(cut) - 1, 0.94 + 0.03 * i)
        stretched = np.interp(at, np.arange(len(cut)), cut).astype(np.int16)
        write_take(takes, stretched, speaker=f"s{i:02d}")
    other = write_take(takes, sounds.voice(0.7), speaker="other")
    done = enroll("my word", recordings_in([takes]), tmp_path / "own.tflite")
    assert done.left_out == (other,)
    assert done.scores[other] < 0.5
    assert read_manifest(tmp_path / "own.tflite")[0].description.endswith(": 5 recordings")
