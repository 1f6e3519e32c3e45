"""What the user has, brought into the shape that training reads."""

import hashlib
import itertools
import logging
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np
import soundfile

from kws.audio import SAMPLE_RATE_HZ as RATE_HZ
from kws.commands.record import Takes, loudest_dbfs
from kws.errors import ConfigError, FormatError
from kws.features import Samples
from kws_train.atomic import link
from kws_train.data.corpus import audio_below, official_split, read_samples, speaker_of, validates
from kws_train.scenes.scenes import speech_span
from kws_train.synth.clip_checks import find_defect, trim_silence
from kws_train.synth.lexicon import common_words, probability

__all__ = [
    "SPLITS",
    "Gathered",
    "coloured_noise",
    "cut_words",
    "gather_noise",
    "gather_recordings",
    "gather_speech",
    "gather_words",
    "sentences",
    "share_voices",
]

log = logging.getLogger("kws_train.own_word")

SPLITS = ("train", "validation", "test")
"""What recordings are divided into."""

_FAINTEST_DBFS = -55.0  # of the loudest 20 ms: fainter is a microphone's own noise
_MARGIN_S = 0.25
_CLIP_S = 4.0  # what is longer is searched for takes
_FEWEST_TO_TEST = 10
_TEST_SHARE, _VALIDATION_SHARE = 0.2, 0.1
_SPOKEN_SHARES = (0.1, 0.1)  # of voices, that test and that validate
_PIECE_S = 10.0
_VALIDATING = 10
_MANY_FILES = 10
_MANY_VOICES = 20
_N_OF_A_WORD = 50
_NOISE_S = 30
_COLOURS = {"white": 0.0, "pink": 0.5, "brown": 1.0}  # exponents of 1/f on the amplitude
_CUT_S = (0.35, 1.1)


class Gathered(msgspec.Struct, frozen=True, kw_only=True):
    """What became of recordings of a phrase.

    Attributes
    ----------
    n : dict of str to int
        Clips by split: `train`, `validation`, `test`.
    left_out : dict of str to str
        Files, and why.
    n_narrow : int
        Recordings of less than 16 kHz, which have nothing above half their rate.
    """

    n: dict[str, int]
    left_out: dict[str, str]
    n_narrow: int

    def describe(self) -> str:
        """Say it in one line."""
        counts = ", ".join(f"{n} for {split}" for split, n in self.n.items() if n) or "none of use"
        left_out = f"; {len(self.left_out)} left out" if self.left_out else ""
        narrow = f"; {self.n_narrow} of less than 16 kHz" if self.n_narrow else ""
        return f"{counts}{left_out}{narrow}"


def gather_recordings(
    folder: Path, out: Path, *, label: str, splits: Sequence[str] = SPLITS
) -> Gathered:
    """Cut recordings of a phrase into clips below `out`, by split.

    A recording longer than four seconds is cut into takes by voice activity. Neighbours by name
    are taken for one speaker's, so that splits are ranges: the last fifth is for the figures if
    there are ten or more, the tenth before it validates.

    Parameters
    ----------
    folder : Path
        Holds recordings, or a folder named `label` that does.
    out : Path
    label : str
    splits : sequence of str
        Which of `SPLITS` there are to be; of `test` alone, all are for that.

    Raises
    ------
    ConfigError
        If there is no recording, or nothing is said in any.
    """
    done = out / f"{label}.{'-'.join(splits)}.json"
    if done.is_file():
        return msgspec.json.decode(done.read_bytes(), type=Gathered)
    paths = audio_below(folder / label if (folder / label).is_dir() else folder)
    left_out: dict[str, str] = {}
    takes: list[tuple[str, list[Samples]]] = []
    n_narrow = 0
    for path in paths:
        try:
            found = list(_takes(read_samples(path), text=label))
            n_narrow += soundfile.info(path).samplerate < RATE_HZ
        except FormatError as error:
            left_out[str(path)] = str(error)
            continue
        if not found:
            left_out[str(path)] = f"A recording must hold the phrase. Received: no voice in {path}."
            continue
        takes.append((path.stem, found))
    if not takes:
        reason = next(iter(left_out.values()))
        raise ConfigError(
            f"Recordings must hold the phrase `{label}`, spoken. Received: {len(paths)} files in "
            f"{folder}, none of use, the first since: {reason} Record it: `kws record {label}`."
        )
    counts = dict.fromkeys(SPLITS, 0)
    for split, (name, clips) in zip(_split(len(takes), splits), takes, strict=True):
        for i, samples in enumerate(clips):
            path = out / split / label / f"{name.replace('_nohash_', '-')}_nohash_{i}.flac"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, samples, RATE_HZ)
            counts[split] += 1
    gathered = Gathered(n=counts, left_out=left_out, n_narrow=n_narrow)
    done.write_bytes(msgspec.json.encode(gathered))
    return gathered


