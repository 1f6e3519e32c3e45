"""Misses and false alarms by group: keyword, SNR, sex of the background's speakers, and any other.

What is known of a speaker comes from SPEAKERS.TXT, for the background, and from a table of one's
own, for the keywords; Speech Commands itself tells nothing of its speakers.
"""

import csv
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

import msgspec

from kws.commands.demo import TOLERANCE_S, Matches, Word
from kws.errors import ConfigError
from kws.events import Detection
from kws_train.data.librispeech import speakers_table
from kws_train.data.splits import speaker_of
from kws_train.evaluate.build_stream import Stream
from kws_train.evaluate.det import poisson_interval, wilson_interval

__all__ = ["Group", "Metadata", "group", "on_background", "read_metadata"]

_KEYS = ("path", "speaker")
Members: TypeAlias = dict[tuple[str, str], "_Count"]


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """One group at one threshold; what a grouping says nothing of is None.

    Attributes
    ----------
    by, value : str
        Such as `keyword` and `stop`.
    threshold : float
    n_words : int or None
        Keywords said in the group.
    miss_rate, miss_low, miss_high : float or None
    hours : float or None
        Audio of the group.
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


class Metadata(NamedTuple):
    """What is known of keyword clips: by the clip's path or its speaker, column to value."""

    key: str
    rows: dict[str, dict[str, str]]

    def of(self, clip: Path) -> dict[str, str]:
        """Return the groups of a clip; none where the table says nothing of it."""
        if self.key == "speaker":
            return self.rows.get(speaker_of(clip), {})
        return self.rows.get(f"{clip.parent.name}/{clip.name}", self.rows.get(clip.name, {}))


def read_metadata(path: Path) -> Metadata:
    """Read what is known of clips or speakers: CSV with a column `path` or `speaker`, and groups.

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
            f"Groups must come from a readable CSV table. Received: {path} ({error}). Mend it."
        ) from error
    key = next((name for name in _KEYS if name in columns), None)
    if key is None or len(columns) < 2:
        raise ConfigError(
            f"A table of groups must have a column `path` or `speaker`, and one of groups. "
            f"Received: {', '.join(columns) or 'none'} in {path}. Add a line of headings."
        )
    return Metadata(
        key,
        {
            row[key]: {
                name: value for name, value in row.items() if name not in {None, *_KEYS} and value
            }
            for row in rows
        },
    )


def group(
    streams: Sequence[Stream],
    matches: Sequence[Matches],
    *,
    threshold: float,
    metadata: Metadata | None = None,
) -> list[Group]:
    """Count by keyword, by stream where there are several, by background and by `metadata`.

    Parameters
    ----------
    streams, matches : sequences
        The streams, and what was made of each.
    threshold : float
        At which; it is only written down.
    metadata : Metadata, optional
    """
    counts: Members = defaultdict(_Count)
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
        _count_background(stream, on_background(stream, found), counts)
        counts["stream", stream.name].add_audio(hours, n_false=len(found.false))
    for (by, _), count in counts.items():
        if by == "keyword":
            count.hours = sum(stream.duration_s for stream in streams) / 3600
    only = len(streams) == 1
    return [
        count.group(by=by, value=value, threshold=threshold)
        for (by, value), count in sorted(counts.items())
        if not (only and by == "stream")
    ]


def on_background(stream: Stream, matches: Matches) -> list[Detection]:
    """Return the false alarms near no word; the others are one keyword taken for another."""
    return [
        detection
        for detection in matches.false
        if not any(
            word.start_s <= detection.end_s <= word.end_s + TOLERANCE_S for word in stream.words
        )
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

    def group(self, *, by: str, value: str, threshold: float) -> Group:
        made = Group(by=by, value=value, threshold=threshold)
        if self.n_words:
            low, high = wilson_interval(self.n_missed, self.n_words)
            made = msgspec.structs.replace(
                made,
                n_words=self.n_words,
                miss_rate=self.n_missed / self.n_words,
                miss_low=low,
                miss_high=high,
            )
        if self.hours:
            low, high = (edge / self.hours for edge in poisson_interval(self.n_false))
            made = msgspec.structs.replace(
                made,
                hours=self.hours,
                n_false=self.n_false,
                fa_per_hour=self.n_false / self.hours,
                fa_low=low,
                fa_high=high,
            )
        return made


def _groups_of(
    word: Word, clip: Path | None, stream: Stream, metadata: Metadata | None
) -> Iterator[tuple[str, str]]:
    yield "keyword", word.word
    yield "stream", stream.name
    if metadata and clip:
        yield from metadata.of(clip).items()


def _count_background(stream: Stream, false: Sequence[Detection], counts: Members) -> None:
    """Count false alarms on the background by what SPEAKERS.TXT says of who speaks."""
    times = sorted(detection.end_s for detection in false)
    sexes = _sexes(stream)
    for part in stream.background:
        n_false = 0
        while times and times[0] <= part.end_s + TOLERANCE_S:
            n_false += times.pop(0) >= part.start_s
        sex = sexes.get(part.path.name.partition("-")[0], "not stated")
        hours = (part.end_s - part.start_s) / 3600
        counts["background", sex].add_audio(hours, n_false=n_false)


def _sexes(stream: Stream) -> Mapping[str, str]:
    """Return the sex of each speaker of the background, from the SPEAKERS.TXT above it."""
    names = {"F": "female", "M": "male"}
    folders = {parent for part in stream.background for parent in part.path.parents[:4]}
    return {
        speaker: names.get(row[0], row[0])
        for folder in folders
        for speaker, row in speakers_table(folder).items()
        if row
    }
