"""Train, export and measure every architecture of the zoo under equal conditions: `make zoo`.

All models but `ctc` train on the same cached scenes, each for the same CPU time on one thread.
Finished steps are skipped. The figures are written to RUNS/NAME/scores.json and to the tables of
docs/zoo.md.
"""

import argparse
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import msgspec
import numpy as np
from ctc_words import build_utterances, evaluate_sequences
from scene_cache import CachedBatches, CachedScenes, cached_scenes

from kws.commands.bench import cpu_by_stage, recording
from kws.features import Features
from kws.model import Model, open_model
from kws_train.data.corpus import load_corpus
from kws_train.evaluate.build_stream import keyword_clips
from kws_train.fit.checkpoints import is_finished, mark_finished
from kws_train.fit.losses import CtcLoss, SetLoss
from kws_train.fit.training import restore
from kws_train.networks import architectures
from kws_train.recipe import (
    MODEL_RECIPES,
    CtcRecipe,
    DeepCnnRecipe,
    Recipe,
    StepRecipe,
    load_recipe,
)
from kws_train.scenes.ctc_scenes import SequenceScenes
from kws_train.scenes.scenes import Scenes

ROOT = Path(__file__).parents[1]
RECIPES = ROOT / "train/kws_train/recipes"
BITS = {"lstm": "int16x8"}
"""An LSTM's cell accumulates small changes over a long time, which eight bits lose."""
TEMPERATURE = 2.0
"""Of step models: otherwise confident errors have the highest score that eight bits can represent.
Not of `ctc`, whose decoder uses posteriors unchanged."""
N_VALIDATION = 1280
N_STREAMS = 96
BEGIN, END = "<!-- make zoo: begin -->", "<!-- make zoo: end -->"

log = logging.getLogger("kws.zoo")


