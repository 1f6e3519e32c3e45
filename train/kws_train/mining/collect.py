"""Collect candidates for labelling: scan recordings, select peaks, cut clips."""

import logging
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import track

from kws.config import DecisionSettings
from kws.decision import thresholds_for
from kws.errors import ConfigError, FormatError, ModelError, did_you_mean
from kws.manifest import Manifest
from kws.mined.clip_file import clip_span_s, write_clip
from kws.mined.folder import Candidate, MinedFolder, candidate_id
from kws.model import model_path, open_model
from kws.model_check import check_model
from kws.names import nfc
from kws_train.data.audio_files import log_left_out, read_samples
from kws_train.data.corpus import write_left_out
from kws_train.mining.peaks import MIN_SCORE, MIN_SEPARATION_S, Peak
from kws_train.mining.scan import FileScan, recordings_in, scan_files
from kws_train.mining.select import select
from kws_train.parallel import Failure

__all__ = ["CandidateSet", "collect_candidates"]

log = logging.getLogger("kws.mine")


class CandidateSet(NamedTuple):
    """Candidates of a folder, with counts of how they were found."""

    n_files: int
    """Processed files."""
    hours: float
    n_peaks: int
    """Peaks that are not labelled yet."""
    candidates: list[Candidate]
    """Selected for labelling, the most informative first."""
    n_labelled: int
    left_out: dict[Path, str]
    """Files that could not be used or only in part, and why."""


def collect_candidates(
    model: str,
    folders: Sequence[Path],
    out: Path,
    *,
    keyword: str | None = None,
    threshold: float | None = None,
    n: int = 200,
    n_jobs: int = 1,
    progress: bool = False,
) -> CandidateSet:
    """Fill a folder with candidates for labelling; labelled ones stay and are not offered again.

    Parameters
    ----------
    model : str
        A bundled model's name or a file.
    folders : sequence of Path
        Folders of recordings, or files.
    out : Path
    keyword : str, optional
        Only this keyword of the model.
    threshold : float, optional
        Detection threshold; by default the model's.
    n : int
        Maximum of candidates.
    n_jobs : int
        Processes.
    progress : bool
        Whether to show a progress bar on standard error.

    Raises
    ------
    ConfigError
        If there are no recordings, the model does not know the keyword, or no score is high enough.
    FormatError
        If no file can be read.
    """
    path, manifest = _model(model)
    keyword = None if keyword is None else nfc(keyword)
    thresholds = _thresholds(manifest, keyword=keyword, threshold=threshold)
    paths = [one for one in recordings_in(folders) if not one.is_relative_to(out.absolute())]
    out.mkdir(parents=True, exist_ok=True)
    folder = MinedFolder(out)
    results = scan_files(paths, path, out / "heard.jsonl", thresholds=thresholds, n_jobs=n_jobs)
    console = Console(stderr=True)
    shown = track(results, "Processing", len(paths), disable=not progress, console=console)
    scans, left_out = _split_failures(shown)
    _require_scans(scans, paths, left_out)
    labelled = _labelled(folder)
    found = _unlabelled(scans, labelled)
    selected = select(
        [peak for _, peak in found],
        thresholds=thresholds,
        labelled=[one.embedding for one in labelled],
        n=n,
    )
    offered = _cut_all(out, [found[i] for i in selected], left_out)
    _list_left_out(out, left_out)
    if not offered and not labelled:
        raise _no_candidate(scans, thresholds)
    folder.write_candidates([*labelled, *offered], manifest=manifest)
    hours = sum(one.duration_s for one in scans) / 3600
    return CandidateSet(len(scans), hours, len(found), offered, len(labelled), left_out)


def _model(name: str) -> tuple[Path, Manifest]:
    path = model_path(name)
    check_model(path)
    manifest = open_model(path).manifest
    if not manifest.keywords:
        raise ModelError(
            f"A model to mine with must have keywords. Received: {name}, which only gives "
            f"embeddings. Give a model of your word."
        )
    if strange := [word for word in manifest.keywords if re.search(r"[/\\\0]|^\.", word)]:
        raise ModelError(
            f"The keywords of a model to mine with must be names of folders. Received: "
            f"{strange[0]!r} in {name}. Train it with another keyword."
        )
    return path, manifest


