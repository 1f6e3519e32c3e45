"""Scenes around a word end where they say, and are the same every time."""

from collections import Counter

import numpy as np
import pytest
import soundfile
import sounds

from kws_train.data.front_ends import micro_frontend, speech_embedding
from kws_train.data.vector_cache import VectorCache
from kws_train.recipe import AugmentRecipe
from kws_train.scenes import word_scenes
from kws_train.scenes.word_scenes import (
    Disturbance,
    SceneItem,
    content_digest,
    n_scene_vectors,
    utterance_vectors,
    word_end_vector,
    word_vectors,
)

RATE_HZ = 16_000
PLAIN = AugmentRecipe(
    room_share=0, noise_share=0, gain_db=(0, 0), speed=(1, 1), warp=(1, 1), babble_share=0
)
HARSH = AugmentRecipe(
    room_share=1, noise_share=1, babble_share=1, microphone_share=1, codec_share=1, room_bank=2
)


@pytest.fixture
def files(tmp_path):
    """A word of 0.6 s within a second and a half, an utterance, and noise."""
    quiet = np.zeros(RATE_HZ // 2, np.int16)
    word = np.concatenate((quiet, sounds.voice(0.6), quiet))
    noise = np.random.default_rng(1).normal(0, 500, 2 * RATE_HZ).astype(np.int16)
    parts = {"word": word, "said": sounds.voice(3.0), "noise": noise}
    for name, samples in parts.items():
        soundfile.write(tmp_path / f"{name}.flac", samples, RATE_HZ)
    return {name: tmp_path / f"{name}.flac" for name in parts}


@pytest.fixture
def cache(tmp_path):
    return VectorCache(tmp_path / "cache")


def around(files, recipe):
    return Disturbance(recipe, (files["noise"],), (files["said"],))


@pytest.mark.parametrize("open_front_end", [speech_embedding, micro_frontend])
def test_the_word_ends_where_the_scene_says(files, open_front_end):
    pytest.importorskip("pymicro_features")
    front_end = open_front_end()
    item = SceneItem(files["word"], 0, "robot")
    n_samples = front_end.n_samples(n_scene_vectors(front_end))
    scene = word_scenes._word_scene(
        item, Disturbance(PLAIN), np.random.default_rng(1), n_samples=n_samples
    )
    loud = np.flatnonzero(np.abs(scene) > 500)
    end_s = (len(scene) - 1 - loud[-1]) / RATE_HZ
    assert end_s == pytest.approx(word_scenes.AFTER_S, abs=0.06)
    assert (loud[-1] - loud[0]) / RATE_HZ == pytest.approx(0.6, abs=0.06)
    # The first vector whose last frame ends after the word's end.
    end = len(scene) - round(word_scenes.AFTER_S * RATE_HZ)
    index = word_end_vector(front_end) + front_end.n_cold
    hop, overlap = front_end.hop_samples, front_end.overlap_samples
    assert hop * index + overlap < end <= hop * (index + 1) + overlap


def test_a_scene_lasts_as_long_for_either_front_end(files, cache):
    pytest.importorskip("pymicro_features")
    item, about = SceneItem(files["word"], 0, "robot"), Disturbance(PLAIN)
    frames = word_vectors(item, around=about, cache=VectorCache(cache.folder, micro_frontend()))
    assert frames.shape == (320, 40)
    assert len(word_vectors(item, around=about, cache=cache)) * 80 == 320 * 10
    assert (
        len({path.relative_to(cache.folder).parts[0] for path in cache.folder.rglob("*.npy")}) == 2
    )


def test_a_scene_has_its_vectors_and_they_are_kept(files, cache):
    item = SceneItem(files["word"], 0, "robot")
    first = word_vectors(item, around=around(files, HARSH), cache=cache)
    assert first.shape == (40, 96)
    assert np.isfinite(first).all()
    again = word_vectors(item, around=around(files, HARSH), cache=cache)
    elsewhere = word_vectors(
        item, around=around(files, HARSH), cache=VectorCache(cache.folder / "b")
    )
    assert np.array_equal(first, again)
    assert np.array_equal(first, elsewhere), "the same seed, on any machine"


def test_scenes_differ_by_number_settings_noise_and_word(files, cache, tmp_path):
    made = [
        word_vectors(SceneItem(files["word"], 0, "robot"), around=around(files, HARSH), cache=cache)
    ]
    other = tmp_path / "other.flac"
    soundfile.write(
        other, np.random.default_rng(2).normal(0, 500, RATE_HZ).astype(np.int16), RATE_HZ
    )
    for item, about in (
        (SceneItem(files["word"], 1, "robot"), around(files, HARSH)),
        (SceneItem(files["said"], 0, "robot"), around(files, HARSH)),
        (SceneItem(files["word"], 0, "robot"), around(files, PLAIN)),
        (SceneItem(files["word"], 0, "robot"), around(files | {"noise": other}, HARSH)),
    ):
        made.append(word_vectors(item, around=about, cache=cache))
    assert len(list(cache.folder.rglob("*.npy"))) == len({one.tobytes() for one in made}) == 5


def test_every_vector_of_an_utterance_has_context(files, cache):
    plain = Disturbance(PLAIN)
    vectors = utterance_vectors(SceneItem(files["said"], 0), around=plain, cache=cache)
    assert len(vectors) == pytest.approx(3.0 / 0.08, abs=1)


def test_what_is_around_a_word_does_not_change_speech(files, cache):
    """So that speech is embedded once for all words."""
    item = SceneItem(files["said"], 1)
    noise = Disturbance(HARSH, (files["noise"],))
    one = utterance_vectors(item, around=noise, cache=cache)
    moved = files["noise"].with_name("renamed.flac")
    moved.write_bytes(files["noise"].read_bytes())
    again = utterance_vectors(item, around=Disturbance(HARSH, (moved,)), cache=cache)
    assert np.array_equal(one, again)
    assert len(list(cache.folder.rglob("*.npy"))) == 1


def test_a_file_that_changes_has_another_digest(files):
    before = content_digest(files["word"])
    soundfile.write(files["word"], sounds.voice(0.5), RATE_HZ)
    assert content_digest(files["word"]) != before


def test_a_very_short_utterance_is_enough(files, cache, tmp_path):
    path = tmp_path / "short.flac"
    soundfile.write(path, sounds.voice(0.1), RATE_HZ)
    assert len(utterance_vectors(SceneItem(path, 0), around=Disturbance(PLAIN), cache=cache)) == 1
    assert len(speech_embedding().vectors(np.zeros(100))) == 0


def test_each_kind_of_noise_is_drawn_equally_often(tmp_path):
    """A folder of a thousand coughs hid ten recordings of rain."""
    for kind, n in (("coughs", 6), ("rain", 2), ("wind", 1)):
        (tmp_path / kind).mkdir()
        for i in range(n):
            soundfile.write(tmp_path / kind / f"{i}.flac", sounds.voice(0.1), RATE_HZ)
    paths = sorted(tmp_path.rglob("*.flac"))
    drawn = [path.parent.name for _, path in word_scenes._each_kind_alike(paths)]
    assert Counter(drawn) == {"coughs": 6, "rain": 6, "wind": 6}
