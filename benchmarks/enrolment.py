"""Miss rates of words enrolled from three recordings: enrolment.py --data data.

Same speaker: words of the Speech Commands test set said five times by one speaker; three are
enrolled, two are tested. Other language: the same with Arabic words. One voice, with --kokoro: a
synthetic voice says a wake word eight times, up to 12 % faster or slower and a semitone higher or
lower; three are enrolled, five are tested. Any speaker: three recordings of a wake word from the
first three quarters are enrolled, the last quarter is tested; enrolment is not made for that.
A tested recording stands in a stream, a moment after somebody else's speech. False alarms: at most
one per second, on speech by speakers of LibriSpeech's second half, and by those of more_speech for
final figures. `at 0.5/h`: with the threshold chosen for each trial on that speech, as in DET
curves; `as enrolled`: with the threshold that enrolment set.
"""

import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
import soundfile

from kws.arrays import Samples
from kws.audio import SAMPLE_RATE_HZ as RATE_HZ
from kws.commands.enroll import fit_word
from kws.errors import ConfigError
from kws.word_filter import scores_of
from kws_train.data.audio_files import audio_files, read_samples
from kws_train.data.front_ends import speech_embedding
from kws_train.data.librispeech import speaker_halves
from kws_train.data.speakers import TESTING, files_of_quarters, files_of_readers
from kws_train.synth.voices.engine import Line
from kws_train.synth.voices.kokoro import Kokoro

BUDGET = 0.5
VECTORS_PER_S = 12.5
WORDS = ("computer", "snowboy", "view_glass")
_SETS = ("librispeech_train", "librispeech_other", "alphanumeric", "coffee_orders")
_PATH = click.Path(path_type=Path, exists=True)


class Trial(NamedTuple):
    """Recordings to enrol and to test on."""

    word: str
    enrolled: list[Path]
    tested: list[Path]


