"""The folder of `kws mine`: candidates to be labelled, the labels, and what training reads.

model.json        the model that was asked, and its keywords
candidates.jsonl  a line a candidate, labelled ones first, then by rank
clips/            their sound with what is around it, FLAC, 16 kHz
labels.jsonl      every answer as it was given; the last one counts
heard.jsonl       what the model said of each file, so that none is heard twice
left_out.csv      files that could not be used, and why
words/            clips of the words alone, `word/clip.flac`: a corpus of `[[data.words]]`
speech/           whole clips in which no keyword is said: one of `[[data.speech]]`
"""

import contextlib
import fcntl
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, TypeAlias, TypeVar

import msgspec
import numpy as np
import soundfile

from kws.audio import SAMPLE_RATE_HZ as RATE_HZ
from kws.errors import ConfigError
from kws.features import Samples
from kws.manifest import UNKNOWN, Manifest
from kws_train.data.audio_files import read_samples

__all__ = ["UNSURE", "Answers", "Candidate", "Kind", "MinedFolder", "read_lines", "write_clip"]

UNSURE = "_unsure_"
"""The label of a clip of which nobody can say what it is; nothing learns from it."""

Kind: TypeAlias = Literal["detection", "near_miss", "peak"]
_Line = TypeVar("_Line", bound=msgspec.Struct)

_BEFORE_S, _AFTER_S = 0.25, 0.3
_BLOCK_S = 0.02


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A moment to be labelled.

    Attributes
    ----------
    id : str
        Of the file's content, the moment and the keyword; the same for the same moment.
    keyword : str
        What the model hears there.
    score : float
        Its smoothed posterior, 0..1.
    kind : str
        `detection` and `near_miss` as the daemon recorded it, or else by the score; `peak`: lower.
    source : str
        The file.
    start_s, end_s : float
        Where the word would be in the file.
    clip : str
        The file of the clip, relative to the folder.
    word_s : (float, float)
        Where the word would be in the clip.
    rank : int
        1 is what most is to be learnt from.
    embedding : bytes
        Unit vectors as of `kws.templates.pack_vectors`, for telling what sounds alike.
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


class _Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A line of labels.jsonl; no label takes back the one before."""

    id: str
    label: str | None
    time: str


class _About(msgspec.Struct, frozen=True, kw_only=True):
    """model.json."""

    model: str
    keywords: list[str]


class MinedFolder:
    """A folder of `kws mine`.

    Parameters
    ----------
    path : Path
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.words, self.speech = path / "words", path / "speech"
        self._candidates, self._labels = path / "candidates.jsonl", path / "labels.jsonl"

    def keywords(self) -> list[str]:
        """Return the keywords of the model that found the candidates, in its order."""
        return msgspec.json.decode((self.path / "model.json").read_bytes(), type=_About).keywords

    def candidates(self) -> list[Candidate]:
        """Return what there is to be labelled, and what is labelled already.

        Raises
        ------
        ConfigError
            If the folder holds none.
        """
        if not self._candidates.is_file():
            raise ConfigError(
                f"A folder of candidates must be one that `kws mine` made. Received: {self.path} "
                f"without candidates.jsonl. Run `kws mine MODEL DIR --out {self.path}`."
            )
        return list(read_lines(self._candidates, Candidate))

    def write_candidates(self, candidates: Sequence[Candidate], *, manifest: Manifest) -> None:
        """Replace the list, and remove clips that are not in it."""
        about = _About(model=manifest.name, keywords=list(manifest.keywords))
        (self.path / "model.json").write_bytes(msgspec.json.encode(about) + b"\n")
        unfinished = self._candidates.with_suffix(".unfinished")
        unfinished.write_bytes(b"".join(msgspec.json.encode(one) + b"\n" for one in candidates))
        unfinished.replace(self._candidates)
        kept = {self.path / one.clip for one in candidates}
        for clip in (self.path / "clips").glob("*.flac"):
            if clip not in kept:
                clip.unlink()

    def labels(self) -> dict[str, str]:
        """Return the label of each candidate that has one: a keyword, `_unknown_` or `UNSURE`."""
        if not self._labels.is_file():
            return {}
        last = {one.id: one.label for one in read_lines(self._labels, _Answer)}
        return {key: label for key, label in last.items() if label is not None}

    @contextlib.contextmanager
    def answering(self) -> Iterator["Answers"]:
        """Open the list of answers, for one process at a time.

        Raises
        ------
        ConfigError
            If another one has it open.
        """
        with self._labels.open("ab+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise ConfigError(
                    f"A folder of candidates must be labelled by one at a time. Received: "
                    f"{self.path}, in which another `kws mine` runs. End that one first."
                ) from error
            yield Answers(file.fileno())

    def write_words(self) -> dict[str, int]:
        """Bring `words/` and `speech/` up to the labels; return how many clips each label has.

        Raises
        ------
        ConfigError
            If a label cannot be a folder's name.
        """
        labels = self.labels()
        labelled = [(one, labels[one.id]) for one in self.candidates() if one.id in labels]
        wanted = {
            self.words / _folder_name(label) / _corpus_name(one): one
            for one, label in labelled
            if label != UNSURE
        }
        said_nothing = [one for one, label in labelled if label == UNKNOWN]
        speech = {self.speech / Path(one.clip).name: one for one in said_nothing}
        _remove_others((self.words, self.speech), {*wanted, *speech})
        for path, one in wanted.items():
            if not path.is_file():
                write_clip(path, _word(read_samples(self.path / one.clip), one.word_s))
        for path, one in speech.items():
            if not path.is_file():
                path.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(self.path / one.clip, path)
        names = [path.parent.name for path in wanted]
        return {name: names.count(name) for name in sorted(set(names))}


