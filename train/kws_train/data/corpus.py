"""Corpora: which clips there are, which split each belongs to, and their samples.

Word corpora are Speech-Commands-shaped, `word/speaker_nohash_n.*`. Speech corpora are
LibriSpeech-shaped with word times from `kws_train.data.align`, or of any shape and without. Samples
are int16, mono, 16 kHz.
"""

import csv
import functools
import hashlib
import logging
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import soundfile
import soxr

from kws.audio import SAMPLE_RATE_HZ as RATE_HZ
from kws.errors import ConfigError, FormatError
from kws.features import Samples
from kws.manifest import UNKNOWN
from kws_train.data.align import Utterance, read_alignment, train_speakers
from kws_train.parallel import Failure, map_corpus
from kws_train.recipe import DataRecipe, SpeechCorpus, WordCorpus

__all__ = [
    "Clip",
    "Corpus",
    "Split",
    "SplitName",
    "Spoken",
    "audio_below",
    "audio_matching",
    "load_corpus",
    "official_split",
    "quiet_utterances",
    "read_samples",
    "speaker_of",
    "unaligned",
    "validates",
    "write_left_out",
]

log = logging.getLogger("kws.data")

Split: TypeAlias = Literal["train", "validation", "test"]
SplitName: TypeAlias = Literal["train", "validation", "test", "all"]
AUDIO_SUFFIXES = {".wav", ".flac", ".ogg", ".opus"}
_WORD_S = (0.05, 10.0)  # what is longer is a recording, not a clip of one word
_FEW_CLIPS = 5
_N_SAID = 5
_MAX_CLIPS_PER_CLASS = 2**27 - 1  # constant of the published rule


@dataclass(frozen=True)
class Clip:
    """One isolated word."""

    label: str
    word: str
    path: Path
    samples: Samples = field(repr=False)
    weight: float = 1.0
    """How often it is drawn, against others of its word."""
    real: bool = True
    """False: synthetic."""
    span: tuple[int, int] | None = None
    """Where the word is spoken, [start, end) in samples; None: not known, to be found by energy."""


@dataclass(frozen=True)
class Spoken:
    """One utterance of continuous speech and its words as (word, start, end) in samples."""

    path: Path
    samples: Samples = field(repr=False)
    words: tuple[tuple[str, int, int], ...]


@dataclass(frozen=True)
class Corpus:
    """Everything that one split is made of."""

    clips: dict[str, list[Clip]]
    """Isolated words by label; what is no keyword is under `_unknown_`."""
    speech: list[Spoken]
    noise: list[Samples]
    left_out: dict[Path, str]
    """Files and folders that were not used, and why."""
    noise_paths: list[Path] = field(default_factory=list)
    """Where each piece of noise comes from."""

    def wordless(self) -> list[Spoken]:
        """Return the noise as utterances in which nobody says a word."""
        return [
            Spoken(path, samples, ())
            for path, samples in zip(self.noise_paths, self.noise, strict=True)
        ]


def official_split(
    path: Path, *, validation_percent: float = 10, test_percent: float = 10
) -> Split:
    """Return the split that Speech Commands assigns to a clip, by a hash of its speaker.

    Warden 2018, section 4: what stands before `_nohash_` is the speaker, so that no speaker is in
    two splits; the SHA-1 of that, modulo 2^27, as a percentage.
    """
    digest = int(hashlib.sha1(speaker_of(path).encode(), usedforsecurity=False).hexdigest(), 16)
    percent = (digest % (_MAX_CLIPS_PER_CLASS + 1)) * (100.0 / _MAX_CLIPS_PER_CLASS)
    if percent < validation_percent:
        return "validation"
    return "test" if percent < validation_percent + test_percent else "train"


def speaker_of(path: Path) -> str:
    """Return the speaker of a clip, what stands before `_nohash_` in its name."""
    return re.sub(r"_nohash_.*$", "", path.name)


def load_corpus(recipe: DataRecipe, root: Path, *, split: Split) -> Corpus:
    """Read all samples of one split into memory; what cannot be used is listed, never just lost.

    Raises
    ------
    ConfigError
        If a folder is missing or empty, a folder's name is a keyword's but for its case, or a
        keyword has no clip in the training split.
    """
    clips: dict[str, list[Clip]] = {label: [] for label in (*recipe.keywords, UNKNOWN)}
    left_out: dict[Path, str] = {}
    for words in recipe.words:
        paths = _paths(words, root, split=split)
        if not words.unknown:
            _check_case(paths, recipe.keywords)
        if split == "train":
            left_out |= _empty_folders(root / words.path)
        samples, bad = _read_all(paths, seconds=_WORD_S)
        left_out |= bad
        for path, wave in samples:
            known = path.parent.name in recipe.keywords and not words.unknown
            label = path.parent.name if known else UNKNOWN
            clips[label].append(
                Clip(label, path.parent.name, path, wave, words.weight, not words.synthetic)
            )
    speech: list[Spoken] = []
    for corpus in recipe.speech:
        spoken = list(_speech(corpus, root, split, left_out, keywords=recipe.keywords))
        speech += spoken
        for clip in _cut_keywords(spoken, recipe.keywords, weight=corpus.word_weight):
            clips[clip.label].append(clip)
    if split == "train" and (absent := [word for word in recipe.keywords if not clips[word]]):
        raise ConfigError(
            f"Every keyword must have clips in the training split. Received none for: "
            f"{', '.join(absent)}. Add folders of these names below {root}, or drop the keywords."
        )
    noise, bad = _read_all([path for name in recipe.noise for path in audio_matching(root, name)])
    left_out |= bad
    _say(clips, left_out, split=split)
    noise_paths = [path for path, _ in noise]
    return Corpus(clips, speech, [samples for _, samples in noise], left_out, noise_paths)