@click.command()
@click.option("--data", required=True, type=_PATH)
@click.option("--kokoro", nargs=2, type=_PATH, metavar="MODEL VOICES")
@click.option("--speakers", default=5, show_default=True, help="To a word.")
@click.option("--voices", default=12, show_default=True, help="To a word, of Kokoro.")
@click.option("--only", default="", help="Rows whose name holds this.")
def main(
    data: Path, *, kokoro: tuple[Path, Path] | None, speakers: int, voices: int, only: str
) -> None:
    """Print a line for each kind of trial."""
    trials = {
        "same speaker, English": same_speaker(data / "speech_commands_test", speakers),
        "same speaker, Arabic": arabic(data / "arabic_words", 2),
        **{f"one voice, {word}": one_voice(kokoro, word, voices) for word in WORDS if kokoro},
        "any speaker": any_speaker(data / "wake_words", 2),
    }
    paths = unseen_speech(data)
    before = [read_samples(path)[-RATE_HZ:] for path in paths[:: max(1, len(paths) // 50)]]
    speech = [speech_embedding().vectors(read_samples(path)).astype(np.float32) for path in paths]
    hours = sum(map(len, speech)) / VECTORS_PER_S / 3600
    click.echo(f"{hours:.2f} h of speech of speakers never used")
    for name, found in trials.items():
        if only in name:
            outcomes = [measure(one, before, speech) for one in found]
            click.echo(f"{name}: {_row([one for one in outcomes if one], hours)}")


class Outcome(NamedTuple):
    """What a trial came to."""

    word: str
    scores: np.ndarray
    """Highest score of each tested recording, over the level that enrolment set."""
    peaks: np.ndarray
    """Highest score of each second of speech, likewise."""


def measure(trial: Trial, before: list[Samples], speech: list[np.ndarray]) -> Outcome | None:
    """Enrol, and run the filter over the tested recordings and over the speech.

    None where a recording is refused, such as a clipped one.
    """
    try:
        word, _ = fit_word(trial.word, trial.enrolled)
    except ConfigError:
        return None
    least = word.levels[BUDGET]
    random = np.random.default_rng(1)
    scores = []
    for path in trial.tested:
        samples = read_samples(path)
        lead = before[int(random.integers(len(before)))]
        silence = [
            random.normal(0, 5, round(s * RATE_HZ)) for s in (0.8, random.uniform(0.2, 0.6), 0.8)
        ]
        stream = np.concatenate((silence[0], lead, silence[1], samples, silence[2]))
        n_word = round((len(samples) / RATE_HZ + 0.8) * VECTORS_PER_S)
        scores.append(
            float(
                scores_of(word.filter, speech_embedding().vectors(stream).astype(np.float32))[
                    -n_word:
                ].max()
            )
        )
    size = round(VECTORS_PER_S)
    peaks = [
        float(one[i : i + size].max())
        for one in (scores_of(word.filter, vectors) for vectors in speech)
        for i in range(0, len(one), size)
    ]
    return Outcome(trial.word, np.array(scores) - least, np.array(peaks) - least)


def _row(outcomes: list[Outcome], hours: float) -> str:
    n = sum(len(one.scores) for one in outcomes)
    n_allowed = int(BUDGET * hours)
    n_missed = n_missed_as_set = 0
    missed: Counter[str] = Counter()
    for one in outcomes:
        least = np.sort(one.peaks)[::-1][n_allowed]
        n_missed += sum(score <= least for score in one.scores)
        as_set = sum(score < 0 for score in one.scores)
        n_missed_as_set += as_set
        missed[one.word] += as_set
    rate = np.mean([(one.peaks >= 0).sum() for one in outcomes]) / hours
    worst = ", ".join(f"{word} {k}" for word, k in missed.most_common(6) if k) or "none"
    return (
        f"{len(outcomes)} enrolments, {n} words; misses at {BUDGET}/h {n_missed / n:.1%}; as "
        f"enrolled {n_missed_as_set / n:.1%} at {rate:.2f} false alarms/h; missed: {worst}"
    )


def unseen_speech(data: Path) -> list[Path]:
    """Return utterances of speakers for final figures."""
    corpus = data / "librispeech"
    _, second = speaker_halves(corpus)
    groups = list(files_of_readers(corpus, second).values())
    for name in _SETS:
        groups += files_of_quarters(data / "more_speech" / name, TESTING).values()
    return [path for group in groups for path in group]


def same_speaker(folder: Path, n_speakers: int) -> Iterator[Trial]:
    """Yield words said five times by one speaker."""
    for word in ("down", "go", "left", "no", "off", "on", "right", "stop", "up", "yes"):
        takes: dict[str, list[Path]] = defaultdict(list)
        for path in audio_files(folder / word):
            takes[path.name.partition("_nohash_")[0]].append(path)
        for paths in [one for one in takes.values() if len(one) == 5][:n_speakers]:
            yield Trial(word, paths[:3], paths[3:])


def arabic(folder: Path, n_speakers: int) -> Iterator[Trial]:
    """Yield Arabic words, each by other speakers."""
    for i, words in enumerate(sorted(folder.iterdir())):
        takes: dict[str, list[Path]] = defaultdict(list)
        for path in audio_files(words):
            takes[path.name.partition("_")[0]].append(path)
        speakers = sorted(takes)
        for k in range(n_speakers):
            paths = takes[speakers[(i + k * len(speakers) // n_speakers) % len(speakers)]]
            yield Trial(words.name, paths[:3], paths[3:])


def one_voice(files: tuple[Path, Path], word: str, n_voices: int) -> Iterator[Trial]:
    """Yield a word by synthetic voices."""
    kokoro = Kokoro(*files)
    random = np.random.default_rng(1)
    texts = [word.replace("_", " ") + end for end in (".", "!", "?", "", ".", "", "!", ".")]
    with tempfile.TemporaryDirectory() as folder:
        for voice in kokoro.native[:: max(1, len(kokoro.native) // n_voices)][:n_voices]:
            paths = [Path(folder) / f"{voice}-{i}.flac" for i in range(len(texts))]
            for text, path in zip(texts, paths, strict=True):
                speed, semitones = random.uniform(0.88, 1.12), random.uniform(-1, 1)
                said = kokoro.speak(Line(text, voice, speed, semitones))
                soundfile.write(path, np.pad(said, 4000), RATE_HZ)
            yield Trial(word.replace("_", " "), paths[:3], paths[3:])


def any_speaker(folder: Path, n_draws: int) -> Iterator[Trial]:
    """Yield wake words, enrolled from and tested on several speakers."""
    random = np.random.default_rng(1)
    for word in WORDS:
        paths = audio_files(folder / word)
        n = len(paths) * 3 // 4
        for _ in range(n_draws):
            chosen = [paths[i] for i in random.choice(n, 3, replace=False)]
            yield Trial(word.replace("_", " "), chosen, paths[n:])


if __name__ == "__main__":
    main()
