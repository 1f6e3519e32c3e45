"""Synthesis of clips of words and phrases: varied, checked, cached and resumable.

Clips are named as in Speech Commands, with the voice as the speaker. After an interruption, the
same call continues with the missing clips.
"""

import functools
import logging
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
from rich.console import Console
from rich.progress import track

from kws.errors import KwsError
from kws_train.atomic import link
from kws_train.cache_folder import cache_folder
from kws_train.data.audio_files import read_samples
from kws_train.parallel import Failure, map_corpus
from kws_train.synth.clip_cache import SpeechError, render, transcript
from kws_train.synth.clip_checks import Transcriber, find_defect, matches_text
from kws_train.synth.lines import draw_line, engine_weights, speaker_name
from kws_train.synth.phrases import Phrase
from kws_train.synth.synth_report import SynthReport
from kws_train.synth.voices.engine import VoiceEngine

__all__ = ["seconds_per_clip", "synthesize"]

log = logging.getLogger("kws.synth")

_N_ATTEMPTS = 3
_N_PROBES = 4  # clips of each phrase that are synthesised before all others


class _Job(msgspec.Struct, frozen=True):
    """The n-th clip of a phrase."""

    phrase: Phrase
    n: int
    seed: int


class _JobResult(msgspec.Struct, frozen=True):
    """The clip of a job; `path` is None where all attempts were dropped."""

    path: Path | None
    dropped: tuple[str, ...] = ()
    n_spoken: int = 0


def synthesize(
    words: Mapping[str, int],
    out: Path,
    engines: Sequence[VoiceEngine],
    *,
    cache: Path | None = None,
    transcriber: Transcriber | None = None,
    language: str = "en",
    n_jobs: int = 1,
    seed: int = 1,
) -> SynthReport:
    """Write clips of phrases to `out/label/voice_nohash_n.flac`; existing clips are kept.

    A clip that fails its checks is synthesised again with another random line, three times at most.
    A phrase whose first clips all fail is given up.

    Parameters
    ----------
    words : mapping of str to int
        Wanted clips of each phrase.
    out : Path
    engines : sequence of VoiceEngine
        Drawn at random, those with more voices more often.
    cache : Path, optional
        By default `cache_folder("speech")`.
    transcriber : Transcriber, optional
        Clips with a transcript that does not match are dropped.
    language : str
    n_jobs : int
        Processes.
    seed : int
        With phrase and number, decides the random line of a clip.

    Raises
    ------
    ConfigError
        If a phrase cannot be normalised, see `Phrase.of`.
    """
    wanted: Counter[Phrase] = Counter()
    for word, n in words.items():
        wanted[Phrase.of(word, language=language)] += n
    existing = {phrase: _numbers(out / phrase.label) for phrase in wanted}
    todo = {
        phrase: [_Job(phrase, i, seed) for i in range(n) if i not in existing[phrase]]
        for phrase, n in wanted.items()
    }
    work = functools.partial(
        _run,
        out=out,
        engines=engines,
        cache=cache or cache_folder("speech"),
        transcriber=transcriber,
    )
    probes = [job for jobs in todo.values() for job in jobs[:_N_PROBES]]
    results = list(_map(work, probes, n_jobs=n_jobs, title="Probing"))
    sayable = {job.phrase for job, one in zip(probes, results, strict=True) if one.path}
    rest = [
        job
        for phrase, jobs in todo.items()
        for job in jobs[_N_PROBES:]
        if phrase in sayable or existing[phrase]
    ]
    results += _map(work, rest, n_jobs=n_jobs, title="Synthesising")
    return _report(wanted, todo, dict(zip(probes + rest, results, strict=True)))


def seconds_per_clip(phrase: Phrase, engines: Sequence[VoiceEngine]) -> float:
    """Measure the time that a clip takes on one core of this machine; the clips are discarded."""
    spent_s = []
    for engine in engines:
        lines = [draw_line(phrase, engine, np.random.default_rng(i)) for i in range(3)]
        engine.speak(lines[0])  # the first call loads the model
        start_s = time.perf_counter()
        for line in lines[1:]:
            engine.speak(line)
        spent_s.append((time.perf_counter() - start_s) / 2)
    return float(np.dot(spent_s, engine_weights(engines)))


def _run(
    job: _Job,
    *,
    out: Path,
    engines: Sequence[VoiceEngine],
    cache: Path,
    transcriber: Transcriber | None,
) -> _JobResult:
    """Synthesise one clip, with a few attempts."""
    dropped: list[str] = []
    n_spoken = 0
    for attempt in range(_N_ATTEMPTS):
        random = np.random.default_rng([job.seed, attempt, job.n, *job.phrase.text.encode()])
        engine = engines[int(random.choice(len(engines), p=engine_weights(engines)))]
        line = draw_line(job.phrase, engine, random)
        try:
            path, is_new = render(line, engine, cache=cache)
        except SpeechError as error:
            log.warning("%s", error)
            dropped.append("failed")
            continue
        n_spoken += is_new
        if defect := _defect(path, job.phrase, transcriber):
            dropped.append(defect)
            continue
        clip = out / job.phrase.label / f"{speaker_name(line.voice)}_nohash_{job.n}.flac"
        link(path, clip)
        return _JobResult(clip, tuple(dropped), n_spoken)
    return _JobResult(None, tuple(dropped), n_spoken)


def _defect(path: Path, phrase: Phrase, transcriber: Transcriber | None) -> str | None:
    defect = find_defect(read_samples(path), text=phrase.text)
    if defect or transcriber is None:
        return defect
    return None if matches_text(transcript(path, transcriber), phrase.text) else "misread"


def _map(
    work: Callable[[_Job], _JobResult], jobs: Sequence[_Job], *, n_jobs: int, title: str
) -> Iterator[_JobResult]:
    if not jobs:
        return
    results = map_corpus(work, jobs, n_jobs=n_jobs)
    console = Console(stderr=True)
    for one in track(results, title, total=len(jobs), console=console, transient=True):
        if isinstance(one, Failure):
            raise KwsError(
                f"A clip could not be written: {one.reason}. Fix the cause and run the same "
                f"command again; it continues with the missing clips."
            )
        yield one


def _report(
    wanted: Counter[Phrase],
    todo: Mapping[Phrase, Sequence[_Job]],
    results: Mapping[_Job, _JobResult],
) -> SynthReport:
    missing = Counter({phrase.text: len(jobs) for phrase, jobs in todo.items()})
    missing -= Counter(job.phrase.text for job, one in results.items() if one.path)
    return SynthReport(
        n_wanted=wanted.total(),
        n_kept=wanted.total() - sum(map(len, todo.values())),
        n_written=sum(one.path is not None for one in results.values()),
        n_spoken=sum(one.n_spoken for one in results.values()),
        dropped=dict(Counter(why for one in results.values() for why in one.dropped)),
        missing=dict(missing),
        unsayable=tuple(one.text for one in wanted if missing[one.text] == wanted[one] > 0),
    )


def _numbers(folder: Path) -> set[int]:
    """Return the numbers of existing clips."""
    names = (re.fullmatch(r".*_nohash_(\d+)\.flac", path.name) for path in folder.glob("*.flac"))
    return {int(name[1]) for name in names if name}
