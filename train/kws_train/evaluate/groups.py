"""Misses and false alarms by group: keyword, SNR, sex of the background's speakers, and others.

Attributes of background speakers are read from SPEAKERS.TXT; those of keyword clips from a table
that the user provides, since Speech Commands has no speaker metadata.
"""

import csv
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

import msgspec

from kws.errors import ConfigError
from kws.events import Detection
from kws.matching import TOLERANCE_S, Matches, Word
from kws_train.data.librispeech import speaker_of_utterance, speakers_table
from kws_train.data.splits import speaker_of
from kws_train.evaluate.build_stream import Stream
from kws_train.evaluate.det import (
    false_alarms_on_background,
    poisson_interval,
    wilson_interval,
)

__all__ = [
    "ClipMetadata",
    "GroupScores",
    "read_metadata",
    "score_groups",
]

_KEYS = ("path", "speaker")
_Counts: TypeAlias = dict[tuple[str, str], "_Count"]


class GroupScores(msgspec.Struct, frozen=True, kw_only=True):
    """One group at one threshold; figures that do not apply to the grouping are None.

    Attributes
    ----------
    by, value : str
        Such as `keyword` and `stop`.
    threshold : float
    n_words : int or None
        Keywords said in the group.
    miss_rate, miss_low, miss_high : float or None
    hours : float or None
        Duration of the audio of the group.
    n_false : int or None
    fa_per_hour, fa_low, fa_high : float or None
    """

    by: str
    value: str
    threshold: float
    n_words: int | None = None
    miss_rate: float | None = None
    miss_low: float | None = None
    miss_high: float | None = None
    hours: float | None = None
    n_false: int | None = None
    fa_per_hour: float | None = None
    fa_low: float | None = None
    fa_high: float | None = None


class ClipMetadata(NamedTuple):
    """Attributes of keyword clips, by the clip's path or its speaker: column to value."""

    key: str
    rows: dict[str, dict[str, str]]

    def of(self, clip: Path) -> dict[str, str]:
        """Return the attributes of a clip; empty where the table does not list it."""
        if self.key == "speaker":
            return self.rows.get(speaker_of(clip), self.rows.get(clip.parent.name, {}))
        names = ("/".join(clip.parts[-n:]) for n in (3, 2, 1))
        return next((self.rows[name] for name in names if name in self.rows), {})


def read_metadata(path: Path) -> ClipMetadata:
    """Read attributes of clips or speakers: CSV with a column `path` or `speaker`, and others.

    A path is `word/file.wav` or the file's name alone.

    Raises
    ------
    ConfigError
        If it cannot be read, or lacks such columns.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            table = csv.DictReader(lines)
            columns = table.fieldnames or []
            rows = list(table)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(
            f"Groups must come from a readable CSV table. Received: {path} ({error}). Correct it."
        ) from error
    key = next((name for name in _KEYS if name in columns), None)
    if key is None or len(columns) < 2:
        raise ConfigError(
            f"A table of groups must have a column `path` or `speaker`, and one of groups. "
            f"Received: {', '.join(columns) or 'none'} in {path}. Add a line of headings."
        )
    return ClipMetadata(
        key,
        {
            row[key]: {
                name: value for name, value in row.items() if name not in {None, *_KEYS} and value
            }
            for row in rows
        },
    )


def score_groups(
    streams: Sequence[Stream],
    matches: Sequence[Matches],
    *,
    threshold: float,
    metadata: ClipMetadata | None = None,
) -> list[GroupScores]:
    """Count by keyword, by stream where there are several, by background and by `metadata`.

    Parameters
    ----------
    streams, matches : sequences
        The streams, and the matches of each.
    threshold : float
        Of the matches, to be recorded in the result.
    metadata : ClipMetadata, optional
    """
    counts: _Counts = defaultdict(_Count)
    for stream, found in zip(streams, matches, strict=True):
        missed = {(word.word, word.start_s) for word in found.missed}
        known = {(word.word, word.start_s) for word, _ in found.hits} | missed
        hours = stream.duration_s / 3600
        clips: Iterable[Path | None] = stream.clips or [None] * len(stream.words)
        for word, clip in zip(stream.words, clips, strict=True):
            if (word.word, word.start_s) in known:
                is_missed = (word.word, word.start_s) in missed
                for key in _groups_of(word, clip, stream, metadata):
                    counts[key].add_word(missed=is_missed)
        for detection in found.false:
            counts["keyword", detection.keyword].n_false += 1
        _count_background(stream, false_alarms_on_background(stream, found), counts)
        counts["stream", stream.name].add_audio(hours, n_false=len(found.false))
    for (by, _), count in counts.items():
        if by == "keyword":
            count.hours = sum(stream.duration_s for stream in streams) / 3600
    only = len(streams) == 1
    return [
        count.scores(by=by, value=value, threshold=threshold)
        for (by, value), count in sorted(counts.items())
        if not (only and by == "stream")
    ]


class _Count:
    """Words and false alarms of one group."""

    def __init__(self) -> None:
        self.n_words = self.n_missed = self.n_false = 0
        self.hours = 0.0

    def add_word(self, *, missed: bool) -> None:
        self.n_words += 1
        self.n_missed += missed

    def add_audio(self, hours: float, *, n_false: int) -> None:
        self.hours += hours
        self.n_false += n_false

    def scores(self, *, by: str, value: str, threshold: float) -> GroupScores:
        scores = GroupScores(by=by, value=value, threshold=threshold)
        if self.n_words:
            low, high = wilson_interval(self.n_missed, self.n_words)
            scores = msgspec.structs.replace(
                scores,
                n_words=self.n_words,
                miss_rate=self.n_missed / self.n_words,
                miss_low=low,
                miss_high=high,
            )
        if self.hours:
            low, high = (edge / self.hours for edge in poisson_interval(self.n_false))
            scores = msgspec.structs.replace(
                scores,
                hours=self.hours,
                n_false=self.n_false,
                fa_per_hour=self.n_false / self.hours,
                fa_low=low,
                fa_high=high,
            )
        return scores


def _groups_of(
    word: Word, clip: Path | None, stream: Stream, metadata: ClipMetadata | None
) -> Iterator[tuple[str, str]]:
    yield "keyword", word.word
    yield "stream", stream.name
    if metadata and clip:
        yield from metadata.of(clip).items()


def _count_background(stream: Stream, false: Sequence[Detection], counts: _Counts) -> None:
    """Count false alarms on the background by the sex of the speaker in SPEAKERS.TXT."""
    times = sorted(detection.end_s for detection in false)
    sexes = _sexes(stream)
    for segment in stream.background:
        n_false = 0
        while times and times[0] <= segment.end_s + TOLERANCE_S:
            n_false += times.pop(0) >= segment.start_s
        sex = sexes.get(speaker_of_utterance(segment.path.name), "not stated")
        hours = (segment.end_s - segment.start_s) / 3600
        counts["background", sex].add_audio(hours, n_false=n_false)


def _sexes(stream: Stream) -> Mapping[str, str]:
    """Return the sex of each speaker of the background, from the SPEAKERS.TXT above it."""
    names = {"F": "female", "M": "male"}
    folders = {parent for segment in stream.background for parent in segment.path.parents[:4]}
    return {
        speaker: names.get(row[0], row[0])
        for folder in folders
        for speaker, row in speakers_table(folder).items()
        if row
    }
