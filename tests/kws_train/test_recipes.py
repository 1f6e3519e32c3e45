"""The recipes of the zoo, and how one builds on another."""

import re
from pathlib import Path

import pytest

from kws.errors import ConfigError
from kws_train.recipe import MODEL_RECIPES, GruRecipe, load_recipe

FOLDER = Path(__file__).parents[2] / "train/kws_train/recipes"
RECIPES = sorted(FOLDER.glob("*.toml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_bundled_recipe_is_valid_and_named_as_its_file(path):
    recipe = load_recipe(path)
    assert recipe.name == path.stem
    assert recipe.stages()


def test_the_zoo_has_every_architecture_and_every_kind_of_features():
    recipes = [load_recipe(path) for path in RECIPES]
    assert {recipe.model.architecture for recipe in recipes} == set(MODEL_RECIPES)
    assert {recipe.features.kind for recipe in recipes} == {"mfcc", "logmel", "spectrogram"}


def test_the_speech_embedding_takes_its_own_features_alone(tmp_path):
    text = BASE.replace("n_blocks = 2", 'architecture = "speech_embedding"')
    path = write(tmp_path, "one.toml", text)
    with pytest.raises(ConfigError, match=r"features must be those of commands\.toml") as raised:
        load_recipe(path)
    assert "another window_samples, window, taper_samples" in str(raised.value)


def write(folder, name, text):
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


BASE = """
name = "base"
[data]
keywords = ["go"]
words = [{ path = "words" }]
[features]
kind = "logmel"
n_mels = 30
[model]
n_blocks = 2
"""


def test_a_recipe_holds_what_differs_from_its_base(tmp_path):
    write(tmp_path, "base.toml", BASE)
    text = 'base = "base.toml"\nname = "one"\n[features]\nkind = "mfcc"\n'
    recipe = load_recipe(write(tmp_path, "one.toml", text))
    assert (recipe.name, recipe.features.kind, recipe.features.n_mels) == ("one", "mfcc", 30)
    assert recipe.data.keywords == ["go"]
    assert recipe.model.n_blocks == 2


def test_another_model_takes_nothing_from_the_models_of_the_base(tmp_path):
    write(tmp_path, "base.toml", BASE)
    text = 'base = "base.toml"\n[model]\narchitecture = "gru"\n'
    assert load_recipe(write(tmp_path, "one.toml", text)).model == GruRecipe()


@pytest.mark.parametrize("base", ["none.toml", "one.toml"])
def test_a_base_that_is_no_other_recipe_is_refused(tmp_path, base):
    path = write(tmp_path, "one.toml", f'base = "{base}"\n')
    message = f"Received: `base` must be another recipe in the same folder; received `{base}`."
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_recipe(path)


def test_a_key_of_another_architecture_is_refused(tmp_path):
    path = write(tmp_path, "one.toml", BASE.replace("n_blocks = 2", "window_frames = 9"))
    with pytest.raises(ConfigError, match="unknown field `window_frames`"):
        load_recipe(path)


def test_an_unknown_architecture_is_refused(tmp_path):
    path = write(tmp_path, "one.toml", BASE.replace("n_blocks = 2", 'architecture = "rnn"'))
    with pytest.raises(ConfigError, match="Invalid value 'rnn'"):
        load_recipe(path)


def test_the_deep_cnn_takes_one_keyword(tmp_path):
    two = BASE.replace('["go"]', '["go", "stop"]').replace(
        "n_blocks = 2", 'architecture = "deep_cnn"'
    )
    with pytest.raises(ConfigError, match="deep_cnn must have one keyword; received 2 in data"):
        load_recipe(write(tmp_path, "one.toml", two))
