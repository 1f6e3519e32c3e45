"""Load one split of the corpora that a recipe names into memory.

Word corpora have the layout of Speech Commands, `word/speaker_nohash_n.*`, or a folder for each
speaker of a word, `word/speaker/*`. Speech corpora have the
layout of LibriSpeech and word times from `kws_train.data.align`, or any layout and no word times.
Samples are int16, mono, 16 kHz.
"""

import csv
import functools
import logging
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from kws.arrays import Samples
from kws.audio import SAMPLE_RATE_HZ as RATE_HZ
from kws.errors import ConfigError
from kws.manifest import UNKNOWN
from kws_train.data.align import WordTimes, alignment_at_hand, utterance_name
from kws_train.data.audio_files import audio_files, audio_matching, log_left_out, read_samples
from kws_train.data.librispeech import quiet_utterances, speaker_halves
from kws_train.data.speakers import TRAINING, files_of_quarters
from kws_train.data.splits import Split, check_layout, is_validation, official_split, word_of
from kws_train.parallel import Failure, map_corpus
from kws_train.recipe import DataRecipe, SpeechCorpus, WordCorpus

__all__ = [
    "Clip",
    "Corpus",
    "KeptCorpora",
    "Probabilities",
    "Spoken",
    "load_corpus",
    "unaligned_utterances",
    "words_by_utterance",
    "write_left_out",
]

Probabilities: TypeAlias = npt.NDArray[np.float32]

log = logging.getLogger("kws.data")

_SHORTEST_WORD_S, _LONGEST_WORD_S = 0.05, 10.0  # longer files are recordings, not clips of one word
_FEW_CLIPS = 5


@dataclass(frozen=True)
class Clip:
    """One isolated word; in a corpus in bands, frames stand in place of samples."""

    label: str
    word: str
    path: Path
    samples: npt.NDArray[Any] = field(repr=False)
    weight: float = 1.0
    """Relative frequency of being drawn, among clips of the same word."""
    real: bool = True
    """False: synthetic."""
    span: tuple[int, int] | None = None
    """Word boundaries, [start, end) in samples; None: unknown, to be found by `speech_span`."""
    cut: bool = False
    """Cut out of a sentence: its margins are other words."""
    soft: Probabilities | None = field(default=None, repr=False)
    """What a teacher says of it: float32 [shape=(labels,)]."""


@dataclass(frozen=True)
class Spoken:
    """One utterance of continuous speech and its words as (word, start, end) in samples."""

    path: Path
    samples: npt.NDArray[Any] = field(repr=False)
    words: tuple[tuple[str, int, int], ...]


@dataclass(frozen=True)
class Corpus:
    """The clips, speech and noise of one split."""

    clips: dict[str, list[Clip]]
    """Isolated words by label; words other than the keywords are under `_unknown_`."""
    speech: list[Spoken]
    noise: list[npt.NDArray[Any]]
    left_out: dict[Path, str]
    """Files and folders that were not used, with the reason."""
    noise_paths: list[Path] = field(default_factory=list)
    """The file of each piece of noise."""

    def named_noise(self) -> list[tuple[npt.NDArray[Any], Path]]:
        """Return each piece of noise with its file, or a name where there is none."""
        paths = self.noise_paths or [Path("noise")] * len(self.noise)
        return list(zip(self.noise, paths, strict=True))

    def wordless(self) -> list[Spoken]:
        """Return the noise as utterances without words."""
        return [
            Spoken(path, samples, ())
            for path, samples in zip(self.noise_paths, self.noise, strict=True)
        ]


def load_corpus(recipe: DataRecipe, root: Path, *, split: Split) -> Corpus:
    """Read all samples of one split into memory; unusable files are listed in `left_out`.

    Raises
    ------
    ConfigError
        If a folder is missing or empty, a folder's name is a keyword's but for its case, or a
        keyword has no clip in the training split.
    """
    clips: dict[str, list[Clip]] = {label: [] for label in (*recipe.keywords, UNKNOWN)}
    left_out: dict[Path, str] = {}
    for words in recipe.words:
        for clip in _word_clips(words, root, split, left_out, keywords=recipe.keywords):
            clips[clip.label].append(clip)
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
    _log_summary(clips, left_out, split=split)
    noise_paths = [path for path, _ in noise]
    return Corpus(clips, speech, [samples for _, samples in noise], left_out, noise_paths)