def share_voices(said: Path, out: Path) -> None:
    """Link synthetic clips below `out/train`, `out/validation` and `out/test`, each voice in one.

    With fewer than twenty voices, voices are shared and clips are not.
    """
    clips = audio_below(said)
    by_voice = len({speaker_of(path) for path in clips}) >= _MANY_VOICES
    names = [speaker_of(path) if by_voice else path.name for path in clips]
    order = sorted(set(names), key=_place)
    n_test, n_validation = (math.ceil(share * len(order)) for share in _SPOKEN_SHARES)
    splits = dict.fromkeys(order, "train")
    splits |= dict.fromkeys(order[:n_test], "test")
    splits |= dict.fromkeys(order[n_test : n_test + n_validation], "validation")
    for name, path in zip(names, clips, strict=True):
        link(path, out / splits[name] / path.parent.name / path.name)


def gather_speech(folder: Path, out: Path) -> None:
    """Cut any audio into pieces of 10 s, four fifths below `out/train`, the rest below `out/test`.

    Of ten files and more, whole files are for the one or the other. One in ten of what trains is
    named so that it validates, see `validates`.
    """
    done = out / f"{folder.name}.done"
    if done.is_file():
        return
    paths = audio_below(folder)
    n = round(_PIECE_S * RATE_HZ)
    n_train = 0
    for split in ("train", "test"):
        (out / split).mkdir(parents=True, exist_ok=True)
    for i, path in enumerate(paths):
        try:
            samples = read_samples(path)
        except FormatError as error:
            log.warning("left out: %s", error)
            continue
        for k, start in enumerate(range(0, max(1, len(samples) - n // 4), n)):
            tested = (i if len(paths) >= _MANY_FILES else k) % 5 == 4
            name = f"{folder.name}-{i:05d}-{k:05d}"
            if not tested:
                n_train += 1
                name = _named(name, validating=n_train % _VALIDATING == 0)
            piece = out / ("test" if tested else "train") / f"{name}.flac"
            soundfile.write(piece, samples[start : start + n], RATE_HZ)
    done.touch()


def gather_words(folder: Path, out: Path, *, without: Sequence[str], seed: int) -> None:
    """Link some clips of each word of a Speech-Commands-shaped folder, but for the phrases."""
    done = out / f"{folder.name}.done"
    if done.is_file():
        return
    random = np.random.default_rng(seed)
    words: dict[str, list[Path]] = {}
    for path in audio_below(folder):
        if path.parent.name not in without and not path.parent.name.startswith("_"):
            words.setdefault(path.parent.name, []).append(path)
    for word, paths in words.items():
        known = [path for path in paths if official_split(path) != "test"]
        for i in random.permutation(len(known))[:_N_OF_A_WORD]:
            link(known[i], out / word / known[i].name)
    done.touch()


def cut_words(speech: Sequence[Path], out: Path, *, n: int, seed: int) -> None:
    """Cut stretches as long as a word out of speech, as other words where there are none."""
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


def gather_noise(folder: Path, out: Path) -> None:
    """Link recordings of noise, four fifths below `out/train`, the rest below `out/test`.

    What differs only behind the last hyphen of the name is taken for one recording's. Few files
    are for both. A folder that is divided into `train` and `test` stays so.
    """
    if all((folder / split).is_dir() for split in ("train", "test")):
        for split in ("train", "test"):
            for path in audio_below(folder / split):
                link(path, out / split / f"{path.parent.name}-{path.name}")
        return
    paths = audio_below(folder)
    for path in paths:
        tested = _place(path.stem.rpartition("-")[0] or path.stem) < _TEST_SHARE
        few = len(paths) < _MANY_FILES
        for split in ("train", "test") if few else ("test" if tested else "train",):
            link(path, out / split / f"{path.parent.name}-{path.name}")


def coloured_noise(out: Path, *, seed: int) -> None:
    """Write half a minute of white, pink and brown noise each, below `out/train` and `out/test`."""
    random = np.random.default_rng(seed)
    n = _NOISE_S * RATE_HZ
    for split in ("train", "test"):
        (out / split).mkdir(parents=True, exist_ok=True)
        for colour, exponent in _COLOURS.items():
            spectrum = np.fft.rfft(random.normal(size=n))
            spectrum /= np.maximum(1, np.arange(len(spectrum)) / n * 500) ** exponent
            wave = np.fft.irfft(spectrum, n)
            samples = np.clip(3000 * wave / wave.std(), -32768, 32767).astype(np.int16)
            soundfile.write(out / split / f"{colour}.flac", samples, RATE_HZ)


def sentences(n: int, *, without: Sequence[str] = (), n_words: int = 7, seed: int = 1) -> list[str]:
    """Return rows of English words, drawn as often as people say them: speech without sense.

    None holds a phrase of `without`, which are written as labels: `hey_computer`.
    """
    words = common_words()
    weights = np.array([probability(word) for word in words])
    random = np.random.default_rng(seed)
    drawn = random.choice(len(words), (2 * n, n_words), p=weights / weights.sum())
    rows = [" ".join(words[i] for i in row) for row in drawn]
    barred = [f" {label.replace('_', ' ')} " for label in without]
    return [row for row in rows if not any(one in f" {row} " for one in barred)][:n]


def _takes(samples: Samples, *, text: str) -> Iterator[Samples]:
    """Give the stretches of speech in a recording that may be the phrase."""
    if len(samples) <= _CLIP_S * RATE_HZ:
        whole = [_around(samples, text=text)]
    else:
        takes = Takes()
        found = (*takes.process(samples), *takes.flush())
        whole = [trim_silence(take.samples) for take in found]
    for clip in whole:
        if find_defect(clip, text=text) is None and loudest_dbfs(clip) > _FAINTEST_DBFS:
            yield clip


def _around(samples: Samples, *, text: str) -> Samples:
    """Cut what is spoken out of a short recording, with a little of the room around it."""
    start, end = speech_span(samples, said=text)
    margin = round(_MARGIN_S * RATE_HZ)
    return samples[max(0, start - margin) : end + margin]


def _named(name: str, *, validating: bool) -> str:
    """Return a name with as many letters behind it as it takes to be in the split wanted."""
    for letters in itertools.count():
        longer = name + "x" * letters
        if validates(longer) == validating:
            break
    return longer


def _place(name: str) -> float:
    """Return a number in 0..1 that a name alone decides."""
    digest = hashlib.sha1(name.encode(), usedforsecurity=False).digest()
    return int.from_bytes(digest[:4]) / 2**32


def _split(n: int, splits: Sequence[str]) -> list[str]:
    """Return the split of each of n recordings in order; few ones all train."""
    if list(splits) == ["test"]:
        return ["test"] * n
    many = n >= _FEWEST_TO_TEST
    n_test = round(_TEST_SHARE * n) if many and "test" in splits else 0
    n_validation = max(1, round(_VALIDATION_SHARE * n)) if many else 0
    n_train = n - n_test - n_validation
    return ["train"] * n_train + ["validation"] * n_validation + ["test"] * n_test
