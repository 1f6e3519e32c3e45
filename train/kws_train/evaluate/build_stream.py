"""Labelled streams for evaluation: keywords between sentences, in noise at a given SNR.

The same seed and folders give the same stream. Keywords are not mixed over speech: each follows the
pause after an utterance, as a command to a device does.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from kws.arrays import Samples
from kws.audio import SAMPLE_RATE_HZ as RATE_HZ
from kws.errors import ConfigError
from kws.matching import Word
from kws_train.data.audio_files import audio_files, read_samples, readable
from kws_train.data.speech_span import Span, speech_span
from kws_train.data.splits import SplitName, check_layout, official_split, word_of
from kws_train.scenes.augment import loop

__all__ = ["Segment", "SnrRule", "Stream", "build_stream", "keyword_clips", "noise_files"]

SnrRule: TypeAlias = Literal["mean", "peak"]
Wave: TypeAlias = npt.NDArray[np.float32]

_SPEECH_RMS = 1500.0
_PEAK_SAMPLES = 512


@dataclass(frozen=True)
class Segment:
    """An utterance of the background and its position, in seconds from the stream's start."""

    path: Path
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Stream:
    """Audio, int16 at 16 kHz, and the words placed in it, in order of time."""

    samples: Samples
    words: tuple[Word, ...]
    clips: tuple[Path, ...] = ()
    """The clip of each word, where the stream was built of clips."""
    background: tuple[Segment, ...] = ()
    name: str = ""
    """Its condition, such as `10 dB`."""

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return len(self.samples) / RATE_HZ


def build_stream(
    clips: Sequence[tuple[str, Path]],
    background: Sequence[Path],
    noise: Sequence[Path] = (),
    *,
    snr_db: float = 10.0,
    snr_rule: SnrRule = "mean",
    seed: int = 1,
    most_s: float | None = None,
    n_background: int = 1,
) -> Stream:
    """Concatenate keyword clips and utterances in turn, and add noise.

    Files that cannot be read are left out, with a warning.

    Parameters
    ----------
    clips : sequence of (word, path)
        Each used once, in random order, until they or the time run out.
    background : sequence of Path
        Utterances without keywords, in random order, reshuffled when all have been used.
    noise : sequence of Path
        Recordings added end to end; none leaves the stream clean.
    snr_db : float
        Power of the speech over that of the noise; infinity leaves the stream clean.
    snr_rule : "mean" or "peak"
        `mean`: mean power of all speech over the mean power of each noise recording. `peak`: power
        of the loudest 512 samples of the speech under a recording, over that of the recording's own
        loudest 512, as in Picovoice's wake-word benchmark.
    most_s : float, optional
        Maximum length.
    n_background : int
        Utterances between two clips.

    Raises
    ------
    ConfigError
        If there are no clips or no background, `most_s` is too short for one clip, or the noise
        is silent.
    """
    if clips and background:
        good = set(readable(dict.fromkeys([*(path for _, path in clips), *background, *noise])))
        clips = [(word, path) for word, path in clips if path in good]
        background = [path for path in background if path in good]
        noise = [path for path in noise if path in good]
    if not clips or not background:
        raise ConfigError(
            f"A stream needs clips and background speech. Received: {len(clips)} clips, "
            f"{len(background)} utterances. Give folders that hold both."
        )
    random = np.random.default_rng(seed)
    most_samples = math.inf if most_s is None else most_s * RATE_HZ
    utterances = _endless(background, random)
    track = _Track()
    for i in random.permutation(len(clips)):
        word, path = clips[i]
        clip = read_samples(path)
        span = speech_span(clip, said=word)
        before = _draw_utterances(utterances, n_background, random)
        n_before = sum(len(wave) + len(pause) for _, wave, pause in before)
        if track.n_samples + n_before + len(clip) > most_samples:
            break
        for utterance, wave, pause in before:
            track.add_utterance(utterance, wave)
            track.add(pause)
        track.add_word(word, path, _levelled(clip, span=span), span)
    if not track.words:
        raise ConfigError(
            f"A stream must be long enough for an utterance and a keyword. Received: {most_s:g} s. "
            f"Make it longer."
        )
    last = next(utterances)
    n_left = None if most_s is None else round(most_s * RATE_HZ) - track.n_samples
    track.add_utterance(last, _levelled(read_samples(last))[:n_left])
    samples = np.concatenate(track.pieces)
    is_noisy = bool(noise) and not math.isinf(snr_db)
    if is_noisy:
        _add_noise(samples, noise, snr_db, random, rule=snr_rule)
    return Stream(
        np.clip(np.rint(samples, out=samples), -32768, 32767).astype(np.int16),
        tuple(track.words),
        clips=tuple(track.clips),
        background=tuple(track.segments),
        name=f"{snr_db:g} dB" if is_noisy else "clean",
    )


