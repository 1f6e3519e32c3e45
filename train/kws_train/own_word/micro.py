"""A network for ESPHome's devices for the phrase of a request: training, export, cut-off."""

from kws.stderr import quiet_stderr
from kws_export.microwakeword import (
    MicroDescription,
    cutoff_of,
    export_microwakeword,
    write_description,
)
from kws_train.atomic import replacing
from kws_train.fit.vector_windows import VectorFit
from kws_train.networks.micro_network import N_CONTEXT_FRAMES, micro_network
from kws_train.own_word.prepare import labels_of_request
from kws_train.own_word.stages import EpochProgress
from kws_train.own_word.vector_network import restore_network, train_word_network
from kws_train.own_word.word_vectors import WordVectors, spread_scenes
from kws_train.own_word.workspace import Request, Workspace

__all__ = ["export_word_micro", "train_word_micro", "write_calibrated_micro"]

_EPOCHS = 24
_BATCHES_PER_MINUTE = 150
_WINDOW = 10  # outputs whose mean a device compares with the cut-off: 0.3 s
_FIRST_CUTOFF = 0.5  # until it is calibrated


def train_word_micro(request: Request, workspace: Workspace, vectors: WordVectors) -> None:
    """Train the network of a request into its run folder, unless it is there."""
    settings = _settings(request.minutes)
    train_word_network(
        request,
        workspace,
        vectors,
        network=micro_network,
        settings=settings,
        described={"takes": "micro frontend"},
        callbacks=[EpochProgress(settings.epochs, notify=workspace.notify)],
    )


def export_word_micro(request: Request, workspace: Workspace, vectors: WordVectors) -> None:
    """Export the trained network and its JSON, verified on scenes of words."""
    if workspace.exported.is_file():
        return
    with quiet_stderr():  # TensorFlow logs much
        agreement = export_microwakeword(
            restore_network(request, workspace, network=micro_network),
            workspace.exported,
            description=_description(request, _FIRST_CUTOFF),
            examples=spread_scenes(vectors.training),
        )
    workspace.notify(f"exported in int8: agrees with the trained network at {agreement.argmax:.1%}")


def write_calibrated_micro(request: Request, workspace: Workspace, *, threshold: float) -> None:
    """Write the model of a workspace with the cut-off that a threshold comes to."""
    content = workspace.exported.read_bytes()
    description = _description(request, cutoff_of(threshold))
    write_description(workspace.model, description, content=content)
    with replacing(workspace.model) as begun:  # last: it marks a calibrated model
        begun.write_bytes(content)


def _description(request: Request, cutoff: float) -> MicroDescription:
    (label,) = labels_of_request(request)
    return MicroDescription(
        wake_word=label.replace("_", " "),
        language=request.language,
        probability_cutoff=cutoff,
        sliding_window_size=_WINDOW,
    )


def _settings(minutes: float) -> VectorFit:
    """Return settings of a training that takes about so many minutes on one core."""
    return VectorFit(
        epochs=_EPOCHS,
        batches=max(1, round(_BATCHES_PER_MINUTE * minutes / _EPOCHS)),
        window=240,
        n_context=N_CONTEXT_FRAMES,
        first_answer=8,
        n_answer=48,
        n_shifts=24,
        noise=0.3,
        n_hard=3000,
        apart=14,
        piece=3000,
        longest_mask=15,
        widest_mask=6,
        n_smoothing=12,
    )