def write_left_out(path: Path, left_out: dict[Path, str]) -> None:
    """Write what was not used, and why, as CSV with the columns `path` and `reason`."""
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("path", "reason"))
        rows.writerows(sorted((str(path), reason) for path, reason in left_out.items()))


def read_samples(path: Path, *, seconds: tuple[float, float] = (0.0, math.inf)) -> Samples:
    """Read a clip as int16, mono, 16 kHz.

    Parameters
    ----------
    path : Path
    seconds : tuple of float
        The shortest and the longest that a clip may be.

    Raises
    ------
    FormatError
        If the file is not audio, is empty, or is too short or too long.
    """
    try:
        with soundfile.SoundFile(path) as file:
            rate_hz, n_samples = file.samplerate, file.frames
            least_s, most_s = seconds
            if n_samples and not least_s <= n_samples / rate_hz <= most_s:
                raise FormatError(
                    f"A word's clip must last {least_s} to {most_s:g} s. Received: "
                    f"{n_samples / rate_hz:g} s in {path}. Cut it, or move it to other data."
                )
            samples = file.read(dtype="int16", always_2d=True)
    except (soundfile.SoundFileError, OSError) as error:
        raise FormatError(
            f"A clip must be audio. Received: {path} ({error}). Remove it."
        ) from error
    if not len(samples):
        raise FormatError(f"A clip must hold samples. Received: none in {path}. Remove it.")
    mono = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1).astype(np.int16)
    return mono if rate_hz == RATE_HZ else soxr.resample(mono, rate_hz, RATE_HZ)


def _say(clips: dict[str, list[Clip]], left_out: dict[Path, str], *, split: Split) -> None:
    """Say what is odd about a split: what was left out, and keywords of which there is little."""
    for path in list(left_out)[:_N_SAID]:
        log.warning("left out: %s", left_out[path])
    if len(left_out) > _N_SAID:
        log.warning("left out: %d more", len(left_out) - _N_SAID)
    for label, known in clips.items():
        if split == "train" and label != UNKNOWN and 0 < len(known) < _FEW_CLIPS:
            log.warning("few clips to train on, of `%s`: %d", label, len(known))


def _check_case(paths: Sequence[Path], keywords: Sequence[str]) -> None:
    """Refuse a folder that would be `_unknown_` for its upper or lower case alone."""
    written = {keyword.casefold(): keyword for keyword in keywords}
    for folder in sorted({path.parent for path in paths}):
        keyword = written.get(folder.name.casefold(), folder.name)
        if keyword != folder.name:
            raise ConfigError(
                f"Folders and keywords must be written alike. Received: {folder} for the keyword "
                f"`{keyword}`. Rename the folder, or the keyword; two folders of one word, join."
            )


def _empty_folders(folder: Path) -> dict[Path, str]:
    """Return the folders of words in which there is no audio, and that this is so."""
    if not folder.is_dir():
        return {}
    used = {parent for path in audio_below(folder) for parent in path.parents}
    empty = sorted(path for path in folder.rglob("*") if path.is_dir() and path not in used)
    return {
        path: f"A folder of words must hold audio. Received: none in {path}. Fill or remove it."
        for path in empty
    }


def _paths(words: WordCorpus, root: Path, *, split: Split) -> list[Path]:
    folder = root / words.path
    if words.optional and not folder.is_dir():
        log.warning("left out, not there: %s", folder)
        return []
    if words.split != "hash":
        return _first_of_each(_words_below(folder), words.first) if split == words.split else []
    return [path for path in _words_below(folder) if official_split(path) == split]


def _first_of_each(paths: Sequence[Path], share: float) -> list[Path]:
    """Keep the first part of each word's clips by name: neighbours are of one speaker."""
    words: dict[str, list[Path]] = {}
    for path in paths:
        words.setdefault(path.parent.name, []).append(path)
    return [path for clips in words.values() for path in clips[: round(share * len(clips))]]


def _words_below(folder: Path) -> list[Path]:
    return [path for path in audio_below(folder) if path.parent.name != "_background_noise_"]


