import re

import pytest

from kws.errors import ConfigError
from kws_train.recipe import load_recipe

SMALL = """
name = "small"

[data]
keywords = ["yes", "no"]

[[data.words]]
path = "words"

[features]
kind = "logmel"
"""


def exactly(message):
    return f"^{re.escape(message)}$"


@pytest.fixture
def load(tmp_path):
    def load(text):
        path = tmp_path / "recipe.toml"
        path.write_text(text, encoding="utf-8")
        return load_recipe(path)

    return load


def test_what_a_recipe_does_not_say_has_a_default(load):
    recipe = load(SMALL)
    assert recipe.data.words[0].split == "hash"
    assert recipe.model.architecture == "crnn"
    assert recipe.fit.seed == 1
    assert recipe.stages() == [recipe]


def test_a_stage_changes_what_it_names_in_the_one_before_and_nothing_else(load):
    then = "[[then]]\nfit = { epochs = 3 }\naugment = { speed = [1, 1] }\n"
    then += "model = { dropout = 0.0 }\n"
    recipe = load(SMALL + "[fit]\nseed = 7\n" + then + "[[then]]\nfit = { epochs = 4 }")
    first, second, third = recipe.stages()
    assert first.fit == recipe.fit
    assert (second.fit.epochs, second.fit.seed, second.augment.speed) == (3, 7, (1.0, 1.0))
    assert (third.fit.epochs, third.fit.seed, third.augment.speed) == (4, 7, (1.0, 1.0))
    assert third.stages() == [third]
    assert third.data == recipe.data
    assert (first.model.dropout, third.model.dropout) == (0.1, 0.0)


@pytest.mark.parametrize(
    ("text", "received"),
    [
        (
            SMALL + "[fit]\nepoch = 3",
            "Object contains unknown field `epoch` - at `$.fit`. Did you mean `epochs`?",
        ),
        (SMALL + "[fit]\nepochs = 0", "Expected `int` >= 1 - at `$.fit.epochs`."),
        (
            SMALL + "[model]\ngru_units = 'many'",
            "Expected `int`, got `str` - at `$.model.gru_units`.",
        ),
        (
            SMALL + "[[then]]\nfit = { epochs = 'many' }",
            "Expected `int`, got `str` - at `$.fit.epochs`.",
        ),
        (
            SMALL + "[[then]]\nfit = { epoch = 3 }",
            "Object contains unknown field `epoch` - at `$.fit`. Did you mean `epochs`?",
        ),
        (
            SMALL + "[[then]]\nmodel = { dropout = 0.2, gru_units = 90 }",
            "`model` in `[[then]]` must change `dropout` alone; received dropout, gru_units.",
        ),
        (
            SMALL + "[[then]]\nname = { x = 1 }",
            "Invalid enum value 'name' - at `key` in `$.then[0]`.",
        ),
        (
            SMALL.replace('["yes", "no"]', "[]"),
            "keywords must be present and differ from one another - at `$.data`.",
        ),
        (
            SMALL.replace('"no"', '"yes"'),
            "keywords must be present and differ from one another - at `$.data`.",
        ),
        (
            SMALL.replace('"no"', '"_unknown_"'),
            "keywords must not begin with an underscore - at `$.data`.",
        ),
        (
            SMALL + "[data.homophones]\nnoo = ['know']",
            "homophones must be of keywords; received `noo` - at `$.data`.",
        ),
        (
            SMALL + "hop_samples = 9000",
            "Expected `int` <= 8192 - at `$.features.hop_samples`.",
        ),
    ],
)
def test_a_recipe_that_breaks_a_rule_is_refused_by_its_key(load, tmp_path, text, received):
    message = (
        f"{tmp_path / 'recipe.toml'} breaks a rule of recipes. Received: {received} "
        f"docs/training.md lists every key."
    )
    with pytest.raises(ConfigError, match=exactly(message)):
        load(text)


def test_a_recipe_that_is_no_toml_is_refused(load, tmp_path):
    with pytest.raises(ConfigError) as error:
        load("name = ")
    assert re.fullmatch(
        rf"{re.escape(str(tmp_path / 'recipe.toml'))} must be TOML\. Received: .+\. "
        rf"Correct that line\.",
        str(error.value),
    )


def test_a_recipe_that_is_not_utf_8_is_refused(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_bytes(b'name = "\xff"')
    with pytest.raises(ConfigError, match=r"must be TOML\. Received: .+ Correct that line\.$"):
        load_recipe(path)


def test_a_recipe_that_is_missing_is_refused(tmp_path):
    message = (
        f"The recipe must be a readable file. Received: {tmp_path / 'no.toml'} (No such file or "
        f"directory). Give its path with --config; bundled ones are in train/kws_train/recipes/."
    )
    with pytest.raises(ConfigError, match=exactly(message)):
        load_recipe(tmp_path / "no.toml")


def test_clips_are_asked_for_by_max_pooling_alone(load):
    text = SMALL + "[augment]\nclip_share = 0.5\n"
    rule = r"augment\.clip_share must stay 0 unless fit\.loss is max_pooling: .* received set"
    with pytest.raises(ConfigError, match=rule):
        load(text)
    assert load(text + '[fit]\nloss = "max_pooling"\n').augment.clip_share == 0.5


def test_a_clip_and_its_answer_must_fit_into_a_scene(load):
    text = SMALL + '[augment]\nclip_share = 0.5\nscene_s = 1.2\n[fit]\nloss = "max_pooling"\n'
    with pytest.raises(ConfigError, match=r"scene_s must be at least 1\.5 .* received 1\.2"):
        load(text)


def test_outputs_are_pooled_around_one_of_them(load):
    text = SMALL + '[fit]\nloss = "max_pooling"\npooled_outputs = 4\n'
    with pytest.raises(ConfigError, match=r"fit\.pooled_outputs must be odd; received 4"):
        load(text)


def test_a_window_model_cannot_be_quantisation_aware(load):
    text = SMALL + '[model]\narchitecture = "bilstm"\n[[then]]\nfit = { quantize_aware = true }'
    rule = r"fit\.quantize_aware must stay false for bilstm: only step models can be trained so"
    with pytest.raises(ConfigError, match=rule):
        load(text)


def test_layers_of_a_window_model_cannot_be_frozen(load):
    text = SMALL + '[model]\narchitecture = "bilstm"\n[fit]\nfrozen_layers = 2'
    with pytest.raises(ConfigError, match=r"fit\.frozen_layers must stay 0 for bilstm"):
        load(text)


def test_quantisation_aware_training_is_of_single_precision(load):
    text = SMALL + '[fit]\nquantize_aware = true\nprecision = "mixed_float16"'
    rule = (
        r"fit\.precision must be float32 or auto with fit\.quantize_aware; received mixed_float16"
    )
    with pytest.raises(ConfigError, match=rule):
        load(text)
