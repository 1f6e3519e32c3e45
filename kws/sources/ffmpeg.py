"""Files that libsndfile does not read (M4A, AAC, WebM and others), decoded by ffmpeg."""

from collections.abc import Iterator
from pathlib import Path

from kws.arrays import Samples
from kws.audio_files import ffmpeg_command, needs_ffmpeg, not_audio
from kws.config import Channel
from kws.errors import DeviceError, FormatError
from kws.sources.command import CommandSource
from kws.sources.pcm import Layout
from kws.sources.source import Source

__all__ = ["FfmpegSource"]


class FfmpegSource(Source):
    """An audio file decoded by ffmpeg; every iteration begins at its start.

    Parameters
    ----------
    path : Path
    chunk_ms : int
    channel : int, "loudest" or None

    Raises
    ------
    FormatError
        If ffmpeg is missing. Iteration raises it if ffmpeg cannot read the file, or finds no audio.
    """

    def __init__(self, path: Path, *, chunk_ms: int, channel: Channel = None) -> None:
        command = ffmpeg_command(path, keep_channels=True)
        if command is None:
            raise needs_ffmpeg(path)
        self.name = str(path)
        self._path, self._chunk_ms, self._command = path, chunk_ms, command
        self._layout = Layout(channel=channel)
        self._decoder: CommandSource | None = None

    def __iter__(self) -> Iterator[Samples]:
        self.close()
        with CommandSource(
            self._command, chunk_ms=self._chunk_ms, layout=self._layout, stall_s=None
        ) as decoder:
            self._decoder = decoder
            try:
                yield from decoder
            except (DeviceError, FormatError) as error:
                lines = decoder.stderr_lines(1)
                reason = lines[0].rstrip(".") if lines else "it holds no samples"
                raise not_audio(self._path, reason) from error

    def close(self) -> None:
        """End ffmpeg; a second call does nothing."""
        if self._decoder is not None:
            self._decoder.close()
            self._decoder = None
