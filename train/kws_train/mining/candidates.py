"""Moments of recordings that a model takes, or nearly takes, for a keyword.

The model hears every file in the runtime's own spotter, without the gate. What it says of a file is
kept in heard.jsonl, so that an interruption costs the file that was being heard.
"""

import functools
import hashlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from kws.audio import SAMPLE_RATE_HZ as RATE_HZ
from kws.errors import ConfigError
from kws.events import Detection, NearMiss
from kws.features import Features, Samples
from kws.manifest import Head
from kws.model import Model, backbone_path, mean_embeddings, open_model
from kws.templates import pack_vectors, unit_vectors
from kws_train.data.audio_files import AUDIO_SUFFIXES, audio_files, duration_s, read_samples
from kws_train.evaluate.traces import posterior_trace
from kws_train.mining.folder import read_lines
from kws_train.mining.peaks import WORD_S, Rise, rises_in, with_recorded
from kws_train.parallel import Failure, map_corpus

__all__ = ["Heard", "hear", "recordings_in"]

log = logging.getLogger("kws.mine")

_STRETCH_S = 600.0  # heard at once: an hour of samples and posteriors is too much for small boards
_LEAD_S, _TAIL_S = 3.0, 1.0
_PARTS = 3
_EMBED_LEAD_S, _EMBED_TAIL_S = 0.6, 0.1


class Heard(msgspec.Struct, frozen=True, kw_only=True):
    """What a model says of a file.

    Attributes
    ----------
    path : str
    asked : str
        Digest of the model, the thresholds, and the file's size and times: heard anew if it
        changes.
    content : str
        Digest of the file: a copy elsewhere has the same.
    seconds : float
    highest : float
        The highest score of any keyword.
    rises : list of Rise
    remark : str
        What was wrong with what lies beside it, if anything was.
    """

    path: str
    asked: str
    content: str
    seconds: float
    highest: float
    rises: list[Rise]
    remark: str = ""


class _Clip(msgspec.Struct, frozen=True):
    start_s: float


class _Beside(msgspec.Struct, frozen=True):
    """What the daemon writes beside a recording, of which only this is read."""

    event: Detection | NearMiss
    clip: _Clip


class _Task(NamedTuple):
    path: Path
    asked: str
    model: Path
    thresholds: dict[str, float]


def recordings_in(folders: Iterable[Path]) -> list[Path]:
    """Return all audio files that are given or lie in given folders, by name.

    Raises
    ------
    ConfigError
        If one is not there, or a folder holds none.
    """
    found: list[Path] = []
    for folder in folders:
        audio = audio_files(folder, optional=True)
        if not audio:
            what = "no such folder" if not folder.exists() else "none in it"
            raise ConfigError(
                f"What is mined must be recordings ({', '.join(AUDIO_SUFFIXES)}). "
                f"Received: {folder}, {what}. Give the folder of `[recording]`, or of your own "
                f"recordings."
            )
        found += audio
    return list(dict.fromkeys(path.absolute() for path in found))


def hear(
    paths: Sequence[Path],
    model: Path,
    kept: Path,
    *,
    thresholds: dict[str, float],
    n_jobs: int = 1,
) -> Iterator[Heard | Failure[Path]]:
    """Let a model hear files, one result a file; what was heard before is not heard again.

    Parameters
    ----------
    paths : sequence of Path
    model : Path
    kept : Path
        heard.jsonl.
    thresholds : dict of str to float
        Of the keywords that are wanted.
    n_jobs : int
        Processes.
    """
    before = (
        {(one.path, one.asked): one for one in read_lines(kept, Heard)} if kept.exists() else {}
    )
    networks = model.read_bytes() + backbone_path().read_bytes()
    about = hashlib.sha256(networks + msgspec.json.encode(thresholds)).hexdigest()
    asked = {path: _asked(path, about) for path in paths}
    todo = [path for path in paths if (str(path), asked[path]) not in before]
    tasks = [_Task(path, asked[path], model, thresholds) for path in todo]
    yield from (before[key] for path in paths if (key := (str(path), asked[path])) in before)
    with kept.open("ab") as file:
        if file.tell() and not kept.read_bytes().endswith(b"\n"):
            file.write(b"\n")
        for result in map_corpus(_hear, tasks, n_jobs=n_jobs):
            if isinstance(result, Failure):
                yield Failure(result.item.path, result.reason)
                continue
            file.write(msgspec.json.encode(result) + b"\n")
            file.flush()
            yield result


