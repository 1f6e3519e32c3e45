"""The filter of a word: Fisher's discriminant over windows of a stationary process."""

import numpy as np
import pytest

from kws.word_filter import WordFilters, rate_levels, scores_of, speech_statistics

SIZE = 3
RANDOM = np.random.default_rng(5)


@pytest.fixture(scope="module")
def utterances():
    """Correlated noise: each vector keeps half of the one before it."""
    noise = RANDOM.normal(1.0, 1.0, (40, 300, SIZE))
    for t in range(1, noise.shape[1]):
        noise[:, t] = 0.5 * noise[:, t - 1] + 0.5 * noise[:, t]
    return list(noise.astype(np.float32))


def test_covariances_are_those_of_the_process(utterances):
    speech = speech_statistics(utterances, n_lags=3)
    variance = np.diag(speech.lags[0]).mean()
    assert speech.mean == pytest.approx(np.ones(SIZE), abs=0.05)
    assert np.diag(speech.lags[1]).mean() == pytest.approx(variance / 2, rel=0.05)
    assert np.diag(speech.lags[2]).mean() == pytest.approx(variance / 4, rel=0.15)


def test_scores_of_speech_have_no_mean_and_at_most_its_deviation(utterances):
    speech = speech_statistics(utterances, n_lags=4)
    word = WordFilters(RANDOM.normal(0, 1, (3, 4, SIZE)).astype(np.float32), speech).of([0, 1, 2])
    scores = np.concatenate([scores_of(word, one)[4:] for one in utterances])
    assert scores.mean() == pytest.approx(0, abs=0.05)
    assert 0.7 < scores.std() < 1.02  # the shrunk covariance is larger


def test_the_score_after_a_vector_is_of_the_last_vectors(utterances):
    speech = speech_statistics(utterances, n_lags=4)
    windows = RANDOM.normal(0, 1, (2, 4, SIZE)).astype(np.float32)
    word = WordFilters(windows, speech).of([0])
    stream = np.pad(utterances[0], ((3, 0), (0, 0)))
    expected = [(word.weights * stream[i : i + 4]).sum() + word.bias for i in range(300)]
    assert scores_of(word, utterances[0]) == pytest.approx(expected, abs=1e-4)


def test_a_word_in_speech_stands_out(utterances):
    windows = 2 * RANDOM.normal(0, 1, (1, 4, SIZE)).astype(np.float32)
    word = WordFilters(windows, speech_statistics(utterances, n_lags=4)).of([0])
    stream = utterances[0].copy()
    stream[100:104] = windows[0]
    assert scores_of(word, stream).argmax() == 103


def test_levels_go_on_along_the_tail():
    """Exponential peaks exceed ln(n / k) k times."""
    peaks = RANDOM.exponential(1.0, 200_000)
    levels = rate_levels(peaks, hours=1000.0, rates=(20.0, 0.2))
    assert levels == pytest.approx([np.log(10), np.log(1000)], abs=0.25)
