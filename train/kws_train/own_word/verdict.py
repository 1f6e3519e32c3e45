"""Verdict on a new model in plain words: ready, for these speakers only, or not usable, and why."""

import shlex
from pathlib import Path
from typing import Literal, NamedTuple

from kws.commands.enroll import FEWEST
from kws.names import nfc
from kws_train.data.audio_files import audio_files
from kws_train.evaluate.det import OperatingPoint
from kws_train.own_word.figures import Figures
from kws_train.own_word.prepare import labels_of_request, n_test_recordings
from kws_train.own_word.workspace import Request, Workspace

__all__ = ["Grounds", "Verdict", "grounds_of", "judge", "weak_voices_warning"]

_FEWEST_MINUTES = 10.0
_FEW_RECORDINGS = 50
_READY_MISSES, _USABLE_MISSES = 0.2, 0.5
_FALSE_ALARM_FACTOR, _MOST_FALSE_ALARMS = 10, 5.0  # times the budget, and per hour
_WEAK_ENGINES = {"flite", "espeak-ng"}

Kind = Literal["ready", "these speakers only", "weak", "not usable"]


class Grounds(NamedTuple):
    """What a model was trained and tested on."""

    tested_on: Literal["recordings", "voices", "training recordings"]
    n_recordings: int
    """Of the phrases, for training and testing."""
    has_voices: bool
    has_weak_voices: bool
    """Only of flite and espeak-ng."""
    has_speech: bool
    minutes: float
    recordings: Path | None


class Verdict(NamedTuple):
    """A verdict, its reason, and what would help most."""

    kind: Kind
    text: str
    advice: str

    @property
    def is_usable(self) -> bool:
        """False: `kws new` ends with exit code 1."""
        return self.kind != "not usable"


def judge(figures: Figures, grounds: Grounds) -> Verdict:
    """Judge a model by its figures at its own threshold."""
    kind, reason = _kind(figures, grounds)
    heads: dict[Kind, str] = {
        "ready": "Ready",
        "these speakers only": "Works for these speakers only",
        "weak": "Weak",
        "not usable": "Not usable",
    }
    return Verdict(kind, f"{heads[kind]}: {reason}", _advice(kind, figures, grounds))


def grounds_of(request: Request, workspace: Workspace, *, engines: list[str]) -> Grounds:
    """Return what the model of a workspace rests on.

    Parameters
    ----------
    request : Request
    workspace : Workspace
    engines : list of str
        Names of the text-to-speech engines.
    """
    labels = labels_of_request(request)
    has_voices = any((workspace.synthetic_all / label).is_dir() for label in labels)
    is_tested = n_test_recordings(request, workspace) > 0
    folders = [one for one in (request.recordings, request.test) if one is not None]
    return Grounds(
        tested_on="recordings" if is_tested else "voices" if has_voices else "training recordings",
        n_recordings=sum(len(audio_files(one, optional=True)) for one in folders),
        has_voices=has_voices,
        has_weak_voices=has_voices and set(engines) <= _WEAK_ENGINES,
        has_speech=bool(request.speech),
        minutes=request.minutes,
        recordings=request.recordings,
    )


def weak_voices_warning(engines: list[str]) -> str:
    """Return a warning if all engines are weak, else an empty string."""
    if not engines or not set(engines) <= _WEAK_ENGINES:
        return ""
    return (
        f"only {' and '.join(sorted(engines))} speak: models from their voices miss many words of "
        f"people. With the neural voices of Kokoro, 1 to 18 % were missed "
        f"(docs/your-own-word.md); `kws new --help` names --voices and --kokoro."
    )


def _kind(figures: Figures, grounds: Grounds) -> tuple[Kind, str]:
    point = _at_own_threshold(figures)
    misses, alarms = point.miss_rate, point.fa_per_hour
    most = max(_FALSE_ALARM_FACTOR * figures.budget, _MOST_FALSE_ALARMS)
    whose = {
        "recordings": "recordings that were held out",
        "voices": "words of synthetic voices that were held out",
        "training recordings": "recordings that it was trained on",
    }[grounds.tested_on]
    missed = f"it misses {misses:.0%} of {figures.n_words} {whose}"
    rate = f"{alarms:.1f} false alarms per hour"
    if misses > _USABLE_MISSES:
        return "not usable", f"{missed}."
    if alarms > most:
        return "not usable", f"{rate} in speech without the phrase."
    if grounds.tested_on == "training recordings" or not grounds.has_voices:
        return "these speakers only", f"{missed}, with {rate}; other people will be missed more."
    if misses > _READY_MISSES:
        return "weak", f"{missed}, with {rate}."
    people = "" if grounds.tested_on == "recordings" else " People will be missed more often."
    return "ready", f"{missed}, with {rate}.{people}"


def _at_own_threshold(figures: Figures) -> OperatingPoint:
    """Return the clean stream's point at the model's own threshold, else the last one."""
    points = figures.points.get("clean") or next(iter(figures.points.values()))
    return next((one for one in points if one.budget is None), points[-1])


def _advice(kind: Kind, figures: Figures, grounds: Grounds) -> str:
    """Return what would help most, in one sentence; and an enrolment where there is too little."""
    word = nfc(figures.keywords[0].replace("_", " "))
    if grounds.n_recordings < _FEW_RECORDINGS:
        advice = (
            f"What would help most: {_FEW_RECORDINGS} recordings by the people who will say it, "
            f"`kws record {shlex.quote(word)}`, then --recordings."
        )
    elif not grounds.has_voices or grounds.has_weak_voices:
        advice = "What would help most: neural voices, of Kokoro or Piper."
    elif grounds.minutes < _FEWEST_MINUTES:
        advice = f"What would help most: more time, --minutes {_FEWEST_MINUTES:g}."
    elif not grounds.has_speech:
        advice = "What would help most: real speech without the phrase, --speech."
    elif kind == "ready":
        return ""
    else:
        advice = "What would help most: a longer phrase, of three syllables or more."
    if kind != "ready" and grounds.minutes < _FEWEST_MINUTES and "--minutes" not in advice:
        advice += f" {grounds.minutes:g} min of training are few: --minutes {_FEWEST_MINUTES:g}."
    if kind == "not usable" and grounds.recordings and grounds.n_recordings >= FEWEST:
        advice += (
            f" For one speaker, no training is needed: `kws enroll {shlex.quote(word)} "
            f"{shlex.quote(str(grounds.recordings))} --out {word.replace(' ', '_')}.tflite`."
        )
    return advice
