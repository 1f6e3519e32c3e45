"""Export the enrolment backbone: a trained network without its recurrent layer and classifier.

`kws enroll` compares recordings by its embeddings. Embeddings of half an hour of background speech
go beside it; they set the thresholds of enrolled words.
"""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from msgspec.structs import replace
from scipy.cluster.vq import kmeans2, vq

from kws.audio import SAMPLE_RATE_HZ as RATE_HZ
from kws.errors import ConfigError
from kws.features import Features
from kws.manifest import DecisionDefaults, Head, pack
from kws.model import background_path, mean_embeddings, open_model
from kws.templates import pack_vectors, unit_vectors
from kws_export.bundle import build_manifest, load_examples
from kws_export.quantize import convert
from kws_train.data.audio_files import audio_files, read_samples
from kws_train.data.librispeech import speaker_halves
from kws_train.fit.training import restore
from kws_train.networks.architectures import Network, Spotting
from kws_train.networks.recurrent import GRU
from kws_train.networks.window_models import Windowed
from kws_train.recipe import Recipe

__all__ = ["export_backbone"]

_N_FILLERS, _N_KMEANS_ROUNDS = 128, 10
_BACKGROUND_S = 1800.0
_N_SUBSPACES, _N_CODES = 8, 256  # of product quantisation
_MAX_KMEANS_VECTORS = 8000


def export_backbone(
    run: Path, out: Path, *, speech: Path, n_frames: int | None = None, seed: int = 1
) -> int:
    """Write the layers before the recurrent one as an int8 model file, for `kws enroll`.

    Statistics and fillers of the manifest's head, the centres of spherical k-means, come from
    continuous speech of training speakers. Half an hour of it goes beside the file, see
    `kws.model.background_path`, in eight bytes a vector (product quantisation, Jegou et al. 2011).

    Parameters
    ----------
    run : Path
        Made by `kws train`.
    out : Path
        The .tflite to write.
    speech : Path
        A LibriSpeech-shaped corpus; the second half of its speakers is not used.
    n_frames : int, optional
        Frames per call; by default twice the model's time stride.
    seed : int
        Of the choice of utterances and of k-means.

    Returns
    -------
    int
        Values of an embedding.

    Raises
    ------
    ConfigError
        If the run's network does not end in a recurrent layer and a classifier, or the corpus has
        no training speaker.
    """
    model, recipe = restore(run)
    body = _without_classifier(model, run, recipe)
    streams = load_examples(run)["streams"]
    n_frames = n_frames or 2 * body.time_stride
    n_values = int(body(streams[:1, : 16 * n_frames]).shape[-1])
    manifest = replace(
        build_manifest(recipe, body, quantization="int8", n_frames=n_frames),
        name="backbone",
        description=f"embeddings, of the convolutions of {recipe.name}",
        labels=tuple(f"value_{i}" for i in range(n_values)),
        decision=DecisionDefaults(),
    )
    flatbuffer = convert(body, quantization="int8", n_frames=n_frames, examples=list(streams))
    with tempfile.TemporaryDirectory() as folder:
        candidate = Path(folder) / "model.tflite"
        candidate.write_bytes(pack(flatbuffer, manifest))
        runtime = open_model(candidate)
        spoken = _speech(speech, recipe, seed=seed)
        embeddings = [mean_embeddings(runtime, frames) for frames in spoken]
    out.parent.mkdir(parents=True, exist_ok=True)
    head = _fit_head(np.concatenate(embeddings), seed=seed)
    out.write_bytes(pack(flatbuffer, replace(manifest, labels=(), embedding=n_values, head=head)))
    _write_background(background_path(out), embeddings, head, seed=seed)
    return n_values


def _without_classifier(model: Network, run: Path, recipe: Recipe) -> Spotting:
    if isinstance(model, Windowed) or not isinstance(model.stack[-2], GRU):
        raise ConfigError(
            f"A backbone must be a step model that ends in a GRU, as `crnn` does. Received: {run}, "
            f"`{recipe.model.__class__.__name__}`. Train one with such a recipe."
        )
    body = Spotting(model.stack[:-2])
    body.built = True
    return body


def _speech(corpus: Path, recipe: Recipe, *, seed: int) -> Iterator[np.ndarray]:
    """Give the frames of utterances of training speakers, `_BACKGROUND_S` in all."""
    training, _ = speaker_halves(corpus)
    paths = [path for path in audio_files(corpus) if path.name.partition("-")[0] in training]
    if not paths:
        raise ConfigError(
            f"`--embedding` must be a LibriSpeech-shaped corpus of two speakers or more. Received: "
            f"{corpus} without a speaker to train on. Give one such as LibriSpeech's dev-clean."
        )
    n_left = round(_BACKGROUND_S * RATE_HZ)
    for i in np.random.default_rng(seed).permutation(len(paths)):
        samples = read_samples(paths[i])
        yield Features(recipe.features).whole(samples).astype(np.float32)
        n_left -= len(samples)
        if n_left <= 0:
            return


def _fit_head(embeddings: np.ndarray, *, seed: int) -> Head:
    """Return the head: mean, standard deviation, and the centres of spherical k-means."""
    mean, std = embeddings.mean(axis=0), embeddings.std(axis=0) + 1e-3
    head = Head(mean=tuple(mean.tolist()), std=tuple(std.tolist()))
    unit = unit_vectors(embeddings, head)
    random = np.random.default_rng(seed)
    centres = unit[random.choice(len(unit), _N_FILLERS, replace=False)]
    for _ in range(_N_KMEANS_ROUNDS):
        nearest = (unit @ centres.T).argmax(axis=1)
        for k in set(nearest.tolist()):
            centre = unit[nearest == k].mean(axis=0)
            centres[k] = centre / np.linalg.norm(centre)
    return replace(head, fillers=pack_vectors(centres))


def _write_background(
    path: Path, embeddings: Sequence[np.ndarray], head: Head, *, seed: int
) -> None:
    """Write unit vectors as product-quantised codes, with the code books and utterance lengths."""
    unit = unit_vectors(np.concatenate(embeddings), head)
    random = np.random.default_rng(seed)
    codes, books = [], []
    for part in np.split(unit, _N_SUBSPACES, axis=1):
        n_sampled = min(len(part), _MAX_KMEANS_VECTORS)
        sample = part[random.choice(len(part), n_sampled, replace=False)]
        book, _ = kmeans2(sample, _N_CODES, minit="++", seed=seed)
        books.append(book)
        codes.append(vq(part, book)[0].astype(np.uint8))
    book_bytes = np.rint(np.stack(books) * 127).astype(np.int8)
    lengths = np.array([len(one) for one in embeddings], np.uint16)
    np.savez_compressed(path, codes=np.stack(codes, 1), books=book_bytes, lengths=lengths)
