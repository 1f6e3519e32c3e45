"""Can a voice be told from others by a second of speech? speakers.py --data data.

Two descriptions of a second of speech, each a mean and a standard deviation over time: 20 cepstra
of the front end of the speech embedding, and its vectors. A linear discriminant is trained on
speakers to train on or to set thresholds with; figures are of the others. Three seconds of a
speaker are enrolled, and cosine similarity to their mean is the score of every further second:
other words, same recording device. Equal error rate against all other speakers of the set, who have
devices of their own: in one room with one microphone it is higher.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import numpy as np
from scipy.fft import dct

from kws.features import Features
from kws.model import open_model
from kws_train.data.audio_files import audio_files, read_samples
from kws_train.data.librispeech import speaker_halves, speaker_of_utterance

_SETS = ("librispeech_train", "librispeech_other", "alphanumeric")
_SECOND, _N_COLD = 100, 9  # frames; vectors without whole context
_MOST_FILES, _MOST_SECONDS = 6, 6  # of a speaker; of a file
_N_ENROLLED, _FEWEST = 3, 6
_SHRINKAGE, _N_DIMENSIONS = 0.1, 20

Second = tuple[np.ndarray, np.ndarray]
Describe = Callable[[Second], np.ndarray]


@click.command()
@click.option("--data", required=True, type=click.Path(path_type=Path, exists=True))
def main(data: Path) -> None:
    """Print the equal error rates."""
    training: dict[str, list[Second]] = defaultdict(list)
    unseen: dict[str, list[Second]] = defaultdict(list)
    for speaker, is_unseen, seconds in _speech(data):
        (unseen if is_unseen else training)[speaker] += seconds
    for name, describe in {"cepstra": _cepstra, "vectors": _vectors, "both": _both}.items():
        project = _discriminant(training, describe)
        for corpus in ("librispeech", *_SETS):
            voices = {k: v for k, v in unseen.items() if k.startswith(f"{corpus}/")}
            rate, n = equal_error_rate(voices, project)
            if n > 1:
                click.echo(f"{name}: {corpus}, {n} speakers: {rate:.1%}")


def equal_error_rate(
    voices: dict[str, list[Second]], project: Callable[[Second], np.ndarray]
) -> tuple[float, int]:
    """Return the equal error rate, and the number of speakers with enough speech."""
    known = {
        speaker: np.array([project(one) for one in seconds])
        for speaker, seconds in voices.items()
        if len(seconds) >= _FEWEST
    }
    own: list[float] = []
    others: list[float] = []
    for speaker, vectors in known.items():
        centre = vectors[:_N_ENROLLED].mean(axis=0)
        centre /= np.linalg.norm(centre)
        for other, theirs in known.items():
            (own if other == speaker else others).extend(theirs[_N_ENROLLED:] @ centre)
    if not own or not others:
        return float("nan"), len(known)
    levels = np.sort(np.concatenate((own, others)))
    missed = np.searchsorted(np.sort(own), levels) / len(own)
    accepted = 1 - np.searchsorted(np.sort(others), levels) / len(others)
    at = int(np.abs(missed - accepted).argmin())
    return float(missed[at] + accepted[at]) / 2, len(known)


def _speech(data: Path) -> Iterator[tuple[str, bool, list[Second]]]:
    model = open_model("speech_embedding")
    features = Features(model.manifest.features)
    corpus = data / "librispeech"
    _, second_half = speaker_halves(corpus)
    files: dict[str, list[Path]] = defaultdict(list)
    for path in audio_files(corpus):
        files[f"librispeech/{speaker_of_utterance(path.name)}"].append(path)
    unseen = {f"librispeech/{speaker}" for speaker in second_half}
    for name in _SETS:
        folder = data / "more_speech" / name
        for path in audio_files(folder):
            files[f"{name}/{path.relative_to(folder).parts[0]}"].append(path)
        speakers = sorted(speaker for speaker in files if speaker.startswith(f"{name}/"))
        unseen |= {speaker for i, speaker in enumerate(speakers) if i % 4 == 3}
    for speaker, paths in files.items():
        for path in paths[:_MOST_FILES]:
            frames = features.whole(read_samples(path)[: 12 * 16_000]).astype(np.float32)
            vectors = model.run(frames)[_N_COLD:]
            yield speaker, speaker in unseen, _loud_seconds(frames, vectors)


def _loud_seconds(frames: np.ndarray, vectors: np.ndarray) -> list[Second]:
    """Return seconds that speech fills at least by half: their loud frames, and their vectors."""
    level = np.percentile(frames.mean(axis=1), 40)
    found = []
    for start in range(76, len(frames) - _SECOND, _SECOND):
        part = frames[start : start + _SECOND]
        loud = part[part.mean(axis=1) > level]
        first = start // 8 - _N_COLD
        if len(loud) >= _SECOND // 2 and len(vectors) >= first + 12:
            found.append((loud, vectors[first : first + 12]))
    return found[:_MOST_SECONDS]


def _cepstra(second: Second) -> np.ndarray:
    values = dct(second[0], type=2, norm="ortho", axis=1)[:, 1:21]
    return np.concatenate((values.mean(axis=0), values.std(axis=0)))


def _vectors(second: Second) -> np.ndarray:
    return np.concatenate((second[1].mean(axis=0), second[1].std(axis=0)))


def _both(second: Second) -> np.ndarray:
    return np.concatenate((_cepstra(second), _vectors(second)))


def _discriminant(
    voices: dict[str, list[Second]], describe: Describe
) -> Callable[[Second], np.ndarray]:
    """Return Fisher's linear discriminant between speakers, of unit length."""
    groups = [np.array([describe(one) for one in s]) for s in voices.values() if len(s) >= 3]
    everything = np.concatenate(groups)
    mean, std = everything.mean(axis=0), everything.std(axis=0) + 1e-6
    scaled = [(group - mean) / std for group in groups]
    size, n = len(mean), len(everything)
    within, between = np.zeros((size, size)), np.zeros((size, size))
    for group in scaled:
        centre = group.mean(axis=0)
        within += (group - centre).T @ (group - centre) / n
        between += len(group) / n * np.outer(centre, centre)
    within += _SHRINKAGE * np.trace(within) / size * np.eye(size)
    whiten = np.linalg.inv(np.linalg.cholesky(within))
    _, directions = np.linalg.eigh(whiten @ between @ whiten.T)
    projection = whiten.T @ directions[:, ::-1][:, :_N_DIMENSIONS]

    def project(second: Second) -> np.ndarray:
        found = (describe(second) - mean) / std @ projection
        return np.asarray(found / np.linalg.norm(found))

    return project


if __name__ == "__main__":
    main()