def _speech(
    corpus: SpeechCorpus,
    root: Path,
    split: Split,
    left_out: dict[Path, str],
    *,
    keywords: Sequence[str],
) -> Iterable[Spoken]:
    """Read the utterances of training speakers; one in ten of them, by hash, validates."""
    aligned = read_alignment(root / corpus.alignment) if corpus.alignment else {}
    known = (
        _aligned(corpus, root, aligned)
        if corpus.alignment
        else unaligned(corpus, root, without=keywords)
    )
    wanted = [path for path in known if validates(path.stem) == (split == "validation")]
    samples, bad = _read_all(wanted)
    left_out |= bad
    for path, speech in samples:
        said = aligned[path.stem].words if path.stem in aligned else ()
        words = tuple(
            (word.lower(), round(start_s * RATE_HZ), round(end_s * RATE_HZ))
            for word, start_s, end_s in said
        )
        yield Spoken(path, speech, words)


def _aligned(corpus: SpeechCorpus, root: Path, aligned: Mapping[str, Utterance]) -> list[Path]:
    """Return the utterances of training speakers whose word times are known."""
    first, _ = train_speakers(root / corpus.path)
    paths = {path.stem: path for path in audio_below(root / corpus.path)}
    return [
        paths[name]
        for name, utterance in sorted(aligned.items())
        if name in paths and (corpus.speakers == "all" or utterance.speaker in first)
    ]


def unaligned(corpus: SpeechCorpus, root: Path, *, without: Sequence[str]) -> list[Path]:
    """Return the utterances of training speakers in whose transcripts, if any, no phrase occurs."""
    folder = root / corpus.path
    first, second = train_speakers(folder)
    if not first | second:
        return audio_below(folder)
    speakers = first if corpus.speakers == "first" else None
    return quiet_utterances(folder, without=without, speakers=speakers)


def quiet_utterances(
    corpus: Path, *, without: Sequence[str], speakers: set[str] | None = None
) -> list[Path]:
    """Return the utterances of a LibriSpeech-shaped folder in whose transcripts no phrase occurs.

    Parameters
    ----------
    corpus : Path
    without : sequence of str
        Words, and phrases such as `hey_computer`.
    speakers : set of str, optional
        Only theirs.
    """
    avoided = [f" {phrase.replace('_', ' ').upper()} " for phrase in without]
    found = []
    for transcript in sorted(corpus.rglob("*.trans.txt")):
        for line in transcript.read_text(encoding="utf-8").splitlines():
            name, *words = line.split()
            if speakers is not None and name.partition("-")[0] not in speakers:
                continue
            said = f" {' '.join(words)} "
            if not any(phrase in said for phrase in avoided):
                audio = transcript.parent.glob(f"{name}.*")
                found += [path for path in audio if path.suffix.lower() in AUDIO_SUFFIXES]
    return found


def validates(utterance: str) -> bool:
    """Say whether an utterance of a speech corpus is for validation, one in ten, by its name."""
    return int(hashlib.sha1(utterance.encode(), usedforsecurity=False).hexdigest(), 16) % 10 == 0


def _cut_keywords(
    speech: Iterable[Spoken], keywords: Sequence[str], *, weight: float
) -> Iterable[Clip]:
    """Cut keywords out of continuous speech, with 50 ms around them."""
    margin = RATE_HZ // 20
    written = {keyword.lower(): keyword for keyword in keywords}
    for spoken in speech:
        for spelled, start, end in spoken.words:
            word = written.get(spelled)
            if word and weight > 0 and end - start > RATE_HZ // 8:
                before = min(start, margin)
                cut = spoken.samples[start - before : end + margin]
                yield Clip(
                    word, word, spoken.path, cut, weight, span=(before, before + end - start)
                )


def audio_below(folder: Path) -> list[Path]:
    """Return the audio files below a folder, by name.

    Raises
    ------
    ConfigError
        If there are none.
    """
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES)
    if not paths:
        raise ConfigError(
            f"A data folder must hold audio ({', '.join(sorted(AUDIO_SUFFIXES))}). Received: "
            f"{folder} with none. Unpack the data there, or name another folder."
        )
    return paths


def audio_matching(root: Path, pattern: str) -> list[Path]:
    """Return the audio files below a folder, or those that a pattern such as `esc/1-*` names."""
    if (root / pattern).is_dir():
        return audio_below(root / pattern)
    paths = sorted(path for path in root.glob(pattern) if path.suffix.lower() in AUDIO_SUFFIXES)
    if not paths:
        raise ConfigError(
            f"`noise` must name folders of audio, or patterns of files. Received: {pattern}, which "
            f"nothing below {root} matches. Mend the recipe's `[data]`, or unpack the data there."
        )
    return paths


def _read_all(
    paths: Sequence[Path], *, seconds: tuple[float, float] = (0.0, math.inf)
) -> tuple[list[tuple[Path, Samples]], dict[Path, str]]:
    """Read files in threads, in order; return what could be read, and why the rest could not."""
    read = map_corpus(
        functools.partial(read_samples, seconds=seconds), paths, n_jobs=-1, backend="threading"
    )
    good, bad = [], {}
    for path, samples in zip(paths, read, strict=True):
        if isinstance(samples, Failure):
            bad[path] = samples.reason
        else:
            good.append((path, samples))
    return good, bad
