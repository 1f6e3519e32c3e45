"""A minimal recipe (tones as words, one convolution, three batches per epoch), and a small CRNN.

The recipe goes through the same code as any other in a fraction of the time, because most of a
short training is TensorFlow tracing the graph of the network.
"""

import msgspec
import tomli_w

from kws.manifest import FeatureSettings
from kws_train.recipe import (
    AugmentRecipe,
    CrnnRecipe,
    DataRecipe,
    DsCnnRecipe,
    FitRecipe,
    Recipe,
    WordCorpus,
)

ONE_LAYER = DsCnnRecipe(channels=4, n_blocks=0, pool_outputs=4, dropout=0.0)
CRNN = CrnnRecipe(channels=(4, 6, 8), n_blocks=1, kernel_frames=3, gru_units=8)
RECIPE = Recipe(
    name="tone_words",
    data=DataRecipe(keywords=["low", "high"], words=[WordCorpus(path="words")]),
    features=FeatureSettings(kind="logmel", n_mels=8, floor=1.0),
    model=ONE_LAYER,
    augment=AugmentRecipe(scene_s=1.6),
    fit=FitRecipe(epochs=1, scenes_per_epoch=24, validation_scenes=8, batch_size=8),
)


def changed(recipe=RECIPE, **tables):
    """Return a recipe with other values in its tables: `changed(fit={"epochs": 2})`."""
    for table, values in tables.items():
        one = msgspec.structs.replace(getattr(recipe, table), **values)
        recipe = msgspec.structs.replace(recipe, **{table: one})
    return recipe


def toml(recipe=RECIPE, **tables):
    """Return a recipe as the text of its file."""
    changes = msgspec.to_builtins(changed(recipe, **tables))
    return tomli_w.dumps(_without_none(changes))


def _without_none(value):
    if isinstance(value, dict):
        return {key: _without_none(one) for key, one in value.items() if one is not None}
    return [_without_none(one) for one in value] if isinstance(value, list | tuple) else value
