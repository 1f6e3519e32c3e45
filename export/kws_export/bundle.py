"""From a run folder to a model file: convert, describe, verify, write.

Nothing is written at the place asked for until the file has been verified.
"""

import logging
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from msgspec.structs import replace
from scipy.cluster.vq import kmeans2, vq

from kws.audio import SAMPLE_RATE_HZ as RATE_HZ
from kws.errors import ConfigError, ModelError
from kws.features import Features
from kws.manifest import DecisionDefaults, Head, Manifest, StateTensor, pack
from kws.model import Model, open_model
from kws.templates import pack_vectors, unit_vectors
from kws_export.quantize import Quantization, convert
from kws_export.verify import Agreement, verify
from kws_train.data.align import train_speakers
from kws_train.data.corpus import audio_below, read_samples
from kws_train.fit.training import restore
from kws_train.networks.architectures import Network, Spotting
from kws_train.networks.fake_quant import quant_mode
from kws_train.networks.recurrent import GRU
from kws_train.networks.window_models import Windowed
from kws_train.recipe import Recipe

__all__ = ["LEAST_AGREEMENT", "export", "export_embedding"]

log = logging.getLogger("kws_export")

LEAST_AGREEMENT = 0.985

_N_FILLERS, _N_ROUNDS = 128, 10
_N_PARTS, _BACKGROUND_S = 8, 1800.0


def export(
    run: Path,
    out: Path,
    *,
    quantization: Quantization = "int8",
    n_frames: int | None = None,
    temperature: float = 1.0,
    force: bool = False,
) -> Agreement:
    """Write the model of a run folder to `out`.

    Parameters
    ----------
    run : Path
        Made by `kws train`.
    out : Path
        The .tflite to write.
    quantization : "int8", "int16x8" or "float32"
    n_frames : int, optional
        Frames to a call of a step model; its time stride, which answers soonest, by default. A
        window model takes its hop, and no other.
    temperature : float
        Divides the logits of a step model (Guo et al. 2017). Above 1, posteriors near 1 lie further
        apart, which the steps of eight bits would otherwise make equal.
    force : bool
        Write the file even if it disagrees with the trained model.

    Returns
    -------
    Agreement
        Of the file with the trained model, over real clips of the validation split.

    Raises
    ------
    ModelError
        If the file cannot be run, or its most probable label agrees with the trained model's at
        less than `LEAST_AGREEMENT` of the outputs.
    """
    model, recipe = restore(run)
    _soften(model, temperature)
    n_frames = n_frames or model.time_stride
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
    examples = _examples(run)
    manifest = _manifest(recipe, model, quantization=quantization, n_frames=n_frames)
    flatbuffer = convert(
        model, quantization=quantization, n_frames=n_frames, examples=list(examples["streams"])
    )
    with tempfile.TemporaryDirectory() as folder:
        candidate, expected = Path(folder) / "model.tflite", Path(folder) / "expected.npz"
        candidate.write_bytes(pack(flatbuffer, manifest))
        with quant_mode(model, "learn" if quantization == "int8" else "off"):
            frames, posteriors = _expected(model, examples["clips"])
        np.savez(expected, frames=frames, posteriors=posteriors)
        agreement = verify(candidate, expected)
        log.info(
            "%s agrees with the trained model at %.2f %% of %d outputs, largest difference %.3f",
            quantization,
            100 * agreement.argmax,
            agreement.n_outputs,
            agreement.largest_difference,
        )
        if agreement.argmax < LEAST_AGREEMENT and not force:
            raise ModelError(
                f"An exported model must agree with the trained one at {LEAST_AGREEMENT:.1%} of "
                f"the outputs. Received: {agreement.argmax:.2%} over {agreement.n_outputs}. "
                f"Train on, try `--quantize int16x8`, or give `--force`."
            )
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(candidate.read_bytes())
    return agreement


def export_embedding(
    run: Path, out: Path, *, speech: Path, n_frames: int | None = None, seed: int = 1
) -> int:
    """Write what the layers before the recurrent one give, in int8: a backbone for `kws enroll`.

    Statistics and fillers of the head, the centres of spherical k-means, come from continuous
    speech of training speakers. Half an hour of that goes beside the file as `.npz`, in eight bytes
    a vector (product quantisation, Jegou et al. 2011): enrolment sets a word's threshold by it.

    Parameters
    ----------
    run : Path
        Made by `kws train`.
    out : Path
        The .tflite to write.
    speech : Path
        A LibriSpeech-shaped corpus; the second half of its speakers is left alone.
    n_frames : int, optional
        Frames to a call; twice the model's time stride by default.
    seed : int
        Of the choice of utterances and of k-means.

    Returns
    -------
    int
        Size of an embedding.

    Raises
    ------
    ConfigError
        If the run's network does not end in a recurrent layer and a classifier.
    """
    model, recipe = restore(run)
    if isinstance(model, Windowed) or not isinstance(model.stack[-2], GRU):
        raise ConfigError(
            f"A backbone must be a step model that ends in a GRU, as `crnn` does. Received: {run}, "
            f"`{recipe.model.__class__.__name__}`. Train one with such a recipe."
        )
    body = Spotting(model.stack[:-2])
    body.built = True
    streams = _examples(run)["streams"]
    n_frames = n_frames or 2 * body.time_stride
    common = _manifest(recipe, body, quantization="int8", n_frames=n_frames)
    n_values = int(body(streams[:1, : 16 * n_frames]).shape[-1])
    plain = replace(
        common,
        name="backbone",
        description=f"embeddings, of the convolutions of {recipe.name}",
        labels=tuple(f"value_{i}" for i in range(n_values)),
        decision=DecisionDefaults(),
    )
    flatbuffer = convert(body, quantization="int8", n_frames=n_frames, examples=list(streams))
    with tempfile.TemporaryDirectory() as folder:
        candidate = Path(folder) / "model.tflite"
        candidate.write_bytes(pack(flatbuffer, plain))
        step = open_model(candidate)
        heard = [_embedded(step, frames) for frames in _speech(speech, recipe, seed=seed)]
    out.parent.mkdir(parents=True, exist_ok=True)
    head = _head(np.concatenate(heard), seed=seed)
    manifest = replace(plain, labels=(), embedding=n_values, head=head)
    out.write_bytes(pack(flatbuffer, manifest))
    _write_background(out.with_suffix(".npz"), heard, head, seed=seed)
    return n_values


