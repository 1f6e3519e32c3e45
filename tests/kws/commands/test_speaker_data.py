import numpy as np
import pytest

from kws.commands.speaker_data import (
    SPEAKER_THRESHOLD,
    SpeakerStatistics,
    read_speaker_statistics,
    speaker_check,
    speaker_path,
)
from kws.errors import ModelError
from kws.speaker import N_STATISTICS


def test_a_check_gives_one_to_its_own_mean_and_nothing_to_the_mean_of_all():
    statistics = read_speaker_statistics()
    random = np.random.default_rng(1)
    words = statistics.mean + statistics.scale * random.normal(0, 1, (3, N_STATISTICS))
    check = speaker_check(list(words), statistics)
    weights = np.array(check.weights)
    assert words.mean(axis=0) @ weights + check.bias == pytest.approx(1, abs=1e-3)
    assert statistics.mean @ weights + check.bias == pytest.approx(0, abs=1e-3)
    assert check.threshold == SPEAKER_THRESHOLD


def test_what_differs_from_word_to_word_of_one_speaker_counts_little():
    precision = np.eye(N_STATISTICS)
    precision[1, 1] = 0.01
    statistics = SpeakerStatistics(np.zeros(N_STATISTICS), np.ones(N_STATISTICS), precision)
    word = np.zeros(N_STATISTICS)
    word[:2] = 1
    weights = speaker_check([word], statistics).weights
    assert weights[1] == pytest.approx(0.01 * weights[0], rel=1e-3)


def test_a_damaged_file_is_refused(tmp_path):
    path = tmp_path / "speakers.npz"
    path.write_bytes(speaker_path().read_bytes()[:1000])
    with pytest.raises(ModelError, match=r"Received: .*speakers.npz \(.*\). Install kws again"):
        read_speaker_statistics(path)


def test_statistics_of_another_size_are_refused(tmp_path):
    path = tmp_path / "speakers.npz"
    np.savez(path, mean=np.zeros(3), scale=np.ones(3), precision=np.eye(3))
    with pytest.raises(ModelError, match=r"\(shapes \[\(3,\), \(3,\), \(3, 3\)\]\)"):
        read_speaker_statistics(path)
