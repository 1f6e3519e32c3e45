"""Preparation of all audio of a request: recordings, synthetic clips, speech, words and noise.

Speech is divided before anything else: a part is for training and hard negatives, a part of that
for thresholds, and another part for the evaluation only.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from kws.errors import ConfigError
from kws_train.data.audio_files import audio_files, log_left_out, readable
from kws_train.data.corpus import unaligned_utterances
from kws_train.data.librispeech import quiet_utterances, speaker_halves, speaker_of_utterance
from kws_train.data.splits import is_validation
from kws_train.evaluate.build_stream import keyword_clips
from kws_train.own_word.corpora import (
    cut_words,
    generate_noise,
    import_noise,
    import_speech,
    import_words,
    random_sentences,
    split_voices,
)
from kws_train.own_word.recordings import SPLITS, import_recordings
from kws_train.own_word.workspace import Request, Workspace
from kws_train.recipe import SpeechCorpus
from kws_train.synth.negatives import allocate_clips, find_negatives
from kws_train.synth.phrases import Phrase
from kws_train.synth.synth_report import SynthReport

__all__ = [
    "DividedSpeech",
    "Speak",
    "Speech",
    "divide_speech",
    "find_speech",
    "labels_of_request",
    "n_test_recordings",
    "phrases_of",
    "prepare_audio",
    "prepare_noise",
    "prepare_recordings",
    "prepare_speech",
]

Speak = Callable[[Mapping[str, int], Path], SynthReport]
"""Synthesise so many clips of each text into a folder."""

_NEGATIVES_SHARE = 0.6  # clips of confusable phrases, relative to those of phrases
_N_SENTENCES = 300
_N_CUT_WORDS = 400


@dataclass(frozen=True)
class DividedSpeech:
    """Utterances of different speakers: to train on, and to set thresholds on."""

    training: list[Path]
    thresholds: list[Path]


@dataclass(frozen=True)
class Speech:
    """Continuous speech: corpora to train on, and utterances for the evaluation only."""

    corpora: list[SpeechCorpus]
    test: list[Path]


def prepare_audio(request: Request, workspace: Workspace, *, speak: Speak | None) -> None:
    """Bring all audio of a request into the workspace; what is there already is kept.

    Parameters
    ----------
    request : Request
    workspace : Workspace
    speak : callable or None
        None if there are no voices, and recordings have to do.

    Raises
    ------
    ConfigError
        If recordings or speech are missing or unusable, or no voice can say a phrase.
    """
    prepare_recordings(request, workspace)
    if speak:
        _synthesize_phrases(request, workspace, speak)
    prepare_speech(request, workspace, speak=speak)
    _prepare_other_words(request, workspace)
    prepare_noise(request, workspace)


def prepare_recordings(request: Request, workspace: Workspace) -> None:
    """Import recordings of the phrases, by split."""
    splits = SPLITS[:2] if request.test else SPLITS
    for folder, wanted in ((request.recordings, splits), (request.test, SPLITS[2:])):
        if folder is None:
            continue
        for label in labels_of_request(request):
            imported = import_recordings(folder, workspace.recordings, label=label, splits=wanted)
            workspace.notify(f"recordings of {label} in {folder}: {imported.describe()}")
            log_left_out({Path(path): reason for path, reason in imported.left_out.items()})
    if request.test is None and request.recordings and not n_test_recordings(request, workspace):
        workspace.notify(
            "  too few to set some aside for testing: figures will be of synthetic voices, if any"
        )


def prepare_speech(request: Request, workspace: Workspace, *, speak: Speak | None) -> None:
    """Import continuous speech, or synthesise random sentences where none is given."""
    for folder in request.speech:
        training, testing = speaker_halves(folder)
        if training and testing:  # LibriSpeech's layout, used in place
            workspace.notify(
                f"speech in {folder}: {len(training)} speakers for training, {len(testing)} for "
                f"testing"
            )
        else:
            import_speech(folder, workspace.speech)
    if not request.speech and speak:
        _synthesize_speech(request, workspace, speak)
    find_speech(request, workspace)


def prepare_noise(request: Request, workspace: Workspace) -> None:
    """Import noise, or generate some where none is given."""
    done = workspace.noise / "done"
    if done.is_file():
        return
    for folder in request.noise:
        import_noise(folder, workspace.noise)
    if not request.noise:
        generate_noise(workspace.noise, seed=request.seed)
        workspace.notify("no noise given: white, pink and brown noise are used")
    done.touch()


def find_speech(request: Request, workspace: Workspace) -> Speech:
    """Return the prepared speech.

    Raises
    ------
    ConfigError
        If there is none to train on, or none for the evaluation.
    """
    corpora: list[SpeechCorpus] = []
    test: list[Path] = []
    for folder in request.speech:
        training, testing = speaker_halves(folder)
        if training and testing:
            corpora.append(SpeechCorpus(path=str(folder.resolve())))
            labels = labels_of_request(request)
            test += quiet_utterances(folder, without=labels, speakers=testing)
    if (workspace.speech / "train").is_dir():
        corpora.append(SpeechCorpus(path=str((workspace.speech / "train").resolve())))
    if (workspace.speech / "test").is_dir():
        test += audio_files(workspace.speech / "test")
    if not corpora or not test:
        raise ConfigError(
            f"Speech must be enough to train on some and test on other, 3 minutes at least. "
            f"Received: {', '.join(map(str, request.speech)) or 'none, and no voice to make it'}. "
            f"Give a folder with --speech, such as LibriSpeech's dev-clean from "
            f"https://www.openslr.org/12."
        )
    return Speech(corpora, test)


def divide_speech(request: Request, workspace: Workspace) -> DividedSpeech:
    """Divide the speech that is not for the evaluation.

    Of LibriSpeech's layout, every fourth speaker sets thresholds; of imported speech, the segments
    that are for validation.
    """
    training: list[Path] = []
    thresholds: list[Path] = []
    labels = labels_of_request(request)
    for corpus in find_speech(request, workspace).corpora:
        known = unaligned_utterances(corpus, Path(), without=labels)
        speakers = sorted(speaker_halves(Path(corpus.path))[0])
        held_out = set(speakers[3::4])
        for path in known:
            is_held_out = (
                speaker_of_utterance(path.name) in held_out
                if held_out
                else is_validation(path.stem)
            )
            (thresholds if is_held_out else training).append(path)
    return DividedSpeech(training, thresholds)


def phrases_of(request: Request) -> list[Phrase]:
    """Return the normalised phrases of a request."""
    return [Phrase.of(text, language=request.language) for text in request.phrases]


def labels_of_request(request: Request) -> list[str]:
    """Return the keywords of a request, such as `hey_computer`."""
    return [phrase.label for phrase in phrases_of(request)]


def n_test_recordings(request: Request, workspace: Workspace) -> int:
    """Return the number of recordings for the evaluation."""
    folder = workspace.recordings / "test"
    return len(keyword_clips(folder, labels_of_request(request), split="all"))


def _synthesize_phrases(request: Request, workspace: Workspace, speak: Speak) -> None:
    """Synthesise the phrases and confusable phrases, and split the clips by voice."""
    phrases = phrases_of(request)
    texts = {phrase.text for phrase in phrases}
    wanted = dict.fromkeys((phrase.text for phrase in phrases), request.n_clips)
    for phrase in phrases:
        found = [one for one in find_negatives(phrase, seed=request.seed) if one.text not in texts]
        wanted |= allocate_clips(found, n_clips=round(_NEGATIVES_SHARE * request.n_clips))
    workspace.notify(
        f"synthesising {sum(wanted.values())} clips: {', '.join(texts)}, and "
        f"{len(wanted) - len(texts)} confusable phrases"
    )
    report = speak(wanted, workspace.synthetic_all)
    workspace.notify(f"  {report.describe()}")
    report.require(texts)
    split_voices(workspace.synthetic_all, workspace.synthetic, words=labels_of_request(request))


def _synthesize_speech(request: Request, workspace: Workspace, speak: Speak) -> None:
    sentences = workspace.folder / "sentences"
    if (workspace.speech / f"{sentences.name}.done").is_file():
        return
    workspace.notify(
        f"no speech given: {_N_SENTENCES} random sentences by synthetic voices replace it. Real "
        f"speech will cause more false alarms than the figures show; give some with --speech."
    )
    labels = labels_of_request(request)
    rows = random_sentences(_N_SENTENCES, without=labels, seed=request.seed)
    speak(dict.fromkeys(rows, 1), sentences)
    import_speech(sentences, workspace.speech)


def _prepare_other_words(request: Request, workspace: Workspace) -> None:
    """Import other words; without any, and without voices, cut some out of speech."""
    labels, out = labels_of_request(request), workspace.other_words
    for folder in request.words:
        import_words(folder, out, without=labels, seed=request.seed)
    has_words = any(one.is_dir() and one.name != "cut" for one in out.glob("*"))
    if not workspace.synthetic_all.is_dir() and not has_words:
        speech = find_speech(request, workspace).corpora
        known = [
            path for one in speech for path in unaligned_utterances(one, Path(), without=labels)
        ]
        cut_words(readable(known), out, n=_N_CUT_WORDS, seed=request.seed)