class KeptCorpora:
    """`load_corpus` for several trainings in a row: the last splits that were read are kept."""

    def __init__(self) -> None:
        self._kept: dict[tuple[bytes, Path, Split], Corpus] = {}

    def __call__(self, recipe: DataRecipe, root: Path, *, split: Split) -> Corpus:
        """Return one split of the corpora of a recipe; see `load_corpus`."""
        key = msgspec.json.encode(recipe), root, split
        if key not in self._kept:
            others = {one: kept for one, kept in self._kept.items() if one[0] == key[0]}
            self._kept = others | {key: load_corpus(recipe, root, split=split)}
        return self._kept[key]


def write_left_out(path: Path, left_out: dict[Path, str]) -> None:
    """Write unused files and folders as CSV with the columns `path` and `reason`."""
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("path", "reason"))
        rows.writerows(sorted((str(path), reason) for path, reason in left_out.items()))


def _log_summary(clips: dict[str, list[Clip]], left_out: dict[Path, str], *, split: Split) -> None:
    """Warn of files that were left out, and of keywords that have few clips."""
    log_left_out(left_out)
    for label, known in clips.items():
        if split == "train" and label != UNKNOWN and 0 < len(known) < _FEW_CLIPS:
            log.warning("few clips to train on, of `%s`: %d", label, len(known))


def _check_case(paths: Sequence[Path], root: Path, *, keywords: Sequence[str]) -> None:
    """Refuse a folder whose name differs from a keyword only in upper and lower case."""
    written = {keyword.casefold(): keyword for keyword in keywords}
    for word in sorted({word_of(path, root) for path in paths}):
        keyword = written.get(word.casefold(), word)
        if keyword != word:
            raise ConfigError(
                f"Folders and keywords must be written alike. Received: {root / word} for the "
                f"keyword `{keyword}`. Rename the folder, or the keyword; merge two folders of the "
                f"same word."
            )


def _empty_folders(folder: Path) -> dict[Path, str]:
    """Return the word folders that hold no audio, with the reason to report."""
    if not folder.is_dir():
        return {}
    used = {parent for path in audio_files(folder) for parent in path.parents}
    empty = sorted(path for path in folder.rglob("*") if path.is_dir() and path not in used)
    return {
        path: f"A folder of words must hold audio. Received: none in {path}. Fill or remove it."
        for path in empty
    }


def _word_clips(
    words: WordCorpus,
    root: Path,
    split: Split,
    left_out: dict[Path, str],
    *,
    keywords: Sequence[str],
) -> Iterable[Clip]:
    """Yield the clips of a word corpus that belong to a split; add unusable files to `left_out`."""
    paths = _paths(words, root, split=split)
    if not words.unknown:
        _check_case(paths, root / words.path, keywords=keywords)
        check_layout(paths, root / words.path, keywords=keywords)
    if split == "train":
        left_out |= _empty_folders(root / words.path)
    samples, bad = _read_all(paths, least_s=_SHORTEST_WORD_S, most_s=_LONGEST_WORD_S)
    left_out |= bad
    for path, wave in samples:
        word = word_of(path, root / words.path)
        label = word if word in keywords and not words.unknown else UNKNOWN
        yield Clip(label, word, path, wave, words.weight, not words.synthetic)


def _paths(words: WordCorpus, root: Path, *, split: Split) -> list[Path]:
    folder = root / words.path
    if words.optional and not folder.is_dir():
        log.warning("left out, not found: %s", folder)
        return []
    if words.split != "hash":
        return _first_of_each(folder, words.first) if split == words.split else []
    return [path for path in _words_below(folder) if official_split(path, root=folder) == split]


