"""The embedding and a head are fine-tuned as one network, which is kept only where it is better."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import sounds

from kws.features import Features
from kws.model import open_model
from kws_train.data.front_ends import embedding_frames, speech_embedding
from kws_train.own_word import fine_tuning
from kws_train.own_word.workspace import Request, Workspace


def test_frames_are_the_features_of_the_bundled_embedding():
    samples = sounds.voice(1.0)
    whole = Features(open_model("speech_embedding").manifest.features).whole(samples)
    front_end = embedding_frames()
    assert np.array_equal(front_end.vectors(samples), whole.astype(np.float16))
    assert front_end.size == 32
    assert 8 * front_end.hop_samples == speech_embedding().hop_samples
    assert front_end.n_samples(100) == 100 * 160 + 352


@pytest.mark.slow
def test_the_network_begins_as_the_head_on_the_embedding(unsettle):
    from kws_train.networks.embedding_head import embedding_head
    from kws_train.networks.speech_embedding import N_WARM_UP
    from kws_train.networks.speech_embedding import speech_embedding as blocks
    from kws_train.networks.spotting import Spotting

    head = embedding_head(3)
    unsettle(head, seed=5)
    frames = embedding_frames().vectors(sounds.voice(3.0)).astype(np.float32)[None, :296]
    embedding = Spotting(blocks(standardize=True))
    embedding.build((None, None, 32))
    vectors = np.asarray(embedding(frames))[:, :, 0]
    expected = np.asarray(head(vectors))
    network = fine_tuning._with_head(head, 3)
    np.testing.assert_allclose(np.asarray(network(frames)), expected, atol=1e-4)
    assert np.asarray(network(frames)).shape == (1, 37, 3)
    assert expected[0, N_WARM_UP:].std() > 0.1

    # All of it is trained in the end; the first blocks, which hear sounds and no words, are not.
    frozen = fine_tuning._from(network, n_frozen=3)(3, size=32)
    n_trained = len(network.trainable_weights)
    n_frozen = sum(len(block.trainable_weights) for block in network.stack[:3])
    assert len(frozen.trainable_weights) == n_trained - n_frozen
    np.testing.assert_allclose(np.asarray(frozen(frames)), expected, atol=1e-4)
    whole = fine_tuning._copy(frozen, 3)
    assert len(whole.trainable_weights) == n_trained
    np.testing.assert_allclose(np.asarray(whole(frames)), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("head", "fine_tuned", "kept"),
    [
        ((0.02, 0.20), (0.03, 0.12), "fine-tuned"),
        ((0.02, 0.12), (0.01, 0.14), "head"),
        ((0.02, 0.12), (0.02, 0.12), "head"),
    ],
)
def test_the_model_that_misses_fewer_words_is_kept(tmp_path, monkeypatch, head, fine_tuned, kept):
    said: list[str] = []
    workspace = Workspace(tmp_path, notify=said.append)
    workspace.exported.write_bytes(b"head")
    workspace.fine_tuned.write_bytes(b"fine-tuned")
    misses = {b"head": head, b"fine-tuned": fine_tuned}

    def results(content, streams):
        assert streams == ["tuning"]
        curves = [SimpleNamespace(mean_misses=lambda m=m: m) for m in misses[content]]
        return SimpleNamespace(by_condition=lambda: dict(enumerate(curves)))

    def tuning_streams(request, workspace, *, snr_db, seed, clips):
        assert (snr_db, clips) == (10.0, [("robot", recording)])
        return ["tuning"]

    recording = workspace.recordings / "validation/robot/1.flac"
    recording.parent.mkdir(parents=True)
    recording.touch()
    monkeypatch.setattr(fine_tuning, "vector_tuning_streams", tuning_streams)
    monkeypatch.setattr(fine_tuning, "open_model", lambda path: path.read_bytes())
    monkeypatch.setattr(fine_tuning, "process_streams", results)
    fine_tuning._keep_the_better(Request(phrases=("robot",)), workspace)
    assert workspace.exported.read_bytes() == kept.encode()
    assert said[-1].endswith(f"which is {'kept' if kept == 'fine-tuned' else 'not kept'}")
    noted = json.loads(workspace.fine_tuning.read_text())
    assert noted == {"head": list(head), "fine-tuned": list(fine_tuned)}


@pytest.mark.parametrize(
    ("minutes", "spent", "n_recordings"), [(3.0, 0.0, 5), (10.0, 5.5, 5), (30.0, 3.0, 4)]
)
def test_too_little_time_or_too_few_recordings_leave_the_head(
    tmp_path, minutes, spent, n_recordings
):
    workspace = Workspace(tmp_path)
    request = Request(phrases=("robot",), minutes=minutes)
    workspace.begin(request)
    (tmp_path / "minutes").write_text(f"{spent}\n")
    folder = workspace.recordings / "validation/robot"
    folder.mkdir(parents=True)
    for i in range(n_recordings):
        (folder / f"{i}.flac").touch()
    before = sorted(tmp_path.rglob("*"))
    fine_tuning.fine_tune_word(request, workspace)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_network_that_is_there_is_compared_however_little_time_is_left(tmp_path, monkeypatch):
    workspace = Workspace(tmp_path)
    folder = workspace.recordings / "validation/robot"
    folder.mkdir(parents=True)
    for i in range(5):
        (folder / f"{i}.flac").touch()
    (tmp_path / "minutes").write_text("30\n")
    workspace.fine_tuned.touch()
    compared = []
    monkeypatch.setattr(fine_tuning, "_keep_the_better", lambda *given: compared.append(given))
    request = Request(phrases=("robot",), minutes=30)
    fine_tuning.fine_tune_word(request, workspace)
    assert compared == [(request, workspace)]


def test_what_was_decided_is_not_decided_again(tmp_path):
    workspace = Workspace(tmp_path)
    workspace.fine_tuning.write_text("{}")
    fine_tuning.fine_tune_word(Request(phrases=("robot",), minutes=30), workspace)
    assert not workspace.fine_tuned.exists()
