"""Train, export and measure every architecture of the zoo under equal conditions: `make zoo`.

Each model trains for the same CPU time on one thread, by the loop of `kws train`. Finished steps
are skipped and an unfinished training is resumed. A row that fails does not keep the others from
being trained; the exit code tells. The figures are written to RUNS/NAME/scores.json and
RUNS/NAME/curve.csv, and to the tables and the picture of docs/zoo.md.
"""

import argparse
import json
import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as kws_train does

import keras
import msgspec
import numpy as np
from ctc_words import build_utterances, evaluate_sequences
from training_curve import Curve, Point, draw_curves, read_curve
from training_speed import cost_of

from kws.arrays import Samples
from kws.commands.bench import cpu_by_stage, recording
from kws.errors import KwsError
from kws.model import Model, open_model
from kws_train.data.corpus import KeptCorpora
from kws_train.evaluate.build_stream import keyword_clips
from kws_train.fit.training import fit_stages, restore
from kws_train.own_word.pretrained import unpack_run
from kws_train.recipe import (
    MODEL_RECIPES,
    CtcRecipe,
    DeepCnnRecipe,
    Recipe,
    WindowRecipe,
    load_recipe,
    write_recipe,
)

ROOT = Path(__file__).parents[1]
RECIPES = ROOT / "train/kws_train/recipes"
PICTURES = {"step": ROOT / "docs/zoo-curves.png", "window": ROOT / "docs/zoo-curves-window.png"}
"""The curves of all step and of all window models, once the runs of all of them are there."""
BITS = {"lstm": "int16x8"}
"""An LSTM's cell accumulates small changes over a long time, which eight bits lose."""
TEMPERATURE = 2.0
"""Otherwise confident errors have the highest score that eight bits can represent.
Not of `ctc`, whose decoder uses posteriors unchanged."""
STARTED = {"ctc"}
"""Rows that start from the weights of `commands-small`."""
ROWS = [name for name in MODEL_RECIPES if (RECIPES / f"{name}.toml").is_file()]
"""Not `speech_embedding`, whose recipe is that of the bundled `commands`."""
CORPORA = KeptCorpora()
BEGIN, END = "<!-- make zoo: begin -->", "<!-- make zoo: end -->"

log = logging.getLogger("kws.zoo")


