"""Label files: the words of a recording and their times, to evaluate on existing audio."""

from collections.abc import Iterator
from pathlib import Path

import msgspec

from kws.errors import ConfigError
from kws.matching import LabelledRecording, Word
from kws_train.data.audio_files import read_samples
from kws_train.evaluate.build_stream import Stream

__all__ = ["labelled_stream", "read_labels"]

_RULE = (
    "A label file must hold a word a line, as Audacity exports labels (start, end and word, with "
    'tabs between) or as JSON ({"word": "stop", "start_s": 1.2, "end_s": 1.7}). '
)


def labelled_stream(audio: Path, labels: Path) -> Stream:
    """Return a recording as a stream.

    Raises
    ------
    FormatError
        If the audio cannot be read.
    ConfigError
        If the labels cannot, or lie beyond the audio's end.
    """
    stream = Stream(read_samples(audio), tuple(read_labels(labels)), name=audio.stem)
    if beyond := [word for word in stream.words if word.end_s > stream.duration_s + 0.5]:
        raise ConfigError(
            f"Labels must lie within the audio. Received: `{beyond[0].word}` to "
            f"{beyond[0].end_s:g} s in {labels}, {audio} lasting {stream.duration_s:g} s. Give the "
            f"label file of this recording."
        )
    return stream


def read_labels(path: Path) -> list[Word]:
    """Return the words of a label file, by time.

    Formats: Audacity's label tracks, JSON lines, and one JSON object with `words`, such as
    `kws/models/demo.json`.

    Raises
    ------
    ConfigError
        If it cannot be read, has an invalid line, or a word that ends before it starts.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{_RULE}Received: {path} ({error}). Give another, in UTF-8.") from error
    try:
        words = msgspec.json.decode(text, type=LabelledRecording).words
    except msgspec.DecodeError:
        words = list(_words(text, path))
    for word in words:
        if not 0 <= word.start_s <= word.end_s:
            raise ConfigError(
                f"A word must start at 0 s or later and end after that. Received: `{word.word}` "
                f"from {word.start_s:g} to {word.end_s:g} s in {path}. Correct that label."
            )
    return sorted(words, key=lambda word: word.start_s)


def _words(text: str, path: Path) -> Iterator[Word]:
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("\\"):  # Audacity's line of frequencies
            continue
        try:
            if line.lstrip().startswith("{"):
                yield msgspec.json.decode(line, type=Word)
            else:
                start_s, end_s, word = line.split("\t")
                yield Word(word=word.strip(), start_s=float(start_s), end_s=float(end_s))
        except (ValueError, msgspec.DecodeError) as error:
            raise ConfigError(
                f"{_RULE}Received: line {number} of {path}, {line[:60]!r}. Correct it."
            ) from error
