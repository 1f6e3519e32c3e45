"""What `kws mine` does before anybody listens: hear everything, choose, cut clips."""

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
from kws.model import model_path, open_model
from kws.model_check import check_model
from kws_train.data.audio_files import read_samples
from kws_train.data.corpus import write_left_out
from kws_train.mining.candidates import Heard, hear, recordings_in
from kws_train.mining.folder import Candidate, MinedFolder, write_clip
from kws_train.mining.peaks import APART_S, LEAST, Rise
from kws_train.mining.select import choose
from kws_train.parallel import Failure

__all__ = ["Gathered", "gather"]

log = logging.getLogger("kws.mine")

_BEFORE_S, _AFTER_S = 1.5, 1.0
_N_SAID = 5


class Gathered(NamedTuple):
    """What came of it."""

    n_files: int
    """That were heard."""
    hours: float
    n_found: int
    """Moments, those labelled before left out."""
    candidates: list[Candidate]
    """Those that are offered, the most telling first."""
    n_labelled: int
    left_out: dict[Path, str]
    """Files that were not heard, and others of which something was passed over."""


def gather(
    model: str,
    folders: Sequence[Path],
    out: Path,
    *,
    keyword: str | None = None,
    threshold: float | None = None,
    n: int = 200,
    n_jobs: int = 1,
    progress: bool = False,
) -> Gathered:
    """Fill a folder with candidates for labelling; what is labelled already stays and is kept out.

    Parameters
    ----------
    model : str
        A bundled model's name or a file.
    folders : sequence of Path
        Of recordings, or files.
    out : Path
    keyword : str, optional
        Only this one of the model's.
    threshold : float, optional
        What scores are compared with; by default the model's.
    n : int
        At most so many.
    n_jobs : int
        Processes.
    progress : bool
        Whether to draw a progress bar on standard error.

    Raises
    ------
    ConfigError
        If there are no recordings, the model does not know the keyword, or nothing comes near one.
    FormatError
        If no file can be read.
    """
    path, manifest = _model(model)
    thresholds = _thresholds(manifest, keyword=keyword, threshold=threshold)
    paths = [one for one in recordings_in(folders) if not one.is_relative_to(out.absolute())]
    out.mkdir(parents=True, exist_ok=True)
    folder = MinedFolder(out)
    work = hear(paths, path, out / "heard.jsonl", thresholds=thresholds, n_jobs=n_jobs)
    console = Console(stderr=True)
    shown = track(work, "Hearing", len(paths), disable=not progress, console=console)
    heard, left_out = _sorted_out(shown)
    _require_heard(heard, paths, left_out)
    labelled = _labelled(folder)
    found = _new(heard, labelled)
    chosen = choose(
        [rise for _, rise in found],
        thresholds=thresholds,
        known=[one.embedding for one in labelled],
        n=n,
    )
    offered = _cut_all(out, [found[i] for i in chosen], left_out)
    _list_left_out(out, left_out)
    if not offered and not labelled:
        raise _none(heard, thresholds)
    folder.write_candidates([*labelled, *offered], manifest=manifest)
    hours = sum(one.seconds for one in heard) / 3600
    return Gathered(len(heard), hours, len(found), offered, len(labelled), left_out)


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


def _sorted_out(
    results: Iterable[Heard | Failure[Path]],
) -> tuple[list[Heard], dict[Path, str]]:
    """Return what was heard, and which files were not or not wholly, and why."""
    heard: list[Heard] = []
    left_out: dict[Path, str] = {}
    for one in results:
        if isinstance(one, Failure):
            left_out[one.item] = one.reason
            continue
        heard.append(one)
        if one.remark:
            left_out[Path(one.path)] = one.remark
    return sorted(heard, key=lambda one: one.path), left_out


def _require_heard(
    heard: Sequence[Heard], paths: Sequence[Path], left_out: dict[Path, str]
) -> None:
    if not heard:
        why = next(iter(left_out.values()), "those of --out alone")
        raise FormatError(
            f"There must be a recording that can be read. Received: {len(paths)}, of which none "
            f"can: {why}"
        )


def _labelled(folder: MinedFolder) -> list[Candidate]:
    labels = folder.labels()
    return [one for one in folder.candidates() if one.id in labels] if labels else []


def _new(heard: Sequence[Heard], labelled: Sequence[Candidate]) -> list[tuple[Heard, Rise]]:
    """Return the moments that nobody labelled; of copies of a file, those of the first."""
    done: dict[str, list[float]] = {}
    for one in labelled:
        done.setdefault(one.id.partition("-")[0], []).append(one.end_s)
    once = {one.content: one for one in reversed(heard)}
    return [
        (one, rise)
        for one in heard
        if once[one.content] is one
        for rise in one.rises
        if all(abs(rise.end_s - at) >= APART_S for at in done.get(one.content, ()))
    ]


def _cut_all(
    out: Path, chosen: Sequence[tuple[Heard, Rise]], left_out: dict[Path, str]
) -> list[Candidate]:
    offered: list[Candidate] = []
    for heard, rise in chosen:
        try:
            offered.append(_cut(out, heard, rise, rank=len(offered) + 1))
        except FormatError as error:  # gone since it was heard
            left_out[Path(heard.path)] = str(error)
    return offered


def _cut(out: Path, heard: Heard, rise: Rise, *, rank: int) -> Candidate:
    """Write the clip of a moment, if it is not there."""
    start_s = max(0.0, rise.start_s - _BEFORE_S)
    word = re.sub(r"\W+", "_", rise.keyword, flags=re.ASCII)[:32]
    name = f"{heard.content}-{round(1000 * rise.end_s):08d}-{word}"
    clip = Path("clips") / f"{name}.flac"
    if not (out / clip).is_file():
        samples = read_samples(Path(heard.path), start_s=start_s, end_s=rise.end_s + _AFTER_S)
        write_clip(out / clip, samples)
    return Candidate(
        id=name,
        keyword=rise.keyword,
        score=rise.score,
        kind=rise.kind,
        source=heard.path,
        start_s=rise.start_s,
        end_s=rise.end_s,
        clip=str(clip),
        word_s=(round(rise.start_s - start_s, 3), round(rise.end_s - start_s, 3)),
        rank=rank,
        embedding=rise.embedding,
    )


def _list_left_out(out: Path, left_out: dict[Path, str]) -> None:
    write_left_out(out / "left_out.csv", left_out)
    for reason in list(left_out.values())[:_N_SAID]:
        log.warning("left out: %s", reason)
    if len(left_out) > _N_SAID:
        log.warning("left out: %d more, see %s", len(left_out) - _N_SAID, out / "left_out.csv")


def _none(heard: Sequence[Heard], thresholds: dict[str, float]) -> ConfigError:
    hours = sum(one.seconds for one in heard) / 3600
    highest = max(one.highest for one in heard)
    return ConfigError(
        f"Something must sound at least a little like a keyword ({', '.join(thresholds)}), a score "
        f"of {LEAST:g}. Received: {hours:.2f} h in {len(heard)} files, in which the highest is "
        f"{highest:.2f}. Give more recordings, or the model that made them."
    )