def main() -> None:
    """Run the missing steps for each model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=ROOT / "data")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs/zoo")
    parser.add_argument("--minutes", type=float, default=10.0, help="CPU time per model")
    parser.add_argument("--stream-minutes", type=float, default=120.0, help="length of a stream")
    parser.add_argument("--utterances", type=int, default=500, help="to measure `ctc` on")
    parser.add_argument("--curves", type=Path, help="picture of the rows that RUNS holds")
    parser.add_argument("--only", nargs="*", default=ROWS, help="models, by name")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    failed = [name for name in options.only if not is_made(name, options)]
    if options.curves:
        draw_curves(curves_of(options.runs, ROWS), options.curves)
    sys.exit(f"not finished: {', '.join(failed)}; see above" if failed else 0)


def is_made(name: str, options: argparse.Namespace) -> bool:
    """Run the missing steps of a row; log why one of them failed, and return False."""
    try:
        make(name, options)
    except (KwsError, subprocess.CalledProcessError) as error:
        log.error("%s: %s", name, error)  # noqa: TRY400  # no traceback reaches a user
        return False
    return True


def make(name: str, options: argparse.Namespace) -> None:
    """Train, export and measure a row, as far as that is not done, and write the page."""
    recipe = load_recipe(RECIPES / f"{name}.toml")
    run, model = options.runs / name, options.runs / f"{name}.tflite"
    if not (run / "budget.json").is_file():
        train(recipe, run, options, CORPORA)
        keras.backend.clear_session()
    if not model.is_file():
        export(recipe, run, model)
        keras.backend.clear_session()
    if not (run / "scores.json").is_file():
        scores = measure(recipe, model, run, options)
        (run / "scores.json").write_text(json.dumps(scores, indent=1))
    write_page(options)


def train(recipe: Recipe, run: Path, options: argparse.Namespace, load: KeptCorpora) -> None:
    """Train the stages of a recipe within the CPU time; go on where an earlier call stopped."""
    planned = run.with_suffix(".toml")
    if not planned.is_file():
        run.parent.mkdir(parents=True, exist_ok=True)
        write_recipe(planned, plan(recipe, options, load))
    recipe = load_recipe(planned)
    clips = [] if isinstance(recipe.model, CtcRecipe) else validation_clips(recipe, options, load)
    curve = Curve(run, recipe, clips)
    start = None
    if recipe.name in STARTED:
        start = unpack_run(options.runs / "start", RECIPES / "commands-small.npz")
    model, _ = fit_stages(
        recipe, data=options.data, run=run, start=start, callbacks=[curve], load=load
    )
    stages = [stage.fit for stage in recipe.stages()]
    spent = {
        "cpu_s": 60 * curve.minutes,
        "epochs": sum(fit.epochs for fit in stages),
        "scenes": sum(fit.epochs * fit.scenes_per_epoch for fit in stages),
        "parameters": int(model.count_params()),
    }
    (run / "budget.json").write_text(json.dumps(spent))


def plan(recipe: Recipe, options: argparse.Namespace, load: KeptCorpora) -> Recipe:
    """Return a recipe with as many epochs as fit into the CPU time, a third for the last stage."""
    stages = recipe.stages()
    n_first = len(stages) - 1
    shares = [2 / 3 / n_first] * n_first + [1 / 3] if n_first else [1.0]
    epochs = []
    for stage, share in zip(stages, shares, strict=True):
        corpus = load(stage.data, options.data, split="train")
        per_scene_s = sum(cost_of(stage, corpus).values())
        per_epoch_s = per_scene_s * stage.fit.scenes_per_epoch
        epochs.append(max(1, round(60 * options.minutes * share / per_epoch_s)))
        log.info("%s: %.2f ms a scene, %d epochs", recipe.name, 1000 * per_scene_s, epochs[-1])
    first, *later = ({"epochs": n, "cosine_epochs": n} for n in epochs)
    then: list[Any] = [
        {**stage, "fit": {**stage.get("fit", {}), **fit}}
        for stage, fit in zip(recipe.then, later, strict=True)
    ]
    fit = msgspec.structs.replace(recipe.fit, **first)
    return msgspec.structs.replace(recipe, fit=fit, then=then)


def validation_clips(
    recipe: Recipe, options: argparse.Namespace, load: KeptCorpora
) -> list[tuple[str, Samples]]:
    """Return the recorded validation clips, the same of every row, as (label, samples)."""
    corpus = load(recipe.data, options.data, split="validation")
    clips = [clip for known in corpus.clips.values() for clip in known if clip.real]
    return [(clip.label, clip.samples) for clip in clips]


def kws(*words: object) -> str:
    """Run a kws command; return its standard output."""
    command = [sys.executable, "-m", "kws", *map(str, words)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def export(recipe: Recipe, run: Path, out: Path) -> None:
    """Write the model file."""
    options: list[object] = ["--quantize", BITS.get(recipe.name, "int8")]
    if not isinstance(recipe.model, CtcRecipe):
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
    clean = kws("eval", "stream", path, *stream, "--snr-db=inf", *words, "--json")
    scores["clean"] = json.loads(clean)
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
    found = {name: options.runs / name / "scores.json" for name in ROWS}
    scores = {name: json.loads(p.read_text()) for name, p in found.items() if p.is_file()}
    for kind, picture in PICTURES.items():
        names = [name for name in ROWS if kind_of(name) == kind]
        if scores.keys() >= set(names):
            draw_curves(curves_of(options.runs, names), picture)
    head = ["architecture", "features", "runs as", "parameters", "kB", "minutes", "epochs"]
    head += ["CPU ms/s", "agrees", "clips", "missed, clean", "missed, 10 dB"]
    lines = [line_of(head), line_of(["---"] * len(head))]
    for name in ROWS:
        if name in scores:
            lines.append(line_of(row_of(name, scores[name])))
        else:
            lines += [line for line in table.splitlines() if line.startswith(f"| `{name}`")]
    if "ctc" in scores:
        ctc = scores["ctc"]["sequences"]
        rows = [["`ctc`, decoded by", "word error rate", "utterances without a mistake"]]
        rows += [["---"] * 3]
        for how, rate in ctc["word_error_rate"].items():
            rows.append([how, f"{rate:.1%}", f"{ctc['sequence_accuracy'][how]:.1%}"])
        sequences = "\n".join(map(line_of, rows))
    tables = "\n\n".join(["\n".join(lines), *([sequences] if sequences else [])])
    page.write_text(f"{before}{BEGIN}\n{tables}\n{END}{after}", encoding="utf-8")


def curves_of(runs: Path, names: Sequence[str]) -> dict[str, list[Point]]:
    """Return the curves of the rows that a folder of runs holds."""
    paths = {name: runs / name / "curve.csv" for name in names}
    return {name: read_curve(path) for name, path in paths.items() if path.is_file()}


def row_of(name: str, one: dict[str, Any]) -> list[str]:
    """Return the cells of a model's row."""
    recipe = load_recipe(RECIPES / f"{name}.toml")
    row = [f"`{name}`", recipe.features.kind, one["kind"], f"{one['parameters']:,}"]
    row += [f"{one['bytes'] / 1000:.0f}", f"{one['cpu_s'] / 60:.0f}", str(one["epochs"])]
    row += [f"{one['cpu']['all']:.1f}", f"{one['agreement']:.1%}"]
    row += [f"{one['clips']['accuracy']:.1%}" if "clips" in one else "–"]
    return [*row, *(missed(one[key]) if key in one else "–" for key in ("clean", "stream"))]


def kind_of(name: str) -> str:
    """Return how a row's model runs, "step" or "window"."""
    return "window" if issubclass(MODEL_RECIPES[name], WindowRecipe) else "step"


def line_of(cells: Sequence[str]) -> str:
    """Return a line of a table."""
    return "| " + " | ".join(cells) + " |"


def missed(stream: dict[str, Any]) -> str:
    """Return the miss rate at one false alarm per hour in speech; note if that is not kept to."""
    (point,) = (one for one in stream["speech_points"] if one.get("budget") == 1.0)
    rate = point["speech_fa_per_hour"]
    note = "" if round(rate, 2) <= 1.0 else f" ({rate:.1f}/h)"
    return f"{point['miss_rate']:.0%}{note}"


if __name__ == "__main__":
    main()
