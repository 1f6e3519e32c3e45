"""Export of a head on the speech embedding, alone or as one network with it.

A step is one vector of the embedding, or the frames of one; it is verified in a subprocess.
"""

import logging
import tempfile
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
from keras import ops

from kws.errors import ModelError
from kws.manifest import UNKNOWN, DataSource, DecisionDefaults, Manifest, pack
from kws.model import embedding_reference, open_model
from kws_export.quantize import Quantization, convert
from kws_export.step import state_tensors
from kws_export.verify import MIN_AGREEMENT, Agreement, verify
from kws_train.atomic import replacing
from kws_train.networks.embedding_head import N_CONTEXT_VECTORS
from kws_train.networks.spotting import Spotting

__all__ = ["export_head", "head_manifest", "whole_manifest"]

log = logging.getLogger("kws_export")


def export_head(
    model: Spotting,
    out: Path,
    *,
    manifest: Manifest,
    examples: npt.NDArray[np.float32],
    temperature: float = 1.0,
) -> Agreement:
    """Write a trained head to a model file; its weights are divided by the temperature.

    Parameters
    ----------
    model : Spotting
        Of `embedding_head`, or of the architecture `speech_embedding`; changed by the temperature.
    out : Path
    manifest : Manifest
        Of `head_manifest` or `whole_manifest`; its `quantization` decides the number format.
    examples : float32 [shape=(n, k, size)]
        Vectors of scenes, or frames, to calibrate on and to compare outputs on.
    temperature : float
        Divides the logits; posteriors near 1 then lie further apart (Guo et al. 2017).

    Raises
    ------
    ModelError
        If the file cannot be run, or disagrees with the trained head.
    """
    dense = model.stack[-1].dense
    dense.set_weights([weights / temperature for weights in dense.get_weights()])
    n_calibrate = len(examples) // 2
    flatbuffer = convert(
        model,
        quantization=manifest.quantization,
        n_frames=manifest.n_frames,
        examples=list(examples[:n_calibrate]),
    )
    posteriors = np.asarray(ops.softmax(model.predict(examples[n_calibrate:], verbose=0)))
    with tempfile.TemporaryDirectory() as folder:
        candidate, expected = Path(folder) / "head.tflite", Path(folder) / "expected.npz"
        candidate.write_bytes(pack(flatbuffer, manifest))
        np.savez(expected, frames=examples[n_calibrate:], posteriors=posteriors)
        agreement = verify(candidate, expected)
        if agreement.argmax < MIN_AGREEMENT:
            raise ModelError(
                f"An exported model must agree with the trained one at {MIN_AGREEMENT:.1%} of the "
                f"outputs. Received: {agreement.argmax:.2%} over {agreement.n_outputs}. Train "
                f"again with another `--seed`."
            )
        with replacing(out) as begun:
            begun.write_bytes(candidate.read_bytes())
    return agreement


def head_manifest(
    model: Spotting,
    *,
    name: str,
    description: str,
    keywords: tuple[str, ...],
    decision: DecisionDefaults,
    data: tuple[DataSource, ...] = (),
    quantization: Quantization = "int8",
) -> Manifest:
    """Return the manifest of a head on the bundled speech embedding.

    Parameters
    ----------
    model : Spotting
        For the shapes of its states.
    name, description : str
    keywords : tuple of str
        In the order of the head's outputs after `_unknown_`.
    decision : DecisionDefaults
    data : tuple of DataSource
    quantization : "int8", "int16x8" or "float32"
    """
    takes = embedding_reference()
    embedding = open_model(takes.name).manifest
    n_context = embedding.context_frames + (N_CONTEXT_VECTORS - 1) * takes.hop_frames
    return Manifest(
        name=name,
        description=description,
        licence="as the data's",
        labels=(UNKNOWN, *keywords),
        kind="step",
        features=embedding.features,
        n_frames=1,
        hop_frames=1,
        input="frames",
        output="Identity",
        states=state_tensors(model),
        quantization=quantization,
        decision=decision,
        takes=takes,
        context_frames=n_context,
        data=(*embedding.data, *data),
    )


def whole_manifest(head: Manifest, model: Spotting) -> Manifest:
    """Return the manifest of a network that is a head and its embedding, trained together.

    Parameters
    ----------
    head : Manifest
        Of the head alone: labels, decision and data stay the same.
    model : Spotting
        For the shapes of its states.
    """
    stride = model.time_stride
    return msgspec.structs.replace(
        head, takes=None, n_frames=stride, hop_frames=stride, states=state_tensors(model)
    )
