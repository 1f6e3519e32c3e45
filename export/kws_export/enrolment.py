"""The file that `kws enroll` works with: a network to fill in, and vectors of background speech.

``python -m kws_export.enrolment --data DATA`` writes kws/models/enrolment.npz. The network is a
step of one vector: it keeps the last vectors, and multiplies them by weights that an enrolment puts
in. The speech is of speakers to train on. Its vectors are rounded to 1.5 of the standard deviations
of speech and take 20 bytes each: such noise, unlike that of vector quantisers, leaves the tail of
scores as it is, which thresholds are set by.
"""

import argparse
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from kws.audio import SAMPLE_RATE_HZ as RATE_HZ
from kws.commands.enrolment_data import (
    BIAS_MARK,
    N_VECTORS,
    VECTOR_STEP,
    enrolment_data_path,
    weight_marks,
)
from kws.model import embedding_reference, open_model
from kws_export.compact import compact
from kws_train.atomic import replacing
from kws_train.data.audio_files import read_samples
from kws_train.data.front_ends import speech_embedding
from kws_train.data.librispeech import speaker_halves
from kws_train.data.speakers import TRAINING, files_of_quarters, files_of_readers

__all__ = ["empty_network", "speech_to_enroll_with", "write_enrolment_data"]

_HOURS = 1.0
_LONGEST_S = 15
_MORE_SPEECH = ("librispeech_train", "librispeech_other", "alphanumeric", "coffee_orders")

Vectors: TypeAlias = npt.NDArray[np.float32]


def write_enrolment_data(utterances: Sequence[Path], out: Path, *, hours: float = _HOURS) -> None:
    """Write the file.

    Parameters
    ----------
    utterances : sequence of Path
        Speech, in order of preference; what exceeds `hours` is not used.
    out : Path
        The .npz to write.
    hours : float
    """
    reference = embedding_reference()
    kept: list[Vectors] = []
    n_left = round(hours * 3600 * RATE_HZ / open_model(reference.name).manifest.call_samples)
    for path in utterances:
        vectors = (
            speech_embedding()
            .vectors(read_samples(path)[: _LONGEST_S * RATE_HZ])
            .astype(np.float32)[:n_left]
        )
        if not len(vectors):
            continue
        kept.append(vectors)
        n_left -= len(vectors)
        if n_left <= 0:
            break
    values = np.concatenate(kept) / VECTOR_STEP
    with replacing(out) as begun, begun.open("wb") as file:
        np.savez_compressed(
            file,
            embedding=np.array(reference.sha256),
            network=np.frombuffer(empty_network(reference.size), np.uint8),
            vectors=np.rint(values).clip(-127, 127).astype(np.int8).T,
            lengths=np.array([len(one) for one in kept], np.uint16),
        )


def empty_network(size: int) -> bytes:
    """Return the flatbuffer of a filter over `N_VECTORS` vectors, with marks in place of numbers.

    Parameters
    ----------
    size : int
        Of a vector.
    """
    weights = tf.constant(weight_marks(size)[:, None])

    def step(frames: tf.Tensor, state: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        window = tf.concat((state, frames), axis=1)
        score = tf.matmul(tf.reshape(window, (1, N_VECTORS * size)), weights)
        score = tf.nn.bias_add(score, tf.constant([BIAS_MARK]))
        return tf.reshape(tf.sigmoid(score), (1, 1, 1)), window[:, 1:]

    traced = tf.function(step, autograph=False).get_concrete_function(
        tf.TensorSpec((1, 1, size), tf.float32, name="frames"),
        tf.TensorSpec((1, N_VECTORS - 1, size), tf.float32, name="state_0"),
    )
    converter = tf.lite.TFLiteConverter.from_concrete_functions([traced])
    return compact(
        converter.convert(), inputs=["frames", "state_0"], outputs=["Identity", "Identity_1"]
    )


def speech_to_enroll_with(data: Path, *, seed: int = 1) -> list[Path]:
    """Return utterances of speakers to train on: of each corpus in turn, of each speaker in turn.

    Of LibriSpeech the first half of the speakers, of other corpora two of every four speakers (or
    files) in order of name.
    """
    corpus = data / "librispeech"
    training, _ = speaker_halves(corpus)
    random = np.random.default_rng(seed)
    sets = [_in_turn(list(files_of_readers(corpus, training).values()), random)]
    for name in _MORE_SPEECH:
        chosen = files_of_quarters(data / "more_speech" / name, TRAINING)
        sets.append(_in_turn(list(chosen.values()), random))
    return list(_merged(sets))


def _in_turn(groups: Sequence[list[Path]], random: np.random.Generator) -> list[Path]:
    """Return one path of each group, in random order, then the next of each."""
    shuffled = [[group[i] for i in random.permutation(len(group))] for group in groups]
    order = random.permutation(len(shuffled))
    return list(_merged([shuffled[i] for i in order]))


def _merged(groups: Sequence[list[Path]]) -> Iterator[Path]:
    for row in itertools.zip_longest(*groups):
        yield from (path for path in row if path is not None)


def _main() -> None:
    """Write the bundled file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--out", type=Path, default=enrolment_data_path())
    parser.add_argument("--hours", type=float, default=_HOURS)
    arguments = parser.parse_args()
    write_enrolment_data(
        speech_to_enroll_with(arguments.data), arguments.out, hours=arguments.hours
    )


if __name__ == "__main__":
    _main()
