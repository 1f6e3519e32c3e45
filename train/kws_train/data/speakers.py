"""The files of each speaker of a corpus, and which speakers are for what.

Of every four speakers in order of name two train, the third sets thresholds, and the fourth is for
final figures. A speaker is a folder below the corpus, or else a file. LibriSpeech has halves of its
own (`kws_train.data.librispeech.speaker_halves`).
"""

from collections import defaultdict
from collections.abc import Collection, Iterable
from pathlib import Path

from kws_train.data.audio_files import audio_files
from kws_train.data.librispeech import speaker_of_utterance

__all__ = [
    "TESTING",
    "TRAINING",
    "TUNING",
    "files_of_quarters",
    "files_of_readers",
    "quarters_of_speakers",
    "speaker_of_file",
]

TRAINING, TUNING, TESTING = (0, 1), (2,), (3,)


def quarters_of_speakers(paths: Iterable[Path], folder: Path) -> dict[str, int]:
    """Return the place of each speaker below a folder among every four, 0 to 3."""
    speakers = {speaker_of_file(path, folder) for path in paths}
    return {name: i % 4 for i, name in enumerate(sorted(speakers))}


def speaker_of_file(path: Path, folder: Path) -> str:
    """Return the speaker of a file below a corpus: the first folder, or the file's own name."""
    return path.relative_to(folder).parts[0]


def files_of_quarters(folder: Path, quarters: Collection[int]) -> dict[str, list[Path]]:
    """Return the files of some of every four speakers, in order of name."""
    paths = audio_files(folder)
    chosen = {
        name: list[Path]()
        for name, quarter in quarters_of_speakers(paths, folder).items()
        if quarter in quarters
    }
    for path in paths:
        if (speaker := speaker_of_file(path, folder)) in chosen:
            chosen[speaker].append(path)
    return chosen


def files_of_readers(corpus: Path, readers: Collection[str]) -> dict[str, list[Path]]:
    """Return the files of some speakers of LibriSpeech."""
    files: dict[str, list[Path]] = defaultdict(list)
    for path in audio_files(corpus):
        if (speaker := speaker_of_utterance(path.name)) in readers:
            files[speaker].append(path)
    return dict(files)
