"""Heads on one embedding, with networks made of numpy."""

import hashlib
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import kws.model
from kws.config import GateSettings
from kws.errors import ModelError
from kws.features import Features
from kws.manifest import DecisionDefaults, EmbeddingReference, FeatureSettings, Manifest
from kws.model import open_embedding, open_model, share_inputs, with_embedding
from kws.spotter import Spotter

RATE_HZ = 16_000
FEATURES = FeatureSettings(kind="logmel", n_mels=8, floor=1.0)
TAKES = EmbeddingReference(name="fake", sha256=64 * "0", size=2, hop_frames=4)
CONTEXT = 30  # frames: with 4 to a step, the eighth vector is the first that depends on none before
VECTORS = np.linspace(-1, 1, 96, dtype=np.float32)[None]
N_SILENT = 8  # steps of silence before a stream


class Embedding:
    """Vectors of lower and upper bands, with a memory."""

    n_outputs = 1

    def __init__(self):
        self.manifest = Manifest(
            name="fake",
            labels=(),
            kind="step",
            features=FEATURES,
            n_frames=4,
            hop_frames=4,
            embedding=2,
            context_frames=CONTEXT,
        )
        self.n_steps = 0
        self.reset()

    def reset(self):
        self.memory = np.zeros(2, np.float32)

    def step(self, frames):
        assert frames.shape == (4, 8)
        self.n_steps += 1
        now = np.array([frames[:, :4].mean(), frames[:, 4:].mean()])
        self.memory = 0.5 * self.memory + 0.5 * now
        return self.memory[None].astype(np.float32)


class HeadOf:
    """A head with the posterior of one of the two bands."""

    n_outputs = 1
    embedding_inside = None

    def __init__(self, keyword, band, *, context_frames=CONTEXT):
        self.band = band
        self.vectors = []
        self.n_resets = 0
        self.manifest = Manifest(
            name=keyword,
            labels=("_unknown_", keyword),
            kind="step",
            features=FEATURES,
            n_frames=1,
            hop_frames=1,
            takes=TAKES,
            context_frames=context_frames,
            decision=DecisionDefaults(smoothing_ms=80, refractory_ms=300, word_ms=600),
        )

    def reset(self):
        self.n_resets += 1

    def step(self, frames):
        assert frames.shape == (1, 2)
        self.vectors.append(frames[0])
        share = frames[0, self.band] / max(1e-3, frames[0].sum())
        return np.array([[1 - share, share]], np.float32)


@pytest.fixture
def embeddings(monkeypatch):
    """The embeddings that were opened."""
    opened = []
    monkeypatch.setattr(
        "kws.model_group.open_embedding",
        lambda *heads: opened.append(Embedding()) or opened[-1],
    )
    return opened


def voice(seconds, hz):
    t = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    return sum(3000 / k * np.sin(2 * np.pi * k * hz * t) for k in range(1, 12)).astype(np.int16)


def silence(seconds):
    return np.zeros(int(seconds * RATE_HZ), np.int16)


SOUND = np.concatenate(
    (silence(0.5), voice(0.6, 130), silence(3), voice(0.6, 900), silence(0.3), voice(0.5, 130))
)


def test_two_heads_share_the_steps_of_one_embedding(embeddings):
    low, high = HeadOf("low", 0), HeadOf("high", 1)
    spotter = Spotter([low, high], gate=False)
    spotter.process(SOUND)
    (embedding,) = embeddings
    assert embedding.n_steps == N_SILENT + (len(SOUND) - 400 + 160) // (4 * 160)
    assert np.array_equal(low.vectors, high.vectors)
    assert len(low.vectors) == embedding.n_steps - N_SILENT


def test_heads_that_take_the_same_integers_quantise_vectors_once(monkeypatch):
    heads = [open_model("hey_computer") for _ in range(3)]
    alone = [open_model("hey_computer").step(VECTORS * k) for k in (1, 3)]
    quantised = []
    plain = kws.model._Scale.to_integers
    monkeypatch.setattr(
        kws.model._Scale,
        "to_integers",
        lambda scale, values: quantised.append(values) or plain(scale, values),
    )
    share_inputs(heads)
    for vectors, expected in zip((VECTORS, VECTORS * 3), alone, strict=True):
        for head in heads:
            head.reset()
            assert np.array_equal(head.step(vectors), expected)
    assert len(quantised) == 2
    assert not np.array_equal(*alone)


def test_heads_that_are_joined_to_their_embeddings_are_listened_to_together():
    joined = [with_embedding(open_model("hey_computer")) for _ in range(2)]
    spotter = Spotter(joined, gate=False)
    assert spotter.process(silence(1)) == []


def test_a_head_gives_the_events_that_it_gives_alone(embeddings):
    alone = [
        event
        for keyword, band in (("low", 0), ("high", 1))
        for event in Spotter(HeadOf(keyword, band), gate=False).process(SOUND)
    ]
    both = Spotter([HeadOf("low", 0), HeadOf("high", 1)], gate=False).process(SOUND)
    assert both == sorted(alone, key=lambda event: event.end_s) != []


