"""Guided recording of one word: voice activity cuts the stream into takes, each is checked.

The folder has the layout of a word corpus, `DIR/word/speaker_nohash_n.wav`, which `kws enroll` and
`kws train` read.
"""

import math
import os
import re
import wave
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from kws.arrays import Samples
from kws.audio import SAMPLE_RATE_HZ
from kws.config import GateSettings
from kws.errors import ConfigError, DeviceError
from kws.gate import BLOCK_MS, Gate
from kws.live_lines import Part
from kws.sources import Source
from kws.sources.silence import CHECK_MUTED, SilenceWatch
from kws.terminal import bar, level_share

__all__ = [
    "Take",
    "TakeCutter",
    "check_name",
    "check_take",
    "level_meter",
    "loudest_dbfs",
    "record",
    "write_take",
]

_ONSET_BLOCKS = 3  # consecutive voiced blocks that begin a take; a click has fewer
_PRE_ROLL_MS = 300
_SILENCE_MS = 500
_MIN_VOICED_MS = 120
_MAX_TAKE_MS = 3000
_CLIPPED = 32_700
_N_CLIPPED = 4
_MIN_DBFS = -45.0
_SILENT_S = 5.0
_METER_CELLS = 30
_NUMBERS = len(" -60 dBFS speech")


class Take(NamedTuple):
    """A segment of speech."""

    samples: Samples
    problem: str
    """Why it cannot be used; empty if it can."""


