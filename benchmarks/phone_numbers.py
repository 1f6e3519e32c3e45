"""Phone numbers read by seventy people, most with an accent: training data, word error rates.

python benchmarks/phone_numbers.py prepare --data data
python benchmarks/phone_numbers.py measure MODEL --data data

`prepare` lays out the numbers of the speakers that may train, two of every four in order of name,
as the recipe `ctc` takes them. `measure` decodes the numbers of every fourth speaker, which nothing
is trained or chosen by, and gives the word error rate and the share of numbers without a mistake,
by gender and by accent (0 to 10, as the speakers see it themselves). Intervals are of 95 %: those
of rates by drawing speakers again, those of shares by Wilson.
"""

import argparse
import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ctc_words import Utterance, decode_sequences, edit_distance

from kws.model import model_path, open_model
from kws_train.atomic import link
from kws_train.data.audio_files import read_samples
from kws_train.evaluate.det import wilson_interval

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
FOLDER = "more_speech/alphanumeric"
PREPARED = "phone_numbers"
N_DRAWS = 2000


class Number(NamedTuple):
    """The phone number of a speaker."""

    speaker: str
    digits: tuple[str, ...]
    gender: str
    accent: int
    path: Path


def main() -> None:
    """Prepare training data, or print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("prepare", "measure"))
    parser.add_argument("model", nargs="?", help="to measure")
    parser.add_argument("--data", type=Path, default=Path("data"))
    options = parser.parse_args()
    numbers = read_numbers(options.data / FOLDER)
    if options.what == "prepare":
        print(prepare(part(numbers, 0, 1), options.data / PREPARED))
        return
    if options.model is None:
        parser.error("give the MODEL to measure")
    print("\n".join(measure(options.model, part(numbers, 3))))


def read_numbers(folder: Path) -> list[Number]:
    """Return all numbers, in order of the speakers' names."""
    with (folder / "numbers.csv").open(encoding="utf-8", newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: row["speaker"])
    return [
        Number(
            row["speaker"],
            tuple(DIGITS[int(digit)] for digit in row["number"]),
            row["gender"],
            int(row["accent_0_to_10"]),
            next((folder / row["speaker"]).glob("numbers.*")),
        )
        for row in rows
    ]


def part(numbers: Sequence[Number], *remainders: int) -> list[Number]:
    """Return the numbers of some of every four speakers."""
    return [number for i, number in enumerate(numbers) if i % 4 in remainders]


def prepare(numbers: Sequence[Number], folder: Path) -> str:
    """Lay out numbers as a corpus of speech, for `kws align` and recipes."""
    speakers = []
    for i, number in enumerate(numbers):
        speaker = f"{9000 + i}"
        name = f"{speaker}-1-0000"
        link(number.path, folder / speaker / "1" / f"{name}{number.path.suffix}")
        text = f"{name} {' '.join(number.digits).upper()}\n"
        (folder / speaker / "1" / f"{speaker}-1.trans.txt").write_text(text, encoding="utf-8")
        speakers.append(f"{speaker} | {number.gender[0]} | {number.speaker}\n")
    (folder / "SPEAKERS.TXT").write_text("".join(speakers), encoding="utf-8")
    return f"{folder}: {len(numbers)} numbers"


def measure(name: str, numbers: Sequence[Number]) -> list[str]:
    """Return the lines of a table."""
    model = open_model(model_path(name))
    utterances: list[Utterance] = [(one.digits, read_samples(one.path)) for one in numbers]
    heard = decode_sequences(model, utterances)
    lines = ["| speakers | numbers | decoded by | word error rate | without a mistake |"]
    lines.append("| --- | --- | --- | --- | --- |")
    for how, found in heard.items():
        lines.append(row_of("all", how, numbers, found))
    for group, belongs in GROUPS.items():
        among = [i for i, one in enumerate(numbers) if belongs(one)]
        if among:
            chosen = [numbers[i] for i in among], [heard["beam"][i] for i in among]
            lines.append(row_of(group, "beam", *chosen))
    return lines


GROUPS: dict[str, Callable[[Number], bool]] = {
    "women": lambda one: one.gender == "Female",
    "men": lambda one: one.gender == "Male",
    "accent 0 to 3": lambda one: one.accent <= 3,
    "accent 4 to 6": lambda one: 4 <= one.accent <= 6,
    "accent 7 to 10": lambda one: one.accent >= 7,
}


def row_of(group: str, how: str, numbers: Sequence[Number], heard: Sequence[Sequence[str]]) -> str:
    """Return the line of a group."""
    errors = np.array([edit_distance(a.digits, b) for a, b in zip(numbers, heard, strict=True)])
    lengths = np.array([len(one.digits) for one in numbers])
    low, high = rate_interval(errors, lengths)
    rate = f"{errors.sum() / lengths.sum():.1%} [{100 * low:.1f}, {100 * high:.1f}]"
    n_right = int((errors == 0).sum())
    low, high = wilson_interval(n_right, len(numbers))
    share = f"{n_right / len(numbers):.0%} [{100 * low:.0f}, {100 * high:.0f}]"
    return f"| {group} | {len(numbers)} | {how} | {rate} | {share} |"


def rate_interval(errors: "np.ndarray", lengths: "np.ndarray") -> tuple[float, float]:
    """Return the 95 % interval of errors over words, by drawing speakers with replacement."""
    drawn = np.random.default_rng(1).integers(len(errors), size=(N_DRAWS, len(errors)))
    rates = errors[drawn].sum(axis=1) / lengths[drawn].sum(axis=1)
    low, high = np.percentile(rates, (2.5, 97.5))
    return float(low), float(high)


if __name__ == "__main__":
    main()