def main() -> None:
    """Run the missing steps for each model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=ROOT / "data")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs/zoo")
    parser.add_argument("--scenes", type=int, default=12_000, help="number of shared scenes")
    parser.add_argument("--minutes", type=float, default=10.0, help="CPU time per model")
    parser.add_argument("--stream-minutes", type=float, default=60.0, help="length of the stream")
    parser.add_argument("--utterances", type=int, default=500, help="to measure `ctc` on")
    parser.add_argument("--only", nargs="*", default=[*MODEL_RECIPES], help="models, by name")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    for name in options.only:
        recipe = load_recipe(RECIPES / f"{name}.toml")
        run = options.runs / name
        if not is_finished(run):
            train(recipe, run, options)
            keras.backend.clear_session()
        model = options.runs / f"{name}.tflite"
        if not model.is_file():
            export(recipe, run, model)
            keras.backend.clear_session()
        if not (run / "scores.json").is_file():
            scores = measure(recipe, model, run, options)
            (run / "scores.json").write_text(json.dumps(scores, indent=1))
        write_page(options)


def train(recipe: Recipe, run: Path, options: argparse.Namespace) -> None:
    """Train for as many epochs as fit into the CPU time; write a run folder."""
    training, validation, labels = scenes_of(recipe, options)
    stride = architectures.time_stride(recipe.model)
    batches, held_out = (
        CachedBatches(
            scenes, recipe, labels=labels, time_stride=stride, training=scenes is training
        )
        for scenes in (training, validation)
    )
    sample = batches.frames[:512].reshape(-1, recipe.features.n_features).astype(np.float32)
    mean, std = sample.mean(axis=0).tolist(), (sample.std(axis=0) + 1e-3).tolist()
    step_s = seconds_per_step(compiled(recipe, mean, std, n_steps=100), batches)
    epochs = max(1, round(60 * options.minutes / (step_s * len(batches))))
    log.info("%s: %.3f s per step, %d epochs", recipe.name, step_s, epochs)
    model = compiled(recipe, mean, std, n_steps=epochs * len(batches))
    run.mkdir(parents=True, exist_ok=True)
    fit = msgspec.structs.replace(recipe.fit, epochs=epochs, scenes_per_epoch=len(batches.frames))
    recipe = msgspec.structs.replace(recipe, fit=fit)
    settings = {"recipe": msgspec.to_builtins(recipe), "mean": mean, "std": std}
    (run / "settings.json").write_text(json.dumps(settings, indent=1))
    write_examples(run, recipe, training, validation, labels)
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
    mark_finished(run)


def compiled(
    recipe: Recipe, mean: list[float], std: list[float], *, n_steps: int
) -> architectures.Network:
    """Return the untrained network of a recipe, with a learning rate for so many steps."""
    keras.utils.set_random_seed(recipe.fit.seed)
    model = architectures.build(recipe.model, n_labels=len(recipe.labels), mean=mean, std=std)
    rate = keras.optimizers.schedules.CosineDecay(
        recipe.fit.learning_rate / 20,
        n_steps,
        warmup_target=recipe.fit.learning_rate,
        warmup_steps=max(1, n_steps // 12),
    )
    optimizer = keras.optimizers.AdamW(rate, weight_decay=recipe.fit.weight_decay, clipnorm=1.0)
    model.compile(optimizer, loss=CtcLoss() if isinstance(recipe.model, CtcRecipe) else SetLoss())
    return model


def write_examples(
    run: Path,
    recipe: Recipe,
    training: CachedScenes,
    validation: CachedScenes,
    labels: Sequence[str],
) -> None:
    """Write the examples that export calibrates on: scenes, at least half with a keyword."""
    columns = [labels.index(word) for word in recipe.data.keywords]
    if isinstance(recipe.model, CtcRecipe):
        holds = np.isin(training.targets, columns).any(axis=1)
    else:
        holds = training.targets[..., columns].any(axis=(1, 2))
    half = np.flatnonzero(holds)[: N_STREAMS // 2]
    others = np.setdiff1d(np.arange(len(holds)), half)[: N_STREAMS - len(half)]
    chosen = np.sort(np.concatenate((half, others)))
    features = Features(recipe.features)
    np.savez_compressed(
        run / "examples.npz",
        streams=training.frames(recipe.features)[chosen].astype(np.float32),
        clips=features.whole(np.load(validation.folder / "clips.npy")).astype(np.float32),
    )


def seconds_per_step(model: architectures.Network, batches: CachedBatches) -> float:
    """Return the CPU time per training step, batch included, after compilation."""
    for i in range(2):
        model.train_on_batch(*batches[i])
    n_steps = min(12, len(batches))
    started_s = time.process_time()
    for i in range(n_steps):
        model.train_on_batch(*batches[i])
    return (time.process_time() - started_s) / n_steps


def scenes_of(
    recipe: Recipe, options: argparse.Namespace
) -> tuple[CachedScenes, CachedScenes, list[str]]:
    """Return the cached scenes of training and validation for a recipe, and their labels."""
    shared = load_recipe(RECIPES / "crnn.toml")
    if not set(recipe.data.keywords) <= set(shared.data.keywords):
        shared = recipe
    folder = options.runs / "scenes" / shared.name
    training, validation = (
        cached_scenes(
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
    return training, validation, shared.labels


def make_scenes(recipe: Recipe, data: Path, split: str) -> Scenes:
    """Return the scene maker of a split, with a target for every frame."""
    kind = SequenceScenes if isinstance(recipe.model, CtcRecipe) else Scenes
    return kind(
        load_corpus(recipe.data, data, split=split),
        recipe.data,
        recipe.augment,
        labels=recipe.labels,
        features=recipe.features,
        time_stride=1,
    )


def kws(*words: object) -> str:
    """Run a kws command; return its standard output."""
    command = [sys.executable, "-m", "kws", *map(str, words)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def export(recipe: Recipe, run: Path, out: Path) -> None:
    """Write the model file."""
    options: list[object] = ["--quantize", BITS.get(recipe.name, "int8")]
    if isinstance(recipe.model, StepRecipe) and not isinstance(recipe.model, CtcRecipe):
        options += ["--temperature", TEMPERATURE]
    kws("export", run, "--out", out, "--force", *options)


def measure(recipe: Recipe, path: Path, run: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Measure a model file: clips, stream, size, CPU, agreement with the trained model."""
    model = open_model(path)
    data, keywords = options.data, recipe.data.keywords
    scores: dict[str, Any] = json.loads((run / "budget.json").read_text())
    scores |= {
        "kind": model.manifest.kind,
        "bytes": path.stat().st_size,
        "cpu": cpu_by_stage(model, recording(), chunk_ms=80),
        "agreement": agreement(run, model),
    }
    test = data / "speech_commands_test"
    if not (test / keywords[0]).is_dir():
        test = digit_clips(data, options.runs / "digits_test")
    if isinstance(recipe.model, CtcRecipe):
        found = keyword_clips(test, keywords)
        utterances = build_utterances(found, n=options.utterances)
        scores["sequences"] = msgspec.to_builtins(evaluate_sequences(model, utterances))
        return scores
    if len(keywords) > 1:
        scores["clips"] = json.loads(kws("eval", "clips", path, test, "--json"))
    words = [f"--without={word}" for word in load_recipe(RECIPES / "crnn.toml").data.keywords]
    words.append(f"--minutes={options.stream_minutes}")
    stream = ["--keywords", test, "--background", data / "librispeech"]
    stream += ["--noise", data / "noise/esc10", "--noise-pattern=4-*"]  # what recipes leave out
    scores["stream"] = json.loads(kws("eval", "stream", path, *stream, *words, "--json"))
    return scores


