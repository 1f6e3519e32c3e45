"""Train, export and measure every architecture of the zoo on equal terms: `make zoo`.

All models but `ctc` hear the same scenes, made once, and each trains for the same CPU time on one
thread. What has been trained, exported or measured is not done again. The figures are written to
RUNS/zoo.json and, as the tables of the page, into docs/zoo.md.
"""

import argparse
import csv
import json
import logging
import os
import time
from functools import partial
from pathlib import Path

os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import msgspec
import numpy as np

from kws.features import Features
from kws.train import zoo
from kws.train.cache import CachedBatches, Kept, keep
from kws.train.ctc import CtcLoss
from kws.train.data import load_corpus
from kws.train.fit import SetLoss, labels_of
from kws.train.scenes import Scenes
from kws.train.sequences import SequenceScenes
from kws.train.settings import CtcRecipe, Recipe, load_recipe

ROOT = Path(__file__).parents[1]
RECIPES = ROOT / "train/recipes"
NAMES = [
    "crnn",
    "gru",
    "lstm",
    "ds_cnn",
    "tc_resnet",
    "bc_resnet",
    "conv1d_lstm",
    "cnn_lstm",
    "deep_cnn",
    "bilstm",
    "ctc",
]
N_VALIDATION = 1280
N_STREAMS = 96

log = logging.getLogger("kws.zoo")


def main() -> None:
    """Do for each model what is still to be done."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=ROOT / "data")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs/zoo")
    parser.add_argument("--scenes", type=int, default=12_000, help="scenes that all models share")
    parser.add_argument("--minutes", type=float, default=4.0, help="of CPU, for each model")
    parser.add_argument("--only", nargs="*", default=NAMES, help="models, by name")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    for name in options.only:
        recipe = load_recipe(RECIPES / f"{name}.toml")
        run = options.runs / name
        if not (run / "finished").is_file():
            train(recipe, run, options)
            keras.backend.clear_session()


def train(recipe: Recipe, run: Path, options: argparse.Namespace) -> None:
    """Train for as many epochs as the CPU time is enough for; write a run folder."""
    training, validation, labels = scenes_of(recipe, options)
    stride = zoo.time_stride(recipe.model)
    batches, held_out = (
        CachedBatches(kept, recipe, labels=labels, time_stride=stride, training=kept is training)
        for kept in (training, validation)
    )
    sample = batches.frames[:512].reshape(-1, recipe.features.n_features).astype(np.float32)
    mean, std = sample.mean(axis=0).tolist(), (sample.std(axis=0) + 1e-3).tolist()
    loss = CtcLoss() if isinstance(recipe.model, CtcRecipe) else SetLoss()

    def fresh(n_steps: int) -> zoo.Network:
        keras.utils.set_random_seed(recipe.fit.seed)
        model = zoo.build(recipe.model, n_labels=len(labels_of(recipe)), mean=mean, std=std)
        rate = keras.optimizers.schedules.CosineDecay(
            recipe.fit.learning_rate / 20,
            n_steps,
            warmup_target=recipe.fit.learning_rate,
            warmup_steps=max(1, n_steps // 12),
        )
        decay = recipe.fit.weight_decay
        model.compile(keras.optimizers.AdamW(rate, weight_decay=decay, clipnorm=1.0), loss=loss)
        return model

    step_s = seconds_a_step(fresh(100), batches)
    epochs = max(1, round(60 * options.minutes / (step_s * len(batches))))
    log.info("%s: %.3f s a step, %d epochs", recipe.name, step_s, epochs)
    model = fresh(epochs * len(batches))
    run.mkdir(parents=True, exist_ok=True)
    fit = msgspec.structs.replace(recipe.fit, epochs=epochs, scenes_per_epoch=len(batches.frames))
    recipe = msgspec.structs.replace(recipe, fit=fit)
    settings = {"recipe": msgspec.to_builtins(recipe), "mean": mean, "std": std}
    (run / "settings.json").write_text(json.dumps(settings, indent=1))
    features = Features(recipe.features)
    np.savez_compressed(
        run / "examples.npz",
        streams=np.asarray(batches.frames[:N_STREAMS], np.float32),
        clips=features.whole(np.load(validation.folder / "clips.npy")).astype(np.float32),
    )
    started_s = time.process_time()
    logger = keras.callbacks.CSVLogger(str(run / "history.csv"))
    model.fit(
        batches,
        validation_data=held_out,
        validation_freq=max(1, epochs // 4),
        epochs=epochs,
        callbacks=[logger],
        verbose=2,
    )
    spent = {
        "cpu_s": time.process_time() - started_s,
        "epochs": epochs,
        "scenes": len(batches.frames),
        "parameters": int(model.count_params()),
    }
    (run / "budget.json").write_text(json.dumps(spent))
    model.save_weights(run / "model.weights.h5")
    (run / "finished").touch()


def seconds_a_step(model: zoo.Network, batches: CachedBatches) -> float:
    """Return the CPU time of a step of training, batch included, once all is compiled."""
    for i in range(2):
        model.train_on_batch(*batches[i])
    n_steps = min(12, len(batches))
    started_s = time.process_time()
    for i in range(n_steps):
        model.train_on_batch(*batches[i])
    return (time.process_time() - started_s) / n_steps


def scenes_of(recipe: Recipe, options: argparse.Namespace) -> tuple[Kept, Kept, list[str]]:
    """Return the kept scenes of training and validation for a recipe, and their labels."""
    ctc = isinstance(recipe.model, CtcRecipe)
    shared = recipe if ctc else load_recipe(RECIPES / "crnn.toml")
    folder = options.runs / "scenes" / shared.name
    training, validation = (
        keep(
            partial(make_scenes, shared, options.data, split),
            folder / split,
            n_scenes=n,
            seed=seed,
        )
        for split, n, seed in (
            ("train", options.scenes, 1),
            ("validation", min(N_VALIDATION, options.scenes), 2),
        )
    )
    return training, validation, labels_of(shared)


def make_scenes(recipe: Recipe, data: Path, split: str) -> Scenes:
    """Return the scene maker of a split, with a target for every frame."""
    kind = SequenceScenes if isinstance(recipe.model, CtcRecipe) else Scenes
    return kind(
        load_corpus(recipe.data, data, split=split),
        recipe.data,
        recipe.augment,
        labels=labels_of(recipe),
        features=recipe.features,
        time_stride=1,
    )


if __name__ == "__main__":
    main()
