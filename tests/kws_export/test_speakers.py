"""Statistics of speakers, for the check of the enrolled one."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from kws.speaker import N_STATISTICS

pytestmark = pytest.mark.slow

DATA = Path(__file__).parents[1] / "data"


def test_the_precision_is_that_of_words_around_their_group(tmp_path):
    from kws_export.speakers import statistics_of

    random = np.random.default_rng(1)
    groups = [random.normal(0, 5, 4) + random.normal(0, (1, 2, 3, 4), (50, 4)) for _ in range(200)]
    found = statistics_of(groups)
    spread = np.concatenate(groups).std(axis=0)
    assert found.scale == pytest.approx(spread, rel=1e-4)
    within = np.array([1, 2, 3, 4]) ** 2 / spread**2
    expected = 1 / (within + 0.1 * within.mean())  # shrunk
    assert found.precision.diagonal() == pytest.approx(expected, rel=0.1)


def test_words_are_grouped_by_word_and_speaker(tmp_path):
    from kws_export.speakers import read_words

    (clip,) = (DATA / "librispeech").rglob("*.opus")
    names = ("yes/a_nohash_0", "yes/a_nohash_1", "yes/b_nohash_0", "no/a_nohash_0")
    for name in names:
        path = tmp_path / f"{name}.opus"
        path.parent.mkdir(exist_ok=True)
        shutil.copy(clip, path)
    found = read_words(sorted(tmp_path.rglob("*.opus")))
    assert {key: len(group) for key, group in found.items()} == {
        ("yes", "a"): 2,
        ("yes", "b"): 1,
        ("no", "a"): 1,
    }
    assert found["yes", "a"].shape[1] == N_STATISTICS


def test_seconds_of_speech_are_described(tmp_path):
    from kws_export.speakers import read_speech

    (recording,) = (DATA / "librispeech").rglob("*.opus")
    (seconds,) = read_speech([[recording], []])
    assert seconds.shape[1] == N_STATISTICS
    assert len(seconds) >= 2
