"""The recipe of a phrase fits into its minutes."""

import numpy as np
import pytest
import soundfile

from kws.manifest import DataSource
from kws_train.fit.training import restore
from kws_train.own_word.pretrained import pretrained_recipe, unpack_run
from kws_train.own_word.recipe import median_word_ms, recording_weight, word_recipe
from kws_train.own_word.time_budget import fit_to_minutes
from kws_train.recipe import SpeechCorpus, WordCorpus, load_recipe, write_recipe


def recipe():
    return word_recipe(
        ["hey_robot"],
        words=[WordCorpus(path="synthetic")],
        speech=[SpeechCorpus(path="/speech")],
        noise=["noise/train"],
        sources=[DataSource(name="voices", licence="theirs")],
        word_ms=600,
        seed=1,
    )


def test_minutes_become_scenes():
    short, long = (fit_to_minutes(recipe(), minutes=minutes, scene_s=0.004) for minutes in (10, 30))
    assert 3 <= long.fit.scenes_per_epoch / short.fit.scenes_per_epoch <= 3.2
    n_scenes = sum(stage.fit.epochs * stage.fit.scenes_per_epoch for stage in long.stages())
    assert 0.85 * 1800 <= n_scenes * 0.004 * 1.1 <= 1800


def test_a_slow_machine_gets_a_short_training_and_a_fast_one_no_endless_one():
    assert fit_to_minutes(recipe(), minutes=1, scene_s=10).fit.scenes_per_epoch == 256
    assert fit_to_minutes(recipe(), minutes=10_000, scene_s=1e-3).fit.scenes_per_epoch == 12_800


def test_the_later_stages_hear_what_the_ones_before_mistook():
    first, *later = recipe().stages()
    assert first.augment.mined_share == 0
    assert all(stage.augment.mined_share > 0 for stage in later)


def test_it_is_a_recipe_like_any_other(tmp_path):
    write_recipe(tmp_path / "recipe.toml", recipe())
    assert load_recipe(tmp_path / "recipe.toml") == recipe()


def test_it_begins_with_the_bundled_network(tmp_path):
    model, known = restore(unpack_run(tmp_path / "pretrained"))
    assert known.model == recipe().model == pretrained_recipe().model
    assert known.features == recipe().features
    assert "yes" in known.data.keywords
    assert model.count_params() > 60_000


def test_real_recordings_count_for_more_the_more_there_are():
    def share(n_real: int, n_synthetic: int = 400) -> float:
        real = recording_weight(n_real, n_synthetic) * n_real
        return real / (real + n_synthetic)

    assert share(30) == pytest.approx(0.5)
    assert share(50) == pytest.approx(50 / 80)
    assert share(300) == share(3000) == pytest.approx(0.8)
    assert recording_weight(0, 400) == recording_weight(10, 0) == 1.0


def test_the_length_of_a_word_is_its_median(tmp_path):
    paths = []
    for i, seconds in enumerate((0.4, 0.62, 0.9)):
        wave = np.zeros(24_000)
        wave[4000 : 4000 + round(seconds * 16_000)] = 5000 * np.random.default_rng(i).normal(
            size=round(seconds * 16_000)
        )
        paths.append(tmp_path / f"{i}.flac")
        soundfile.write(paths[-1], np.clip(wave, -32768, 32767).astype(np.int16), 16_000)
    assert median_word_ms(paths) in (600, 650)
