"""Utterances of square waves, whose pitch says which word it is."""

from pathlib import Path

import msgspec
import numpy as np
from sounds import RATE_HZ, square

from kws.manifest import SILENCE, UNKNOWN, FeatureSettings
from kws_train.data.corpus import Clip, Corpus, Spoken
from kws_train.recipe import AugmentRecipe, DataRecipe
from kws_train.scenes.ctc_scenes import MOST_WORDS, SequenceScenes

LABELS = [SILENCE, UNKNOWN, "yes", "no"]
PITCHES_HZ = {1: 400, 2: 1000, 3: 2000}
BARE = AugmentRecipe(
    scene_s=3.6,
    silence_share=0.0,
    speech_word_share=0.0,
    noise_share=0.0,
    room_share=0.0,
    speed=(1.0, 1.0),
    gain_db=(0.0, 0.0),
)


def clip(label):
    samples = np.zeros(RATE_HZ, np.int16)
    samples[3000:9000] = square(PITCHES_HZ[label], 6000)
    word = LABELS[label]
    return Clip(word, word, Path(f"{word}.wav"), samples, span=(3000, 9000))


def sequences(*, speech=(), **changes):
    corpus = Corpus({LABELS[i]: [clip(i)] for i in PITCHES_HZ}, list(speech), [], [])
    return SequenceScenes(
        corpus,
        DataRecipe(keywords=["yes", "no"], words=[], homophones={"no": ["know"]}),
        msgspec.structs.replace(BARE, **changes),
        labels=LABELS,
        features=FeatureSettings(window_samples=480),
        time_stride=2,
    )


def heard(samples):
    """Return the labels of the sounds in order, by their pitch."""
    sounds = np.flatnonzero(np.abs(samples) > 300)
    pieces = np.split(sounds, np.flatnonzero(np.diff(sounds) > 250) + 1)
    labels = []
    for piece in pieces if len(sounds) else []:
        sound = samples[piece[0] : piece[-1] + 1]
        hz = np.count_nonzero(np.diff(np.sign(sound[200:-200]))) * RATE_HZ / 2 / (len(sound) - 400)
        labels.append(min(PITCHES_HZ, key=lambda label: abs(PITCHES_HZ[label] - hz)))
    return labels


def spelt(scene):
    return scene.words[scene.words > 0].tolist()


def test_the_target_is_the_words_in_the_order_they_are_said(monkeypatch):
    monkeypatch.setattr("kws_train.scenes.ctc_scenes._LEAST_GAP_S", 0.02)  # else they overlap
    maker = sequences(scene_s=6.0)
    made = [maker.make(np.random.default_rng(seed)) for seed in range(60)]
    assert {len(spelt(scene)) for scene in made} == set(range(1, MOST_WORDS + 1))
    assert {label for scene in made for label in spelt(scene)} == {1, 2, 3}
    for scene in made:
        assert heard(scene.samples) == spelt(scene)
        assert scene.words.shape == (24,)
        assert not scene.words[len(spelt(scene)) :].any()


def test_a_sentence_is_spelt_word_by_word_homophones_as_their_keyword(monkeypatch):
    monkeypatch.setattr("kws_train.scenes.ctc_scenes._KEYWORD_UTTERANCES", 0.0)
    said = [("hello", 1), ("know", 3), ("yes", 2), ("there", 1)]
    words, pieces = [], []
    for i, (word, label) in enumerate(said):
        pieces += [square(PITCHES_HZ[label], 6000), np.zeros(2000, np.int16)]
        words.append((word, 8000 * i, 8000 * i + 6000))
    maker = sequences(speech=[Spoken(Path("a"), np.concatenate(pieces), tuple(words))])
    made = [maker.make(np.random.default_rng(seed)) for seed in range(12)]
    wanted = [label for _, label in said]
    for scene in made:
        assert spelt(scene) in [wanted[i:] for i in range(4)]
        assert heard(scene.samples) == spelt(scene)
    assert wanted in [spelt(scene) for scene in made]


def test_words_of_a_fast_utterance_run_into_one_another():
    maker = sequences(scene_s=6.0)
    gaps = []
    for seed in range(60):
        scene = maker.make(np.random.default_rng(seed))
        sounds = np.flatnonzero(np.abs(scene.samples) > 300)
        n_words = len(spelt(scene))
        if n_words > 1:
            gaps.append((sounds[-1] - sounds[0] + 1 - 6000 * n_words) / (n_words - 1) / RATE_HZ)
    assert min(gaps) < 0.0
    assert 0.1 < max(gaps) <= 0.3


def test_sentences_with_many_keywords_are_drawn_more_often(monkeypatch):
    monkeypatch.setattr("kws_train.scenes.ctc_scenes._KEYWORD_UTTERANCES", 0.0)
    sound = square(PITCHES_HZ[1], 6000)
    book = [Spoken(Path("book"), sound, (("hello", 0, 6000),)) for _ in range(18)]
    empty = Spoken(Path("empty"), sound, ())
    number = Spoken(Path("number"), sound, (("yes", 0, 6000),))
    some = Spoken(Path("some"), np.tile(sound, 2), (("no", 0, 6000), ("hello", 6000, 12000)))
    maker = sequences(speech=[*book, empty, some, number])
    heads = [spelt(maker.make(np.random.default_rng(seed)))[0] for seed in range(400)]
    shares = [heads.count(label) / len(heads) for label in PITCHES_HZ]
    assert abs(shares[1] - (0.5 * 2 / 3 + 0.5 / 20)) < 0.08, "of `number`, one keyword of one word"
    assert shares[2] > 0.05, "of `some`"


def test_an_utterance_may_hold_nothing():
    scene = sequences(silence_share=1.0).make(np.random.default_rng(1))
    assert not scene.words.any()
    assert not scene.samples.any()


def test_a_seed_decides_the_utterance():
    one, same, other = (sequences().make(np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert np.array_equal(one.samples, same.samples)
    assert not np.array_equal(one.samples, other.samples)
