"""Scenes that are added up of bands, against the same scenes made of samples."""

import re
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from sounds import RATE_HZ

from kws.cepstra import Cepstra
from kws.errors import ConfigError
from kws.features import Features
from kws.manifest import SILENCE, UNKNOWN, FeatureSettings
from kws_train.data.corpus import Clip, Corpus, Spoken
from kws_train.recipe import AugmentRecipe, DataRecipe
from kws_train.scenes.bands import corpus_in_bands, mined_in_bands
from kws_train.scenes.ctc_scenes import SequenceScenes
from kws_train.scenes.scenes import Scenes

LABELS = [SILENCE, UNKNOWN, "yes", "no"]
DATA = DataRecipe(keywords=["yes", "no"], words=[])
FEATURES = FeatureSettings(kind="logmel", window="hann", n_mels=20, floor=1.0)
CALM = AugmentRecipe(
    silence_share=0.0,
    speech_share=0.0,
    context_share=0.0,
    room_share=0.0,
    noise_share=0.0,
    cut_share=0.0,
    gain_db=(0.0, 0.0),
)
ALIKE, LEVELS = 1.0, 2.1  # of natural logarithms; a level is drawn from 9 dB


def noise(n_samples, *, seed, low_hz=300, high_hz=3000):
    """Noise of a few bands, as loud as speech."""
    spectrum = np.fft.rfft(np.random.default_rng(seed).normal(0, 1, n_samples))
    hz = np.fft.rfftfreq(n_samples, 1 / RATE_HZ)
    spectrum[(hz < low_hz) | (hz > high_hz)] = 0
    wave = np.fft.irfft(spectrum, n_samples)
    return (wave / wave.std() * 2000).astype(np.int16)


def clip(word, seed, **where):
    samples = np.zeros(RATE_HZ, np.int16)
    samples[4000:12_000] = noise(8000, seed=seed, **where)
    label = word if word in DATA.keywords else UNKNOWN
    return Clip(label, word, Path(f"{word}-{seed}.wav"), samples, span=(4000, 12_000))


@pytest.fixture(scope="module")
def corpus():
    clips = {
        "yes": [clip("yes", 1, low_hz=300, high_hz=900)],
        "no": [clip("no", 2, low_hz=1200, high_hz=3000)],
        UNKNOWN: [clip("other", 3, low_hz=3000, high_hz=6000)],
    }
    speech = [Spoken(Path("s.wav"), noise(5 * RATE_HZ, seed=4), (("yes", 8000, 16_000),))]
    return Corpus(clips, speech, [noise(3 * RATE_HZ, seed=5)], {}, [Path("n.wav")])


@pytest.fixture
def in_bands(corpus, tmp_path):
    return corpus_in_bands(corpus, FEATURES, folder=tmp_path)


def maker(corpus, kind=Scenes, **changes):
    recipe = msgspec.structs.replace(CALM, **changes)
    return kind(corpus, DATA, recipe, labels=LABELS, features=FEATURES, time_stride=2)


def both(corpus, in_bands, seed, **changes):
    """Return the same scene made of samples and of bands, both as floored logarithms of bands."""
    heard = maker(corpus, **changes).make(np.random.default_rng(seed))
    added = maker(in_bands, domain="bands", **changes).make(np.random.default_rng(seed))
    frames = Features(FEATURES).whole(heard.samples)
    logs = np.log(np.maximum(added.samples[:, :-1], FEATURES.floor))
    return heard, frames, added, logs


@pytest.mark.parametrize(
    ("changes", "greatest"),
    [
        ({}, ALIKE),
        ({"noise_share": 1.0, "snr_db": (0.0, 0.0)}, ALIKE),
        ({"speech_share": 1.0}, ALIKE),
        ({"context_share": 1.0}, LEVELS),  # both draw other places in the speech
    ],
    ids=["words", "noise", "speech", "words in speech"],
)
def test_a_scene_of_bands_is_that_of_samples_but_for_phases(corpus, in_bands, changes, greatest):
    for seed in range(4):
        _, frames, _, logs = both(corpus, in_bands, seed, **changes)
        assert frames.shape == logs.shape
        loud = frames > np.log(1e5)
        assert loud.sum() > 100
        difference = (logs - frames)[loud]
        assert abs(np.median(difference)) < greatest
        assert np.corrcoef(frames.ravel(), logs.ravel())[0, 1] > 0.8


def test_targets_are_those_of_samples_within_an_output(corpus, in_bands):
    for seed in range(6):
        heard, _, added, _ = both(corpus, in_bands, seed, context_share=0.5)
        edges = np.abs(np.diff(heard.targets.allowed.astype(int), axis=0)).sum()
        wrong = (heard.targets.allowed != added.targets.allowed).sum()
        assert wrong <= edges * 2
        assert heard.targets.weight.sum() == pytest.approx(added.targets.weight.sum(), rel=0.15)