def agreement(run: Path, model: Model) -> float:
    """Return the share of outputs with the same most probable label in file and network."""
    network, recipe = restore(run)
    with np.load(run / "examples.npz") as stored:
        clips = stored["clips"][:100]
    clips = clips[:, : clips.shape[1] // network.time_stride * network.time_stride]
    logits = keras.ops.softmax(network.predict(clips, verbose=0))
    wanted = keras.ops.convert_to_numpy(logits)
    found = np.stack([model.run(clip) for clip in clips])
    if isinstance(recipe.model, DeepCnnRecipe):
        return float(np.mean((found[..., 0] > 0.5) == (wanted[..., -1] > 0.5)))
    return float(np.mean(found.argmax(axis=-1) == wanted.argmax(axis=-1)))


def digit_clips(data: Path, folder: Path) -> Path:
    """Sort the digits among the unknown words of the test set into folders, by their names."""
    for path in sorted((data / "speech_commands_test/_unknown_").iterdir()):
        word, _, name = path.name.partition("_")
        link = folder / word / name
        if not link.is_symlink():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path.resolve())
    return folder


def write_page(options: argparse.Namespace) -> None:
    """Write the figures to the tables of docs/zoo.md; rows of other models are unchanged."""
    page = ROOT / "docs/zoo.md"
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    written, _, after = rest.partition(END)
    table, _, sequences = written.strip().partition("\n\n")
    found = {name: options.runs / name / "scores.json" for name in MODEL_RECIPES}
    scores = {name: json.loads(p.read_text()) for name, p in found.items() if p.is_file()}
    head = ["architecture", "features", "runs as", "parameters", "kB", "minutes", "epochs"]
    head += ["CPU ms/s", "agrees", "clips", "missed at 1/h", "at 0.5/h"]
    lines = [line_of(head), line_of(["---"] * len(head))]
    for name in MODEL_RECIPES:
        if name in scores:
            lines.append(line_of(row_of(name, scores[name])))
        else:
            lines += [line for line in table.splitlines() if line.startswith(f"| `{name}` |")]
    if "ctc" in scores:
        ctc = scores["ctc"]["sequences"]
        rows = [["`ctc`, decoded by", "word error rate", "utterances without a mistake"]]
        rows += [["---"] * 3]
        for how, rate in ctc["word_error_rate"].items():
            rows.append([how, f"{rate:.1%}", f"{ctc['sequence_accuracy'][how]:.1%}"])
        sequences = "\n".join(map(line_of, rows))
    tables = "\n\n".join(["\n".join(lines), *([sequences] if sequences else [])])
    page.write_text(f"{before}{BEGIN}\n{tables}\n{END}{after}", encoding="utf-8")


def row_of(name: str, one: dict[str, Any]) -> list[str]:
    """Return the cells of a model's row."""
    recipe = load_recipe(RECIPES / f"{name}.toml")
    row = [f"`{name}`", recipe.features.kind, one["kind"], f"{one['parameters']:,}"]
    row += [f"{one['bytes'] / 1000:.0f}", f"{one['cpu_s'] / 60:.0f}", str(one["epochs"])]
    row += [f"{one['cpu']['all']:.1f}", f"{one['agreement']:.1%}"]
    row += [f"{one['clips']['accuracy']:.1%}" if "clips" in one else "–"]
    row += [missed(one["stream"], budget) if "stream" in one else "–" for budget in (1.0, 0.5)]
    return row


def line_of(cells: Sequence[str]) -> str:
    """Return a line of a table."""
    return "| " + " | ".join(cells) + " |"


def missed(stream: dict[str, Any], budget: float) -> str:
    """Return the miss rate at a budget of false alarms per hour; note if none meets it."""
    (point,) = (one for one in stream["points"] if one.get("budget") == budget)
    note = "" if point["fa_per_hour"] <= budget else f" ({point['fa_per_hour']:.1f}/h)"
    return f"{point['miss_rate']:.0%}{note}"


if __name__ == "__main__":
    main()
