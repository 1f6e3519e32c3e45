"""Clips of a word, spliced from phones of recorded clips of other words.

Forced alignment with pocketsphinx finds the phones: the vowel of *stop* and the F of *left* make
*off*. All parts are of one speaker if that speaker recorded all the words, else of two speakers of
the same official split; later parts should therefore be unvoiced phones, which vary little between
voices. File names keep the speaker of the first part, and so the official split.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray
from pocketsphinx import Decoder
from rich.console import Console
from rich.progress import track

from kws.arrays import Samples
from kws.audio import SAMPLE_RATE_HZ as RATE_HZ
from kws.errors import ConfigError
from kws_train.data.audio_files import audio_files, read_samples, readable
from kws_train.data.splits import official_split, speaker_of
from kws_train.scenes.augment import stretch as stretched

__all__ = ["PhoneSource", "splice"]

PhoneSource = tuple[str, str]
"""A word and one of its phones, in ARPAbet: ("stop", "AA")."""

_JOIN = RATE_HZ // 80  # samples of a cross-fade
_EDGE = RATE_HZ // 5  # background kept before and after
_FRAME = RATE_HZ // 100
_MIN_SAMPLES = RATE_HZ // 20
_MAX_PEAK = 20_000
_MARGIN = 512  # samples around a phone, which time-stretching needs at its edges


def splice(
    corpus: Path,
    out: Path,
    *,
    word: str,
    parts: Sequence[PhoneSource],
    seed: int = 1,
    most: int = 1000,
    stretch: tuple[float, float] = (1.0, 1.0),
) -> int:
    """Write clips of `word`, spliced from phones of a `word/speaker_nohash_n.*` corpus.

    Parameters
    ----------
    corpus, out : Path
        Clips go to `out/word/`.
    word : str
    parts : sequence of (word, phone)
        Phones to join, in order. The clip of the first gives background and level: choose a vowel.
    seed : int
        Of the choice and pairing of clips; each clip of the first part is used once.
    most : int
        Clips of each word that are aligned, drawn at random.
    stretch : (float, float)
        Range of the random time-stretch of each part, at constant pitch: a phone within a word is
        shorter than the same phone at its end.

    Returns
    -------
    int
        Clips written.

    Raises
    ------
    ConfigError
        If the corpus lacks a word, its clips lack the phone, or `stretch` is no range.
    """
    if malformed := [part for part in parts if not all(part)]:
        raise ConfigError(
            f"A part must be a word and one of its phones, such as stop:AA. Received: "
            f"{':'.join(malformed[0])}. Give both."
        )
    if not 0 < stretch[0] <= stretch[1]:
        raise ConfigError(
            f"The range of a time-stretch must be positive, the lower number first. Received: "
            f"--stretch {stretch[0]:g} {stretch[1]:g}. Give LOW and HIGH."
        )
    random = np.random.default_rng(seed)
    first, *others = (_find(corpus, *part, most=most, random=random) for part in parts)
    folder = out / word
    folder.mkdir(parents=True, exist_ok=True)
    for i, (path, part) in enumerate(first):
        chosen = [_partner(path, other, random, corpus=corpus) for other in others]
        stretches = random.uniform(*stretch, len(parts))
        name = f"{speaker_of(path, root=corpus)}_nohash_{i}.flac"
        soundfile.write(folder / name, _joined([part, *chosen], stretches), RATE_HZ)
    return len(first)


PhoneSpan = tuple[Samples, int, int]
"""A clip, and the samples [start, end) of a phone in it."""


def _find(
    corpus: Path, word: str, phone: str, *, most: int, random: np.random.Generator
) -> list[tuple[Path, PhoneSpan]]:
    """Return the phone in clips of the word, by file name; clips that do not align are omitted."""
    paths = readable(audio_files(corpus / word))
    chosen = sorted(paths[i] for i in random.permutation(len(paths))[:most])
    decoder = Decoder(lm=None, loglevel="FATAL", bestpath=False)
    found = []
    for path in track(chosen, f"Aligning {phone} in {word}", console=Console(stderr=True)):
        samples = read_samples(path)
        try:
            spans = [(a, b) for name, a, b in _phones(decoder, samples, word) if name == phone]
        except RuntimeError:  # the clip ends within the word; the decoder is unusable afterwards
            decoder = Decoder(lm=None, loglevel="FATAL", bestpath=False)
            continue
        if len(spans) == 1 and spans[0][1] - spans[0][0] >= _MIN_SAMPLES:
            found.append((path, (samples, *spans[0])))
    if not found:
        raise ConfigError(
            f"A part must be a phone said once in a word. Received: {phone} of {word}, found in "
            f"none of {len(paths)} clips. Give ARPAbet as in the CMU dictionary."
        )
    return found


def _partner(
    path: Path,
    found: list[tuple[Path, PhoneSpan]],
    random: np.random.Generator,
    *,
    corpus: Path,
) -> PhoneSpan:
    """Draw a part of the same speaker, else of the same split, else of any."""
    speaker, split = speaker_of(path, root=corpus), official_split(path, root=corpus)
    same = [part for other, part in found if speaker_of(other, root=corpus) == speaker]
    pool = same or [part for other, part in found if official_split(other, root=corpus) == split]
    pool = pool or [part for _, part in found]
    return pool[int(random.integers(len(pool)))]


def _phones(decoder: Decoder, samples: Samples, word: str) -> Iterator[tuple[str, int, int]]:
    """Align a clip twice: by words, then by phones; give (phone, start, end) in samples."""
    decoder.reinit_feat()
    decoder.set_align_text(word)
    _decode(decoder, samples)
    if not decoder.hyp():
        return
    decoder.set_alignment()
    _decode(decoder, samples)  # calling `hyp` here would crash pocketsphinx 5.1
    for word_entry in decoder.get_alignment():
        for part in word_entry:
            yield part.name, part.start * _FRAME, (part.start + part.duration) * _FRAME


def _decode(decoder: Decoder, samples: Samples) -> None:
    decoder.start_utt()
    decoder.process_raw(samples.tobytes(), full_utt=True)
    decoder.end_utt()


def _joined(parts: Sequence[PhoneSpan], stretches: NDArray[np.float64]) -> Samples:
    """Join phones with short cross-fades, levels matched, in the first clip's background.

    The last one fades out over its second half, as at the end of a word.
    """
    first = parts[0][0]
    level = _rms(first)
    pieces = [_background(first)]
    for (samples, start, end), times in zip(parts, stretches, strict=True):
        pieces.append(
            _stretched_phone(samples, start, end, times) * np.float32(level / _rms(samples))
        )
    half = len(pieces[-1]) // 2
    pieces[-1][half:] *= np.linspace(1, 0, len(pieces[-1]) - half, dtype=np.float32)
    pieces.append(_background(first))
    whole = pieces[0]
    rise = np.linspace(0, 1, _JOIN, dtype=np.float32)
    for piece in pieces[1:]:
        overlap = whole[-_JOIN:] * (1 - rise) + piece[:_JOIN] * rise
        whole = np.concatenate((whole[:-_JOIN], overlap, piece[_JOIN:]))
    whole *= min(1.0, _MAX_PEAK / np.abs(whole).max())
    return whole.astype(np.int16)


def _stretched_phone(samples: Samples, start: int, end: int, times: float) -> NDArray[np.float32]:
    """Cut out a phone and stretch it in time, with its surroundings as context."""
    before, after = min(start, _MARGIN), min(len(samples) - end, _MARGIN)
    wider = samples[start - before : end + after].astype(np.float32)
    longer = wider if times == 1.0 else stretched(wider, 1 / times)
    first = round(before * times)
    return longer[first : first + round((end - start) * times)]


def _background(samples: Samples) -> NDArray[np.float32]:
    """Return the quieter end of a clip."""
    ends = samples[:_EDGE], samples[-_EDGE:]
    return min(ends, key=_rms).astype(np.float32)


def _rms(samples: Samples) -> float:
    return float(np.sqrt(np.mean(samples.astype(np.float64) ** 2)) + 1.0)
