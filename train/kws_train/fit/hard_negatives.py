"""Hard negatives: places in speech and noise where a model gives a false alarm."""

import csv
import itertools
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

from kws.audio import SAMPLE_RATE_HZ as RATE_HZ
from kws.features import Features
from kws.manifest import SILENCE, UNKNOWN
from kws_train.data.corpus import Corpus, Spoken
from kws_train.networks.architectures import Network
from kws_train.recipe import Recipe
from kws_train.scenes import augment

__all__ = [
    "HardNegative",
    "add_noise",
    "find_hard_negatives",
    "mine_hard_negatives",
    "read_hard_negatives",
    "recording_key",
    "write_hard_negatives",
]

log = logging.getLogger("kws_train")

_WARM_UP_FRAMES = 200
_SEGMENT_FRAMES = 1000
_BATCH_SIZE = 32
_BLOCK_S = 0.5
_LATENCY_S = 0.6
_MIN_POSTERIOR = 0.05
_MAX_COUNT = 3000
_SNR_DB = (0.0, 15.0)


class HardNegative(NamedTuple):
    """A recording by `recording_key`, a place in samples, the false keyword and its posterior."""

    utterance: str
    at: int
    keyword: str
    posterior: float


def find_hard_negatives(
    run: Path, recipe: Recipe, model: Network | None, corpus: Corpus
) -> list[tuple[Spoken, int]]:
    """Return the recordings and places (samples) where a model gives false alarms.

    The model runs over all speech, all noise, and all speech mixed with noise. The result is stored
    in mined.csv of the run folder and read from there when the training is resumed. Without a model
    or `[augment] mined_share` there are none.
    """
    if model is None or not recipe.augment.mined_share:
        return []
    speech, noise = corpus.speech, corpus.wordless()
    if not (path := run / "mined.csv").is_file():
        noisy = add_noise(speech, noise, snr_db=_SNR_DB, seed=recipe.fit.seed)
        recordings = itertools.chain(speech, noise, noisy)
        write_hard_negatives(mine_hard_negatives(model, recipe, recordings), path)
    by_key = {recording_key(spoken): spoken for spoken in (*speech, *noise)}
    kept = [one for one in read_hard_negatives(path) if one.utterance in by_key]
    log.info("%d hard negatives, false alarms of the initial model, see %s", len(kept), path)
    return [(by_key[one.utterance], one.at) for one in kept]


def mine_hard_negatives(
    model: Network, recipe: Recipe, recordings: Iterable[Spoken]
) -> list[HardNegative]:
    """Run a model over recordings; return its false alarms, highest posterior first.

    Spoken keywords and their homophones do not count. At most one per half second, at most 3,000 in
    all, none of a posterior below 0.05.
    """
    labels = recipe.labels
    correct = {label: {label, *recipe.data.homophones.get(label, ())} for label in labels}
    features = Features(recipe.features)
    hop = recipe.features.hop_samples * model.time_stride
    overlap = recipe.features.window_samples - recipe.features.hop_samples
    n_block = round(_BLOCK_S * RATE_HZ / hop)
    found: list[HardNegative] = []
    for spoken, posteriors in _run_model(model, features, recordings):
        posteriors[:, [labels.index(SILENCE), labels.index(UNKNOWN)]] = 0.0
        for start in range(0, len(posteriors), n_block):
            block = posteriors[start : start + n_block]
            output, label = divmod(int(block.argmax()), len(labels))
            posterior = float(block[output, label])
            at = (start + output + 1) * hop + overlap
            if posterior >= _MIN_POSTERIOR and not _is_spoken(spoken, correct[labels[label]], at):
                key = recording_key(spoken)
                found.append(HardNegative(key, at, labels[label], round(posterior, 4)))
    return sorted(found, key=lambda one: -one.posterior)[:_MAX_COUNT]


def add_noise(
    speech: Sequence[Spoken], noise: Sequence[Spoken], *, snr_db: tuple[float, float], seed: int
) -> Iterator[Spoken]:
    """Yield each utterance mixed with a part of one of the noise recordings.

    Parameters
    ----------
    speech, noise : sequence of Spoken
        Without noise, nothing is yielded.
    snr_db : (float, float)
        Range of the ratio of mean powers; one is drawn per utterance.
    seed : int
    """
    random = np.random.default_rng(seed)
    for spoken in speech if noise else ():
        wave = spoken.samples.astype(np.float32)
        background = noise[int(random.integers(len(noise)))].samples
        mixed = augment.add_noise(
            wave,
            augment.loop(background, len(wave), random=random),
            snr_db=random.uniform(*snr_db),
            speech_power=float(np.mean(wave**2)),
        )
        yield replace(spoken, samples=np.clip(np.rint(mixed), -32768, 32767).astype(np.int16))


def recording_key(spoken: Spoken) -> str:
    """Return folder and file name of a recording; file names alone may occur twice."""
    return "/".join(spoken.path.parts[-2:])


def write_hard_negatives(found: Sequence[HardNegative], path: Path) -> None:
    """Write hard negatives as CSV with a header."""
    with path.open("w", newline="", encoding="utf-8") as lines:
        csv.writer(lines).writerows([HardNegative._fields, *found])


def read_hard_negatives(path: Path) -> list[HardNegative]:
    """Read the file that `write_hard_negatives` writes."""
    with path.open(newline="", encoding="utf-8") as lines:
        return [
            HardNegative(row["utterance"], int(row["at"]), row["keyword"], float(row["posterior"]))
            for row in csv.DictReader(lines)
        ]


def _run_model(
    model: Network, features: Features, recordings: Iterable[Spoken]
) -> Iterator[tuple[Spoken, np.ndarray]]:
    """Yield each recording with its posteriors [shape=(outputs, labels)].

    Short recordings share a batch of overlapping segments, long ones have several batches: with one
    segment at a time, a recurrent network would use a fraction of the processor.
    """
    stride = model.time_stride
    cut = ((one, _segments(features.whole(one.samples), stride=stride)) for one in recordings)
    pairs, segmented = itertools.tee(cut)
    outputs = _posteriors(
        model, itertools.chain.from_iterable(segments for _, (segments, _) in segmented)
    )
    for spoken, (segments, n_outputs) in pairs:
        posteriors = np.concatenate(list(itertools.islice(outputs, len(segments))))
        yield spoken, posteriors[:n_outputs]


def _posteriors(model: Network, segments: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield the posteriors [shape=(outputs, labels)] after each segment's warm-up."""
    warm_up = _WARM_UP_FRAMES // model.time_stride
    while batch := list(itertools.islice(segments, _BATCH_SIZE)):
        logits = model.predict_on_batch(np.stack(batch))
        yield from keras.ops.convert_to_numpy(keras.ops.softmax(logits))[:, warm_up:]


def _segments(frames: np.ndarray, *, stride: int) -> tuple[np.ndarray, int]:
    """Return segments of equal length and their number of outputs.

    Each segment starts with the last frames of the previous one, as a warm-up.
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


def _is_spoken(spoken: Spoken, words: set[str], at: int) -> bool:
    """Return whether one of the words ends shortly before, or lasts at, a place (samples)."""
    latency = round(_LATENCY_S * RATE_HZ)
    return any(word in words and start <= at < end + latency for word, start, end in spoken.words)