def keyword_clips(
    data: Path, keywords: Sequence[str], *, split: SplitName = "test"
) -> list[tuple[str, Path]]:
    """Return the keyword clips of an official split, or of all, as (word, path), by path."""
    paths = audio_files(data, optional=True)
    check_layout(paths, data, keywords=keywords)
    return [
        (word, path)
        for path in paths
        if (word := word_of(path, data)) in keywords
        and split in (official_split(path, root=data), "all")
    ]


def noise_files(folder: Path, pattern: str = "*") -> list[Path]:
    """Return the recordings below a folder whose names match a pattern such as `4-*`.

    Raises
    ------
    ConfigError
        If there are none.
    """
    found = [path for path in audio_files(folder) if fnmatch(path.name, pattern)]
    if not found:
        raise ConfigError(
            f"`--noise-pattern` must match names of noise recordings. Received: {pattern}, which "
            f"matches none below {folder}. Correct it; `*` takes all."
        )
    return found


def _endless(paths: Sequence[Path], random: np.random.Generator) -> Iterator[Path]:
    while True:
        for i in random.permutation(len(paths)):
            yield paths[i]


def _draw_utterances(
    paths: Iterator[Path], n: int, random: np.random.Generator
) -> list[tuple[Path, Wave, Wave]]:
    """Draw utterances; return each with its levelled samples and a short pause to follow it."""
    drawn = [next(paths) for _ in range(n)]
    pauses = (int(random.uniform(0.1, 0.5) * RATE_HZ) for _ in drawn)
    return [
        (path, _levelled(read_samples(path)), np.zeros(n_pause, np.float32))
        for path, n_pause in zip(drawn, pauses, strict=True)
    ]


def _levelled(samples: Samples, *, span: Span | None = None) -> Wave:
    """Scale speech to a common level, without clipping it."""
    wave = samples.astype(np.float32)
    start, end = span or (0, len(wave))
    rms = float(np.sqrt(np.mean(wave[start:end] ** 2)) + 1.0)
    return wave * min(_SPEECH_RMS / rms, 30_000 / (float(np.abs(wave).max()) + 1.0))


@dataclass
class _Track:
    """The pieces of a stream so far, and what they contain."""

    pieces: list[Wave] = field(default_factory=list)
    words: list[Word] = field(default_factory=list)
    clips: list[Path] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)
    n_samples: int = 0

    def add(self, wave: Wave) -> None:
        self.pieces.append(wave)
        self.n_samples += len(wave)

    def add_utterance(self, path: Path, wave: Wave) -> None:
        start = self.n_samples
        self.add(wave)
        self.segments.append(Segment(path, start / RATE_HZ, self.n_samples / RATE_HZ))

    def add_word(self, word: str, path: Path, wave: Wave, span: Span) -> None:
        start_s, end_s = ((self.n_samples + edge) / RATE_HZ for edge in span)
        self.words.append(Word(word=word, start_s=round(start_s, 3), end_s=round(end_s, 3)))
        self.clips.append(path)
        self.add(wave)


def _add_noise(
    samples: Wave,
    paths: Sequence[Path],
    snr_db: float,
    random: np.random.Generator,
    *,
    rule: SnrRule,
) -> None:
    """Add recordings of up to ten seconds end to end to `samples`, in place."""
    at, n_silent = 0, 0
    for path in _endless(paths, random):
        recording = read_samples(path)
        piece = loop(recording, min(len(recording), 10 * RATE_HZ), random=random)
        rms = float(np.sqrt(np.mean(piece**2)))
        if rms < 1.0:
            n_silent += 1
            if n_silent > 10 * len(paths):
                raise ConfigError(
                    f"Noise must be louder than silence. Received: {len(paths)} recordings without "
                    f"a sound, such as {path}. Give others, or none for a clean stream."
                )
            continue
        n_silent = 0
        under = samples[at : at + len(piece)]
        over = _SPEECH_RMS / rms if rule == "mean" else _peak_rms(under) / _peak_rms(piece)
        under += piece[: len(under)] * np.float32(over / 10 ** (snr_db / 20))
        at += len(piece)
        if at >= len(samples):
            return


def _peak_rms(wave: Wave) -> float:
    """Return the RMS of the loudest 512 samples, of frames end to end."""
    frames = np.resize(wave, (-(-len(wave) // _PEAK_SAMPLES), _PEAK_SAMPLES))
    return float(np.sqrt(np.mean(frames**2, axis=1).max()))
