"""Export a trained model as one file: convert, describe in a manifest, verify, write.

Nothing is written to the output path until the file has been verified.
"""

import logging
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kws.errors import ConfigError, ModelError
from kws.manifest import Manifest, pack
from kws_export.quantize import Quantization, convert
from kws_export.step import state_tensors
from kws_export.verify import MIN_AGREEMENT, Agreement, verify
from kws_train.fit.training import restore
from kws_train.networks.architectures import Network, context_frames
from kws_train.networks.fake_quant import quant_mode
from kws_train.networks.window_models import OneKeyword, Windowed
from kws_train.recipe import Recipe

__all__ = ["build_manifest", "export_model", "load_examples"]

log = logging.getLogger("kws_export")


def export_model(
    run: Path,
    out: Path,
    *,
    quantization: Quantization = "int8",
    n_frames: int | None = None,
    temperature: float = 1.0,
    force: bool = False,
) -> Agreement:
    """Write the trained model of a run folder to a model file.

    Parameters
    ----------
    run : Path
        Made by `kws train`.
    out : Path
        The .tflite to write.
    quantization : "int8", "int16x8" or "float32"
    n_frames : int, optional
        Frames per call of a step model; by default its time stride, which has the lowest latency.
        A window model accepts its hop only.
    temperature : float
        Divides the logits (Guo et al. 2017). Above 1, posteriors near 1 lie further
        apart, which int8 would otherwise round to the same value.
    force : bool
        Write the file even if it disagrees with the trained model.

    Returns
    -------
    Agreement
        Of the file with the trained model, over real clips of the validation split.

    Raises
    ------
    ConfigError
        If the run folder is incomplete, or `n_frames` does not fit its model.
    ModelError
        If the file cannot be run, or its most probable label agrees with the trained model's at
        less than `MIN_AGREEMENT` of the outputs.
    """
    model, recipe = restore(run)
    _apply_temperature(model, temperature)
    n_frames = n_frames or model.time_stride
    _check_frames(model, n_frames)
    examples = load_examples(run)
    manifest = build_manifest(recipe, model, quantization=quantization, n_frames=n_frames)
    flatbuffer = convert(
        model, quantization=quantization, n_frames=n_frames, examples=list(examples["streams"])
    )
    with tempfile.TemporaryDirectory() as folder:
        candidate, expected = Path(folder) / "model.tflite", Path(folder) / "expected.npz"
        candidate.write_bytes(pack(flatbuffer, manifest))
        with quant_mode(model, "learn" if quantization == "int8" else "off"):
            frames, posteriors = _predict(model, examples["clips"])
        np.savez(expected, frames=frames, posteriors=posteriors)
        agreement = verify(candidate, expected)
        log.info(
            "%s agrees with the trained model at %.2f %% of %d outputs, largest difference %.3f",
            quantization,
            100 * agreement.argmax,
            agreement.n_outputs,
            agreement.largest_difference,
        )
        if agreement.argmax < MIN_AGREEMENT and not force:
            raise ModelError(
                f"An exported model must agree with the trained one at {MIN_AGREEMENT:.1%} of "
                f"the outputs. Received: {agreement.argmax:.2%} over {agreement.n_outputs}. "
                f"Train on, try `--quantize int16x8`, or give `--force`."
            )
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(candidate.read_bytes())
    return agreement


def build_manifest(
    recipe: Recipe, model: Network, *, quantization: Quantization, n_frames: int
) -> Manifest:
    """Return the manifest of an exported model.

    Tensors of a step model are named in the order of `kws_export.step.concrete_step`.

    Parameters
    ----------
    recipe : Recipe
        The recipe that the model was trained by.
    model : Spotting or Windowed
    quantization : "int8", "int16x8" or "float32"
    n_frames : int
        Frames per call of a step model, hop of a window model.
    """
    common: dict[str, Any] = {
        "name": recipe.name,
        "description": recipe.description,
        "licence": recipe.licence,
        "features": recipe.features,
        "quantization": quantization,
        "decision": recipe.decision,
        "data": tuple(recipe.data.sources),
        "hop_frames": n_frames,
    }
    labels = tuple(recipe.labels)
    if isinstance(model, Windowed):
        return Manifest(
            kind="window",
            labels=tuple(recipe.data.keywords) if model.one_keyword else labels,
            n_frames=model.window_frames,
            **common,
        )
    return Manifest(
        kind="step",
        labels=labels,
        n_frames=n_frames,
        context_frames=context_frames(recipe.model),
        input="frames",
        output="Identity",
        states=state_tensors(model),
        **common,
    )


def load_examples(run: Path) -> dict[str, np.ndarray]:
    """Return the features that training kept for calibration and verification.

    Returns
    -------
    dict of str to float32 [shape=(n, frames, features)]
        `streams` to calibrate quantisation on, `clips` to compare outputs on.

    Raises
    ------
    ConfigError
        If the run folder lacks them or the file is damaged.
    """
    try:
        with (run / "examples.npz").open("rb") as file, np.load(file) as stored:
            return {"streams": stored["streams"], "clips": stored["clips"]}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ConfigError(
            f"A run folder must hold examples.npz with `streams` and `clips`. Received: {run} "
            f"({error}). Train again with `kws train`."
        ) from error


def _check_frames(model: Network, n_frames: int) -> None:
    if isinstance(model, Windowed) and n_frames != model.time_stride:
        raise ConfigError(
            f"`--frames` of a window model must be its hop, {model.time_stride}. Received: "
            f"{n_frames}. Leave it out; `hop_frames` in the recipe's [model] sets the hop."
        )
    if n_frames % model.time_stride:
        raise ConfigError(
            f"`--frames` must be a multiple of the model's time stride, {model.time_stride}. "
            f"Received: {n_frames}. Choose another."
        )


def _apply_temperature(model: Network, temperature: float) -> None:
    """Divide the weights of the last layer, and the ranges of its output if they were trained."""
    if temperature == 1.0:
        return
    if isinstance(model, Windowed):
        last = model.net.layers[-1]
        layers = [last.dense if isinstance(last, OneKeyword) else last]
    else:
        layers = [one for one in (model.stack[-1].dense, model.stack[-1].ranges) if one]
    for layer in layers:
        layer.set_weights([weights / temperature for weights in layer.get_weights()])


def _predict(model: Network, clips: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Run the trained model over whole clips; return frames and posteriors."""
    n_frames = clips.shape[1] // model.time_stride * model.time_stride
    logits = model.predict(clips[:, :n_frames], batch_size=64, verbose=0)
    posteriors = keras.ops.convert_to_numpy(keras.ops.softmax(logits))
    if isinstance(model, Windowed) and model.one_keyword:
        posteriors = posteriors[..., -1:]
    return clips[:, :n_frames], posteriors