def _speech(corpus: Path, recipe: Recipe, *, seed: int) -> Iterator[np.ndarray]:
    """Give the frames of utterances of training speakers, until there is enough."""
    first, _ = train_speakers(corpus)
    paths = [path for path in audio_below(corpus) if path.name.partition("-")[0] in first]
    n_left = round(_BACKGROUND_S * RATE_HZ)
    for i in np.random.default_rng(seed).permutation(len(paths)):
        samples = read_samples(paths[i])
        yield Features(recipe.features).whole(samples).astype(np.float32)
        n_left -= len(samples)
        if n_left <= 0:
            return


def _write_background(path: Path, heard: Sequence[np.ndarray], head: Head, *, seed: int) -> None:
    unit = unit_vectors(np.concatenate(heard), head)
    random = np.random.default_rng(seed)
    codes, books = [], []
    for part in np.split(unit, _N_PARTS, axis=1):
        sample = part[random.choice(len(part), min(len(part), 8000), replace=False)]
        book, _ = kmeans2(sample, 256, minit="++", seed=seed)
        books.append(book)
        codes.append(vq(part, book)[0].astype(np.uint8))
    book_bytes = np.rint(np.stack(books) * 127).astype(np.int8)
    lengths = np.array([len(one) for one in heard], np.uint16)
    np.savez_compressed(path, codes=np.stack(codes, 1), books=book_bytes, lengths=lengths)


def _embedded(model: Model, frames: np.ndarray) -> np.ndarray:
    """Return the mean embedding of each call."""
    model.reset()
    hop = model.manifest.hop_frames
    calls = range(0, len(frames) - hop + 1, hop)
    return np.array([model.step(frames[i : i + hop]).mean(axis=0) for i in calls])


def _head(embeddings: np.ndarray, *, seed: int) -> Head:
    """Describe the sounds of speech: mean, spread, and the centres of spherical k-means."""
    mean, std = embeddings.mean(axis=0), embeddings.std(axis=0) + 1e-3
    head = Head(mean=tuple(mean.tolist()), std=tuple(std.tolist()))
    unit = unit_vectors(embeddings, head)
    random = np.random.default_rng(seed)
    centres = unit[random.choice(len(unit), _N_FILLERS, replace=False)]
    for _ in range(_N_ROUNDS):
        nearest = (unit @ centres.T).argmax(axis=1)
        for k in set(nearest.tolist()):
            centre = unit[nearest == k].mean(axis=0)
            centres[k] = centre / np.linalg.norm(centre)
    return replace(head, fillers=pack_vectors(centres))


def _manifest(
    recipe: Recipe, model: Network, *, quantization: Quantization, n_frames: int
) -> Manifest:
    """Describe the file; the tensors of a step are named as `concrete_step` orders them."""
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
    states = tuple(
        StateTensor(input=f"state_{i}", output=f"Identity_{i + 1}", shape=shape)
        for i, shape in enumerate(model.state_shapes())
    )
    return Manifest(
        kind="step",
        labels=labels,
        n_frames=n_frames,
        input="frames",
        output="Identity",
        states=states,
        **common,
    )


def _soften(model: Network, temperature: float) -> None:
    if temperature == 1.0:
        return
    if isinstance(model, Windowed):
        raise ConfigError(
            f"`--temperature` is for step models. Received: {temperature:g} for one of windows. "
            f"Leave it out."
        )
    classify = model.stack[-1]
    for layer in (classify.dense, classify.ranges):
        if layer:
            layer.set_weights([weights / temperature for weights in layer.get_weights()])


def _expected(model: Network, clips: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Run the trained model over whole clips; return frames and posteriors."""
    n_frames = clips.shape[1] // model.time_stride * model.time_stride
    logits = model.predict(clips[:, :n_frames], batch_size=64, verbose=0)
    posteriors = keras.ops.convert_to_numpy(keras.ops.softmax(logits))
    if isinstance(model, Windowed) and model.one_keyword:
        posteriors = posteriors[..., -1:]
    return clips[:, :n_frames], posteriors


def _examples(run: Path) -> dict[str, np.ndarray]:
    try:
        with (run / "examples.npz").open("rb") as file, np.load(file) as stored:
            return {"streams": stored["streams"], "clips": stored["clips"]}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ConfigError(
            f"A run folder must hold examples.npz with `streams` and `clips`. Received: {run} "
            f"({error}). Train again with `kws train`."
        ) from error
