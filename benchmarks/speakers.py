"""How well `kws enroll --only-me` tells voices apart: speakers.py --data data.

Same word: a speaker of the Speech Commands test set enrols a word from three recordings; the
speaker's others, and the same word by thirty other speakers, are streamed through the model.
Figures are of what the word itself detects: how often the enrolled speaker is refused and another
one let through at the model's threshold, and the equal error rate. Other words: three seconds of
speech are enrolled, further seconds of that speaker and of all others are scored. Everybody speaks
into a device of their own; behind one microphone voices are harder to tell apart.
"""

import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np

from kws.audio import SAMPLE_RATE_HZ as RATE_HZ
from kws.commands.enroll import enroll
from kws.commands.speaker_data import read_speaker_statistics, speaker_check
from kws.errors import ConfigError
from kws.spotter import Spotter
from kws_export.speakers import read_speech
from kws_train.data.audio_files import audio_files, read_samples
from kws_train.data.librispeech import speaker_halves
from kws_train.data.speakers import TESTING, files_of_quarters, files_of_readers

WORDS = ("down", "go", "left", "no", "off", "on", "right", "stop", "up", "yes")
_N_ENROLLED, _N_OTHERS = 3, 30
_FEWEST = 6  # seconds of a speaker


class Trials(NamedTuple):
    """Scores of the enrolled speakers, and of others against them."""

    own: list[float]
    others: list[float]


@click.command()
@click.option("--data", required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--speakers", default=4, show_default=True, help="To a word.")
def main(data: Path, speakers: int) -> None:
    """Print error rates."""
    for name, files in _unseen(data).items():
        trials = other_words(list(read_speech(files)))
        click.echo(f"other words, {name}, {len(files)} speakers: {_row(trials)}")
    trials = Trials([], [])
    n = 0
    for word in WORDS:
        for own, others in _same_word(data / "speech_commands_test" / word, speakers):
            if found := same_word(word, own, others):
                trials.own.extend(found.own)
                trials.others.extend(found.others)
                n += 1
    click.echo(f"same word, {n} enrolments: {_row(trials)}")


def same_word(word: str, own: Sequence[Path], others: Sequence[Path]) -> Trials | None:
    """Enrol a word, and return the scores of the speaker where the word is heard."""
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "word.tflite"
        try:
            enroll(word, own[:_N_ENROLLED], model, only_me=True)
        except ConfigError:  # such as a clipped recording
            return None
        spotter = Spotter(model, near_miss_score=0.5)
    return Trials(
        list(_scores(spotter, own[_N_ENROLLED:])),
        list(_scores(spotter, others)),
    )


def other_words(speakers: Sequence[np.ndarray]) -> Trials:
    """Return the scores of seconds of speech by enrolled and by other speakers."""
    known = [seconds for seconds in speakers if len(seconds) >= _FEWEST]
    trials = Trials([], [])
    for i, seconds in enumerate(known):
        check = speaker_check(list(seconds[:_N_ENROLLED]), read_speaker_statistics())
        for k, theirs in enumerate(known):
            scores = theirs[_N_ENROLLED:] @ np.array(check.weights) + check.bias
            (trials.own if i == k else trials.others).extend(scores.tolist())
    return trials


def _scores(spotter: Spotter, paths: Iterable[Path]) -> Iterator[float]:
    room = np.random.default_rng(1).normal(0, 5, RATE_HZ).astype(np.int16)
    for path in paths:
        heard = list(spotter.listen(np.concatenate((room, read_samples(path), room))))
        for event in (*heard, *spotter.take_near_misses()):
            if event.speaker is not None:
                yield event.speaker


def _row(trials: Trials) -> str:
    own, others = np.sort(trials.own), np.sort(trials.others)
    levels = np.concatenate((own, others))
    missed = np.searchsorted(own, levels) / len(own)
    accepted = 1 - np.searchsorted(others, levels) / len(others)
    at = int(np.abs(missed - accepted).argmin())
    rows = [f"equal error rate {(missed[at] + accepted[at]) / 2:.1%} at {levels[at]:.2f}"]
    rows += [
        f"at {level}: {(own < level).mean():.1%} refused, "
        f"{(others >= level).mean():.1%} let through"
        for level in (0.4, 0.5, 0.6)
    ]
    return f"{len(own)} own, {len(others)} others: {'; '.join(rows)}"


def _same_word(folder: Path, n_speakers: int) -> Iterator[tuple[list[Path], list[Path]]]:
    """Yield recordings of a speaker who said a word five times, and of others, one each."""
    takes: dict[str, list[Path]] = defaultdict(list)
    for path in audio_files(folder):
        takes[path.name.partition("_nohash_")[0]].append(path)
    for speaker in [one for one, paths in takes.items() if len(paths) == 5][:n_speakers]:
        others = [paths[0] for one, paths in takes.items() if one != speaker]
        yield takes[speaker], others[:: max(1, len(others) // _N_OTHERS)][:_N_OTHERS]


def _unseen(data: Path) -> dict[str, list[list[Path]]]:
    """Return the files of each speaker for final figures, by corpus."""
    corpus = data / "librispeech"
    _, second = speaker_halves(corpus)
    folder = data / "more_speech" / "alphanumeric"
    return {
        "librispeech": list(files_of_readers(corpus, second).values()),
        "alphanumeric": list(files_of_quarters(folder, TESTING).values()),
    }


if __name__ == "__main__":
    main()
