"""One client: its requests in turn, its audio through its own spotter, its detections back."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from wyoming.error import Error
from wyoming.event import Event
from wyoming.ping import Pong
from wyoming.wake import Detection as DetectionEvent
from wyoming.wake import NotDetected

from kws.arrays import Samples
from kws.audio import SAMPLE_RATE_HZ
from kws.errors import ConfigError, FormatError, KwsError
from kws.events import Detection
from kws.wyoming.catalog import Catalog, Selection
from kws.wyoming.events import AudioFormat, DetectRequest, parse
from kws.wyoming.pcm import PcmStream, Timeline
from kws.wyoming.recordings import Recording, Recordings
from kws.wyoming.trigger import Trigger

__all__ = ["Session"]

_log = logging.getLogger("kws.wyoming")


class Session:
    """Answer the events of one client.

    Parameters
    ----------
    number : int
        Of the client, for the log.
    catalog : Catalog
    send : callable
        Sends an event to the client.
    trigger_level : int
    recordings : Recordings or None
    """

    def __init__(
        self,
        number: int,
        catalog: Catalog,
        send: Callable[[Event], Awaitable[None]],
        *,
        trigger_level: int = 1,
        recordings: Recordings | None = None,
    ) -> None:
        self.number = number
        self._catalog = catalog
        self._send = send
        self._trigger_level = trigger_level
        self._recordings = recordings
        self._selection: Selection | None = None
        self._is_refused = False
        self._may_start = False
        self._is_told = False
        self._opened: tuple[Selection, Trigger] | None = None
        self._stream: _Stream | None = None

    async def handle(self, event: Event) -> None:
        """Process an event; events that a wake word service does not know are ignored."""
        try:
            match event.type:
                case "audio-chunk":
                    await self._chunk(event)
                case "audio-start":
                    await self._start(parse(event, AudioFormat))
                case "audio-stop":
                    await self._stop()
                case "detect":
                    await self._detect(parse(event, DetectRequest))
                case "describe":
                    await self._catalog.refresh()
                    await self._send(self._catalog.info())
                case "ping":
                    text = event.data.get("text")
                    await self._send(Pong(text=text if isinstance(text, str) else None).event())
        except KwsError as error:
            code = "bad-event" if isinstance(error, FormatError) else "unusable"
            await self._send(Error(text=str(error), code=code).event())

    def end(self) -> None:
        """Let go of the stream, when the client is gone."""
        if self._stream:
            self._stream.end()
            _log.info("Client %d: %s.", self.number, self._stream.summary())
        self._stream = None

    async def _detect(self, request: DetectRequest) -> None:
        self.end()
        self._is_told = False
        self._may_start = True
        try:
            try:
                self._selection = self._catalog.choose(request.names)
            except ConfigError:  # it may have been added since
                await self._catalog.refresh()
                self._selection = self._catalog.choose(request.names)
            self._is_refused = False
        except ConfigError as error:
            self._is_refused = True
            await self._send(Error(text=str(error), code="unknown-model").event())

    async def _start(self, audio: AudioFormat) -> None:
        """Begin a stream with a fresh spotter."""
        self.end()
        self._is_told = False
        selection = self._selection or self._catalog.choose(None)
        if self._opened and self._opened[0] == selection:
            trigger = self._opened[1]
            trigger.reset()
        else:
            spotter = await asyncio.to_thread(self._catalog.open, selection)
            trigger = Trigger(spotter, level=self._trigger_level)
            self._opened = (selection, trigger)
        recording = self._recordings.begin(self.number) if self._recordings else None
        self._stream = _Stream(audio, trigger, recording)

    async def _chunk(self, event: Event) -> None:
        audio: AudioFormat = parse(event, AudioFormat)
        if self._is_refused:
            return  # the client has been told which models there are
        if self._stream is None and self._may_start:
            # wyoming-satellite 1.0.0 sends chunks after `detect`, and never `audio-start`.
            await self._start(audio)
        if self._stream is None:
            await self._tell_once(
                "Audio must come after `audio-start` or `detect`. Received: a "
                "chunk before either. Send one of them first.",
                "no-audio-start",
            )
            return
        if not self._stream.is_of(audio):
            await self._tell_once(
                f"The format of a stream must not change. Received: {_described(audio)} after "
                f"{_described(self._stream.audio)}. Send `audio-start` again.",
                "format-changed",
            )
            return
        payload = event.payload or b""
        self._stream.timeline.add(len(payload), audio.timestamp)
        for i, samples in enumerate(self._stream.pcm.pieces(payload)):
            if i:
                await asyncio.sleep(0)  # other clients' turn
            await self._report(self._stream, self._stream.process(samples))

    async def _stop(self) -> None:
        """End the stream, and say so if nothing was detected in it."""
        self._may_start = False
        stream = self._stream
        if stream:
            await self._report(stream, stream.flush())
            self.end()
        if stream is None or not stream.n_detections:
            await self._send(NotDetected().event())

    async def _report(self, stream: "_Stream", detections: list[Detection]) -> None:
        for detection in detections:
            name = self._name_of(detection)
            if name is None:
                continue
            stream.n_detections += 1
            _log.info("Client %d: detected `%s` (%.2f).", self.number, name, detection.score)
            timestamp = stream.timeline.timestamp(detection.end_s)
            await self._send(DetectionEvent(name=name, timestamp=timestamp).event())

    def _name_of(self, detection: Detection) -> str | None:
        """Return the name to report; None for a keyword that was not asked for."""
        if self._opened is None:
            return None
        names = self._opened[0].names
        if detection.keyword in names:
            return names[detection.keyword]
        # A CTC model without a list of phrases reports any sequence of its keywords.
        is_sequence = detection.keyword not in self._catalog.keywords
        return detection.keyword if is_sequence else None

    async def _tell_once(self, text: str, code: str) -> None:
        """Send an error, but not for every chunk that follows."""
        if not self._is_told:
            self._is_told = True
            await self._send(Error(text=text, code=code).event())


class _Stream:
    """The audio between a start and a stop."""

    def __init__(self, audio: AudioFormat, trigger: Trigger, recording: Recording | None) -> None:
        self.audio = audio
        self.pcm = PcmStream(audio)
        self.timeline = Timeline(audio)
        self.n_detections = 0
        self._trigger = trigger
        self._recording = recording
        self._n_samples = 0

    def is_of(self, audio: AudioFormat) -> bool:
        """Whether a chunk has the format of the stream."""
        own = self.audio
        return (audio.rate, audio.width, audio.channels) == (own.rate, own.width, own.channels)

    def process(self, samples: Samples) -> list[Detection]:
        """Return what the samples complete."""
        self._n_samples += len(samples)
        if self._recording:
            self._recording.add(samples)
        return self._trigger.process(samples)

    def flush(self) -> list[Detection]:
        """Return what is still detected at the end."""
        return [*self.process(self.pcm.flush()), *self._trigger.flush()]

    def end(self) -> None:
        """Write the rest of the recording."""
        if self._recording:
            self._recording.end()

    def summary(self) -> str:
        """Return length and detections, as text."""
        n_detections = self.n_detections
        return f"{self._n_samples / SAMPLE_RATE_HZ:.2f} s of audio, {n_detections} detections"


def _described(audio: AudioFormat) -> str:
    return f"{audio.rate} Hz, {8 * audio.width} bits, {audio.channels} channels"
