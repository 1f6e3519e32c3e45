"""The moments of a stream at which a model was most wrong, to be listened to."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kws.audio import SAMPLE_RATE_HZ as RATE_HZ
from kws.features import Samples
from kws.matching import TOLERANCE_S
from kws_train.evaluate.build_stream import Stream
from kws_train.evaluate.det import decide
from kws_train.evaluate.stream import Heard

__all__ = ["Moment", "worst_false_alarms", "worst_misses"]

_BEFORE_S = 0.7
_AFTER_S = 0.6
_LEAST = 0.3
_RISE_S = 0.4


@dataclass(frozen=True)
class Moment:
    """A false alarm or a miss.

    Attributes
    ----------
    keyword : str
        What was heard, or what was not.
    score : float
        Of that keyword: when it fired, or at its highest near the word.
    at_s : float
        Where the excerpt starts in its stream.
    marked_s : (float, float)
        Where the word is in the excerpt, in seconds from its start.
    samples : int16 [shape=(n,)]
    stream : str
        Its condition.
    source : str
        Which file of the corpora was playing.
    said : str
        The keyword that was said there; empty if none.
    """

    keyword: str
    score: float
    at_s: float
    marked_s: tuple[float, float]
    samples: Samples
    stream: str
    source: str
    said: str


def worst_false_alarms(heard: Heard, *, n_most: int = 8) -> list[Moment]:
    """Return the false alarms of the highest scores, with the gate on, highest first."""
    found = [
        (trace.peak(one.keyword, one.end_s, one.end_s + _RISE_S), stream, one)
        for stream, trace, matches in zip(
            heard.streams, heard.gated, decide(heard.gated, heard.streams, _LEAST), strict=True
        )
        for one in matches.false
    ]
    found.sort(key=lambda one: -one[0])
    return [
        _moment(stream, one.keyword, score, (one.start_s or one.end_s, one.end_s))
        for score, stream, one in found[:n_most]
    ]


def worst_misses(heard: Heard, *, n_most: int = 8) -> list[Moment]:
    """Return the words that are missed at the default threshold and scored lowest, lowest first."""
    default = heard.manifest.decision.threshold
    found = [
        (trace.peak(word.word, word.start_s, word.end_s + TOLERANCE_S), stream, word)
        for stream, trace, matches in zip(
            heard.streams, heard.gated, decide(heard.gated, heard.streams, default), strict=True
        )
        for word in matches.missed
    ]
    found.sort(key=lambda one: one[0])
    return [
        _moment(stream, word.word, score, (word.start_s, word.end_s))
        for score, stream, word in found[:n_most]
    ]


def _moment(stream: Stream, keyword: str, score: float, span_s: tuple[float, float]) -> Moment:
    start_s, end_s = max(0.0, span_s[0] - _BEFORE_S), span_s[1] + _AFTER_S
    near = [
        (word.word, clip)
        for word, clip in zip(stream.words, _clips(stream), strict=True)
        if word.start_s <= span_s[1] <= word.end_s + TOLERANCE_S
    ]
    playing = [part.path for part in stream.background if part.start_s <= span_s[1] <= part.end_s]
    sources = [clip for _, clip in near if clip] or playing
    return Moment(
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
