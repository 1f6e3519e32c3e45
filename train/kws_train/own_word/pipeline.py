"""From a request to a model file, in steps that each find again what they made before.

```
 phrases ─ voices ──▶ said/      ┐
 recordings ────────▶ recorded/  ├▶ recipe ─ fit ──▶ run/ ─ export ─ calibrate ──▶ model ─▶ outcome
 speech, words, noise ───────────┘                                                          report
```

Speech is split before anything is done with it: a part trains and is mined, a part of that sets
thresholds, and another is for the figures alone.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec
import numpy as np

from kws.config import DecisionSettings
from kws.decision import thresholds_for
from kws.errors import ConfigError
from kws.manifest import UNKNOWN, DataSource, Manifest
from kws.model import open_model
from kws.stderr import quiet_stderr
from kws_export.bundle import export_model
from kws_train.atomic import link, replacing
from kws_train.data.align import train_speakers
from kws_train.data.corpus import audio_below, quiet_utterances, unaligned
from kws_train.evaluate.build_stream import Stream, build_stream, keyword_clips
from kws_train.evaluate.calibrate import calibrate, tuning_streams, write_manifest
from kws_train.evaluate.report import write_report
from kws_train.evaluate.stream import evaluate_stream, hear
from kws_train.fit.training import fit_stages
from kws_train.own_word.figures import Outcome, confusers, cpu_ms, points_of
from kws_train.own_word.prepare import (
    SPLITS,
    coloured_noise,
    cut_words,
    gather_noise,
    gather_recordings,
    gather_speech,
    gather_words,
    sentences,
    share_voices,
)
from kws_train.own_word.pretrained import unpack
from kws_train.own_word.recipe import (
    draw_up,
    seconds_per_scene,
    usual_length_ms,
    weight_of_real,
    within,
)
from kws_train.own_word.workspace import Request, Work
from kws_train.recipe import Recipe, SpeechCorpus, WordCorpus, load_recipe, write_recipe
from kws_train.synth.negatives import allocate_clips, find_negatives
from kws_train.synth.phrases import Phrase
from kws_train.synth.synthesize import SynthReport, synthesize
from kws_train.synth.voices.engine import VoiceEngine

__all__ = ["Result", "make", "streams_for_figures"]

_NEAR_SHARE = 0.6  # of what is like a phrase, against clips of it
_N_SENTENCES = 300
_N_CUT = 400
_FRAMES, _TEMPERATURE = 4, 3.0
_SNR_DB = 10.0
_N_TUNING_NOISES, _TUNING_MINUTES = 6, 40.0
_N_TESTED = 400

Say = Callable[[str], None]
Speak = Callable[[Mapping[str, int], Path], SynthReport]


@dataclass(frozen=True)
class Result:
    """A finished model: its file, its figures and its report."""

    model: Path
    outcome: Outcome
    report: Path


@dataclass(frozen=True)
class _Speech:
    """Continuous speech: what trains, and the utterances for the figures."""

    corpora: list[SpeechCorpus]
    tested: list[Path]
    is_real: bool


def make(
    request: Request,
    *,
    out: Path,
    work: Work,
    engines: Sequence[VoiceEngine],
    cache: Path | None = None,
    n_jobs: int = 1,
    say: Say = print,
    command: str = "",
) -> Result:
    """Make the model that a request asks for; what is there of it already is used.

    Parameters
    ----------
    request : Request
    out : Path
        The model file.
    work : Work
    engines : sequence of VoiceEngine
        Voices; none where recordings have to do.
    cache : Path, optional
        Of what voices say.
    n_jobs : int
        Processes that speak.
    say : callable
        Is told each step.
    command : str
        What makes all this again; shown in the report.

    Raises
    ------
    ConfigError
        If a phrase cannot be said, there is nothing to learn it from, or the folder is of another
        request.
    """
    work.begin(request)
    if done := _finished(work):
        say("this was made before; nothing is done again")
        _deliver(work.model, out)
        return Result(out, *done)
    phrases = [Phrase.of(text, language=request.language) for text in request.phrases]
    labels = [phrase.label for phrase in phrases]
    speak = None
    if engines:
        speak = partial(
            synthesize,
            engines=engines,
            cache=cache,
            language=request.language,
            n_jobs=n_jobs,
            seed=request.seed,
        )
    n_tested = _collect_recordings(labels, request, work, say=say)
    if speak:
        _say_phrases(phrases, request, work, speak, say=say)
    speech = _collect_speech(labels, request, work, speak, say=say)

    with work.timed():
        recipe = _recipe(labels, request, work, speech, say=say)
        start = unpack(work.backbone)
        _, trained = fit_stages(recipe, data=work.folder, run=work.run, start=start)

    _export(trained, request, work, say=say)
    say("measuring on words and speech kept for it")
    model = open_model(work.model)
    heard = hear(model, _for_figures(labels, work, speech, n_tested, seed=request.seed))
    outcome = Outcome(
        keywords=model.manifest.keywords,
        tested_on=_tested_on(labels, work, n_tested, speech),
        n_words=len(heard.streams[0].words),
        hours=heard.streams[0].duration_s / 3600,
        points=points_of(evaluate_stream(heard)),
        budget=request.budget,
        thresholds=_thresholds(model.manifest, request.budget),
        confused_by=confusers(model, _unlike(labels, work), budget=request.budget),
        n_bytes=work.model.stat().st_size,
        cpu_ms=cpu_ms(model),
        minutes=round(work.minutes, 1),
    )
    report = write_report(
        work.run, work.model, clips=work.test, split="all", heard=heard, command=command
    )
    work.outcome.write_bytes(msgspec.json.format(msgspec.json.encode(outcome)))  # last: all is done
    _deliver(work.model, out)
    return Result(out, outcome, report)


def _finished(work: Work) -> tuple[Outcome, Path] | None:
    """Return the figures and the report of a work that is done."""
    report = work.run / "report.html"
    if not all(path.is_file() for path in (work.outcome, work.model, report)):
        return None
    try:
        return msgspec.json.decode(work.outcome.read_bytes(), type=Outcome), report
    except msgspec.DecodeError:
        return None


def _export(trained: Recipe, request: Request, work: Work, *, say: Say) -> None:
    """Write the model in eight bits, with thresholds that training had no part in."""
    with quiet_stderr():  # TensorFlow thinks aloud
        agreement = export_model(
            work.run, work.model, n_frames=_FRAMES, temperature=_TEMPERATURE, force=True
        )
    say(f"in eight bits, it agrees with the trained network at {agreement.argmax:.1%}")
    say("setting thresholds on speech kept from training")
    streams = tuning_streams(
        trained.data,
        work.folder,
        snr_db=(float("inf"), *_N_TUNING_NOISES * (_SNR_DB,)),
        snr_rule="peak",
        minutes=_TUNING_MINUTES,
    )
    tuned = hear(open_model(work.model), streams)
    manifest = calibrate(tuned.manifest, tuned, beyond=True)
    highest = max(_thresholds(manifest, request.budget).values())
    decision = msgspec.structs.replace(manifest.decision, threshold=round(highest, 4))
    manifest = msgspec.structs.replace(manifest, decision=decision)
    write_manifest(work.model, manifest, work.model)


def _thresholds(manifest: Manifest, budget: float) -> dict[str, float]:
    return thresholds_for(DecisionSettings(false_alarms_per_hour=budget), manifest)


def _say_phrases(
    phrases: Sequence[Phrase], request: Request, work: Work, speak: Speak, *, say: Say
) -> None:
    """Let voices say the phrases, and what is like them but is none of them."""
    texts = {phrase.text for phrase in phrases}
    wanted = dict.fromkeys((phrase.text for phrase in phrases), request.n_clips)
    for phrase in phrases:
        found = [one for one in find_negatives(phrase, seed=request.seed) if one.text not in texts]
        wanted |= allocate_clips(found, n_clips=round(_NEAR_SHARE * request.n_clips))
    n_like = len(wanted) - len(texts)
    say(f"speaking {sum(wanted.values())} clips: {', '.join(texts)} and {n_like} like them")
    done = speak(wanted, work.said)
    say(f"  {done.describe()}")
    done.require(texts)
    share_voices(work.said, work.spoken)


def _collect_recordings(labels: Sequence[str], request: Request, work: Work, *, say: Say) -> int:
    """Bring recordings into the work folder; return how many of them the figures are for."""
    n_tested = 0
    known = SPLITS[:2] if request.test else SPLITS
    for folder, splits in ((request.recordings, known), (request.test, SPLITS[2:])):
        if folder is None:
            continue
        for label in labels:
            gathered = gather_recordings(folder, work.recorded, label=label, splits=splits)
            say(f"recordings of {label} in {folder}: {gathered.describe()}")
            n_tested += gathered.n["test"]
    if request.test is None and request.recordings and not n_tested:
        say("  too few to keep some for the figures: those will be of synthetic voices, if any")
    return n_tested


def _collect_speech(
    labels: Sequence[str], request: Request, work: Work, speak: Speak | None, *, say: Say
) -> _Speech:
    """Find continuous speech to train on, and other to measure on."""
    corpora: list[SpeechCorpus] = []
    tested: list[Path] = []
    for folder in request.speech:
        first, second = train_speakers(folder)
        if first and second:  # LibriSpeech's layout: speakers are known
            corpora.append(SpeechCorpus(path=str(folder.resolve())))
            tested += quiet_utterances(folder, without=labels, speakers=second)
            say(f"speech in {folder}: {len(first)} speakers train, {len(second)} are for figures")
        else:
            gather_speech(folder, work.speech)
    if not request.speech and speak:
        _make_speech(labels, request, work, speak, say=say)
    pieces = [work.speech / split for split in ("train", "test")]
    if pieces[0].is_dir():
        corpora.append(SpeechCorpus(path=str(pieces[0].resolve())))
    if pieces[1].is_dir():
        tested += audio_below(pieces[1])
    if not corpora or not tested:
        raise ConfigError(
            f"Speech must be enough to train on some and measure on other, 3 minutes at least. "
            f"Received: {', '.join(map(str, request.speech)) or 'none, and no voice to make it'}. "
            f"Give a folder with --speech, such as LibriSpeech's dev-clean from "
            f"https://www.openslr.org/12."
        )
    return _Speech(corpora, tested, bool(request.speech))


def _make_speech(
    labels: Sequence[str], request: Request, work: Work, speak: Speak, *, say: Say
) -> None:
    """Let voices speak rows of words where no speech is given, which is better than nothing."""
    if (work.speech / "rows.done").is_file():
        return
    say(
        f"no speech was given: {_N_SENTENCES} rows of words by synthetic voices stand in for it. "
        f"Real speech will set it off more often than the figures say; give some with --speech."
    )
    spoken = work.folder / "rows"
    rows = sentences(_N_SENTENCES, without=labels, seed=request.seed)
    speak(dict.fromkeys(rows, 1), spoken)
    gather_speech(spoken, work.speech)


def _recipe(
    labels: Sequence[str], request: Request, work: Work, speech: _Speech, *, say: Say
) -> Recipe:
    """Draw up what is trained, once, and find out how much of it this machine can do in time."""
    if work.recipe.is_file():
        return load_recipe(work.recipe)
    for folder in request.words:
        gather_words(folder, work.others, without=labels, seed=request.seed)
    if not work.said.is_dir() and not work.others.is_dir():
        known = [path for one in speech.corpora for path in unaligned(one, Path(), without=labels)]
        cut_words(known, work.others, n=_N_CUT, seed=request.seed)
    for folder in request.noise:
        gather_noise(folder, work.noise)
    if not request.noise:
        coloured_noise(work.noise, seed=request.seed)
        say("no noise was given: white, pink and brown noise are used")
    clips = [path for _, path in _clips_of(labels, work)]
    recipe = draw_up(
        labels,
        words=_word_corpora(labels, work),
        speech=speech.corpora,
        noise=["noise/train"],
        sources=_sources(labels, request, work),
        word_ms=usual_length_ms(clips),
        seed=request.seed,
    )
    say("finding out how fast this machine trains")
    probe = work.folder / "probe"
    shutil.rmtree(probe, ignore_errors=True)  # of a call that was interrupted
    scene_s = seconds_per_scene(recipe, data=work.folder, run=probe, start=unpack(work.backbone))
    shutil.rmtree(probe)
    recipe = within(recipe, minutes=request.minutes, scene_s=scene_s)
    n_scenes = recipe.fit.scenes_per_epoch
    say(f"training for about {request.minutes:g} min, 40 epochs of {n_scenes} scenes")
    write_recipe(work.recipe, recipe)
    return recipe


def _word_corpora(labels: Sequence[str], work: Work) -> list[WordCorpus]:
    n_real, n_said = (
        len(keyword_clips(folder / "train", labels, split="all"))
        for folder in (work.recorded, work.spoken)
    )
    weight = weight_of_real(n_real, n_said)
    corpora: list[WordCorpus] = []
    for split in ("train", "validation"):
        if n_said:
            corpora.append(WordCorpus(path=f"spoken/{split}", split=split, synthetic=True))
        if (work.recorded / split).is_dir():
            corpora.append(WordCorpus(path=f"recorded/{split}", split=split, weight=weight))
        elif n_real and not n_said:  # so few that they have to validate, too
            corpora.append(WordCorpus(path="recorded/train", split="validation"))
    if work.others.is_dir():
        corpora.append(WordCorpus(path="others", unknown=True))
    return corpora


def _sources(labels: Sequence[str], request: Request, work: Work) -> list[DataSource]:
    """Say what it was trained on, for the manifest; what only the user knows is left open."""
    said = len(keyword_clips(work.said, labels, split="all"))
    sources = [DataSource(name="synthetic voices", licence="the voices'", clips=said)] * bool(said)
    given = (request.recordings, *request.speech, *request.words, *request.noise)
    return sources + [DataSource(name=one.name, licence="its own") for one in given if one]


def _clips_of(labels: Sequence[str], work: Work) -> list[tuple[str, Path]]:
    return [
        clip
        for folder in (work.recorded / "train", work.said)
        for clip in keyword_clips(folder, labels, split="all")
    ]


def _for_figures(
    labels: Sequence[str], work: Work, speech: _Speech, n_recorded: int, *, seed: int
) -> list[Stream]:
    """Build a clean and a noisy stream of words and speech that nothing was trained or set on."""
    folders = (work.recorded if n_recorded else work.spoken) / "test", work.recorded / "train"
    clips = next(filter(None, (keyword_clips(one, labels, split="all") for one in folders)), [])
    random = np.random.default_rng(seed)
    clips = [clips[i] for i in sorted(random.permutation(len(clips))[:_N_TESTED])]
    _link_tested(clips, labels, work)
    return [
        build_stream(
            clips,
            speech.tested,
            audio_below(work.noise / "test"),
            snr_db=snr_db,
            snr_rule="peak",
            seed=seed,
            n_background=max(1, len(speech.tested) // len(clips)),
        )
        for snr_db in (float("inf"), _SNR_DB)
    ]


def _link_tested(clips: Sequence[tuple[str, Path]], labels: Sequence[str], work: Work) -> None:
    """Put the clips that figures are measured on into a folder for each label."""
    unlike = [(UNKNOWN, path) for paths in _unlike(labels, work).values() for path in paths]
    shutil.rmtree(work.test, ignore_errors=True)
    for label, path in (*clips, *unlike):
        link(path, work.test / label / f"{path.parent.name}-{path.name}")


def _unlike(labels: Sequence[str], work: Work) -> dict[str, list[Path]]:
    """Return the clips of other words, of voices that nothing learned from, by what is said."""
    found: dict[str, list[Path]] = {}
    for folder in (work.spoken / "validation", work.spoken / "test"):
        for path in audio_below(folder) if folder.is_dir() else ():
            if path.parent.name not in labels:
                found.setdefault(path.parent.name, []).append(path)
    return found


def _tested_on(labels: Sequence[str], work: Work, n_recorded: int, speech: _Speech) -> str:
    """Say whose voices the figures are of."""
    if n_recorded:
        voices = "recordings kept from training"
    elif any((work.said / label).is_dir() for label in labels):
        voices = "synthetic voices kept from training; people will be missed more often"
    else:
        voices = "the recordings that it was trained on; others will be missed more often"
    return voices if speech.is_real else f"{voices}; among synthetic speech"


def streams_for_figures(request: Request, work: Work) -> list[Stream]:
    """Build once more the streams that a finished work was measured on, for other engines."""
    labels = [Phrase.of(text, language=request.language).label for text in request.phrases]
    n_tested = _collect_recordings(labels, request, work, say=lambda _: None)
    speech = _collect_speech(labels, request, work, None, say=lambda _: None)
    return _for_figures(labels, work, speech, n_tested, seed=request.seed)


def _deliver(exported: Path, out: Path) -> None:
    """Put the finished model where it was asked for."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with replacing(out) as begun:
            shutil.copyfile(exported, begun)
    except OSError as error:
        raise ConfigError(
            f"`--out` must be a file that can be written. Received: {out} ({error.strerror}). "
            f"The model lies in {exported}; copy it from there."
        ) from error
