"""CPU time of a training step, by part: python benchmarks/training_speed.py --data data crnn gru.

A scene is made (words, speech, noise and, in audio, the Fourier transform), its features are
disturbed, and the network takes a gradient step on a batch. Times are CPU time on one thread, so
that other load does not count; with enough cores, the first two run in a process of their own. The
recipe of a row is measured by its stages: scenes of bands first, scenes of audio last.
"""

import argparse
import os
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as kws_train does

import keras
import msgspec

from kws_train.data.corpus import Corpus, KeptCorpora
from kws_train.fit.batches import make_batches
from kws_train.fit.losses import CtcLoss, SetLoss
from kws_train.networks import architectures
from kws_train.networks.keras_backend import at_precision
from kws_train.recipe import CtcRecipe, Precision, Recipe, load_recipe

RECIPES = Path(__file__).parents[1] / "train/kws_train/recipes"
N_BATCHES = 8


def main() -> None:
    """Print a table row for each recipe and stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+", metavar="RECIPE")
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--jit", action="store_true", help="compile the step by XLA")
    options = parser.parse_args()
    load = KeptCorpora()
    print("| recipe | scenes | batch, ms a scene | gradient, ms a scene | scenes a second |")
    print("| --- | --- | --- | --- | --- |")
    for name in options.names:
        recipe = load_recipe(RECIPES / f"{name}.toml")
        for stage in recipe.stages():
            corpus = load(stage.data, options.data, split="train")
            cost = cost_of(stage, corpus, precision=options.precision, jit=options.jit)
            cells = [f"`{name}`", f"{stage.augment.scene_s} s of {stage.augment.domain}"]
            cells += [f"{1000 * cost[part]:.2f}" for part in ("batch", "gradient")]
            cells += [f"{1 / sum(cost.values()):.0f}"]
            print("| " + " | ".join(cells) + " |", flush=True)


def cost_of(
    recipe: Recipe, corpus: Corpus, *, precision: Precision = "float32", jit: bool = False
) -> dict[str, float]:
    """Return CPU seconds a scene: of `batch`, the making of scenes, and of `gradient`."""
    untaught = msgspec.structs.replace(recipe.fit, teacher=None)
    recipe = msgspec.structs.replace(recipe, fit=untaught)
    batches = make_batches(recipe, corpus, split="train")
    batches[0]
    n_scenes = N_BATCHES * recipe.fit.batch_size
    began_s = time.process_time()
    made = [batches[i] for i in range(1, N_BATCHES + 1)]
    batch_s = (time.process_time() - began_s) / n_scenes
    with at_precision(precision):
        model = compiled(recipe, jit=jit)
    for one in made[:2]:
        model.train_on_batch(*one)
    began_s = time.process_time()
    for one in made:
        model.train_on_batch(*one)
    return {"batch": batch_s, "gradient": (time.process_time() - began_s) / n_scenes}


def compiled(recipe: Recipe, *, jit: bool) -> architectures.Network:
    """Return the network of a recipe, to be trained."""
    n_features = recipe.features.n_features
    model = architectures.build(
        recipe.model, n_labels=len(recipe.labels), mean=[0.0] * n_features, std=[1.0] * n_features
    )
    loss = CtcLoss() if isinstance(recipe.model, CtcRecipe) else SetLoss()
    model.compile(keras.optimizers.AdamW(1e-3, clipnorm=1.0), loss=loss, jit_compile=jit)
    return model


if __name__ == "__main__":
    main()
