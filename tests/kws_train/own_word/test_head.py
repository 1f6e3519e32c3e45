"""The stages of a head, cut short anywhere, and run again."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from kws_train.fit.vector_windows import VectorData
from kws_train.own_word import head, vector_network
from kws_train.own_word.head import export_word_head, train_word_head
from kws_train.own_word.word_vectors import WordVectors
from kws_train.own_word.workspace import Request, Workspace

REQUEST = Request(phrases=("robot",))
DATA = VectorData(
    scenes=np.zeros((2, 30, 96), np.float16),
    labels=np.array([0, 1]),
    weights=np.ones(2),
    word_end=20,
    background=np.zeros((50, 96), np.float16),
)
VECTORS = WordVectors(DATA, DATA, 4.0)


@pytest.fixture
def workspace(tmp_path):
    workspace = Workspace(tmp_path / "work", notify=lambda text: None)
    workspace.begin(REQUEST)
    return workspace


def train(monkeypatch, workspace, *, save, fails=False):
    """Train with a network that needs no time; return how often it was trained."""
    trained = []

    def train_on_vectors(*data, **options):
        trained.append(options["seed"])
        if fails:
            raise KeyboardInterrupt
        return SimpleNamespace(save_weights=save)

    monkeypatch.setattr(vector_network, "train_on_vectors", train_on_vectors)
    train_word_head(REQUEST, workspace, VECTORS)
    return len(trained)


def whole(path):
    path.write_bytes(b"weights")


def cut_short(path):
    path.write_bytes(b"we")
    raise KeyboardInterrupt


@pytest.mark.parametrize("stage", ["training", "weights", "settings"])
def test_a_training_cut_short_is_done_again_and_then_kept(monkeypatch, workspace, stage):
    with monkeypatch.context() as patch:
        if stage == "settings":
            patch.setattr(
                json, "dumps", lambda *content, **options: cut_short(workspace.folder / "x")
            )
        with pytest.raises(KeyboardInterrupt):
            train(
                patch,
                workspace,
                save=cut_short if stage == "weights" else whole,
                fails=stage == "training",
            )
    assert not (workspace.run / "settings.json").exists()
    assert train(monkeypatch, workspace, save=whole) == 1
    assert (workspace.run / "model.weights.h5").read_bytes() == b"weights"
    assert json.loads((workspace.run / "settings.json").read_text())["seed"] == REQUEST.seed
    assert train(monkeypatch, workspace, save=whole) == 0


def test_an_export_cut_short_leaves_no_model(monkeypatch, workspace):
    def export_head(model, out, **options):
        cut_short(out)

    monkeypatch.setattr(head, "export_head", export_head)
    monkeypatch.setattr(head, "restore_network", lambda *request, **options: None)
    monkeypatch.setattr(head, "spread_scenes", lambda data: None)
    monkeypatch.setattr(head, "head_manifest", lambda *model, **options: None)
    monkeypatch.setattr(head, "median_word_ms", lambda clips: 500)
    with pytest.raises(KeyboardInterrupt):
        export_word_head(REQUEST, workspace, VECTORS)
    assert not [path for path in workspace.exported.parent.iterdir() if "tflite" in path.name]
