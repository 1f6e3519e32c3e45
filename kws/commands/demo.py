"""`kws demo`: stream the bundled recording through a model and mark its detections."""

import time
from collections.abc import Callable, Iterable, Iterator
from importlib.resources import files
from pathlib import Path

import msgspec

from kws.audio import SAMPLE_RATE_HZ, Samples
from kws.errors import ConfigError
from kws.matching import LabelledRecording, Matcher, Matches
from kws.spotter import Spotter

__all__ = ["load_demo", "play"]


def load_demo(folder: Path | None = None) -> tuple[LabelledRecording, Path]:
    """Return the labels of the bundled recording, and its path.

    Raises
    ------
    ConfigError
        If they are missing from the installation, or damaged.
    """
    folder = folder or Path(str(files("kws.models")))
    path = folder / "demo.json"
    try:
        labels = msgspec.json.decode(path.read_bytes(), type=LabelledRecording)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"The demo needs its labels, demo.json. Received: {error}. "
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
    """Stream a recording through a spotter; print and mark every detection.

    Parameters
    ----------
    source : iterable of int16 [shape=(n,)]
        The recording at 16 kHz.
    spotter : Spotter
        At the start of a stream.
    labels : LabelledRecording
        The words spoken in it.
    echo : callable
        Takes each line.
    """
    matcher = Matcher(labels.words, keywords=spotter.keywords)
    n_samples = 0

    def counted() -> Iterator[Samples]:
        nonlocal n_samples
        for chunk in source:
            n_samples += len(chunk)
            yield chunk

    started_s = time.process_time()
    for detection in spotter.listen(counted()):
        mark = matcher.mark(detection)
        echo(f"{detection.end_s:8.2f} s  {detection.keyword:<10} {detection.score:.2f}  {mark}")
    cpu_s, audio_s = time.process_time() - started_s, n_samples / SAMPLE_RATE_HZ
    matches = matcher.result()
    for word in matches.missed:
        echo(f"{word.end_s:8.2f} s  {word.word:<10}       missed")
    echo(
        f"{len(matches.hits)} matched, {len(matches.missed)} missed, {len(matches.false)} false; "
        f"{1000 * cpu_s / max(audio_s, 1e-9):.1f} ms CPU per second of audio"
    )
    return matches
