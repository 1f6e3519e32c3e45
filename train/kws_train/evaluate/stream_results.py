"""Posteriors of a model over streams, with and without the gate, and their DET curves."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from kws.config import GateSettings
from kws.manifest import Manifest
from kws.model import Model
from kws_train.evaluate.build_stream import Stream
from kws_train.evaluate.det import DetCurve, det_curve
from kws_train.evaluate.traces import Trace, posterior_trace

__all__ = ["StreamResults", "process_streams"]


@dataclass(frozen=True)
class StreamResults:
    """Posteriors of a model over streams, with the gate and, on demand, without it.

    Attributes
    ----------
    manifest : Manifest
    streams : sequence of Stream
    gated : sequence of Trace
        Of each stream, with the gate.
    without_gate : callable
        Computes the traces without the gate.
    """

    manifest: Manifest
    streams: Sequence[Stream]
    gated: Sequence[Trace]
    without_gate: Callable[[], Sequence[Trace]]

    @cached_property
    def traces(self) -> Sequence[Trace]:
        """Traces without the gate, computed on first access: that takes most of the time."""
        return self.without_gate()

    @cached_property
    def curve(self) -> DetCurve:
        """Misses against false alarms over all streams, without the gate."""
        return self._curve(self.traces, self.streams)

    @cached_property
    def gated_curve(self) -> DetCurve:
        """Misses against false alarms over all streams, with the gate."""
        return self._curve(self.gated, self.streams)

    def curves(self) -> dict[str, DetCurve]:
        """Return the curve of each stream with the gate and, of a single one, without it too."""
        if len(self.streams) > 1:
            return self.by_condition()
        name = self.streams[0].name
        return {f"{name}, gate on": self.gated_curve, f"{name}, gate off": self.curve}

    def by_condition(self) -> dict[str, DetCurve]:
        """Return the curve of each condition with the gate; streams of one name count together."""
        named: dict[str, list[int]] = {}
        for i, stream in enumerate(self.streams):
            named.setdefault(stream.name, []).append(i)
        return {
            name: self._curve([self.gated[i] for i in among], [self.streams[i] for i in among])
            for name, among in named.items()
        }

    def per_stream(self) -> "list[StreamResults]":
        """Return the results of each stream alone."""
        return [self._only(i) for i in range(len(self.streams))]

    def _only(self, i: int) -> "StreamResults":
        return StreamResults(
            self.manifest, [self.streams[i]], [self.gated[i]], lambda: [self.traces[i]]
        )

    def _curve(self, traces: Sequence[Trace], streams: Sequence[Stream]) -> DetCurve:
        return det_curve(traces, streams, default=self.manifest.decision.threshold)


def process_streams(model: Model, streams: Sequence[Stream]) -> StreamResults:
    """Run the runtime's spotter over streams, with the gate."""
    return StreamResults(
        model.manifest,
        streams,
        [posterior_trace(model, stream.samples, gate=GateSettings()) for stream in streams],
        lambda: [posterior_trace(model, stream.samples) for stream in streams],
    )
