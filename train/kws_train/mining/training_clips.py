"""Clips to train on, cut from labelled candidates: `words/` and `speech/` of the folder."""

import contextlib
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from kws.errors import ConfigError
from kws.manifest import UNKNOWN
from kws.mined.clip_file import write_clip
from kws.mined.folder import UNSURE, Candidate, MinedFolder
from kws_train.data.audio_files import read_samples
from kws_train.mining.word_clips import cut_word

__all__ = ["write_training_clips"]


def write_training_clips(folder: MinedFolder) -> dict[str, int]:
    """Update `words/` and `speech/` to the labels; return the number of clips of each label.

    Raises
    ------
    ConfigError
        If a label cannot be the name of a folder.
    """
    labels = folder.labels()
    labelled = [(one, labels[one.id]) for one in folder.candidates() if one.id in labels]
    wanted = {
        folder.words / _folder_name(label) / _corpus_name(one): one
        for one, label in labelled
        if label != UNSURE
    }
    negatives = [one for one, label in labelled if label == UNKNOWN]
    speech = {folder.speech / Path(one.clip).name: one for one in negatives}
    _remove_others((folder.words, folder.speech), {*wanted, *speech})
    for path, one in wanted.items():
        if not path.is_file():
            write_clip(path, cut_word(read_samples(folder.path / one.clip), one.word_s))
    for path, one in speech.items():
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder.path / one.clip, path)
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
