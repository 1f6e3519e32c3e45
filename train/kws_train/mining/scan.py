"""Run a model over recordings with the runtime's spotter, without the gate; keep score peaks.

Results are appended to heard.jsonl file by file: after an interruption, or when files are added,
only the missing files are processed.
"""

import functools
import hashlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from kws.arrays import Samples
from kws.clip_sidecar import read_sidecar
from kws.errors import ConfigError, FormatError
from kws.events import Detection, NearMiss
from kws.mined.label_log import read_lines
from kws.mined.word_embedding import word_embedding
from kws.model import Model, embedding_reference, open_model
from kws_train.data.audio_files import audio_files, duration_s, read_samples
from kws_train.evaluate.traces import posterior_trace
from kws_train.mining.peaks import Peak, find_peaks, merge_recorded_event
from kws_train.parallel import Failure, map_corpus

__all__ = ["FileScan", "recordings_in", "scan_files"]

log = logging.getLogger("kws.mine")

_SEGMENT_S = 600.0  # processed at once, to limit memory
_LEAD_S, _TAIL_S = 3.0, 1.0


class FileScan(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    rename={
        "input_digest": "asked",
        "content_digest": "content",
        "duration_s": "seconds",
        "highest_score": "highest",
        "peaks": "rises",
    },
):
    """Peaks of a model's scores in a file, as a line of heard.jsonl.

    The keys in heard.jsonl are those of its first version, so that older folders can be read.

    Attributes
    ----------
    path : str
    input_digest : str
        Of the model, the thresholds, and the file's size and times; a file is scanned again when it
        changes.
    content_digest : str
        Of the file's content, the same for copies.
    duration_s : float
    highest_score : float
        Of any keyword.
    peaks : list of Peak
    remark : str
        A problem with the JSON file beside it; empty if there is none.
    """

    path: str
    input_digest: str
    content_digest: str
    duration_s: float
    highest_score: float
    peaks: list[Peak]
    remark: str = ""


class _Task(NamedTuple):
    path: Path
    input_digest: str
    model: Path
    thresholds: dict[str, float]


def recordings_in(folders: Iterable[Path]) -> list[Path]:
    """Return audio files and those in folders, sorted by name within each folder.

    Raises
    ------
    ConfigError
        If a path does not exist, or a folder holds no audio file.
    """
    found: list[Path] = []
    for folder in folders:
        audio = audio_files(folder, optional=True)
        if not audio:
            what = "no such folder" if not folder.exists() else "none in it"
            raise ConfigError(
                f"`kws mine` needs recordings (WAV, FLAC, MP3, M4A or another kind of audio). "
                f"Received: {folder}, {what}. Give the folder of `[recording]`, or of your own "
                f"recordings."
            )
        found += audio
    return list(dict.fromkeys(path.absolute() for path in found))


def scan_files(
    paths: Sequence[Path],
    model: Path,
    results: Path,
    *,
    thresholds: dict[str, float],
    n_jobs: int = 1,
) -> Iterator[FileScan | Failure[Path]]:
    """Run a model over files; give one result per file, from heard.jsonl where it is up to date.

    Parameters
    ----------
    paths : sequence of Path
    model : Path
    results : Path
        heard.jsonl, to which results are appended.
    thresholds : dict of str to float
        Of the keywords to look for.
    n_jobs : int
        Processes.
    """
    known: dict[tuple[str, str], FileScan] = {}
    if results.exists():
        known = {(one.path, one.input_digest): one for one in read_lines(results, FileScan)}
    networks = model.read_bytes() + embedding_reference().sha256.encode()
    settings = hashlib.sha256(networks + msgspec.json.encode(thresholds)).hexdigest()
    digests = {path: _input_digest(path, settings) for path in paths}
    todo = [path for path in paths if (str(path), digests[path]) not in known]
    tasks = [_Task(path, digests[path], model, thresholds) for path in todo]
    yield from (known[key] for path in paths if (key := (str(path), digests[path])) in known)
    with results.open("ab") as file:
        if file.tell() and not results.read_bytes().endswith(b"\n"):  # a power cut mid-line
            file.write(b"\n")
        for result in map_corpus(_scan_file, tasks, n_jobs=n_jobs):
            if isinstance(result, Failure):
                yield Failure(result.item.path, result.reason)
                continue
            file.write(msgspec.json.encode(result) + b"\n")
            file.flush()
            yield result


def _input_digest(path: Path, settings: str) -> str:
    """Digest all that a result depends on; a missing file fails later, when it is read."""
    parts = [settings]
    for file in (path, path.with_suffix(".json")):
        if file.is_file():
            at = file.stat()
            parts.append(f"{at.st_size} {at.st_mtime_ns}")
    return hashlib.sha256("/".join(parts).encode()).hexdigest()[:16]


def _scan_file(task: _Task) -> FileScan:
    model = _opened(task.model)
    with task.path.open("rb") as file:
        content = hashlib.file_digest(file, "sha256").hexdigest()[:12]
    length_s = duration_s(task.path)
    recorded, remark = _recorded_event(task.path)
    highest, peaks = 0.0, []
    for start_s in np.arange(0.0, length_s, _SEGMENT_S).tolist():
        lead_s = min(start_s, _LEAD_S)
        samples = read_samples(
            task.path, start_s=start_s - lead_s, end_s=start_s + _SEGMENT_S + _TAIL_S
        )
        trace = posterior_trace(model, samples)
        highest = max(highest, float(trace.smoothed.max(initial=0.0)))
        found = find_peaks(trace, task.thresholds)
        if recorded and recorded.keyword in task.thresholds and not start_s:
            found = merge_recorded_event(found, recorded, trace)
        peaks += [
            _shift(_with_embedding(peak, samples), by_s=start_s - lead_s)
            for peak in found
            if lead_s <= peak.end_s < lead_s + _SEGMENT_S
        ]
    return FileScan(
        path=str(task.path),
        input_digest=task.input_digest,
        content_digest=content,
        duration_s=round(length_s, 3),
        highest_score=round(highest, 4),
        peaks=peaks,
        remark=remark,
    )


def _recorded_event(path: Path) -> tuple[Detection | NearMiss | None, str]:
    """Return the daemon's event of a recording, in times of the clip, or None and a remark."""
    sidecar = path.with_suffix(".json")
    if not sidecar.is_file():
        return None, ""
    try:
        about = read_sidecar(sidecar.read_bytes())
    except FormatError as error:
        return None, f"processed without {sidecar.name}, which is not of the daemon: {error}"
    start_s, end_s = about.word_s
    return msgspec.structs.replace(about.event, start_s=start_s, end_s=end_s), ""


def _with_embedding(peak: Peak, samples: Samples) -> Peak:
    embedding = word_embedding(samples, (peak.start_s, peak.end_s))
    return msgspec.structs.replace(peak, embedding=embedding)


def _shift(peak: Peak, *, by_s: float) -> Peak:
    start_s, end_s = (round(at + by_s, 3) for at in (peak.start_s, peak.end_s))
    return msgspec.structs.replace(peak, start_s=start_s, end_s=end_s)


@functools.cache
def _opened(path: Path) -> Model:
    return open_model(path)
