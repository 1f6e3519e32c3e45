"""Clips of words and phrases spoken by synthetic voices, varied, checked and kept.

`synthesize` is the one way that clips are made. What a backend says is cached by its content; clips
are named as in Speech Commands, with the voice for a speaker. Any of it may be interrupted.
"""

import functools
import hashlib
import logging
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import soundfile
from rich.console import Console
from rich.progress import track

from kws.audio import SAMPLE_RATE_HZ as RATE_HZ
from kws.errors import ConfigError, KwsError
from kws.features import Samples
from kws_train.atomic import link, replacing
from kws_train.data.audio_files import read_samples
from kws_train.parallel import Failure, map_corpus
from kws_train.synth.clip_checks import Reader, fault_of, reads_as, trimmed
from kws_train.synth.phrases import Phrase
from kws_train.synth.voices.accents import split_accent
from kws_train.synth.voices.backend import Backend, Line

__all__ = ["SynthReport", "cache_folder", "draw_line", "say", "seconds_per_clip", "synthesize"]

log = logging.getLogger("kws.synth")

_FORM = 1  # changes whenever what is cached for the same line would
_ATTEMPTS = 3
_PROBED = 4  # clips of a phrase that are tried before all others
_ENDS = ("", ".", ".", "!", "?", ",")
_PAUSES = (" ", " ", " ", ", ", "... ")
_MOST_VOICES = 60  # of a backend, for how often it is drawn
_SPEEDS = (0.75, 1.35)
_SEMITONES, _MOST_SEMITONES = 1.2, (-3.0, 3.0)


