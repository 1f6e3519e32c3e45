"""A head with its embedding in one file: the same events, for any version of kws."""

import hashlib
import re
import zipfile

import numpy as np
import pytest
import sounds
from click.testing import CliRunner
from msgspec.structs import replace

from kws.audio import SAMPLE_RATE_HZ as RATE_HZ
from kws.commands.enroll import enroll
from kws.commands.enrolment_takes import recordings_in
from kws.commands.record import write_take
from kws.errors import ConfigError, ModelError
from kws.features import Features
from kws.manifest import embedding_inside, read_manifest, repack
from kws.model import model_path, open_model, with_embedding
from kws.model_check import check_model
from kws.spotter import Spotter
from kws_export.cli import export
from kws_export.whole import export_whole

WORD = np.concatenate((sounds.voice(0.35), sounds.voice(0.3, pitch_hz=190)))
STREAM = np.concatenate([np.pad(WORD, (RATE_HZ, RATE_HZ)) for _ in range(3)])


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    """A word enrolled from three takes."""
    folder = tmp_path_factory.mktemp("head")
    for speed in (0.96, 1.0, 1.04):
        at = np.arange(0, len(WORD) - 1, speed)
        take = np.interp(at, np.arange(len(WORD)), WORD).astype(np.int16)
        write_take(folder / "takes", np.pad(take, 3000), speaker="me")
    enroll("word", recordings_in([folder / "takes"]), folder / "head.tflite")
    return folder / "head.tflite"


@pytest.fixture(scope="module")
def whole(head):
    path = head.with_name("whole.tflite")
    result = CliRunner().invoke(export, [str(head), "--whole", "--out", str(path)])
    assert result.exit_code == 0, result.output
    return path


@pytest.fixture
def without_bundled(monkeypatch, tmp_path):
    """A kws that comes with no speech embedding, as another version might."""
    monkeypatch.setattr("kws.model._folder", lambda: tmp_path)


def test_a_whole_head_gives_the_events_of_the_head(head, whole, without_bundled, monkeypatch):
    alone = Spotter(open_model(whole))
    events = alone.process(STREAM) + alone.flush()
    monkeypatch.undo()
    shared = Spotter([open_model(head), "computer"])
    expected = shared.process(STREAM) + shared.flush()
    assert len(expected) == 3
    assert [replace(one, model="") for one in events] == [
        replace(one, model="") for one in expected
    ]


def test_whole_heads_share_one_embedding(head, whole):
    spotter = Spotter([open_model(head), open_model(whole)])
    assert len(spotter._groups) == 1


def test_both_networks_in_the_file_are_what_interpreters_run(head, whole):
    assert open_model(whole).manifest == open_model(head).manifest
    assert embedding_inside(whole.read_bytes()) == model_path("speech_embedding").read_bytes()
    with zipfile.ZipFile(whole) as archive:
        assert archive.namelist() == ["kws.json", "embedding.tflite"]


def test_a_whole_head_of_another_embedding_is_run_on_that(head, whole, tmp_path):
    """The bundled embedding, with another digest by a letter in its description."""
    other = tmp_path / "other.tflite"
    manifest, content = read_manifest(whole)
    own, flatbuffer = read_manifest(model_path("speech_embedding"))
    embedding = repack(flatbuffer, replace(own, description="another"))
    takes = replace(manifest.takes, sha256=hashlib.sha256(embedding).hexdigest())
    other.write_bytes(repack(content, replace(manifest, takes=takes), embedding=embedding))
    check_model(other)
    frames = Features(manifest.features).whole(STREAM)
    outputs = [with_embedding(open_model(one)).run(frames) for one in (other, head)]
    assert np.array_equal(*outputs)


def test_a_manifest_written_anew_keeps_the_embedding(whole):
    manifest, content = read_manifest(whole)
    again = repack(content, replace(manifest, description="another"))
    assert embedding_inside(again) == embedding_inside(content)


def test_an_embedding_that_is_not_the_one_named_is_refused(whole, without_bundled, tmp_path):
    manifest, content = read_manifest(whole)
    bad = tmp_path / "bad.tflite"
    bad.write_bytes(repack(content, manifest, embedding=b"another"))
    with pytest.raises(ModelError, match=r"must hold the embedding model that it names\. Received"):
        Spotter(open_model(bad))


def test_an_embedding_of_another_size_is_refused(whole, without_bundled, tmp_path):
    manifest, content = read_manifest(whole)
    inside = embedding_inside(content)
    takes = replace(manifest.takes, hop_frames=16)
    bad = tmp_path / "bad.tflite"
    bad.write_bytes(repack(content, replace(manifest, takes=takes), embedding=inside))
    with pytest.raises(ModelError, match=r"which states others than those of `speech_embedding`"):
        Spotter(open_model(bad))


def test_a_head_for_other_features_is_refused(head, tmp_path):
    manifest, content = read_manifest(head)
    bad = tmp_path / "bad.tflite"
    features = replace(manifest.features, low_hz=20.0)
    bad.write_bytes(repack(content, replace(manifest, features=features)))
    message = (
        "A head must state the features, the size and the hop of its embedding. Received: `head`, "
        "which states others than those of `speech_embedding`. Train or export the head again."
    )
    for use in (Spotter, with_embedding):
        with pytest.raises(ModelError, match=f"^{re.escape(message)}$"):
            use(open_model(bad))
    with pytest.raises(ModelError, match=f"^{re.escape(message)}$"):
        check_model(bad)


def test_an_embedding_cut_short_is_as_none(whole, without_bundled, tmp_path):
    content = bytearray(whole.read_bytes())
    at = content.index(b"embedding.tflite") + 1000
    content[at : at + 50] = bytes(50)
    bad = tmp_path / "bad.tflite"
    bad.write_bytes(content)
    with pytest.raises(ModelError, match=r"which does not come with this version of kws"):
        Spotter(open_model(bad))


def test_a_model_with_features_of_its_own_is_no_head(tmp_path):
    with pytest.raises(ConfigError, match=r"^`--whole` is for heads.* Received: computer, which"):
        export_whole("computer", tmp_path / "out.tflite")
    assert not (tmp_path / "out.tflite").exists()