class Answers:
    """Keep answers, each on the disk before the next is asked for.

    Parameters
    ----------
    descriptor : int
        Of a file that is open for reading and appending.
    """

    def __init__(self, descriptor: int) -> None:
        self._file = descriptor
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":  # a power cut in mid-line
            os.write(descriptor, b"\n")

    def keep(self, candidate: Candidate, label: str | None) -> None:
        """Write a label down; None takes the last one back."""
        now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        answer = _Answer(id=candidate.id, label=label, time=now)
        os.write(self._file, msgspec.json.encode(answer) + b"\n")
        os.fsync(self._file)


def read_lines(path: Path, kind: type[_Line]) -> Iterator[_Line]:
    """Read JSON lines; a line that was cut short, as by a power cut, is passed over."""
    decoder = msgspec.json.Decoder(kind)
    for line in path.read_bytes().splitlines():
        with contextlib.suppress(msgspec.DecodeError):
            yield decoder.decode(line)


def write_clip(path: Path, samples: Samples) -> None:
    """Write int16 samples as FLAC; never half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    try:
        soundfile.write(unfinished, samples, RATE_HZ, format="FLAC", subtype="PCM_16")
        unfinished.replace(path)
    except soundfile.SoundFileError as error:  # such as of a full disk
        raise OSError(f"{path} could not be written: {error}") from error
    finally:
        unfinished.unlink(missing_ok=True)


def _word(samples: Samples, word_s: tuple[float, float]) -> Samples:
    """Cut out a word, at the quietest moments just before and after where it should be."""
    start, end = (round(at * RATE_HZ) for at in word_s)
    before, after = round(_BEFORE_S * RATE_HZ), round(_AFTER_S * RATE_HZ)
    first = _quietest(samples, max(0, start - before), start)
    return samples[first : _quietest(samples, end, min(len(samples), end + after))]


def _quietest(samples: Samples, start: int, end: int) -> int:
    """Return the middle of the quietest 20 ms between two places."""
    size = round(_BLOCK_S * RATE_HZ)
    if end - start < 2 * size:
        return start
    n = (end - start) // size
    blocks = samples[start : start + n * size].reshape(n, size).astype(np.float64)
    return start + int(np.square(blocks).mean(axis=1).argmin()) * size + size // 2


def _corpus_name(one: Candidate) -> str:
    """Name a clip so that all of one file count as one speaker, and fall into one split."""
    content, _, rest = one.id.partition("-")
    return f"{content}_nohash_{rest}.flac"


def _folder_name(label: str) -> str:
    if re.search(r"[/\\\0]", label) or label in {"", ".", ".."}:
        raise ConfigError(
            f"A keyword that clips are made of must be the name of a folder. Received: {label!r}. "
            f"Train the model with another keyword."
        )
    return label


def _remove_others(folders: Iterable[Path], wanted: set[Path]) -> None:
    """Remove clips made for labels that were since changed; what others put there stays."""
    for folder in folders:
        for path in sorted(folder.rglob("*.flac")):
            if path not in wanted and _is_ours(path.name):
                path.unlink()
                with contextlib.suppress(OSError):  # there are others in it
                    path.parent.rmdir()


def _is_ours(name: str) -> bool:
    return re.fullmatch(r"[0-9a-f]{12}(-|_nohash_)\d+-[\w-]*\.flac", name) is not None
