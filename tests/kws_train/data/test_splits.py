from pathlib import Path

import pytest

from kws.errors import ConfigError
from kws_train.data.splits import check_layout, official_split, speaker_of, word_of

# From testing_list.txt and validation_list.txt of the published archives.
PUBLISHED = {
    "right/bb05582b_nohash_3.wav": "test",
    "right/4c841771_nohash_2.wav": "test",
    "bed/0c40e715_nohash_0.wav": "test",
    "right/a69b9b3e_nohash_0.wav": "validation",
    "right/32ad5b65_nohash_4.wav": "validation",
    "bed/026290a7_nohash_0.wav": "validation",
}


@pytest.mark.parametrize(("clip", "split"), PUBLISHED.items())
def test_the_published_lists_are_agreed_with(clip, split):
    assert official_split(Path(clip)) == split


def test_about_a_tenth_of_the_speakers_tests_and_a_tenth_validates():
    splits = [official_split(Path(f"{i:08x}_nohash_0.wav")) for i in range(4000)]
    assert splits.count("test") == pytest.approx(400, abs=80)
    assert splits.count("validation") == pytest.approx(400, abs=80)


@pytest.mark.parametrize(
    ("inside", "word", "speaker"),
    [
        ("yes/0c40e715_nohash_0.wav", "yes", "0c40e715"),
        ("yes/anna/1.wav", "yes", "anna"),
        ("yes/anna/kitchen/1.wav", "yes", "anna"),
        ("yes/anna/bert_nohash_1.wav", "yes", "anna"),
        ("gru\u0308n/anna/1.wav", "gr\u00fcn", "anna"),
        ("yes/jo\u0308rg/1.wav", "yes", "j\u00f6rg"),
    ],
)
def test_the_first_folder_is_the_word_and_the_second_the_speaker(inside, word, speaker):
    root = Path("data/words")
    assert word_of(root / inside, root) == word
    assert speaker_of(root / inside, root=root) == speaker


def test_the_folder_of_a_speaker_decides_the_split():
    root = Path("words")
    for speaker in ("0c40e715", "026290a7", "bb05582b"):
        wanted = official_split(root / "yes" / f"{speaker}_nohash_0.wav", root=root)
        for name in ("1.wav", "2.wav", "other_nohash_3.wav"):
            assert official_split(root / "yes" / speaker / name, root=root) == wanted


def test_words_deeper_than_the_layout_are_refused_with_the_folder_to_give():
    root = Path("corpus")
    check_layout([root / "tree" / "anna" / "1.wav"], root, keywords=["yes"])
    check_layout([root / "yes" / "no" / "1.wav"], root, keywords=["yes", "no"])  # a speaker `no`
    with pytest.raises(ConfigError) as raised:
        check_layout([root / "en" / "clips" / "yes" / "1.wav"], root, keywords=["yes"])
    assert str(raised.value) == (
        "A folder of words must hold WORD/FILE or WORD/SPEAKER/FILE. Received: "
        "corpus/en/clips/yes/1.wav below corpus. Give corpus/en/clips."
    )