@pytest.mark.parametrize("gate", [False, GateSettings(hangover_ms=100, pre_roll_ms=100)], ids=str)
@given(cuts=st.lists(st.integers(0, 9000), max_size=14))
def test_events_do_not_depend_on_how_samples_are_cut(gate, cuts):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kws.model_group.open_embedding", lambda *heads: Embedding())
        spotter = Spotter([HeadOf("low", 0), HeadOf("high", 1)], gate=gate)
    whole = spotter.process(SOUND) + spotter.flush()
    edges = np.minimum(np.cumsum([0, *cuts]), len(SOUND))
    pieces = [SOUND[a:b] for a, b in zip(edges, [*edges[1:], len(SOUND)], strict=True)]
    cut = [event for piece in pieces for event in spotter.process(piece)]
    assert cut + spotter.flush() == whole


def test_after_a_long_closure_embedding_and_head_start_anew_from_the_context(embeddings):
    head = HeadOf("low", 0)
    spotter = Spotter(head, gate=GateSettings(hangover_ms=0, pre_roll_ms=0))
    first, second = voice(1, 130), np.concatenate((silence(4), voice(1, 130)))
    spotter.process(first)
    n_resets = head.n_resets
    spotter.process(second)
    assert head.n_resets == n_resets + 1
    assert len(head.vectors) == embeddings[0].n_steps - N_SILENT - 7, (
        "vectors without context count not"
    )
    continued = Spotter(HeadOf("low", 0), gate=False)
    continued.process(np.concatenate((first, second)))
    gated, ungated = embeddings
    assert gated.n_steps < ungated.n_steps - 20, "the closure was skipped"


def test_the_first_vector_of_a_stream_depends_on_silence_before_it(embeddings):
    head = HeadOf("low", 0)
    spotter = Spotter(head, gate=False)
    embeddings[0].memory[:] = 9  # forgotten
    spotter.reset()
    spotter.process(SOUND[: 400 + 3 * 160])
    known = Embedding()
    known.step(np.zeros((4, 8), np.float32))
    silent = Features(FEATURES).whole(SOUND[: 400 + 3 * 160])
    np.testing.assert_allclose(head.vectors, known.step(silent))


class StartledHead(HeadOf):
    """A head whose first outputs after a reset are those of its keyword, as of one untrained."""

    N = 5

    def reset(self):
        super().reset()
        self.n_steps = 0

    def step(self, frames):
        super().step(frames)
        self.n_steps += 1
        is_startled = self.n_steps <= self.N
        return np.float32([[0, 1]] if is_startled else [[1, 0]])


@pytest.mark.parametrize(("n_missing", "n_found"), [(0, 0), (1, 2)])
def test_outputs_that_depend_on_a_reset_are_not_decided_on(n_missing, n_found, embeddings):
    sound = np.concatenate((silence(1), voice(1, 130), silence(6), voice(1, 130)))
    for gate in (False, GateSettings(hangover_ms=0, pre_roll_ms=0)):
        context_frames = CONTEXT + 4 * (StartledHead.N - n_missing)
        head = StartledHead("low", 0, context_frames=context_frames)
        found = Spotter(head, gate=gate).process(sound)
        # Without a gate the head starts once, with it at each opening.
        assert len(found) == (n_found if gate else min(1, n_found))


def test_the_pre_roll_reaches_as_far_back_as_a_head_depends_on(embeddings):
    sound = np.concatenate((silence(3), voice(1, 130)))
    for context_frames, least_s in ((CONTEXT, 0.3), (150, 1.5)):
        head = HeadOf("low", 0, context_frames=context_frames)
        Spotter(head, gate=GateSettings(hangover_ms=0, pre_roll_ms=0)).process(sound)
        n_steps = embeddings[-1].n_steps - N_SILENT
        assert n_steps * 0.04 == pytest.approx(1.0 + least_s, abs=0.2)


def test_a_head_for_an_embedding_that_is_missing_or_another_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("kws.model.files", lambda package: tmp_path)
    message = (
        "A head needs the embedding model that it was trained on. Received: a head for `fake`, "
        "which does not come with this version of kws (No such file or directory). Update kws, or "
        "train the head again with this version."
    )
    with pytest.raises(ModelError, match=f"^{re.escape(message)}$"):
        open_embedding(HeadOf("low", 0))
    (tmp_path / "fake.tflite").write_bytes(b"other")  # as cut short, or of another version
    digest = hashlib.sha256(b"other").hexdigest()
    message = (
        "A head needs the embedding model that it was trained on. Received: a head for `fake` with "
        f"sha256 000000000000..., where this version of kws has {digest[:12]}.... Train the head "
        "again, or install the version it was made with."
    )
    with pytest.raises(ModelError, match=f"^{re.escape(message)}$"):
        open_embedding(HeadOf("low", 0))
