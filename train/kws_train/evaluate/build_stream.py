"""Labelled streams for evaluation: keywords said now and then between sentences, in noise.

The same seed and folders give the same stream. Words are not mixed over speech: a keyword comes in
the pause between two utterances, as somebody would say it to a machine.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from kws.audio import SAMPLE_RATE_HZ as RATE_HZ
from kws.commands.demo import Word
from kws.errors import ConfigError
from kws.features import Samples
from kws_train.data.audio_files import audio_files, read_samples
from kws_train.data.speech_span import speech_span
from kws_train.data.splits import SplitName, official_split
from kws_train.scenes.augment import loop

__all__ = ["Part", "SnrRule", "Stream", "build_stream", "keyword_clips", "noise_below"]

SnrRule: TypeAlias = Literal["mean", "peak"]

_SPEECH_RMS = 1500.0
_PEAK_SAMPLES = 512


@dataclass(frozen=True)
class Part:
    """An utterance of the background, and where it lies, in seconds from the stream's start."""

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
    background: tuple[Part, ...] = ()
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
    """Lay clips and utterances one after another, in noise.

    Parameters
    ----------
    clips : sequence of (word, path)
        Drawn in random order, each once, until they or the time run out.
    background : sequence of Path
        Utterances in which no keyword is said; drawn in random order, each once a round.
    noise : sequence of Path
        Recordings laid end to end under the whole; none leaves the stream clean.
    snr_db : float
        Power of the speech over that of the noise; infinity leaves the stream clean.
    snr_rule : "mean" or "peak"
        `mean`: mean power of all speech over the mean power of each noise recording. `peak`: power
        of the loudest 512 samples of the speech over which a recording is laid, over that of its
        own loudest 512; that of Picovoice's wake-word benchmark.
    most_s : float, optional
        Greatest length.
    n_background : int
        Utterances between two clips.

    Raises
    ------
    ConfigError
        If there are no clips or no background, `most_s` is too short for one clip, or the noise
        is silent.
    """
    if not clips or not background:
        raise ConfigError(
            f"A stream needs clips and background speech. Received: {len(clips)} clips, "
            f"{len(background)} utterances. Give folders that hold both."
        )
    random = np.random.default_rng(seed)
    pieces: list[npt.NDArray[np.float32]] = []
    words: list[Word] = []
    used: list[Path] = []
    parts: list[Part] = []
    at = 0
    utterances = _endless(background, random)
    for i in random.permutation(len(clips)):
        word, path = clips[i]
        clip = read_samples(path)
        span = speech_span(clip, said=word)
        drawn = [next(utterances) for _ in range(n_background)]
        before = [_levelled(read_samples(utterance)) for utterance in drawn]
        part = [*_spaced(before, random), _levelled(clip, span=span)]
        n_part = sum(len(piece) for piece in part)
        if most_s is not None and at + n_part > most_s * RATE_HZ:
            break
        start = at + n_part - len(clip)
        start_s, end_s = ((start + edge) / RATE_HZ for edge in span)
        words.append(Word(word=word, start_s=round(start_s, 3), end_s=round(end_s, 3)))
        used.append(path)
        parts += _parts(drawn, part, at)
        pieces += part
        at += n_part
    if not words:
        raise ConfigError(
            f"A stream must be long enough for an utterance and a keyword. Received: {most_s:g} s. "
            f"Make it longer."
        )
    last = next(utterances)
    n_left = None if most_s is None else round(most_s * RATE_HZ) - at
    pieces.append(_levelled(read_samples(last))[:n_left])
    parts += _parts([last], pieces[-1:], at)
    samples = np.concatenate(pieces)
    if noise and not math.isinf(snr_db):
        _lay_noise(samples, noise, snr_db, random, rule=snr_rule)
    return Stream(
        np.clip(np.rint(samples, out=samples), -32768, 32767).astype(np.int16),
        tuple(words),
        clips=tuple(used),
        background=tuple(parts),
        name=f"{snr_db:g} dB" if noise and not math.isinf(snr_db) else "clean",
    )


def keyword_clips(
    data: Path, keywords: Sequence[str], *, split: SplitName = "test"
) -> list[tuple[str, Path]]:
    """Return the clips of an official split, or all, by name."""
    return [
        (path.parent.name, path)
        for path in audio_files(data, optional=True)
        if path.parent.name in keywords and split in (official_split(path), "all")
    ]


def noise_below(folder: Path, pattern: str = "*") -> list[Path]:
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
            f"matches none below {folder}. Mend it; `*` takes all."
        )
    return found


def _endless(paths: Sequence[Path], random: np.random.Generator) -> Iterator[Path]:
    while True:
        for i in random.permutation(len(paths)):
            yield paths[i]


def _spaced(
    utterances: Sequence[npt.NDArray[np.float32]], random: np.random.Generator
) -> Iterator[npt.NDArray[np.float32]]:
    """Put a short pause behind each."""
    for utterance in utterances:
        yield utterance
        yield np.zeros(int(random.uniform(0.1, 0.5) * RATE_HZ), np.float32)


def _levelled(samples: Samples, *, span: tuple[int, int] | None = None) -> npt.NDArray[np.float32]:
    """Bring speech to a common level, without clipping it."""
    wave = samples.astype(np.float32)
    start, end = span or (0, len(wave))
    rms = float(np.sqrt(np.mean(wave[start:end] ** 2)) + 1.0)
    return wave * min(_SPEECH_RMS / rms, 30_000 / (float(np.abs(wave).max()) + 1.0))


def _parts(
    utterances: Sequence[Path], pieces: Sequence[npt.NDArray[np.float32]], at: int
) -> Iterator[Part]:
    """Say where utterances lie that are every second piece from sample `at` on."""
    edges = at + np.cumsum([0, *(len(piece) for piece in pieces)])
    for i, utterance in enumerate(utterances):
        yield Part(utterance, float(edges[2 * i] / RATE_HZ), float(edges[2 * i + 1] / RATE_HZ))


def _lay_noise(
    samples: npt.NDArray[np.float32],
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


def _peak_rms(wave: npt.NDArray[np.float32]) -> float:
    """Return the RMS of the loudest 512 samples, of frames end to end."""
    frames = np.resize(wave, (-(-len(wave) // _PEAK_SAMPLES), _PEAK_SAMPLES))
    return float(np.sqrt(np.mean(frames**2, axis=1).max()))
