"""The folder of `kws mine`: candidates, their labels, and clips to train on.

model.json        name and keywords of the model that found the candidates
candidates.jsonl  one candidate per line, labelled ones first, then by rank
clips/            their audio with context, FLAC, 16 kHz
labels.jsonl      all labels in the order they were given; the last one of a candidate is valid
heard.jsonl       results of the scan of `kws mine`, one file per line
left_out.csv      files that could not be used, and why
words/            clips cut to the words, `word/clip.flac`: a corpus of `[[data.words]]`
speech/           whole clips without a keyword: a corpus of `[[data.speech]]`
"""

import contextlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec

from kws.errors import ConfigError
from kws.manifest import Manifest
from kws.mined.label_log import LabelLog, read_labels, read_lines
from kws.platforms import require_posix

__all__ = ["UNSURE", "Candidate", "Kind", "MinedFolder", "candidate_id"]

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
        Unit vectors by `kws_train.mining.word_embedding`, to compare candidates.
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


def candidate_id(digest: str, *, end_s: float, keyword: str) -> str:
    """Return the id of a candidate: of the recording's content, the word's end and the keyword."""
    word = re.sub(r"\W+", "_", keyword, flags=re.ASCII)[:32]
    return f"{digest}-{round(1000 * end_s):08d}-{word}"


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

    @property
    def has_candidates(self) -> bool:
        """Whether there is a list of candidates."""
        return self._candidates.is_file()

    def candidates(self) -> list[Candidate]:
        """Return all candidates, labelled ones included.

        Raises
        ------
        ConfigError
            If the folder has no candidates.jsonl.
        """
        if not self.has_candidates:
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

    def labels_of_recordings(self) -> dict[tuple[str, str], str]:
        """Return the labels by the name of the recording, without its ending, and the keyword."""
        labels = self.labels()
        if not labels or not self.has_candidates:
            return {}
        labelled = (one for one in self.candidates() if one.id in labels)
        return {(Path(one.source).stem, one.keyword): labels[one.id] for one in labelled}

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
