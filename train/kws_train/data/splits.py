"""Which split a clip or an utterance belongs to, by hashes of names."""

import hashlib
import re
from pathlib import Path
from typing import Literal, TypeAlias

__all__ = ["Split", "SplitName", "is_validation", "official_split", "speaker_of"]

Split: TypeAlias = Literal["train", "validation", "test"]
SplitName: TypeAlias = Literal["train", "validation", "test", "all"]
_MAX_CLIPS_PER_CLASS = 2**27 - 1  # constant of the published rule


def official_split(
    path: Path, *, validation_percent: float = 10, test_percent: float = 10
) -> Split:
    """Return the split that Speech Commands assigns to a clip, by a hash of its speaker.

    Warden 2018, section 4: the part of the name before `_nohash_` identifies the speaker, so that
    no speaker is in two splits; the SHA-1 of that, modulo 2^27, as a percentage.
    """
    digest = int(hashlib.sha1(speaker_of(path).encode(), usedforsecurity=False).hexdigest(), 16)
    percent = (digest % (_MAX_CLIPS_PER_CLASS + 1)) * (100.0 / _MAX_CLIPS_PER_CLASS)
    if percent < validation_percent:
        return "validation"
    return "test" if percent < validation_percent + test_percent else "train"


def speaker_of(path: Path) -> str:
    """Return the speaker of a clip: the part of its name before `_nohash_`."""
    return re.sub(r"_nohash_.*$", "", path.name)


def is_validation(utterance: str) -> bool:
    """Return whether an utterance of a speech corpus is for validation: one in ten, by its name."""
    return int(hashlib.sha1(utterance.encode(), usedforsecurity=False).hexdigest(), 16) % 10 == 0