class TakeCutter:
    """Cut a stream into takes, from 300 ms before the onset of speech to 500 ms after its end.

    Parameters
    ----------
    aggressiveness : int
        webrtcvad's mode, 0 to 3.
    """

    def __init__(self, *, aggressiveness: int = 2) -> None:
        settings = GateSettings(aggressiveness=aggressiveness, hangover_ms=0)
        self._gate = Gate(settings, sample_rate_hz=SAMPLE_RATE_HZ)
        self._pending = np.zeros(0, np.int16)
        self._before: deque[Samples] = deque(maxlen=_PRE_ROLL_MS // BLOCK_MS + _ONSET_BLOCKS)
        self._take: list[Samples] = []
        self._n_blocks = self._n_voiced = self._n_silent = self._n_onset = 0
        self._began_cut = False
        self._overlong = False

    @property
    def speaking(self) -> bool:
        """Whether a take has begun and not ended."""
        return bool(self._take)

    def process(self, samples: Samples, /) -> list[Take]:
        """Consume int16 samples [shape=(n,)] at 16 kHz; return the takes that end here."""
        self._pending = np.concatenate((self._pending, samples))
        size = self._gate.block_samples
        ended = []
        for voiced in self._gate.process(samples):
            block, self._pending = self._pending[:size], self._pending[size:]
            if take := self._process_block(block, voiced):
                ended.append(take)
        return ended

    def flush(self) -> list[Take]:
        """End the stream; a take that is still voiced counts as cut off."""
        take = self._end(cut=not self._n_silent) if self._take else None
        return [take] if take else []

    def _process_block(self, block: Samples, voiced: bool) -> Take | None:
        self._n_blocks += 1
        if not self._take:
            self._before.append(block)
            self._n_onset = self._n_onset + 1 if voiced else 0
            if self._n_onset >= _ONSET_BLOCKS:
                self._take = list(self._before)
                self._began_cut = self._n_blocks <= _ONSET_BLOCKS
                self._n_voiced, self._n_silent = _ONSET_BLOCKS, 0
            return None
        self._n_voiced += voiced
        self._n_silent = 0 if voiced else self._n_silent + 1
        if len(self._take) * BLOCK_MS < _MAX_TAKE_MS:
            self._take.append(block)
        elif voiced:
            self._overlong = True
        return self._end(cut=False) if self._n_silent * BLOCK_MS >= _SILENCE_MS else None

    def _end(self, *, cut: bool) -> Take:
        samples = np.concatenate(self._take)
        if cut or self._began_cut:
            problem = "cut off: wait a moment before and after the word"
        elif self._overlong:
            problem = f"longer than {_MAX_TAKE_MS / 1000:g} s: say the word alone"
        elif self._n_voiced * BLOCK_MS < _MIN_VOICED_MS:
            problem = "empty: a click and no speech"
        else:
            problem = check_take(samples)
        self._take = []
        self._before.clear()
        self._n_onset = 0
        self._began_cut = self._overlong = False
        return Take(samples, problem)


def check_take(samples: Samples) -> str:
    """Return why the audio of a take cannot be used: empty, clipped, too quiet; else ""."""
    level = loudest_dbfs(samples)
    if level == -math.inf:
        return "empty: digital silence"
    if np.count_nonzero(np.abs(samples.astype(np.int32)) >= _CLIPPED) >= _N_CLIPPED:
        return "clipped: step back, or turn the microphone down"
    if level < _MIN_DBFS:
        return f"too quiet, {level:.0f} dBFS: come closer, or turn the microphone up"
    return ""


def check_name(name: str) -> None:
    """Check that a word or a speaker can name files.

    Raises
    ------
    ConfigError
        If it holds other signs than letters, digits, blanks, apostrophes and hyphens.
    """
    if not re.fullmatch(r"[^\W_][\w '-]{0,63}", name) or "_nohash_" in name:
        raise ConfigError(
            f"A word and a speaker must be names of letters and digits. Received: {name!r}. "
            f"Write it without slashes, dots and other signs."
        )


def loudest_dbfs(samples: Samples) -> float:
    """Return the level of the loudest 20 ms [dB re full-scale square wave]; -inf for silence."""
    size = SAMPLE_RATE_HZ * BLOCK_MS // 1000
    n_blocks = -(-len(samples) // size)
    if not n_blocks:
        return -math.inf
    padded = np.pad(samples.astype(np.float64), (0, n_blocks * size - len(samples)))
    power = float(np.square(padded.reshape(n_blocks, size)).mean(axis=1).max())
    return 10 * math.log10(power / 32_768**2) if power else -math.inf


def level_meter(
    samples: Samples, *, speaking: bool, width: int, ascii_only: bool = False
) -> list[Part]:
    """Return a line within a width: a level bar from -60 to 0 dBFS, and whether a take goes on."""
    level = loudest_dbfs(samples)
    numbers = f" {max(-60.0, level):4.0f} dBFS {'speech' if speaking else ''}"
    cells = max(4, min(_METER_CELLS, width - _NUMBERS))
    return [Part(bar(level_share(level), cells=cells, ascii_only=ascii_only)), Part(numbers)]


def write_take(folder: Path, samples: Samples, *, speaker: str) -> Path:
    """Write a take as WAV under the next free number; no file is overwritten."""
    folder.mkdir(parents=True, exist_ok=True)
    number = 1 + max(_numbers(folder, speaker), default=-1)
    while True:
        path = folder / f"{speaker}_nohash_{number}.wav"
        try:
            with _new_file(path) as file, wave.open(file, "wb") as audio:
                audio.setnchannels(1)
                audio.setsampwidth(2)
                audio.setframerate(SAMPLE_RATE_HZ)
                audio.writeframes(samples.astype("<i2").tobytes())
        except FileExistsError:
            number += 1
        except OSError:
            path.unlink(missing_ok=True)  # a full disk leaves half a take
            raise
        else:
            return path


def _new_file(path: Path) -> IO[bytes]:
    """Open a new file for its owner alone: a voice is nobody else's."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def record(
    source: Source,
    word: str,
    folder: Path,
    *,
    n_takes: int,
    speaker: str = "me",
    say: Callable[[str], None],
    show_level: Callable[[Samples, bool], None] = lambda samples, speaking: None,
) -> list[Path]:
    """Record until `folder/word` holds `n_takes` of the speaker, or the source ends.

    Parameters
    ----------
    source : Source
    word : str
        Name of the subfolder.
    folder : Path
    n_takes : int
        Existing takes of the speaker count.
    speaker : str
        First part of the file names.
    say : callable
        Takes a line for the user.
    show_level : callable
        Takes each chunk, and whether a take goes on.

    Returns
    -------
    list of Path
        The files written.

    Raises
    ------
    ConfigError
        If the word or the speaker is no valid file name.
    DeviceError
        At digital silence for five seconds, unless the source is a file.
    """
    check_name(word)
    check_name(speaker)
    takes_folder = folder / word
    n_existing = sum(1 for _ in _numbers(takes_folder, speaker))
    if n_existing:
        say(f"{n_existing} takes of {speaker} exist in {takes_folder}.")
    written: list[Path] = []
    if n_existing < n_takes:
        say(f'Say "{word}", then wait. Take {n_existing + 1} of {n_takes}.')
        for take in _takes(source, show_level):
            if take.problem:
                say(f"Not kept, {take.problem}.")
                continue
            written.append(write_take(takes_folder, take.samples, speaker=speaker))
            say(f"{written[-1]}  {loudest_dbfs(take.samples):.0f} dBFS")
            if n_existing + len(written) == n_takes:
                break
            say(f"Take {n_existing + len(written) + 1} of {n_takes}.")
    return written


def _takes(source: Source, show_level: Callable[[Samples, bool], None]) -> Iterator[Take]:
    cutter = TakeCutter()
    silence = SilenceWatch(_SILENT_S if source.duration_s is None else 0.0)
    for chunk in source:
        if silence.process(chunk.tobytes()):
            raise DeviceError(
                f"A microphone must give sound. Received: only digital silence for "
                f"{_SILENT_S:g} s from {source.name}. {CHECK_MUTED}."
            )
        ended = cutter.process(chunk)
        show_level(chunk, cutter.speaking)
        yield from ended
    yield from cutter.flush()


def _numbers(folder: Path, speaker: str) -> Iterator[int]:
    pattern = re.compile(re.escape(speaker) + r"_nohash_(\d+)\.wav")
    for path in folder.glob("*.wav"):
        if found := pattern.fullmatch(path.name):
            yield int(found.group(1))
