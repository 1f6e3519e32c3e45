"""Phone numbers of made-up speakers, and a model that mishears one digit."""

import numpy as np
import phone_numbers
import pytest
import sounds
from phone_numbers import measure, part, prepare, rate_interval, read_numbers

from kws_train.data.librispeech import transcripts_below

HEADER = "speaker,number,gender,native_language,accent_0_to_10,recorder\n"
ROWS = [
    f"R_{i},{1234567890 + i},{'Female' if i % 2 else 'Male'},Hindi,{i},Laptop\n"
    for i in (7, 3, 0, 4, 5, 6, 1, 2)
]


@pytest.fixture
def folder(tmp_path):
    """Eight speakers, listed in no order."""
    folder = tmp_path / "alphanumeric"
    for i in range(8):
        sounds.write(folder / f"R_{i}" / "numbers.flac", sounds.silence(0.5))
    (folder / "numbers.csv").write_text(HEADER + "".join(ROWS), encoding="utf-8")
    return folder


def test_every_fourth_speaker_by_name_is_for_figures_and_two_of_four_train(folder):
    numbers = read_numbers(folder)
    assert [one.speaker for one in part(numbers, 3)] == ["R_3", "R_7"]
    assert [one.speaker for one in part(numbers, 0, 1)] == ["R_0", "R_1", "R_4", "R_5"]
    assert " ".join(numbers[0].digits) == "one two three four five six seven eight nine zero"


def test_numbers_are_laid_out_as_a_corpus_of_speech(folder, tmp_path):
    chosen = part(read_numbers(folder), 0, 1)
    assert prepare(chosen, tmp_path / "numbers") == f"{tmp_path / 'numbers'}: 4 numbers"
    prepare(chosen, tmp_path / "numbers")  # once more
    lines = list(transcripts_below(tmp_path / "numbers"))
    assert [name for _, name, _ in lines] == [f"{9000 + i}-1-0000" for i in range(4)]
    for path, name, text in lines:
        assert path.with_name(f"{name}.flac").is_file()
        assert len(text.split()) == 10


def test_errors_are_counted_by_gender_and_accent(folder, monkeypatch):
    """Of R_3 and R_7, the second is misheard once in ten digits."""

    def decode(_, utterances):
        heard = [list(words) for words, _ in utterances]
        heard[1][0] = "nine"
        return {"beam": heard, "runtime": [[] for _ in heard]}

    monkeypatch.setattr(phone_numbers, "open_model", lambda path: path)
    monkeypatch.setattr(phone_numbers, "decode_sequences", decode)
    rows = [
        line.strip("| ").split(" | ") for line in measure("commands", part(read_numbers(folder), 3))
    ]
    found = {(row[0], row[2]): (row[3].split()[0], row[4].split()[0]) for row in rows[2:]}
    assert found == {
        ("all", "beam"): ("5.0%", "50%"),
        ("all", "runtime"): ("100.0%", "0%"),
        ("women", "beam"): ("5.0%", "50%"),
        ("accent 0 to 3", "beam"): ("0.0%", "100%"),
        ("accent 7 to 10", "beam"): ("10.0%", "0%"),
    }


def test_intervals_hold_the_rate_and_narrow_with_more_speakers():
    errors, lengths = np.array([0, 1, 2, 3]), np.full(4, 10)
    few, many = (rate_interval(np.tile(errors, n), np.tile(lengths, n)) for n in (1, 25))
    for low, high in (few, many):
        assert low < 0.15 < high
    assert many[1] - many[0] < few[1] - few[0]
