"""`kws listen`: one source through a spotter to the sinks, with a progress bar or a live meter."""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator

from kws.arrays import Samples
from kws.audio import SAMPLE_RATE_HZ
from kws.errors import AudioError
from kws.events import Detection, End, Event
from kws.live_lines import is_live_terminal
from kws.sources import Source
from kws.sources.silence import CHECK_MUTED, SilenceWatch
from kws.spotter import Spotter

__all__ = ["deliver_to", "listen_to", "summary"]

_log = logging.getLogger("kws")


def listen_to(
    source: Source,
    spotter: Spotter,
    send: Callable[[Event], None],
    *,
    metered: bool = False,
    silent_s: float = 0.0,
) -> tuple[End, AudioError | None]:
    """Process a source to its end; return the final event, and the audio error that ended it.

    Parameters
    ----------
    source : Source
    spotter : Spotter
    send : callable
        Takes detections and their peaks.
    metered : bool
        Show a live meter for a source without a known end, where standard error is a terminal.
    silent_s : float
        Digital silence from a live source for so long is warned of; 0: never.
    """
    n_samples = n_detections = n_lost_logged = 0
    display_s = 0.0  # of CPU: it is no part of the detection
    failure = None
    silence = SilenceWatch(silent_s if source.live else 0.0)

    def chunks() -> Iterator[Samples]:
        nonlocal n_samples, n_lost_logged, display_s
        for chunk in source:
            yield chunk  # comes back here once its detections were sent
            if not n_samples:
                _log.info("Processed the first chunk of %s.", source.name)
            n_samples += len(chunk)
            before_s = time.thread_time()
            advance(chunk)
            display_s += time.thread_time() - before_s
            send_peaks()
            if silence.process(chunk.tobytes()):
                if silence.is_silent:
                    what = "%s: only digital silence for %g s. %s."
                    _log.warning(what, source.name, silent_s, CHECK_MUTED)
                else:
                    _log.warning("%s: sound again.", source.name)
            if source.dropped_chunks > 2 * n_lost_logged:
                n_lost_logged = source.dropped_chunks
                _log.warning("%s: %d chunks of audio were lost.", source.name, n_lost_logged)

    def send_peaks() -> None:
        for peak in spotter.take_peaks():
            send(peak)

    started_s = time.process_time()
    with _display(source, spotter, metered=metered) as (advance, make_way):
        try:
            for detection in spotter.listen(chunks()):
                n_detections += 1
                make_way(detection)
                send(detection)
        except AudioError as error:
            failure = error
    send_peaks()
    cpu_s = round(max(0.0, time.process_time() - started_s - display_s), 6)
    audio_s = round(n_samples / SAMPLE_RATE_HZ, 3)
    return End(audio_s=audio_s, detections=n_detections, cpu_s=cpu_s), failure


def deliver_to(*sends: Callable[[Event], None]) -> Callable[[Event], None]:
    """Return a function that sends an event to every sink; a failing sink does not stop the audio.

    A closed standard output does: nobody reads the detections any more.
    """

    def deliver(event: Event) -> None:
        for send in sends:
            try:
                send(event)
            except BrokenPipeError:
                raise
            except OSError as error:
                _log.warning("A sink failed on an event: %s.", error)

    return deliver


def summary(end: End) -> str:
    """Format the final event of a file as one line."""
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
    """Show a progress bar for a file, or a meter, where standard error is a terminal.

    Yields a function for each chunk, and one that clears the line before a detection is printed.
    """
    if is_live_terminal() and source.duration_s is not None:
        from kws.terminal import live_progress

        n_samples = 0

        def advance(chunk: Samples) -> None:
            nonlocal n_samples
            n_samples += len(chunk)
            update(n_samples / SAMPLE_RATE_HZ)

        with live_progress(source.name, source.duration_s) as (update, clear):
            yield advance, lambda _: clear()
    elif is_live_terminal() and metered:
        from kws.terminal import live_meter

        with live_meter() as (show, make_way):
            yield lambda chunk: show(chunk, spotter), make_way
    else:
        yield lambda _: None, lambda _: None
