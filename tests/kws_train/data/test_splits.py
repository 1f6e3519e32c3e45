from pathlib import Path

import pytest

from kws_train.data.splits import official_split

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