def test_rooms_make_sounds_longer_and_not_shorter(in_bands):
    dry = maker(in_bands, domain="bands").make(np.random.default_rng(3)).samples
    acoustics = maker(in_bands, domain="bands", room_share=1.0)._acoustics
    wet = acoustics.add_room(dry.copy(), np.random.default_rng(1))
    last = int(np.flatnonzero(dry[:, -1] > 1.0)[-1])
    assert (wet >= dry * 0.999).all()
    tail = wet[last + 1 : last + 30, -1]
    assert tail[0] > 0
    assert (np.diff(tail) < 0).all(), "it decays"


def test_microphones_and_babble_change_scenes(in_bands):
    scene = maker(in_bands, domain="bands").make(np.random.default_rng(1)).samples
    acoustics = maker(in_bands, domain="bands", microphone_share=1.0, babble_share=1.0)._acoustics
    recorded = acoustics.record(scene.copy(), np.random.default_rng(1))
    assert np.array_equal(recorded[:, -1], scene[:, -1])
    assert not np.allclose(recorded, scene)
    with_babble = acoustics.add_babble(scene, np.random.default_rng(1))
    assert (with_babble[:, -1] > scene[:, -1]).all()


def test_sequences_of_words_are_made_of_bands_too(in_bands):
    scenes = maker(in_bands, SequenceScenes, domain="bands", scene_s=3.6)
    for seed in range(6):
        scene = scenes.make(np.random.default_rng(seed))
        assert scene.samples.shape == (358, 21)
        assert (scene.words > 0).any()


def test_cepstra_are_made_of_logarithms_of_bands():
    settings = msgspec.structs.replace(FEATURES, kind="mfcc")
    samples = noise(RATE_HZ, seed=1)
    features = Features(settings)
    logs = np.log(np.maximum(features.bands(samples), settings.floor))
    assert np.allclose(Cepstra(settings).of_logs(logs), features.whole(samples), atol=1e-4)


def test_a_signal_shorter_than_a_window_has_no_bands():
    assert Features(FEATURES).bands(np.zeros(10, np.int16)).shape == (0, 20)


def test_bands_are_computed_once_and_kept(corpus, in_bands, tmp_path, monkeypatch):
    monkeypatch.setattr(Features, "bands", None)
    again = corpus_in_bands(corpus, FEATURES, folder=tmp_path)
    for label, clips in in_bands.clips.items():
        for one, other in zip(clips, again.clips[label], strict=True):
            assert np.array_equal(one.samples, other.samples)
    cepstra = msgspec.structs.replace(FEATURES, n_mfcc=9, lifter=0)
    corpus_in_bands(corpus, cepstra, folder=tmp_path)  # the same bands


def test_bands_of_other_features_or_files_are_not_taken_for_these(corpus, in_bands, tmp_path):
    (path,) = tmp_path.glob("*.npz")
    other = msgspec.structs.replace(FEATURES, n_mels=10)
    corpus_in_bands(corpus, other, folder=tmp_path)
    (new,) = set(tmp_path.glob("*.npz")) - {path}
    new.replace(path)
    message = (
        "A file of kept bands must hold those of the recipe's features and data. Received: bands "
        f"of other features or other files, in {path}. Remove it; it is made again."
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        corpus_in_bands(corpus, FEATURES, folder=tmp_path)
    fewer = replace(corpus, noise=[], noise_paths=[])
    assert len(corpus_in_bands(fewer, FEATURES, folder=tmp_path).noise) == 0


def test_a_damaged_file_of_bands_is_refused(corpus, in_bands, tmp_path):
    (path,) = tmp_path.glob("*.npz")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ConfigError, match=r"Received: a damaged file \(.+\), in .+ Remove it;"):
        corpus_in_bands(corpus, FEATURES, folder=tmp_path)


def test_bands_that_cannot_be_kept_are_an_error(corpus, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"^Bands must go to a folder that can be written to\."):
        corpus_in_bands(corpus, FEATURES, folder=tmp_path / "file" / "bands")


def test_hard_negatives_keep_their_place_in_bands(corpus, in_bands):
    mined = [(corpus.speech[0], 16_000), (corpus.wordless()[0], 320)]
    found = mined_in_bands(mined, in_bands, hop_samples=160)
    assert [at for _, at in found] == [100, 2]
    assert found[0][0].samples is in_bands.speech[0].samples
    assert found[1][0].samples is in_bands.noise[0]