class SynthReport(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a synthesis, in clips.

    Attributes
    ----------
    n_wanted : int
    n_kept : int
        There before.
    n_written : int
        New in the folder.
    n_spoken : int
        Of all that were said for them, how many no cache had.
    dropped : dict of str to int
        What was said and not used, and why: `empty`, `too short`, `too long`, `misread`, `failed`.
    missing : dict of str to int
        Phrases with fewer clips than wanted, and how many are missing.
    unsayable : tuple of str
        Phrases without any.
    """

    n_wanted: int
    n_kept: int
    n_written: int
    n_spoken: int
    dropped: dict[str, int]
    missing: dict[str, int]
    unsayable: tuple[str, ...]

    def describe(self) -> str:
        """Say it in one line."""
        dropped = ", ".join(f"{n} {why}" for why, n in sorted(self.dropped.items()))
        return (
            f"{self.n_written} clips, {self.n_kept} there before, {sum(self.dropped.values())} "
            f"dropped{f' ({dropped})' if dropped else ''}, {sum(self.missing.values())} missing"
        )

    def require(self, texts: Iterable[str]) -> None:
        """Check that there is a clip at least of each of these phrases.

        Raises
        ------
        ConfigError
            If no voice could say one of them.
        """
        for text in texts:
            if text in self.unsayable:
                why = ", ".join(sorted(self.dropped))
                raise ConfigError(
                    f"A phrase must be one that voices can say. Received: `{text}`; all that was "
                    f"said for it was dropped ({why}). Spell it as it sounds, or choose another "
                    f"backend: `--backend`."
                )


class _VoiceError(KwsError):
    """A backend that could not say a line."""


class _Job(msgspec.Struct, frozen=True):
    """The n-th clip of a phrase."""

    phrase: Phrase
    n: int
    seed: int


class _Made(msgspec.Struct, frozen=True):
    """What came of a job; `path` is None where all attempts were dropped."""

    path: Path | None
    dropped: tuple[str, ...] = ()
    n_spoken: int = 0


def cache_folder() -> Path:
    """Return where spoken lines are kept: $XDG_CACHE_HOME/kws/speech or ~/.cache/kws/speech."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kws/speech"


def synthesize(
    words: Mapping[str, int],
    out: Path,
    backends: Sequence[Backend],
    *,
    cache: Path | None = None,
    reader: Reader | None = None,
    language: str = "en",
    n_jobs: int = 1,
    seed: int = 1,
) -> SynthReport:
    """Write clips of phrases to `out/label/voice_nohash_n.flac`; clips that are there are kept.

    A clip that fails its checks is said again in another way, three times at most. Of a phrase of
    which no voice can say one of the first clips the others are not tried.

    Parameters
    ----------
    words : mapping of str to int
        How many clips of each phrase there are to be.
    out : Path
    backends : sequence of Backend
        Those with more voices speak more.
    cache : Path, optional
        By default `cache_folder()`.
    reader : Reader, optional
        Clips that it cannot read back are dropped.
    language : str
    n_jobs : int
        Processes.
    seed : int
        Decides, with phrase and number, how a clip is said.

    Raises
    ------
    ConfigError
        If a phrase cannot be said at all by its letters, see `Phrase.of`.
    """
    wanted: Counter[Phrase] = Counter()
    for word, n in words.items():
        wanted[Phrase.of(word, language=language)] += n
    there = {phrase: _numbers(out / phrase.label) for phrase in wanted}
    todo = {
        phrase: [_Job(phrase, i, seed) for i in range(n) if i not in there[phrase]]
        for phrase, n in wanted.items()
    }
    make = functools.partial(
        _make, out=out, backends=backends, cache=cache or cache_folder(), reader=reader
    )
    probes = [job for jobs in todo.values() for job in jobs[:_PROBED]]
    made = list(_map(make, probes, n_jobs=n_jobs, title="Trying"))
    sayable = {job.phrase for job, one in zip(probes, made, strict=True) if one.path}
    rest = [
        job
        for phrase, jobs in todo.items()
        for job in jobs[_PROBED:]
        if phrase in sayable or there[phrase]
    ]
    made += _map(make, rest, n_jobs=n_jobs, title="Speaking")
    lacking = Counter({phrase.text: len(jobs) for phrase, jobs in todo.items()})
    lacking -= Counter(
        job.phrase.text for job, one in zip(probes + rest, made, strict=True) if one.path
    )
    return SynthReport(
        n_wanted=wanted.total(),
        n_kept=wanted.total() - sum(map(len, todo.values())),
        n_written=sum(one.path is not None for one in made),
        n_spoken=sum(one.n_spoken for one in made),
        dropped=dict(Counter(why for one in made for why in one.dropped)),
        missing=dict(lacking),
        unsayable=tuple(one.text for one in wanted if lacking[one.text] == wanted[one] > 0),
    )


def draw_line(phrase: Phrase, backend: Backend, random: np.random.Generator) -> Line:
    """Draw how a clip is to be said: voice, speed, pitch, pauses between words, and melody."""
    pauses = [str(pause) for pause in random.choice(_PAUSES, len(phrase.words) - 1)]
    words = phrase.text.split(" ")
    text = words[0] + "".join(pause + word for pause, word in zip(pauses, words[1:], strict=True))
    if random.random() < 0.5:
        text = text[0].upper() + text[1:]
    return Line(
        text + str(random.choice(_ENDS)),
        backend.draw_voice(random),
        speed=round(float(np.exp(random.uniform(*np.log(_SPEEDS)))), 2),
        semitones=round(float(np.clip(random.normal(0, _SEMITONES), *_MOST_SEMITONES)), 1),
    )


def seconds_per_clip(phrase: Phrase, backends: Sequence[Backend]) -> float:
    """Measure how long this machine needs for a clip, on one core; what is said is not kept."""
    spent = []
    for backend in backends:
        lines = [draw_line(phrase, backend, np.random.default_rng(i)) for i in range(3)]
        backend.speak(lines[0])  # the first one pays for loading the model
        start = time.perf_counter()
        for line in lines[1:]:
            backend.speak(line)
        spent.append((time.perf_counter() - start) / 2)
    return float(np.dot(spent, _shares(backends)))


def say(line: Line, backend: Backend, *, cache: Path) -> tuple[Path, bool]:
    """Say a line, or find it where it is kept.

    Parameters
    ----------
    line : Line
    backend : Backend
    cache : Path

    Returns
    -------
    path : Path
        A FLAC file, trimmed; its name is the digest of all that its sound depends on.
    is_new : bool
        Not said before.
    """
    content = msgspec.json.encode((_FORM, backend.name, backend.version, line))
    digest = hashlib.sha256(content).hexdigest()[:40]
    path = cache / digest[:2] / f"{digest}.flac"
    if path.is_file():
        return path, False
    samples = trimmed(_spoken(line, backend))
    if not len(samples):
        samples = np.zeros(1, np.int16)  # a FLAC file without a sample cannot be read
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as begun:
        soundfile.write(begun, samples, RATE_HZ)
    return path, True


def _make(
    job: _Job, *, out: Path, backends: Sequence[Backend], cache: Path, reader: Reader | None
) -> _Made:
    """Make one clip, in a few attempts."""
    dropped: list[str] = []
    n_spoken = 0
    for attempt in range(_ATTEMPTS):
        random = np.random.default_rng([job.seed, attempt, job.n, *job.phrase.text.encode()])
        backend = backends[int(random.choice(len(backends), p=_shares(backends)))]
        line = draw_line(job.phrase, backend, random)
        try:
            path, is_new = say(line, backend, cache=cache)
        except _VoiceError as error:
            log.warning("%s", error)
            dropped.append("failed")
            continue
        n_spoken += is_new
        if fault := _fault(path, job.phrase, reader):
            dropped.append(fault)
            continue
        clip = out / job.phrase.label / f"{_speaker(line.voice)}_nohash_{job.n}.flac"
        link(path, clip)
        return _Made(clip, tuple(dropped), n_spoken)
    return _Made(None, tuple(dropped), n_spoken)


def _shares(backends: Sequence[Backend]) -> npt.NDArray[np.float64]:
    """Return how often each is drawn: by its number of voices, up to a limit."""
    n_voices = np.minimum([backend.n_voices for backend in backends], _MOST_VOICES)
    return np.asarray(n_voices / n_voices.sum())


def _spoken(line: Line, backend: Backend) -> Samples:
    try:
        return backend.speak(line)
    except Exception as error:  # each backend's libraries have errors of their own
        raise _VoiceError(f"{backend.name} could not say `{line.text}`: {error!r}") from error


def _fault(path: Path, phrase: Phrase, reader: Reader | None) -> str | None:
    samples = read_samples(path)
    if (fault := fault_of(samples, text=phrase.text)) or reader is None:
        return fault
    heard = path.with_suffix(f".{reader.name}.txt")
    if not heard.is_file():
        with replacing(heard) as begun:
            begun.write_text(reader.read(samples), encoding="utf-8")
    return None if reads_as(heard.read_text(encoding="utf-8"), phrase.text) else "misread"


def _map(
    make: Callable[[_Job], _Made], jobs: Sequence[_Job], *, n_jobs: int, title: str
) -> Iterator[_Made]:
    if not jobs:
        return
    work = map_corpus(make, jobs, n_jobs=n_jobs)
    console = Console(stderr=True)
    for one in track(work, title, total=len(jobs), console=console, transient=True):
        if isinstance(one, Failure):
            raise KwsError(
                f"Clips have to be written. Received: {one.reason}. "
                f"The same command goes on once that is mended."
            )
        yield one


def _numbers(folder: Path) -> set[int]:
    """Return the numbers of the clips that are there."""
    names = (re.fullmatch(r".*_nohash_(\d+)\.flac", path.name) for path in folder.glob("*.flac"))
    return {int(name[1]) for name in names if name}


def _speaker(voice: str) -> str:
    """Return the name of a voice as a speaker: no accent, no shares, words divided by hyphens."""
    plain = re.sub(r":[\d.]+|_", "", split_accent(voice)[0])
    return re.sub(r"[^A-Za-z0-9]+", "-", plain)