def _first_of_each(folder: Path, share: float) -> list[Path]:
    """Keep the first part of each word's clips by name, since neighbours share a speaker."""
    words: dict[str, list[Path]] = {}
    for path in _words_below(folder):
        words.setdefault(word_of(path, folder), []).append(path)
    return [path for clips in words.values() for path in clips[: round(share * len(clips))]]


def _words_below(folder: Path) -> list[Path]:
    return [path for path in audio_files(folder) if word_of(path, folder) != "_background_noise_"]


def _speech(
    corpus: SpeechCorpus,
    root: Path,
    split: Split,
    left_out: dict[Path, str],
    *,
    keywords: Sequence[str],
) -> Iterable[Spoken]:
    """Read the utterances of training speakers that belong to a split."""
    if corpus.optional and not (root / corpus.path).is_dir():
        log.warning("left out, not found: %s", root / corpus.path)
        return
    known = words_by_utterance(corpus, root, without=keywords)
    wanted = [path for path in known if is_validation(path.stem) == (split == "validation")]
    samples, bad = _read_all(wanted)
    left_out |= bad
    for path, speech in samples:
        words = tuple(
            (word.lower(), round(start_s * RATE_HZ), round(end_s * RATE_HZ))
            for word, start_s, end_s in known[path]
        )
        yield Spoken(path, speech, words)


def words_by_utterance(
    corpus: SpeechCorpus,
    root: Path,
    *,
    without: Sequence[str],
    quarters: Collection[int] = TRAINING,
) -> dict[Path, WordTimes]:
    """Return the utterances of training speakers, each with its words in capitals and seconds.

    Parameters
    ----------
    corpus : SpeechCorpus
        An `alignment` that is missing is made. Without one no words are known.
    root : Path
        Folder that the recipe's paths are relative to.
    without : sequence of str
        Phrases that no utterance may contain, as far as its transcript tells, where there is no
        alignment.
    quarters : collection of int
        Which of every four speakers, for `speakers = "quarters"`.
    """
    if corpus.alignment is None:
        unaligned = unaligned_utterances(corpus, root, without=without, quarters=quarters)
        return dict.fromkeys(unaligned, ())
    folder = root / corpus.path
    first = speaker_halves(folder)[0] if corpus.speakers == "first" else None
    paths = _of_quarters(folder, quarters) if corpus.speakers == "quarters" else audio_files(folder)
    by_name = {path.stem: path for path in paths}
    by_name |= {utterance_name(path, folder): path for path in paths}
    half = "all" if first is None else "first"
    aligned = alignment_at_hand(folder, root / corpus.alignment, half=half)
    return {
        by_name[name]: utterance.words
        for name, utterance in sorted(aligned.items())
        if name in by_name and (first is None or utterance.speaker in first)
    }


def _of_quarters(folder: Path, quarters: Collection[int]) -> list[Path]:
    return [path for paths in files_of_quarters(folder, quarters).values() for path in paths]


def unaligned_utterances(
    corpus: SpeechCorpus,
    root: Path,
    *,
    without: Sequence[str],
    quarters: Collection[int] = TRAINING,
) -> list[Path]:
    """Return the utterances of training speakers whose transcripts, if any, contain no phrase."""
    folder = root / corpus.path
    if corpus.speakers == "quarters":
        return _of_quarters(folder, quarters)
    first, second = speaker_halves(folder)
    if not first | second:
        return audio_files(folder)
    speakers = first if corpus.speakers == "first" else None
    return quiet_utterances(folder, without=without, speakers=speakers)


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
                span = before, before + end - start
                yield Clip(word, word, spoken.path, cut, weight, span=span, cut=True)


def _read_all(
    paths: Sequence[Path], *, least_s: float | None = None, most_s: float | None = None
) -> tuple[list[tuple[Path, Samples]], dict[Path, str]]:
    """Read files in threads, in order; return readable files, and the errors of the others."""
    read = map_corpus(
        functools.partial(read_samples, least_s=least_s, most_s=most_s),
        paths,
        n_jobs=-1,
        backend="threading",
    )
    good, bad = [], {}
    for path, samples in zip(paths, read, strict=True):
        if isinstance(samples, Failure):
            bad[path] = samples.reason
        else:
            good.append((path, samples))
    return good, bad
