"""The folder of `kws mine`: candidates, their labels, and clips to train on.

model.json        name and keywords of the model that found the candidates
candidates.jsonl  one candidate per line, labelled ones first, then by rank
clips/            their audio with context, FLAC, 16 kHz
labels.jsonl      all labels in the order they were given; the last one of a candidate is valid
heard.jsonl       results of `kws_train.mining.scan`, one file per line
left_out.csv      files that could not be used, and why
words/            clips cut to the words, `word/clip.flac`: a corpus of `[[data.words]]`
speech/           whole clips without a keyword: a corpus of `[[data.speech]]`
"""

import contextlib
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec

from kws.errors import ConfigError
from kws.manifest import UNKNOWN, Manifest
from kws.platforms import require_posix
from kws_train.data.audio_files import read_samples
from kws_train.mining.label_log import LabelLog, read_labels, read_lines
from kws_train.mining.word_clips import cut_word, write_clip

__all__ = ["UNSURE", "Candidate", "Kind", "MinedFolder"]

UNSURE = "_unsure_"
"""The label of clips that cannot be identified; they are not trained on."""

Kind: TypeAlias = Literal["detection", "near_miss", "peak"]


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A possible keyword to be labelled.

    Attributes
    ----------
    id : str
        Of the file's content, the time and the keyword.
    keyword : str
        With the highest score.
    score : float
        Its smoothed posterior, 0..1.
    kind : str
        `detection` or `near_miss` as the daemon recorded it, else by the score; `peak` is lower.
    source : str
        The recording.
    start_s, end_s : float
        Of the word in the recording.
    clip : str
        Path of the clip, relative to the folder.
    word_s : (float, float)
        Start and end of the word in the clip.
    rank : int
        1 is the most informative.
    embedding : bytes
        Unit vectors by `kws.templates.pack_vectors`, to compare candidates.
    """

    id: str
    keyword: str
    score: float
    kind: Kind
    source: str
    start_s: float
    end_s: float
    clip: str
    word_s: tuple[float, float]
    rank: int
    embedding: bytes


class _ModelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The content of model.json."""

    model: str
    keywords: list[str]


class MinedFolder:
    """A folder of `kws mine`: see the module for its files.

    Parameters
    ----------
    path : Path
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.words, self.speech = path / "words", path / "speech"
        self._candidates, self._labels = path / "candidates.jsonl", path / "labels.jsonl"

    def keywords(self) -> list[str]:
        """Return the keywords of the model that found the candidates, in the model's order."""
        content = (self.path / "model.json").read_bytes()
        return msgspec.json.decode(content, type=_ModelInfo).keywords

    def candidates(self) -> list[Candidate]:
        """Return all candidates, labelled ones included.

        Raises
        ------
        ConfigError
            If the folder has no candidates.jsonl.
        """
        if not self._candidates.is_file():
            raise ConfigError(
                f"A folder of candidates must be one that `kws mine` made. Received: {self.path} "
                f"without candidates.jsonl. Run `kws mine MODEL DIR --out {self.path}`."
            )
        return list(read_lines(self._candidates, Candidate))

    def write_candidates(self, candidates: Sequence[Candidate], *, manifest: Manifest) -> None:
        """Replace the list of candidates, and remove clips of others."""
        info = _ModelInfo(model=manifest.name, keywords=list(manifest.keywords))
        (self.path / "model.json").write_bytes(msgspec.json.encode(info) + b"\n")
        unfinished = self._candidates.with_suffix(".unfinished")
        unfinished.write_bytes(b"".join(msgspec.json.encode(one) + b"\n" for one in candidates))
        unfinished.replace(self._candidates)
        kept = {self.path / one.clip for one in candidates}
        for clip in (self.path / "clips").glob("*.flac"):
            if clip not in kept:
                clip.unlink()

    def labels(self) -> dict[str, str]:
        """Return the labels by candidate id: a keyword, `_unknown_` or `UNSURE`."""
        return read_labels(self._labels) if self._labels.is_file() else {}

    @contextlib.contextmanager
    def open_label_log(self) -> Iterator[LabelLog]:
        """Open labels.jsonl for appending, for one process at a time.

        Raises
        ------
        ConfigError
            If another process has it open, or this is Windows.
        """
        remedy = "Label there; the other steps of `kws mine` run here."
        require_posix("Labelling", error=ConfigError, remedy=remedy)
        import fcntl

        with self._labels.open("ab+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise ConfigError(
                    f"Only one process can label a folder. Another `kws mine` has {self.path} "
                    f"open; stop that one first."
                ) from error
            yield LabelLog(file.fileno())

    def write_training_clips(self) -> dict[str, int]:
        """Update `words/` and `speech/` to the labels; return the number of clips of each label.

        Raises
        ------
        ConfigError
            If a label cannot be the name of a folder.
        """
        labels = self.labels()
        labelled = [(one, labels[one.id]) for one in self.candidates() if one.id in labels]
        wanted = {
            self.words / _folder_name(label) / _corpus_name(one): one
            for one, label in labelled
            if label != UNSURE
        }
        negatives = [one for one, label in labelled if label == UNKNOWN]
        speech = {self.speech / Path(one.clip).name: one for one in negatives}
        _remove_others((self.words, self.speech), {*wanted, *speech})
        for path, one in wanted.items():
            if not path.is_file():
                write_clip(path, cut_word(read_samples(self.path / one.clip), one.word_s))
        for path, one in speech.items():
            if not path.is_file():
                path.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(self.path / one.clip, path)
        names = [path.parent.name for path in wanted]
        return {name: names.count(name) for name in sorted(set(names))}


def _corpus_name(one: Candidate) -> str:
    """Return a clip's file name, with its recording as the speaker: one split per recording."""
    content, _, rest = one.id.partition("-")
    return f"{content}_nohash_{rest}.flac"


def _folder_name(label: str) -> str:
    if re.search(r"[/\\\0]", label) or label in {"", ".", ".."}:
        raise ConfigError(
            f"A keyword to mine must be usable as a folder's name. Received: {label!r}. "
            f"Train the model with another keyword."
        )
    return label


def _remove_others(folders: Iterable[Path], wanted: set[Path]) -> None:
    """Remove clips of labels that have changed since; files of other origin stay."""
    for folder in folders:
        for path in sorted(folder.rglob("*.flac")):
            if path not in wanted and _is_mined(path.name):
                path.unlink()
                with contextlib.suppress(OSError):  # not empty
                    path.parent.rmdir()


def _is_mined(name: str) -> bool:
    return re.fullmatch(r"[0-9a-f]{12}(-|_nohash_)\d+-[\w-]*\.flac", name) is not None
