"""`kws demo`: stream bundled recordings through models, mark detections, explain misses."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.resources import files
from pathlib import Path

import msgspec

from kws.arrays import Samples
from kws.audio import SAMPLE_RATE_HZ
from kws.config import SourceSettings
from kws.errors import ConfigError
from kws.events import NearMiss
from kws.matching import TOLERANCE_S, LabelledRecording, Matcher, Matches, Word, match
from kws.own_programs import as_typed
from kws.sources import open_source
from kws.spotter import Spotter

__all__ = ["LEAST_PEAK", "load_demo", "play", "run"]

LEAST_PEAK = 0.02
"""Least peak that is told of a missed word: `near_miss_score` of a spotter for `play`."""
_LOWER_THRESHOLD = 0.6
_PARTS = (
    ("demo", "commands", "Short commands between sentences by others, in noise."),
    ("demo_computer", "computer", "The wake word `computer`, {n} recordings by several people."),
)
_NEXT = """What to try next:
  {kws} listen                     say one of the commands
  {kws} listen --model computer    say the wake word
  {kws} listen --threshold {lower:g}     fewer misses, more false alarms
  {kws} calibrate commands         thresholds for your room
  {kws} record WORD --out DIR      your own word; then `enroll`"""


def run(*, echo: Callable[[str], object] = print) -> None:
    """Play each bundled recording to its model, then say what the figures mean.

    Parameters
    ----------
    echo : callable
        Takes each line.
    """
    for name, model, title in _PARTS:
        labels, recording = load_demo(name=name)
        echo(f"{title.format(n=len(labels.words))} Model `{model}`:")
        with open_source(SourceSettings(input=str(recording))) as source:
            matches = play(source, Spotter(model, near_miss_score=LEAST_PEAK), labels, echo=echo)
        if matches.missed:
            echo(_at_lower_threshold(model, labels, recording))
        echo("")
    echo(
        f"Matched: detected between a word's start and {TOLERANCE_S:g} s after its end.\n"
        f"Missed: its peak, the highest posterior, stayed below the threshold. A lower one\n"
        f"finds more words and gives more false alarms. Short words are the hardest: a\n"
        f"longer one with a model of its own, such as `computer`, is missed least.\n"
        f"False: a detection without the word.\n"
    )
    echo(_NEXT.format(kws=as_typed("kws"), lower=_LOWER_THRESHOLD))


def load_demo(folder: Path | None = None, *, name: str = "demo") -> tuple[LabelledRecording, Path]:
    """Return the labels of a bundled recording, and its path.

    Raises
    ------
    ConfigError
        If they are missing from the installation, or damaged.
    """
    folder = folder or Path(str(files("kws.models")))
    path = folder / f"{name}.json"
    try:
        labels = msgspec.json.decode(path.read_bytes(), type=LabelledRecording)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"The demo needs its labels, {path.name}. Received: {error}. "
            f"Run `pip install --force-reinstall kws`."
        ) from error
    return labels, folder / labels.recording


def play(
    source: Iterable[Samples],
    spotter: Spotter,
    labels: LabelledRecording,
    *,
    echo: Callable[[str], object] = print,
) -> Matches:
    """Stream a recording through a spotter; print and mark every detection, explain each miss.

    Parameters
    ----------
    source : iterable of int16 [shape=(n,)]
        The recording at 16 kHz.
    spotter : Spotter
        At the start of a stream, with `LEAST_PEAK` as its `near_miss_score`.
    labels : LabelledRecording
        The words spoken in it.
    echo : callable
        Takes each line.
    """
    matcher = Matcher(labels.words, keywords=spotter.keywords)
    near_misses: list[NearMiss] = []
    n_samples = 0

    def counted() -> Iterator[Samples]:
        nonlocal n_samples
        for chunk in source:
            n_samples += len(chunk)
            yield chunk
            near_misses.extend(spotter.take_near_misses())

    started_s = time.process_time()
    for detection in spotter.listen(counted()):
        mark = matcher.mark(detection)
        echo(f"{detection.end_s:8.2f} s  {detection.keyword:<10} {detection.score:.2f}  {mark}")
    near_misses.extend(spotter.take_near_misses())
    cpu_s, audio_s = time.process_time() - started_s, n_samples / SAMPLE_RATE_HZ
    matches = matcher.result()
    for word in matches.missed:
        reason = _reason(word, matches, near_misses, spotter.thresholds[word.word])
        echo(f"{word.end_s:8.2f} s  {word.word:<10}       missed: {reason}")
    echo(f"{_counts(matches)}; {1000 * cpu_s / max(audio_s, 1e-9):.1f} ms CPU per second of audio")
    return matches


def _reason(word: Word, matches: Matches, near_misses: Sequence[NearMiss], threshold: float) -> str:
    """Return how near a missed word came, and what was detected in its place."""
    last_s = word.end_s + TOLERANCE_S
    peaks = [
        one.score
        for one in near_misses
        if one.keyword == word.word and word.start_s <= one.end_s <= last_s
    ]
    peak = f"peak {max(peaks):.2f}" if peaks else f"peak below {LEAST_PEAK:g}"
    taken = [one.keyword for one in matches.false if word.start_s <= one.end_s <= last_s]
    instead = f", detected as {taken[0]}" if taken else ""
    return f"{peak} of {threshold:.2f}{instead}"


def _at_lower_threshold(model: str, labels: LabelledRecording, recording: Path) -> str:
    spotter = Spotter(model, threshold=_LOWER_THRESHOLD)
    matches = match(labels.words, spotter.listen(recording), keywords=spotter.keywords)
    return f"With --threshold {_LOWER_THRESHOLD:g}: {_counts(matches)}"


def _counts(matches: Matches) -> str:
    return f"{len(matches.hits)} matched, {len(matches.missed)} missed, {len(matches.false)} false"
