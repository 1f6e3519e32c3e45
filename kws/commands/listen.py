"""Listening from end to end: a source through the spotter to the sinks, with a bar or a meter."""

import contextlib
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator

import click

from kws.audio import SAMPLE_RATE_HZ, Samples
from kws.config import DecisionSettings, GateSettings, ModelSettings
from kws.errors import AudioError, ModelError
from kws.events import Detection, End, Event
from kws.model import Model, model_path, open_model
from kws.model_check import check_model
from kws.sources import Source
from kws.spotter import Spotter

__all__ = ["deliver_to", "hear", "open_model_for", "open_spotter", "summary"]

_log = logging.getLogger("kws")


def open_spotter(
    model: ModelSettings,
    *,
    gate: GateSettings | None = None,
    decision: DecisionSettings | None = None,
    near_miss_score: float | None = None,
) -> Spotter:
    """Open a model and the pipeline around it; errors as in `open_model_for` and `Spotter`."""
    return Spotter(
        open_model_for(model), gate=gate, decision=decision, near_miss_score=near_miss_score
    )


def open_model_for(settings: ModelSettings) -> Model:
    """Open a model that takes what every source gives.

    Raises
    ------
    ModelError
        If it cannot be used, or is for another sample rate.
    """
    path = model_path(settings.name)
    check_model(path, n_threads=settings.n_threads)
    model = open_model(path, n_threads=settings.n_threads)
    if not model.manifest.keywords:
        raise ModelError(
            f"A model that listens must have keywords. Received: {settings.name}, which only gives "
            f"embeddings. Make a word of it with `kws enroll`."
        )
    if (rate_hz := model.manifest.features.sample_rate_hz) != SAMPLE_RATE_HZ:
        raise ModelError(
            f"A model must take audio at {SAMPLE_RATE_HZ} Hz, which every source gives. "
            f"Received: `{model.manifest.name}` at {rate_hz} Hz. Train it again at that rate."
        )
    return model


def hear(
    source: Source, spotter: Spotter, send: Callable[[Detection], None], *, metered: bool = False
) -> tuple[End, AudioError | None]:
    """Listen to the end; return the balance, and what was wrong with the audio there.

    Parameters
    ----------
    source : Source
    spotter : Spotter
    send : callable
        Takes the detections.
    metered : bool
        Show a live meter for a source without a known end, where standard error is a terminal.
    """
    n_samples = n_detections = 0
    n_lost_said = 0
    failure = None
    started_s = time.process_time()
    with _display(source, spotter, metered=metered) as (advance, make_way):
        try:
            for chunk in source:
                for detection in spotter.process(chunk):
                    n_detections += 1
                    make_way(detection)
                    send(detection)
                if not n_samples:
                    _log.info("Heard the first chunk of %s.", source.name)
                n_samples += len(chunk)
                advance(chunk)
                if source.dropped_chunks > 2 * n_lost_said:
                    n_lost_said = source.dropped_chunks
                    _log.warning("%s: %d chunks of audio were lost.", source.name, n_lost_said)
        except AudioError as error:
            failure = error
    for detection in spotter.flush():
        n_detections += 1
        send(detection)
    cpu_s = round(time.process_time() - started_s, 6)
    audio_s = round(n_samples / SAMPLE_RATE_HZ, 3)
    return End(audio_s=audio_s, detections=n_detections, cpu_s=cpu_s), failure


def deliver_to(*sends: Callable[[Event], None]) -> Callable[[Event], None]:
    """Return what hands an event to every sink, of which none can stop the audio.

    Only when nobody reads standard output any more there is nothing left to listen for.
    """

    def deliver(event: Event) -> None:
        for send in sends:
            try:
                send(event)
            except BrokenPipeError:
                raise
            except OSError as error:
                _log.warning("An event could not be handed on: %s.", error)

    return deliver


def summary(end: End) -> str:
    """Return the balance of a file in a line."""
    per_s = 1000 * end.cpu_s / end.audio_s if end.audio_s else 0.0
    noun = "detection" if end.detections == 1 else "detections"
    return (
        f"{end.audio_s:.1f} s of audio, {end.detections} {noun}, "
        f"{per_s:.1f} ms CPU per second of audio"
    )


@contextlib.contextmanager
def _display(
    source: Source, spotter: Spotter, *, metered: bool
) -> Iterator[tuple[Callable[[Samples], None], Callable[[Detection], None]]]:
    """Show what is going on, where standard error is a terminal: how far a file is, or a meter.

    Gives what takes each chunk, and what makes way on the screen for the line of a detection.
    """
    is_terminal = sys.stderr is not None and sys.stderr.isatty()
    if is_terminal and source.duration_s is not None:
        with _progress(source, source.duration_s) as advance:
            yield advance, lambda _: click.echo("\r\033[K", nl=False, err=True)
    elif is_terminal and metered and os.environ.get("TERM", "dumb") not in {"dumb", "unknown"}:
        from kws.terminal import live_meter

        with live_meter() as (show, make_way):
            yield lambda chunk: show(chunk, spotter), make_way
    else:
        yield lambda _: None, lambda _: None


@contextlib.contextmanager
def _progress(source: Source, duration_s: float) -> Iterator[Callable[[Samples], None]]:
    length = max(1, int(duration_s * SAMPLE_RATE_HZ))
    with click.progressbar(
        length=length, file=sys.stderr, label=source.name, update_min_steps=max(1, length // 100)
    ) as bar:
        yield lambda chunk: bar.update(len(chunk))
