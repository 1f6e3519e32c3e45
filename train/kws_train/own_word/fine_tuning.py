"""Fine-tuning of the speech embedding together with the head of a request.

The head learns on vectors that the embedding gave once; here the whole network, from features to
posteriors, learns on the features of the same scenes, speech and noise: first the last blocks of
the embedding and the head, then all of it. The result needs no embedding beside it, and shares none
with other words. It replaces the head only where it misses fewer recordings that neither was
trained on, among speech of unknown speakers. Synthetic voices cannot decide that: what is
fine-tuned on them knows them by heart, and misses more people (docs/experiments.md).
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import keras
import msgspec
import numpy as np

from kws.errors import ModelError
from kws.model import open_model
from kws.stderr import quiet_stderr
from kws_export.head import export_head, whole_manifest
from kws_train.atomic import replacing
from kws_train.data.front_ends import embedding_frames
from kws_train.data.vector_cache import VectorCache, vector_cache_folder
from kws_train.evaluate.stream_results import process_streams
from kws_train.fit.vector_training import train_on_vectors
from kws_train.fit.vector_windows import VectorFit
from kws_train.networks.architectures import build
from kws_train.networks.embedding_head import embedding_head
from kws_train.networks.keras_backend import make_deterministic
from kws_train.networks.spotting import Spotting
from kws_train.own_word.evaluation import NOISY_SNR_DB
from kws_train.own_word.stages import EpochProgress, describe_minutes
from kws_train.own_word.vector_network import restore_network
from kws_train.own_word.word_vectors import (
    WordVectors,
    collect_vectors,
    spread_scenes,
    validation_recordings,
    vector_tuning_streams,
)
from kws_train.own_word.workspace import Request, Workspace
from kws_train.recipe import EmbeddingRecipe

__all__ = ["fine_tune_word"]

FEWEST_MINUTES = 5.0
"""Time left for fine-tuning below which it is not begun."""

FEWEST_RECORDINGS = 5
"""Recordings for validation, a tenth of all; fewer do not tell the models apart."""

_N_BLOCKS = 6
_EPOCHS = 4
_N_PROBE_BATCHES = 4


class _Phase(NamedTuple):
    """Blocks of the embedding that stay as they are, share of the time, learning rate."""

    n_frozen: int
    share: float
    learning_rate: float


_PHASES = (_Phase(3, 0.4, 5e-4), _Phase(0, 0.6, 2e-4))


def fine_tune_word(
    request: Request, workspace: Workspace, *, vectors: Path | None = None, n_jobs: int = 1
) -> None:
    """Fine-tune the embedding in the minutes that are left; keep the better of both models.

    With less than `FEWEST_RECORDINGS` to compare them on or less than `FEWEST_MINUTES`, nothing is
    done.

    Parameters
    ----------
    request : Request
    workspace : Workspace
        With a trained and exported head, which is replaced if the whole network is better.
    vectors : Path, optional
        Cache of vectors, by default `vector_cache_folder()`.
    n_jobs : int
        Processes.
    """
    n_judges = len(validation_recordings(request, workspace))
    if workspace.fine_tuning.is_file() or n_judges < FEWEST_RECORDINGS:
        return
    if not workspace.fine_tuned.is_file():
        left = request.minutes - workspace.training_minutes
        if left < FEWEST_MINUTES:
            return
        with workspace.count_training_time():
            cache = VectorCache(vectors or vector_cache_folder(), embedding_frames())
            collected = collect_vectors(request, workspace, cache=cache, n_jobs=n_jobs)
            model = _train(request, workspace, collected, minutes=left)
        try:
            _export(workspace, model, collected)
        except ModelError as error:
            _keep_the_head(workspace, error)
            return
    _keep_the_better(request, workspace)


def _train(
    request: Request, workspace: Workspace, vectors: WordVectors, *, minutes: float
) -> Spotting:
    """Return the fine-tuned network; a training that was interrupted begins again."""
    make_deterministic(seed=request.seed)
    n_labels = 1 + len(request.phrases)
    model = _with_head(restore_network(request, workspace, network=embedding_head), n_labels)
    workspace.notify(f"fine-tuning the speech embedding for {describe_minutes(minutes)}")
    progress = EpochProgress(_EPOCHS * len(_PHASES), notify=workspace.notify)
    for phase in _PHASES:
        make = _from(model, n_frozen=phase.n_frozen)
        train = _Training(request, vectors, make, learning_rate=phase.learning_rate)
        batch_s = train.seconds_per_batch()
        n_batches = max(1, round(60 * minutes * phase.share / batch_s / _EPOCHS))
        trained = train(epochs=_EPOCHS, batches=n_batches, callbacks=[progress])
        model = _copy(trained, n_labels)
    return model


class _Training:
    """Trainings from the same weights."""

    def __init__(
        self,
        request: Request,
        vectors: WordVectors,
        make: Callable[..., Spotting],
        *,
        learning_rate: float,
    ) -> None:
        self._request, self._vectors, self._make = request, vectors, make
        self._learning_rate = learning_rate

    def __call__(
        self,
        *,
        epochs: int,
        batches: int,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        **changed: Any,
    ) -> Spotting:
        """Train; `changed` are other settings."""
        settings = _settings(epochs, batches, learning_rate=self._learning_rate)
        return train_on_vectors(
            self._vectors.training,
            self._vectors.validation,
            n_labels=1 + len(self._request.phrases),
            settings=msgspec.structs.replace(settings, **changed),
            seed=self._request.seed,
            network=self._make,
            callbacks=callbacks,
        )

    def seconds_per_batch(self) -> float:
        """Return the time of a batch on this machine."""
        watch = _Stopwatch()
        self(epochs=1, batches=2 * _N_PROBE_BATCHES, callbacks=[watch], n_hard=0)
        return watch.seconds_per_batch


class _Stopwatch(keras.callbacks.Callback):
    """Measures batches after the first ones, which compile the training step."""

    seconds_per_batch = 0.0
    _begun_s = 0.0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if batch == _N_PROBE_BATCHES - 1:
            self._begun_s = time.perf_counter()
        elif batch >= _N_PROBE_BATCHES:
            n = batch - _N_PROBE_BATCHES + 1
            self.seconds_per_batch = (time.perf_counter() - self._begun_s) / n


def _settings(epochs: int, batches: int, *, learning_rate: float) -> VectorFit:
    """Return settings for frames of 10 ms, of which the network turns eight into an output.

    A window begins with empty states, as a stream does when the gate opens: all of its outputs
    count where there is no keyword.
    """
    return VectorFit(
        epochs=epochs,
        batches=batches,
        learning_rate=learning_rate,
        n_keyword=24,
        n_other=72,
        window=216,
        n_context=0,
        first_answer=8,
        n_answer=48,
        n_shifts=24,
        noise=0.1,
        piece=2048,
        longest_mask=12,
        widest_mask=4,
    )


def _with_head(head: Spotting, n_labels: int) -> Spotting:
    """Return the published embedding and a trained head as one network."""
    model = _whole_network(n_labels, size=embedding_frames().size)
    for layer, trained in zip(model.stack[_N_BLOCKS:], head.stack, strict=True):
        layer.set_weights(trained.get_weights())
    return model


def _whole_network(n_labels: int, *, size: int) -> Spotting:
    statistics = [0.0] * size, [1.0] * size  # the features go in as they are
    model = build(EmbeddingRecipe(), n_labels=n_labels, mean=statistics[0], std=statistics[1])
    return cast(Spotting, model)


def _from(model: Spotting, *, n_frozen: int) -> Callable[..., Spotting]:
    """Return what makes a network with the weights of another, its first blocks frozen."""

    def make(n_labels: int, *, size: int) -> Spotting:
        made = _copy(model, n_labels, size=size)
        for block in made.stack[:n_frozen]:
            block.trainable = False
        return made

    return make


def _copy(model: Spotting, n_labels: int, *, size: int | None = None) -> Spotting:
    """Return a network with the same weights, all of which can be trained."""
    made = _whole_network(n_labels, size=size or model.n_features)
    for layer, given in zip(made.stack, model.stack, strict=True):
        layer.set_weights(given.get_weights())
    return made


def _export(workspace: Workspace, model: Spotting, vectors: WordVectors) -> None:
    head = open_model(workspace.exported).manifest
    with quiet_stderr():  # TensorFlow logs much
        agreement = export_head(
            model,
            workspace.fine_tuned,
            manifest=whole_manifest(head, model),
            examples=spread_scenes(vectors.training),
        )
    workspace.notify(f"exported in int8: agrees with the trained network at {agreement.argmax:.1%}")


def _keep_the_head(workspace: Workspace, error: ModelError) -> None:
    workspace.notify(f"the fine-tuned network is not used, the head stays: {error}")
    with replacing(workspace.fine_tuning) as begun:
        begun.write_text("{}\n", encoding="utf-8")


def _keep_the_better(request: Request, workspace: Workspace) -> None:
    """Compare both models among speech that thresholds are set on, and note which is kept."""
    streams = vector_tuning_streams(
        request,
        workspace,
        snr_db=NOISY_SNR_DB,
        seed=1,
        clips=validation_recordings(request, workspace),
    )
    misses = {
        name: [
            curve.mean_misses()
            for curve in process_streams(open_model(path), streams).by_condition().values()
        ]
        for name, path in (("head", workspace.exported), ("fine-tuned", workspace.fine_tuned))
    }
    is_better = float(np.mean(misses["fine-tuned"])) < float(np.mean(misses["head"]))
    shown = {name: " / ".join(f"{one:.1%}" for one in rates) for name, rates in misses.items()}
    workspace.notify(
        f"recordings missed among unknown speakers, clean / {NOISY_SNR_DB:g} dB: {shown['head']} "
        f"by the head, {shown['fine-tuned']} fine-tuned, which is "
        f"{'kept' if is_better else 'not kept'}"
    )
    if is_better:
        with replacing(workspace.exported) as begun:
            begun.write_bytes(workspace.fine_tuned.read_bytes())
    with replacing(workspace.fine_tuning) as begun:  # last: it marks the decision
        begun.write_bytes(msgspec.json.format(msgspec.json.encode(misses)))
