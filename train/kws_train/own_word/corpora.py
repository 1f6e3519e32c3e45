"""Speech, other words and noise in the layout of training: imported, cut or generated."""

import hashlib
import itertools
import math
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import numpy as np
import soundfile

from kws.audio import SAMPLE_RATE_HZ as RATE_HZ
from kws.errors import FormatError
from kws_train.atomic import link
from kws_train.data.audio_files import audio_files, log_left_out, read_samples, readable
from kws_train.data.speakers import quarters_of_speakers, speaker_of_file
from kws_train.data.splits import is_validation, official_split, speaker_of, word_of
from kws_train.synth.lexicon import common_words, probability

__all__ = [
    "cut_words",
    "generate_noise",
    "import_noise",
    "import_speech",
    "import_words",
    "random_sentences",
    "split_voices",
]

_TEST_SHARE = 0.2  # of noise
_HELD_OUT = ("test", "validation")
_VOICE_SHARES = (0.1, 0.1)  # of voices, for testing and for validation
_MIN_VOICES_TO_SPLIT = 20
_MIN_FILES_TO_SPLIT = 10
_MIN_SPEAKERS_TO_SPLIT = 12
_SEGMENT_S = 10.0
_VALIDATION_EVERY = 10  # of speech segments
_MAX_CLIPS_PER_WORD = 50
_NOISE_S = 30
_NOISE_EXPONENTS = {"white": 0.0, "pink": 0.5, "brown": 1.0}  # of 1/f on the amplitude
_CUT_S = (0.35, 1.1)


def split_voices(clips: Path, out: Path, *, words: Collection[str] = ()) -> None:
    """Link synthetic clips below `out/train`, `out/validation` and `out/test`, each voice in one.

    With fewer than twenty voices, or where a split would lack one of `words`, the clips of each
    word are split instead of the voices.

    Parameters
    ----------
    clips, out : Path
    words : collection of str
        The phrases, which every split needs.
    """
    paths = audio_files(clips)
    voices = [speaker_of(path) for path in paths]
    splits = _split_in_order(dict.fromkeys(voices))
    given = [splits[voice] for voice in voices]
    held = {(split, path.parent.name) for split, path in zip(given, paths, strict=True)}
    is_whole = all((split, word) in held for split in ("train", *_HELD_OUT) for word in words)
    if len(splits) < _MIN_VOICES_TO_SPLIT or not is_whole:
        given = []
        for _, clips_of_word in itertools.groupby(paths, key=lambda path: path.parent.name):
            names = [path.name for path in clips_of_word]
            of_clip = _split_in_order(names)
            given += [of_clip[name] for name in names]
    for split, path in zip(given, paths, strict=True):
        link(path, out / split / path.parent.name / path.name)


def _split_in_order(names: Iterable[str]) -> dict[str, str]:
    """Return the split of each voice or clip, by hashes; the first are held out."""
    order = sorted(names, key=_hash)
    splits = dict.fromkeys(order, "train")
    if len(order) < len(_HELD_OUT) + 1:
        return splits
    at = 0
    for split, share in zip(_HELD_OUT, _VOICE_SHARES, strict=True):
        n = math.ceil(share * len(order))
        splits |= dict.fromkeys(order[at : at + n], split)
        at += n
    return splits


