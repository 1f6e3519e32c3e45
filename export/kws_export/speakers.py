"""Statistics of many speakers, for `kws enroll --only-me`.

``python -m kws_export.speakers --data DATA`` writes kws/models/speakers.npz from speakers to train
on: words of Speech Commands that somebody said twice or more, and seconds of read and spelt speech.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from kws.audio import SAMPLE_RATE_HZ as RATE_HZ
from kws.commands.speaker_data import SpeakerStatistics, speaker_path
from kws.features import Features
from kws.manifest import read_manifest
from kws.model import embedding_reference, model_path
from kws.speaker import word_statistics
from kws_train.atomic import replacing
from kws_train.data.audio_files import audio_files, read_samples
from kws_train.data.librispeech import speaker_halves
from kws_train.data.speakers import TRAINING, files_of_quarters, files_of_readers

__all__ = ["read_speech", "read_words", "statistics_of", "write_speaker_statistics"]

_MORE_SPEECH = ("librispeech_train", "librispeech_other", "alphanumeric")
_SHRINKAGE = 0.1  # of the covariance to a multiple of the identity
_SECOND = 100  # frames
_MOST_FILES, _MOST_SECONDS, _LONGEST_S = 12, 6, 12  # of a speaker; of a file
_FEWEST_SECONDS = 3

Array: TypeAlias = npt.NDArray[Any]


def write_speaker_statistics(data: Path, out: Path) -> None:
    """Write the file.

    Parameters
    ----------
    data : Path
        Holds `speech_commands`, `librispeech` and `more_speech`.
    out : Path
        The .npz to write.
    """
    words = read_words(audio_files(data / "speech_commands"))
    groups = [group for group in words.values() if len(group) > 1]
    groups += [
        group for group in read_speech(_training_speech(data)) if len(group) >= _FEWEST_SECONDS
    ]
    found = statistics_of(groups)
    mean, scale, precision = (value.astype(np.float32) for value in found)
    with replacing(out) as begun, begun.open("wb") as file:
        np.savez_compressed(file, mean=mean, scale=scale, precision=precision)


def statistics_of(groups: Sequence[Array]) -> SpeakerStatistics:
    """Return mean and scale of all words, and the precision of words around their group's mean.

    Parameters
    ----------
    groups : sequence of float [shape=(n, k)]
        Descriptions of the words, or seconds, of each speaker; of each word for words.
    """
    everything = np.concatenate(groups)
    mean, scale = everything.mean(axis=0), everything.std(axis=0) + 1e-6
    centred = np.concatenate([(group - group.mean(axis=0)) / scale for group in groups])
    covariance = centred.T @ centred / len(centred)
    size = len(covariance)
    covariance += _SHRINKAGE * np.trace(covariance) / size * np.eye(size)
    precision = np.linalg.inv(covariance)
    return SpeakerStatistics(mean, scale, precision)


def read_words(paths: Iterable[Path]) -> dict[tuple[str, str], Array]:
    """Return descriptions [shape=(n, k)] of files `word/speaker_nohash_n`, by word and speaker."""
    features = _features()
    found: dict[tuple[str, str], list[Array]] = defaultdict(list)
    for path in paths:
        speaker, mark, _ = path.name.partition("_nohash_")
        if mark:
            frames = features.whole(read_samples(path))
            found[path.parent.name, speaker].append(word_statistics(frames))
    return {key: np.array(group) for key, group in found.items()}


def read_speech(speakers: Iterable[Sequence[Path]]) -> Iterator[Array]:
    """Yield descriptions [shape=(n, k)] of seconds that speech fills by half, of each speaker."""
    features = _features()
    for paths in speakers:
        seconds: list[Array] = []
        for path in paths[:_MOST_FILES]:
            frames = features.whole(read_samples(path)[: _LONGEST_S * RATE_HZ])
            seconds += [word_statistics(one) for one in _loud_seconds(frames)]
        if seconds:
            yield np.array(seconds)


def _loud_seconds(frames: Array) -> list[Array]:
    levels = frames.mean(axis=1)
    level = np.percentile(levels, 40)
    starts = range(0, len(frames) - _SECOND, _SECOND)
    loud = [i for i in starts if (levels[i : i + _SECOND] > level).sum() >= _SECOND // 2]
    return [frames[i : i + _SECOND] for i in loud[:_MOST_SECONDS]]


def _training_speech(data: Path) -> list[list[Path]]:
    """Return the files of each speaker to train on."""
    corpus = data / "librispeech"
    training, _ = speaker_halves(corpus)
    groups = list(files_of_readers(corpus, training).values())
    for name in _MORE_SPEECH:
        groups += files_of_quarters(data / "more_speech" / name, TRAINING).values()
    return groups


def _features() -> Features:
    manifest, _ = read_manifest(model_path(embedding_reference().name))
    return Features(manifest.features)


def _main() -> None:
    """Write the bundled file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--out", type=Path, default=speaker_path())
    arguments = parser.parse_args()
    write_speaker_statistics(arguments.data, arguments.out)


if __name__ == "__main__":
    _main()
