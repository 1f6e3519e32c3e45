"""Words made of parts of other words: real voices and microphones for a word without recordings.

Phones are found by forced alignment with pocketsphinx: the vowel of *stop* and the F of *left* make
*off*. Parts are of one speaker where that speaker says all the words, else of two of the same
official split: take unvoiced phones for the further parts, which tell little of a voice. File names
keep the speaker of the first part, and so the official split.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray
from pocketsphinx import Decoder
from rich.console import Console
from rich.progress import track

from kws.audio import SAMPLE_RATE_HZ as RATE_HZ
from kws.errors import ConfigError
from kws_train.data.audio_files import audio_files, read_samples
from kws_train.data.splits import official_split, speaker_of
from kws_train.scenes.augment import stretch as stretched

__all__ = ["Part", "splice"]

Samples = NDArray[np.int16]
Part = tuple[str, str]
"""A word and one of its phones, in ARPAbet: ("stop", "AA")."""

_JOIN = RATE_HZ // 80  # samples that two parts overlap
_EDGE = RATE_HZ // 5  # background kept before and after
_FRAME = RATE_HZ // 100
_SHORTEST = RATE_HZ // 20
_LOUDEST = 20_000
_MARGIN = 512  # heard with a phone on either side, so that its edges can be drawn out


def splice(
    corpus: Path,
    out: Path,
    *,
    word: str,
    parts: Sequence[Part],
    seed: int = 1,
    most: int = 1000,
    stretch: tuple[float, float] = (1.0, 1.0),
) -> int:
    """Write clips of `word`, made of phones of the clips of a `word/speaker_nohash_n.*` corpus.

    Parameters
    ----------
    corpus, out : Path
        Clips go to `out/word/`.
    word : str
    parts : sequence of (word, phone)
        What to join, in order; the vowel first, whose clip gives background and level.
    seed : int
        Of the choice and pairing of clips; each clip of the first part is used once.
    most : int
        Clips of each word to look for its phone in, drawn at random.
    stretch : (float, float)
        Each part lasts between so many times as long, at its pitch: a phone within a word is
        shorter than the same phone at the end of one.

    Returns
    -------
    int
        Clips written.

    Raises
    ------
    ConfigError
        If the corpus holds none of the words, their clips hold no such phone, or `stretch` is no
        range.
    """
    if malformed := [part for part in parts if not all(part)]:
        raise ConfigError(
            f"A part must be a word and one of its phones, such as stop:AA. Received: "
            f"{':'.join(malformed[0])}. Give both."
        )
    if not 0 < stretch[0] <= stretch[1]:
        raise ConfigError(
            f"A part must last between so many times as long, the lower number first. Received: "
            f"--stretch {stretch[0]:g} {stretch[1]:g}. Give LOW and HIGH."
        )
    random = np.random.default_rng(seed)
    first, *others = (_find(corpus, *part, most=most, random=random) for part in parts)
    folder = out / word
    folder.mkdir(parents=True, exist_ok=True)
    for i, (path, part) in enumerate(first):
        chosen = [_partner(path, other, random) for other in others]
        lasts = random.uniform(*stretch, len(parts))
        name = f"{speaker_of(path)}_nohash_{i}.flac"
        soundfile.write(folder / name, _joined([part, *chosen], lasts), RATE_HZ)
    return len(first)


Phone = tuple[Samples, int, int]
"""A clip, and the samples [start, end) of a phone in it."""


def _find(
    corpus: Path, word: str, phone: str, *, most: int, random: np.random.Generator
) -> list[tuple[Path, Phone]]:
    """Return the phone in clips of the word, by file name; clips that do not align are left out."""
    paths = audio_files(corpus / word)
    chosen = sorted(paths[i] for i in random.permutation(len(paths))[:most])
    decoder = Decoder(lm=None, loglevel="FATAL", bestpath=False)
    found = []
    for path in track(chosen, f"Looking for {phone} in {word}", console=Console(stderr=True)):
        samples = read_samples(path)
        try:
            spans = [(a, b) for name, a, b in _phones(decoder, samples, word) if name == phone]
        except RuntimeError:  # the clip ends within the word; the decoder cannot be used again
            decoder = Decoder(lm=None, loglevel="FATAL", bestpath=False)
            continue
        if len(spans) == 1 and spans[0][1] - spans[0][0] >= _SHORTEST:
            found.append((path, (samples, *spans[0])))
    if not found:
        raise ConfigError(
            f"A part must be a phone said once in a word. Received: {phone} of {word}, found in "
            f"none of {len(paths)} clips. Give ARPAbet as in the CMU dictionary."
        )
    return found


def _partner(path: Path, found: list[tuple[Path, Phone]], random: np.random.Generator) -> Phone:
    """Draw a part of the same speaker, or of another of the same split."""
    same = [part for other, part in found if speaker_of(other) == speaker_of(path)]
    split = official_split(path)
    pool = same or [part for other, part in found if official_split(other) == split]
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
    _decode(decoder, samples)  # its `hyp` must not be asked for: that crashes pocketsphinx 5.1
    for said in decoder.get_alignment():
        for part in said:
            yield part.name, part.start * _FRAME, (part.start + part.duration) * _FRAME


def _decode(decoder: Decoder, samples: Samples) -> None:
    decoder.start_utt()
    decoder.process_raw(samples.tobytes(), full_utt=True)
    decoder.end_utt()


def _joined(parts: Sequence[Phone], lasts: NDArray[np.float64]) -> Samples:
    """Join phones with short cross-fades, levels matched, in the first clip's background.

    The last one dies away over its second half, as at the end of a word.
    """
    first = parts[0][0]
    level = _rms(first)
    pieces = [_background(first)]
    for (samples, start, end), times in zip(parts, lasts, strict=True):
        pieces.append(_lasting(samples, start, end, times) * np.float32(level / _rms(samples)))
    half = len(pieces[-1]) // 2
    pieces[-1][half:] *= np.linspace(1, 0, len(pieces[-1]) - half, dtype=np.float32)
    pieces.append(_background(first))
    whole = pieces[0]
    rise = np.linspace(0, 1, _JOIN, dtype=np.float32)
    for piece in pieces[1:]:
        overlap = whole[-_JOIN:] * (1 - rise) + piece[:_JOIN] * rise
        whole = np.concatenate((whole[:-_JOIN], overlap, piece[_JOIN:]))
    whole *= min(1.0, _LOUDEST / np.abs(whole).max())
    return whole.astype(np.int16)


def _lasting(samples: Samples, start: int, end: int, times: float) -> NDArray[np.float32]:
    """Cut a phone out so that it lasts `times` as long; it goes on at its edges as in its clip."""
    before, after = min(start, _MARGIN), min(len(samples) - end, _MARGIN)
    wider = samples[start - before : end + after].astype(np.float32)
    longer = wider if times == 1.0 else stretched(wider, 1 / times)
    first = round(before * times)
    return longer[first : first + round((end - start) * times)]


def _background(samples: Samples) -> NDArray[np.float32]:
    """Return the quieter of a clip's ends."""
    ends = samples[:_EDGE], samples[-_EDGE:]
    return min(ends, key=_rms).astype(np.float32)


def _rms(samples: Samples) -> float:
    return float(np.sqrt(np.mean(samples.astype(np.float64) ** 2)) + 1.0)