def import_speech(folder: Path, out: Path) -> None:
    """Cut audio into segments of 10 s below `out/train` and `out/test`.

    Of twelve speakers or more (subfolders, or else files) in order of name, two train, one is for
    validation and one for testing, and so on. Of less, four fifths of the segments are below
    `out/train` and the rest below `out/test`, split by whole files if there are ten; one in ten of
    the training segments is for validation. `kws_train.data.splits.is_validation` knows those by
    their names.
    """
    done = out / f"{folder.name}.done"
    if done.is_file():
        return
    paths = audio_files(folder)
    left_out: dict[Path, str] = {}
    quarters = quarters_of_speakers(paths, folder)
    by_speaker = len(quarters) >= _MIN_SPEAKERS_TO_SPLIT
    n = round(_SEGMENT_S * RATE_HZ)
    n_train = 0
    for split in ("train", "test"):
        (out / split).mkdir(parents=True, exist_ok=True)
    for i, path in enumerate(paths):
        try:
            samples = read_samples(path)
        except FormatError as error:
            left_out[path] = str(error)
            continue
        quarter = quarters[speaker_of_file(path, folder)]
        for k, start in enumerate(range(0, max(1, len(samples) - n // 4), n)):
            is_test = (i if len(paths) >= _MIN_FILES_TO_SPLIT else k) % 5 == 4
            if by_speaker:
                is_test = quarter == 3
            name = f"{folder.name}-{i:05d}-{k:05d}"
            if not is_test:
                n_train += 1
                for_validation = quarter == 2 if by_speaker else n_train % _VALIDATION_EVERY == 0
                name = _name_for_split(name, for_validation=for_validation)
            segment = out / ("test" if is_test else "train") / f"{name}.flac"
            soundfile.write(segment, samples[start : start + n], RATE_HZ)
    log_left_out(left_out)
    done.touch()


def import_words(folder: Path, out: Path, *, without: Sequence[str], seed: int) -> None:
    """Link clips of each word of a Speech-Commands-shaped folder, 50 at most, except phrases."""
    done = out / f"{folder.name}.done"
    if done.is_file():
        return
    random = np.random.default_rng(seed)
    words: dict[str, list[Path]] = {}
    for path in audio_files(folder):
        word = word_of(path, folder)
        if word not in without and not word.startswith("_"):
            words.setdefault(word, []).append(path)
    for word, paths in words.items():
        known = [path for path in paths if official_split(path, root=folder) != "test"]
        for i in random.permutation(len(known))[:_MAX_CLIPS_PER_WORD]:
            name = "-".join(known[i].relative_to(folder).parts[1:]) or known[i].name
            link(known[i], out / word / name)
    out.mkdir(parents=True, exist_ok=True)
    done.touch()


def cut_words(speech: Sequence[Path], out: Path, *, n: int, seed: int) -> None:
    """Cut random segments of the length of a word out of speech, below `out/cut`."""
    random = np.random.default_rng(seed)
    folder = out / "cut"
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(n):
        path = folder / f"{k:04d}_nohash_0.flac"
        if path.is_file():
            continue
        samples = read_samples(speech[int(random.integers(len(speech)))])
        length = min(round(random.uniform(*_CUT_S) * RATE_HZ), len(samples))
        start = int(random.integers(max(1, len(samples) - length)))
        soundfile.write(path, samples[start : start + length], RATE_HZ)


def import_noise(folder: Path, out: Path) -> None:
    """Link recordings of noise, four fifths below `out/train`, the rest below `out/test`.

    Each folder is a kind of noise and stays one.
    Names that differ only after the last hyphen are of one recording and in one split. Fewer than
    ten files are in both. A folder that is divided into `train` and `test` stays so.
    """
    if all((folder / split).is_dir() for split in ("train", "test")):
        for split in ("train", "test"):
            for path in readable(audio_files(folder / split)):
                link(path, out / split / path.parent.name / path.name)
        return
    paths = readable(audio_files(folder))
    for path in paths:
        is_test = _hash(path.stem.rpartition("-")[0] or path.stem) < _TEST_SHARE
        is_in_both = len(paths) < _MIN_FILES_TO_SPLIT
        for split in ("train", "test") if is_in_both else ("test" if is_test else "train",):
            link(path, out / split / path.parent.name / path.name)


def generate_noise(out: Path, *, seed: int) -> None:
    """Write half a minute each of white, pink and brown noise below `out/train` and `out/test`."""
    random = np.random.default_rng(seed)
    n = _NOISE_S * RATE_HZ
    for split in ("train", "test"):
        (out / split).mkdir(parents=True, exist_ok=True)
        for colour, exponent in _NOISE_EXPONENTS.items():
            spectrum = np.fft.rfft(random.normal(size=n))
            spectrum /= np.maximum(1, np.arange(len(spectrum)) / n * 500) ** exponent
            wave = np.fft.irfft(spectrum, n)
            samples = np.clip(3000 * wave / wave.std(), -32768, 32767).astype(np.int16)
            soundfile.write(out / split / f"{colour}.flac", samples, RATE_HZ)


def random_sentences(
    n: int, *, without: Sequence[str] = (), n_words: int = 7, seed: int = 1
) -> list[str]:
    """Return sequences of English words, drawn by their frequency in speech.

    None contains a phrase of `without`, which are written as labels: `hey_computer`.
    """
    words = common_words()
    weights = np.array([probability(word) for word in words])
    random = np.random.default_rng(seed)
    drawn = random.choice(len(words), (2 * n, n_words), p=weights / weights.sum())
    rows = [" ".join(words[i] for i in row) for row in drawn]
    excluded = [f" {label.replace('_', ' ')} " for label in without]
    return [row for row in rows if not any(one in f" {row} " for one in excluded)][:n]


def _name_for_split(name: str, *, for_validation: bool) -> str:
    """Return a name with as many letters appended as it takes to be in the wanted split."""
    for n_letters in itertools.count():
        longer = name + "x" * n_letters
        if is_validation(longer) == for_validation:
            break
    return longer


def _hash(name: str) -> float:
    """Return a number in 0..1 that depends on a name only."""
    digest = hashlib.sha1(name.encode(), usedforsecurity=False).digest()
    return int.from_bytes(digest[:4]) / 2**32