def _thresholds(
    manifest: Manifest, *, keyword: str | None, threshold: float | None
) -> dict[str, float]:
    if keyword is not None and keyword not in manifest.keywords:
        raise ConfigError(
            f"`--keyword` must be one of the model's. Received: `{keyword}`."
            f"{did_you_mean(keyword, manifest.keywords)} It knows: {', '.join(manifest.keywords)}."
        )
    every = thresholds_for(DecisionSettings(threshold=threshold), manifest)
    return {word: value for word, value in every.items() if keyword in (None, word)}


def _split_failures(
    results: Iterable[FileScan | Failure[Path]],
) -> tuple[list[FileScan], dict[Path, str]]:
    """Return scans, sorted by path, and reasons why files could not be used or only in part."""
    scans: list[FileScan] = []
    left_out: dict[Path, str] = {}
    for one in results:
        if isinstance(one, Failure):
            left_out[one.item] = one.reason
            continue
        scans.append(one)
        if one.remark:
            left_out[Path(one.path)] = one.remark
    return sorted(scans, key=lambda one: one.path), left_out


def _require_scans(
    scans: Sequence[FileScan], paths: Sequence[Path], left_out: dict[Path, str]
) -> None:
    if not scans:
        why = next(iter(left_out.values()), "all of them are in --out")
        raise FormatError(
            f"There must be a recording that can be read. Received: {len(paths)}, none of them "
            f"readable: {why}"
        )


def _labelled(folder: MinedFolder) -> list[Candidate]:
    labels = folder.labels()
    return [one for one in folder.candidates() if one.id in labels] if labels else []


def _unlabelled(
    scans: Sequence[FileScan], labelled: Sequence[Candidate]
) -> list[tuple[FileScan, Peak]]:
    """Return peaks without a label; of copies of a file, only those of the first."""
    done: dict[str, list[float]] = {}
    for one in labelled:
        done.setdefault(one.id.partition("-")[0], []).append(one.end_s)
    first = {one.content_digest: one for one in reversed(scans)}
    return [
        (one, peak)
        for one in scans
        if first[one.content_digest] is one
        for peak in one.peaks
        if all(abs(peak.end_s - at) >= MIN_SEPARATION_S for at in done.get(one.content_digest, ()))
    ]


def _cut_all(
    out: Path, selected: Sequence[tuple[FileScan, Peak]], left_out: dict[Path, str]
) -> list[Candidate]:
    offered: list[Candidate] = []
    for scan, peak in selected:
        try:
            offered.append(_cut(out, scan, peak, rank=len(offered) + 1))
        except FormatError as error:  # removed since it was scanned
            left_out[Path(scan.path)] = str(error)
    return offered


def _cut(out: Path, scan: FileScan, peak: Peak, *, rank: int) -> Candidate:
    """Write the clip of a peak, unless it exists, and return its candidate."""
    start_s, end_s = clip_span_s((peak.start_s, peak.end_s))
    name = candidate_id(scan.content_digest, end_s=peak.end_s, keyword=peak.keyword)
    clip = Path("clips") / f"{name}.flac"
    if not (out / clip).is_file():
        samples = read_samples(Path(scan.path), start_s=start_s, end_s=end_s)
        write_clip(out / clip, samples)
    return Candidate(
        id=name,
        keyword=peak.keyword,
        score=peak.score,
        kind=peak.kind,
        source=scan.path,
        start_s=peak.start_s,
        end_s=peak.end_s,
        clip=str(clip),
        word_s=(round(peak.start_s - start_s, 3), round(peak.end_s - start_s, 3)),
        rank=rank,
        embedding=peak.embedding,
    )


def _list_left_out(out: Path, left_out: dict[Path, str]) -> None:
    write_left_out(out / "left_out.csv", left_out)
    log_left_out(left_out, listed=out / "left_out.csv")


def _no_candidate(scans: Sequence[FileScan], thresholds: dict[str, float]) -> ConfigError:
    hours = sum(one.duration_s for one in scans) / 3600
    highest = max(one.highest_score for one in scans)
    return ConfigError(
        f"Recordings must have a score of {MIN_SCORE:g} or more for a keyword "
        f"({', '.join(thresholds)}). Received: {hours:.2f} h in {len(scans)} files, in which the "
        f"highest is {highest:.2f}. Give more recordings, or the model that made them."
    )