def _asked(path: Path, about: str) -> str:
    """Digest what an answer depends on; a file that is gone is found out when it is read."""
    parts = [about]
    for file in (path, path.with_suffix(".json")):
        if file.is_file():
            at = file.stat()
            parts.append(f"{at.st_size} {at.st_mtime_ns}")
    return hashlib.sha256("/".join(parts).encode()).hexdigest()[:16]


def _hear(task: _Task) -> Heard:
    model = _opened(task.model)
    with task.path.open("rb") as file:
        content = hashlib.file_digest(file, "sha256").hexdigest()[:12]
    seconds = duration_s(task.path)
    recorded, remark = _recorded(task.path)
    highest, rises = 0.0, []
    for start_s in np.arange(0.0, seconds, _STRETCH_S).tolist():
        lead_s = min(start_s, _LEAD_S)
        samples = read_samples(
            task.path, start_s=start_s - lead_s, end_s=start_s + _STRETCH_S + _TAIL_S
        )
        trace = posterior_trace(model, samples)
        highest = max(highest, float(trace.smoothed.max(initial=0.0)))
        found = rises_in(trace, task.thresholds)
        if recorded and recorded.keyword in task.thresholds and not start_s:
            found = with_recorded(found, recorded, trace)
        rises += [
            _moved(_embedded(rise, samples), by_s=start_s - lead_s)
            for rise in found
            if lead_s <= rise.end_s < lead_s + _STRETCH_S
        ]
    return Heard(
        path=str(task.path),
        asked=task.asked,
        content=content,
        seconds=round(seconds, 3),
        highest=round(highest, 4),
        rises=rises,
        remark=remark,
    )


def _recorded(path: Path) -> tuple[Detection | NearMiss | None, str]:
    """Return the event that the daemon recorded, in the time of the clip, and what is wrong."""
    beside = path.with_suffix(".json")
    if not beside.is_file():
        return None, ""
    try:
        about = msgspec.json.decode(beside.read_bytes(), type=_Beside)
    except msgspec.DecodeError as error:
        return None, f"heard without {beside.name}, which the daemon did not write: {error}"
    event, shift_s = about.event, about.clip.start_s
    start_s = event.end_s - WORD_S if event.start_s is None else event.start_s
    start_s, end_s = max(0.0, start_s - shift_s), max(0.1, event.end_s - shift_s)
    return msgspec.structs.replace(event, start_s=start_s, end_s=end_s), ""


def _moved(rise: Rise, *, by_s: float) -> Rise:
    start_s, end_s = (round(at + by_s, 3) for at in (rise.start_s, rise.end_s))
    return msgspec.structs.replace(rise, start_s=start_s, end_s=end_s)


def _embedded(rise: Rise, samples: Samples) -> Rise:
    """Add what the backbone makes of the word: the mean of each third of it, of length 1."""
    backbone = _opened(backbone_path())
    first = max(0, round((rise.start_s - _EMBED_LEAD_S) * RATE_HZ))
    last = round((rise.end_s + _EMBED_TAIL_S) * RATE_HZ)
    frames = Features(backbone.manifest.features).whole(samples[first:last])
    unit = unit_vectors(mean_embeddings(backbone, frames), backbone.manifest.head or Head())
    step_samples = backbone.manifest.hop_frames * backbone.manifest.features.hop_samples
    n_steps = max(
        _PARTS, round((rise.end_s - rise.start_s + _EMBED_TAIL_S) * RATE_HZ / step_samples)
    )
    return msgspec.structs.replace(rise, embedding=pack_vectors(_thirds(unit[-n_steps:])))


def _thirds(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    if len(vectors) < _PARTS:
        vectors = np.pad(vectors, ((_PARTS - len(vectors), 0), (0, 0)))
    means = np.stack([part.mean(axis=0) for part in np.array_split(vectors, _PARTS)])
    lengths = np.sqrt(np.square(means).sum(axis=1, keepdims=True) + np.float32(1e-6))
    return np.asarray(means / lengths, np.float32)


@functools.cache
def _opened(path: Path) -> Model:
    return open_model(path)
