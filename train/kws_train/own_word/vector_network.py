"""Training of a network on the vectors of a request, into its run folder."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import msgspec

from kws_train.atomic import replacing
from kws_train.fit.vector_training import train_on_vectors
from kws_train.fit.vector_windows import VectorFit
from kws_train.networks.keras_backend import make_deterministic
from kws_train.networks.spotting import Spotting
from kws_train.own_word.word_vectors import WordVectors
from kws_train.own_word.workspace import Request, Workspace

__all__ = ["restore_network", "train_word_network"]

_WEIGHTS = "model.weights.h5"


def train_word_network(
    request: Request,
    workspace: Workspace,
    vectors: WordVectors,
    *,
    network: Callable[..., Spotting],
    settings: VectorFit,
    described: Mapping[str, Any],
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> None:
    """Train a network into the run folder of a request, unless it is there.

    Parameters
    ----------
    request : Request
    workspace : Workspace
    vectors : WordVectors
    network : callable
        See `train_on_vectors`.
    settings : VectorFit
    described : mapping
        What else settings.json says.
    callbacks : sequence of keras.callbacks.Callback
    """
    if (workspace.run / "settings.json").is_file():
        return
    workspace.run.mkdir(parents=True, exist_ok=True)
    workspace.notify(
        f"training on {len(vectors.training.labels)} scenes of words and "
        f"{vectors.background_s / 3600:.1f} hours of speech and noise"
    )
    make_deterministic(seed=request.seed)
    model = train_on_vectors(
        vectors.training,
        vectors.validation,
        n_labels=1 + len(request.phrases),
        settings=settings,
        seed=request.seed,
        network=network,
        history=workspace.run / "history.csv",
        callbacks=callbacks,
    )
    model.save_weights(workspace.run / _WEIGHTS)
    content = {"fit": msgspec.to_builtins(settings), **described, "seed": request.seed}
    with replacing(workspace.run / "settings.json") as begun:  # last: it marks a finished training
        begun.write_text(json.dumps(content, indent=1), encoding="utf-8")


def restore_network(
    request: Request, workspace: Workspace, *, network: Callable[..., Spotting]
) -> Spotting:
    """Return the trained network of a request; its vectors have the network's usual size."""
    model = network(1 + len(request.phrases))
    model.load_weights(workspace.run / _WEIGHTS)
    return model
