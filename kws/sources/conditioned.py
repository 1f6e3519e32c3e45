"""A source whose samples are conditioned on the way."""

from collections.abc import Iterator

from kws.audio import Samples
from kws.config import SourceSettings
from kws.sources.preprocessing import Conditioner
from kws.sources.source import Source, chunk_samples, cut

__all__ = ["ConditionedSource"]


class ConditionedSource(Source):
    """Another source, louder or cleaner; closing it closes the other.

    Parameters
    ----------
    source : Source
        Open.
    settings : SourceSettings
        What to do to it.

    Raises
    ------
    AudioError
        As `Conditioner` does.
    """

    def __init__(self, source: Source, settings: SourceSettings) -> None:
        self._source = source
        self._conditioner = Conditioner(settings)
        self._n_samples = chunk_samples(settings.chunk_ms)
        self.name, self.duration_s, self.live = source.name, source.duration_s, source.live

    @property
    def dropped_chunks(self) -> int:
        """How often the other lost audio."""
        return self._source.dropped_chunks

    def __iter__(self) -> Iterator[Samples]:
        return cut(self._conditioner.stream(self._source), n_samples=self._n_samples)

    def close(self) -> None:
        """Close the other; a second call does nothing."""
        self._source.close()
