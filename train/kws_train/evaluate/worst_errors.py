"""The worst errors of a model on streams: excerpts to listen to."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kws.arrays import Samples
from kws.audio import SAMPLE_RATE_HZ as RATE_HZ
from kws.matching import TOLERANCE_S
from kws_train.evaluate.build_stream import Stream
from kws_train.evaluate.det import match_detections
from kws_train.evaluate.stream_results import StreamResults

__all__ = ["ErrorExcerpt", "worst_false_alarms", "worst_misses"]

_BEFORE_S = 0.7
_AFTER_S = 0.6
_LEAST = 0.3
_RISE_S = 0.4


@dataclass(frozen=True)
class ErrorExcerpt:
    """The audio around a false alarm or a miss.

    Attributes
    ----------
    keyword : str
        Detected falsely, or missed.
    score : float
        Smoothed posterior of that keyword: at the false alarm, or the highest near the word.
    at_s : float
        Start of the excerpt in its stream.
    marked_s : (float, float)
        The detection or the word, in seconds from the start of the excerpt.
    samples : int16 [shape=(n,)]
    stream : str
        The condition of its stream.
    source : str
        The corpus file at that time.
    said : str
        The keyword said there; empty if none.
    """

    keyword: str
    score: float
    at_s: float
    marked_s: tuple[float, float]
    samples: Samples
    stream: str
    source: str
    said: str


def worst_false_alarms(results: StreamResults, *, n_most: int = 8) -> list[ErrorExcerpt]:
    """Return the false alarms with the highest scores, with the gate on, highest first."""
    found = [
        (trace.peak(one.keyword, one.end_s, one.end_s + _RISE_S), stream, one)
        for stream, trace, matches in zip(
            results.streams,
            results.gated,
            match_detections(results.gated, results.streams, _LEAST),
            strict=True,
        )
        for one in matches.false
    ]
    found.sort(key=lambda one: -one[0])
    return [
        _excerpt(stream, one.keyword, score, (one.start_s or one.end_s, one.end_s))
        for score, stream, one in found[:n_most]
    ]


def worst_misses(results: StreamResults, *, n_most: int = 8) -> list[ErrorExcerpt]:
    """Return the misses at the default threshold with the lowest scores, lowest first."""
    default = results.manifest.decision.threshold
    found = [
        (trace.peak(word.word, word.start_s, word.end_s + TOLERANCE_S), stream, word)
        for stream, trace, matches in zip(
            results.streams,
            results.gated,
            match_detections(results.gated, results.streams, default),
            strict=True,
        )
        for word in matches.missed
    ]
    found.sort(key=lambda one: one[0])
    return [
        _excerpt(stream, word.word, score, (word.start_s, word.end_s))
        for score, stream, word in found[:n_most]
    ]


def _excerpt(
    stream: Stream, keyword: str, score: float, span_s: tuple[float, float]
) -> ErrorExcerpt:
    start_s, end_s = max(0.0, span_s[0] - _BEFORE_S), span_s[1] + _AFTER_S
    near = [
        (word.word, clip)
        for word, clip in zip(stream.words, _clips(stream), strict=True)
        if word.start_s <= span_s[1] <= word.end_s + TOLERANCE_S
    ]
    playing = [one.path for one in stream.background if one.start_s <= span_s[1] <= one.end_s]
    sources = [clip for _, clip in near if clip] or playing
    return ErrorExcerpt(
        keyword=keyword,
        score=score,
        at_s=start_s,
        marked_s=(span_s[0] - start_s, span_s[1] - start_s),
        samples=stream.samples[round(start_s * RATE_HZ) : round(end_s * RATE_HZ)],
        stream=stream.name,
        source=f"{sources[0].parent.name}/{sources[0].name}" if sources else "",
        said=near[0][0] if near else "",
    )


def _clips(stream: Stream) -> Sequence[Path | None]:
    return stream.clips or [None] * len(stream.words)
