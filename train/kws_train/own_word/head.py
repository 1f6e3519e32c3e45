"""A head on the speech embedding for the phrases of a request: training and export."""

import re

import msgspec

from kws.manifest import DecisionDefaults
from kws.model import embedding_reference
from kws.stderr import quiet_stderr
from kws_export.head import export_head, head_manifest
from kws_train.atomic import replacing
from kws_train.evaluate.build_stream import keyword_clips
from kws_train.fit.vector_windows import VectorFit
from kws_train.networks.embedding_head import embedding_head
from kws_train.own_word.prepare import labels_of_request
from kws_train.own_word.recipe import data_sources, median_word_ms
from kws_train.own_word.vector_network import restore_network, train_word_network
from kws_train.own_word.word_vectors import WordVectors, spread_scenes
from kws_train.own_word.workspace import Request, Workspace

__all__ = ["export_word_head", "train_word_head"]

_TEMPERATURE = 1.0
_SMOOTHING_MS, _REFRACTORY_MS = 640, 1000
_DELAY_MS = 560  # an average over eight outputs rises so much later than the last of them


def train_word_head(request: Request, workspace: Workspace, vectors: WordVectors) -> None:
    """Train the head of a request into its run folder, unless it is there."""
    train_word_network(
        request,
        workspace,
        vectors,
        network=embedding_head,
        settings=VectorFit(),
        described={"takes": msgspec.to_builtins(embedding_reference())},
    )


def export_word_head(request: Request, workspace: Workspace, vectors: WordVectors) -> None:
    """Export the trained head in int8, verified on scenes of words."""
    if workspace.exported.is_file():
        return
    labels = labels_of_request(request)
    model = restore_network(request, workspace, network=embedding_head)
    folders = workspace.recordings / "train", workspace.synthetic_all
    clips = [path for one in folders for _, path in keyword_clips(one, labels, split="all")]
    manifest = head_manifest(
        model,
        name=re.sub(r"[^A-Za-z0-9_.-]", "_", "-".join(labels))[:64],
        description=", ".join(label.replace("_", " ") for label in labels),
        keywords=tuple(labels),
        decision=DecisionDefaults(
            threshold=0.8,
            smoothing_ms=_SMOOTHING_MS,
            refractory_ms=_REFRACTORY_MS,
            delay_ms=_DELAY_MS,
            word_ms=median_word_ms(clips),
        ),
        data=tuple(data_sources(labels, request, workspace)),
    )
    with quiet_stderr(), replacing(workspace.exported) as begun:  # TensorFlow logs much
        agreement = export_head(
            model,
            begun,
            manifest=manifest,
            examples=spread_scenes(vectors.training),
            temperature=_TEMPERATURE,
        )
    workspace.notify(f"exported in int8: agrees with the trained head at {agreement.argmax:.1%}")
