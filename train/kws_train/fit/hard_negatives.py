"""Hard examples: moments of continuous speech and of noise that a model takes for keywords."""

import csv
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

from kws.audio import SAMPLE_RATE_HZ as RATE_HZ
from kws.features import Features
from kws.manifest import SILENCE, UNKNOWN
from kws_train.data.corpus import Spoken
from kws_train.networks.architectures import Network
from kws_train.recipe import Recipe
from kws_train.scenes import augment

__all__ = ["Moment", "in_noise", "mine", "name_of", "read_moments", "write_moments"]

_WARM_UP_FRAMES = 200
_SEGMENT_FRAMES = 1000
_BATCH = 32
_APART_S = 0.5
_AFTER_WORD_S = 0.6
_LEAST = 0.05
_MOST = 3000


class Moment(NamedTuple):
    """An utterance by `name_of`, a place in it in samples, the keyword heard, and its posterior."""

    utterance: str
    at: int
    keyword: str
    posterior: float


def in_noise(
    speech: Sequence[Spoken], noise: Sequence[Spoken], *, snr_db: tuple[float, float], seed: int
) -> Iterator[Spoken]:
    """Give each utterance once more, in a stretch of one of the recordings of noise.

    Parameters
    ----------
    speech, noise : sequence of Spoken
        Without noise, nothing is given.
    snr_db : (float, float)
        Range of mean power over mean power, drawn from for each utterance.
    seed : int
    """
    random = np.random.default_rng(seed)
    for spoken in speech if noise else ():
        wave = spoken.samples.astype(np.float32)
        under = noise[int(random.integers(len(noise)))].samples
        mixed = augment.add_noise(
            wave,
            augment.loop(under, len(wave), random=random),
            snr_db=random.uniform(*snr_db),
            speech_power=float(np.mean(wave**2)),
        )
        yield replace(spoken, samples=np.clip(np.rint(mixed), -32768, 32767).astype(np.int16))


def mine(
    model: Network, recipe: Recipe, labels: Sequence[str], heard: Iterable[Spoken]
) -> list[Moment]:
    """Run a model over speech and noise; return where it hears keywords nobody says, worst first.

    Keywords really said there, and their homophones, are left out. At most one moment in half a
    second, at most 3,000 in all, none of a posterior below 0.05.
    """
    said = {keyword: {keyword, *recipe.data.homophones.get(keyword, ())} for keyword in labels}
    features = Features(recipe.features)
    moments: list[Moment] = []
    for spoken, posteriors in _hear(model, features, heard):
        posteriors[:, [labels.index(SILENCE), labels.index(UNKNOWN)]] = 0.0
        hop = recipe.features.hop_samples * model.time_stride
        overlap = recipe.features.window_samples - recipe.features.hop_samples
        apart = round(_APART_S * RATE_HZ / hop)
        for begin in range(0, len(posteriors), apart):
            output, label = divmod(int(posteriors[begin : begin + apart].argmax()), len(labels))
            posterior = float(posteriors[begin + output, label])
            at = (begin + output + 1) * hop + overlap
            if posterior >= _LEAST and not _is_said(spoken, said[labels[label]], at):
                moments.append(Moment(name_of(spoken), at, labels[label], round(posterior, 4)))
    return sorted(moments, key=lambda moment: -moment.posterior)[:_MOST]


def name_of(spoken: Spoken) -> str:
    """Return the folder and the file of a recording: names alone may come twice."""
    return "/".join(spoken.path.parts[-2:])


def write_moments(moments: Sequence[Moment], path: Path) -> None:
    """Write moments as CSV with a heading."""
    with path.open("w", newline="", encoding="utf-8") as lines:
        csv.writer(lines).writerows([Moment._fields, *moments])


def read_moments(path: Path) -> list[Moment]:
    """Read what `write_moments` wrote."""
    with path.open(newline="", encoding="utf-8") as lines:
        return [
            Moment(row["utterance"], int(row["at"]), row["keyword"], float(row["posterior"]))
            for row in csv.DictReader(lines)
        ]


def _hear(
    model: Network, features: Features, heard: Iterable[Spoken]
) -> Iterator[tuple[Spoken, np.ndarray]]:
    """Give each recording with its posteriors [shape=(outputs, labels)].

    Overlapping segments of short recordings share a batch, those of long ones have several: one
    segment at a time leaves a network that steps through time waiting most of the time.
    """
    stride = model.time_stride
    cut = ((one, _segments(features.whole(one.samples), stride=stride)) for one in heard)
    recordings, ahead = itertools.tee(cut)
    outputs = _posteriors(
        model, itertools.chain.from_iterable(segments for _, (segments, _) in ahead)
    )
    for spoken, (segments, n_outputs) in recordings:
        posteriors = np.concatenate(list(itertools.islice(outputs, len(segments))))
        yield spoken, posteriors[:n_outputs]


def _posteriors(model: Network, segments: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """Give the posteriors [shape=(outputs, labels)] after each segment's warm-up."""
    warm_up = _WARM_UP_FRAMES // model.time_stride
    while batch := list(itertools.islice(segments, _BATCH)):
        logits = model.predict_on_batch(np.stack(batch))
        yield from keras.ops.convert_to_numpy(keras.ops.softmax(logits))[:, warm_up:]


def _segments(frames: np.ndarray, *, stride: int) -> tuple[np.ndarray, int]:
    """Cut frames into segments of one length; return them, and how many outputs they make.

    Each is begun with the last frames of the one before.
    """
    n_frames = len(frames) // stride * stride
    warm_up, n_segment = _WARM_UP_FRAMES // stride * stride, _SEGMENT_FRAMES // stride * stride
    n_segments = max(1, -(-n_frames // n_segment))
    padded = np.pad(
        frames[:n_frames], ((warm_up, n_segments * n_segment - n_frames), (0, 0)), "edge"
    )
    starts = range(0, n_segments * n_segment, n_segment)
    segments = np.stack([padded[start : start + warm_up + n_segment] for start in starts])
    return segments, n_frames // stride


def _is_said(spoken: Spoken, words: set[str], at: int) -> bool:
    late = round(_AFTER_WORD_S * RATE_HZ)
    return any(word in words and start <= at < end + late for word, start, end in spoken.words)
