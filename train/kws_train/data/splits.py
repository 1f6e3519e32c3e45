"""Word, speaker and split of a clip, by its path; split of an utterance, by its name.

A clip lies at `WORD/FILE` or `WORD/SPEAKER/FILE` below the folder of words.
"""

import hashlib
import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Literal, TypeAlias

from kws.errors import ConfigError
from kws.names import nfc

__all__ = [
    "Split",
    "SplitName",
    "check_layout",
    "is_validation",
    "official_split",
    "speaker_of",
    "word_of",
]

Split: TypeAlias = Literal["train", "validation", "test"]
SplitName: TypeAlias = Literal["train", "validation", "test", "all"]
_MAX_CLIPS_PER_CLASS = 2**27 - 1  # constant of the published rule


def official_split(
    path: Path,
    *,
    root: Path | None = None,
    validation_percent: float = 10,
    test_percent: float = 10,
) -> Split:
    """Return the split that Speech Commands assigns to a clip, by a hash of its speaker.

    Warden 2018, section 4: no speaker is in two splits; the SHA-1 of the speaker's name, modulo
    2^27, as a percentage. The speaker is that of `speaker_of`.
    """
    speaker = speaker_of(path, root=root).encode()
    digest = int(hashlib.sha1(speaker, usedforsecurity=False).hexdigest(), 16)
    percent = (digest % (_MAX_CLIPS_PER_CLASS + 1)) * (100.0 / _MAX_CLIPS_PER_CLASS)
    if percent < validation_percent:
        return "validation"
    return "test" if percent < validation_percent + test_percent else "train"


def word_of(path: Path, root: Path) -> str:
    """Return the word of a clip: the name of the folder below `root`, in Unicode's form NFC.

    A clip in `root` itself has the word that `root` is called.
    """
    inside = path.relative_to(root).parts
    return nfc(inside[0] if len(inside) > 1 else path.parent.name)


def speaker_of(path: Path, *, root: Path | None = None) -> str:
    """Return the speaker of a clip: the folder below its word, else its name before `_nohash_`.

    Parameters
    ----------
    path : Path
    root : Path, optional
        The folder of words; None goes by the name alone.
    """
    inside = path.relative_to(root).parts if root else ()
    if len(inside) > 2:
        return nfc(inside[1])
    return re.sub(r"_nohash_.*$", "", path.name)


def check_layout(paths: Iterable[Path], root: Path, *, keywords: Collection[str]) -> None:
    """Refuse a folder whose words lie deeper than `WORD/FILE` and `WORD/SPEAKER/FILE`.

    Raises
    ------
    ConfigError
        If a folder further down has a keyword's name, and the one below `root` has none.
    """
    for path in paths:
        inside = path.relative_to(root).parts[:-1]
        deeper = [nfc(name) for name in inside[1:]]
        if word_of(path, root) not in keywords and set(deeper) & set(keywords):
            within = root.joinpath(
                *inside[: 1 + min(map(deeper.index, set(deeper) & set(keywords)))]
            )
            raise ConfigError(
                f"A folder of words must hold WORD/FILE or WORD/SPEAKER/FILE. Received: {path} "
                f"below {root}. Give {within}."
            )


def is_validation(utterance: str) -> bool:
    """Return whether an utterance of a speech corpus is for validation: one in ten, by its name."""
    return int(hashlib.sha1(utterance.encode(), usedforsecurity=False).hexdigest(), 16) % 10 == 0
