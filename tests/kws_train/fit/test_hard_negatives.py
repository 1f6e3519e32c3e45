"""Hard negatives are found where a model is wrong, in speech, noise and their mixture."""

import dataclasses
from pathlib import Path

import msgspec
import numpy as np
import pytest
import sounds

from kws.audio import SAMPLE_RATE_HZ as RATE_HZ
from kws.manifest import FeatureSettings
from kws_train.data.corpus import Corpus, Spoken
from kws_train.fit.hard_negatives import (
    HardNegative,
    add_noise,
    find_hard_negatives,
    mine_hard_negatives,
    read_hard_negatives,
    write_hard_negatives,
)
from kws_train.recipe import AugmentRecipe, DataRecipe, Recipe, WordCorpus

TONE_AT = (3 * RATE_HZ, 3 * RATE_HZ + 4800)


class HearsTones:
    """Says `no` where the upper bands are loud, and is silent elsewhere."""

    time_stride = 2

    def predict_on_batch(self, frames):
        loud = frames[:, ::2, 30:].mean(axis=-1) > 10.0
        logits = np.zeros((*loud.shape, 4), np.float32)
        logits[..., 0] = 8.0
        logits[..., 3] = np.where(loud, 11.0, 0.0)
        return logits


@pytest.fixture
def recipe():
    data = DataRecipe(keywords=["yes", "no"], words=[WordCorpus(path=".")], homophones={})
    return Recipe(name="tones", data=data, features=FeatureSettings(kind="logmel", n_mels=40))


def spoken(words, seconds=30):
    samples = sounds.silence(seconds)
    samples[slice(*TONE_AT)] = sounds.sine(5500, TONE_AT[1] - TONE_AT[0], peak=9000)
    return Spoken(Path("a.flac"), samples, words)


def test_a_moment_is_where_the_model_is_wrong(recipe):
    (one, *others) = mine_hard_negatives(HearsTones(), recipe, [spoken((("note", *TONE_AT),))])
    assert one.utterance == "a.flac"
    assert one.keyword == "no"
    assert one.posterior == pytest.approx(0.952, abs=0.01)
    assert all(TONE_AT[0] <= one.at <= TONE_AT[1] + 800 for one in (one, *others))


def test_a_keyword_that_is_said_is_no_moment(recipe):
    assert not mine_hard_negatives(HearsTones(), recipe, [spoken((("no", *TONE_AT),))])
    elsewhere = (("no", 10 * RATE_HZ, 11 * RATE_HZ),)
    assert mine_hard_negatives(HearsTones(), recipe, [spoken(elsewhere)])


def test_recordings_of_any_length_are_heard_together_as_they_are_one_by_one(recipe):
    many = [
        dataclasses.replace(spoken((), seconds=seconds), path=Path(f"{seconds}.flac"))
        for seconds in (*range(4, 40), 400)  # one alone has several batches
    ]
    together = mine_hard_negatives(HearsTones(), recipe, many)
    assert {one.utterance for one in together} == {one.path.name for one in many}
    alone = [one for one in many for one in mine_hard_negatives(HearsTones(), recipe, [one])]
    assert sorted(together) == sorted(alone)


def test_moments_are_kept_in_a_file(tmp_path):
    found = [HardNegative("a.flac", 320, "no", 0.9), HardNegative("b, c.flac", 0, "yes", 0.1)]
    write_hard_negatives(found, tmp_path / "mined.csv")
    assert read_hard_negatives(tmp_path / "mined.csv") == found


def corpus(speech=()):
    """Two recordings of noise of the same name, in the first of which the tone sounds."""
    samples = spoken(()).samples
    paths = [Path("data/fan/1.wav"), Path("data/car/1.wav")]
    return Corpus({}, list(speech), [samples, np.zeros_like(samples)], {}, paths)


def test_noise_is_heard_as_speech_is_and_found_again(recipe, tmp_path):
    recipe = msgspec.structs.replace(recipe, augment=AugmentRecipe(mined_share=0.3))
    found = find_hard_negatives(tmp_path, recipe, HearsTones(), corpus())
    assert found
    assert {heard.path for heard, _ in found} == {Path("data/fan/1.wav")}
    assert all(abs(at - TONE_AT[1]) < RATE_HZ for _, at in found)
    again = find_hard_negatives(tmp_path, recipe, HearsTones(), corpus())  # reads mined.csv
    assert [(heard.path, at) for heard, at in again] == [(heard.path, at) for heard, at in found]
    gone = Corpus({}, [], [], {}, [])
    assert find_hard_negatives(tmp_path, recipe, HearsTones(), gone) == []


def test_speech_is_heard_in_noise_too_and_taken_without_it(recipe, tmp_path):
    recipe = msgspec.structs.replace(recipe, augment=AugmentRecipe(mined_share=0.3))
    said = Spoken(Path("book/1.flac"), sounds.tone(200, 30, peak=3000), ())
    assert not mine_hard_negatives(HearsTones(), recipe, [said])
    found = find_hard_negatives(tmp_path, recipe, HearsTones(), corpus([said]))
    assert any(heard is said for heard, _ in found)


def test_noise_is_mixed_at_the_ratio_asked_for_and_by_the_seed():
    random = np.random.default_rng(1)
    said, noise = (
        Spoken(Path(f"{name}.flac"), random.normal(0, 2000, RATE_HZ).astype(np.int16), ())
        for name in ("said", "noise")
    )
    (mixed,) = add_noise([said], [noise], snr_db=(10.0, 10.0), seed=1)
    added = mixed.samples.astype(float) - said.samples
    ratio = np.mean(said.samples.astype(float) ** 2) / np.mean(added**2)
    assert 10 * np.log10(ratio) == pytest.approx(10.0, abs=0.05)
    (again,) = add_noise([said], [noise], snr_db=(10.0, 10.0), seed=1)
    np.testing.assert_array_equal(mixed.samples, again.samples)
    assert (mixed.path, mixed.words) == (said.path, said.words)
    assert list(add_noise([said], [], snr_db=(10.0, 10.0), seed=1)) == []
