"""Measure, each by itself, the ways to make up for words without recordings: `on`, `off`, unknown.

python benchmarks/holes.py --data data

The network of the bundled model is trained from nothing, for the same few epochs each time: on the
real clips alone, and with one more source. What has been trained and measured is not done again.
The table is printed, for docs/experiments.md; it decides nothing, since it is of the test set.
"""

import argparse
import csv
import json
import logging
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import msgspec
import numpy as np
import soundfile

from kws.audio import SAMPLE_RATE_HZ as RATE_HZ
from kws.train.align import Utterance, read_alignment, train_speakers
from kws.train.data import Spoken, audio_below, read_samples
from kws.train.fit import fit, labels_of, restore
from kws.train.hard_examples import mine, name_of
from kws.train.settings import Recipe, WordCorpus, load_recipe

ROOT = Path(__file__).parents[1]
HOLES = ("on", "off")
REAL = ("speech_commands",)
SYNTHETIC = (*REAL, "speech_commands_tts")
MORE = (*SYNTHETIC, "synthetic_rare", "synthetic_common")
WAYS: dict[str, dict[str, Any]] = {
    "real clips alone": {"words": REAL},
    "synthetic words": {"words": SYNTHETIC},
    "synthetic words, 910 more": {"words": MORE},
    "synthetic words, cheap microphones, rooms": {"words": SYNTHETIC, "recorded": True},
    "synthetic words, self-training": {"words": SYNTHETIC, "taught_by": "synthetic words"},
    "words cut out of read-aloud books": {"words": REAL, "cut": True},
    "`on` and `off` spliced": {"words": (*REAL, "spliced")},
    "another language's words": {"words": (*REAL, "arabic_words")},
    "all but self-training": {
        "words": (*MORE, "spliced", "arabic_words", "wake_words"),
        "cut": True,
        "recorded": True,
    },
}
SURE = 0.5
_BEFORE_S = (0.55, 0.05)
"""Where a word lies before the moment that a network is surest of it, which is after its end."""

log = logging.getLogger("kws.holes")


def main() -> None:
    """Train and measure what is still to be done; print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=ROOT / "data")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs/holes")
    parser.add_argument("--epochs", type=int, default=5, help="of 12,800 scenes")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    print("| trained on | accuracy | the eight | `on` | `off` | `_unknown_` |")
    print("|---|---|---|---|---|---|")
    for name, way in WAYS.items():
        scores = measured(name, way, options)
        recall = scores["recall"]
        keywords = [word for word in recall if not word.startswith("_")]
        eight = np.mean([recall[word] for word in keywords if word not in HOLES])
        figures = (scores["accuracy"], eight, *(recall[word] for word in (*HOLES, "_unknown_")))
        row = " | ".join(f"{100 * figure:.1f} %" for figure in figures)
        print(f"| {name} | {row} |", flush=True)


def measured(name: str, way: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """Train and export one model unless that is done; return what `kws eval clips` says of it."""
    run = options.runs / folder_of(name)
    if (run / "clips.json").is_file():
        return json.loads((run / "clips.json").read_text())  # type: ignore[no-any-return]
    teacher = way.get("taught_by")
    taught = options.runs / f"{run.name}-words"
    if teacher and not taught.is_dir():
        teach_itself(options.runs / folder_of(teacher), options.data, taught)
    recipe = recipe_of(way, epochs=options.epochs, more=[taught] if teacher else [])
    if not (run / "finished").is_file():
        fit(recipe, data=options.data, run=run)
        keras.backend.clear_session()
    command = [sys.executable, "-m", "kws"]
    export = [*command, "export", run, "--out", run / "model.tflite", "--force"]
    subprocess.run(export, check=True, stdout=subprocess.DEVNULL)
    test = options.data / "speech_commands_test"
    clips = [*command, "eval", "clips", run / "model.tflite", test, "--json"]
    printed = subprocess.run(clips, check=True, stdout=subprocess.PIPE, text=True).stdout
    (run / "clips.json").write_text(printed)
    return json.loads(printed)  # type: ignore[no-any-return]


def folder_of(name: str) -> str:
    """Return the name of a way's run folder."""
    return "".join(letter if letter.isalnum() else "-" for letter in name).strip("-")


def recipe_of(way: dict[str, Any], *, epochs: int, more: Sequence[Path]) -> Recipe:
    """Return the zoo's baseline with the sources and the disturbance of one way."""
    recipe = load_recipe(ROOT / "train/recipes/crnn.toml")
    replace = msgspec.structs.replace
    words = [replace(one, optional=False) for one in recipe.data.words if one.path in way["words"]]
    words += [WordCorpus(path=str(folder.resolve()), split="train") for folder in more]
    speech = recipe.data.speech
    if not way.get("cut"):
        speech = [replace(one, alignment=None, word_weight=0.0) for one in speech]
    augment = recipe.augment
    if way.get("recorded"):  # as in the second stage of the bundled model
        augment = load_recipe(ROOT / "train/recipes/commands.toml").stages()[1].augment
    fitting = replace(recipe.fit, epochs=epochs, cosine_epochs=epochs, validation_scenes=640)
    data = replace(recipe.data, words=words, speech=speech)
    return replace(recipe, data=data, augment=augment, fit=fitting)


def teach_itself(run: Path, data: Path, out: Path) -> None:
    """Cut out of speech, its transcripts unread, what a trained network surely takes for a word.

    How many of these clips the aligned transcripts agree with is logged.
    """
    model, recipe = restore(run)
    first, _ = train_speakers(data / "librispeech")
    known = read_alignment(data / "alignment.jsonl")
    paths = [p for p in audio_below(data / "librispeech") if p.stem.partition("-")[0] in first]
    unread = {name_of(one): one for one in (Spoken(path, read_samples(path), ()) for path in paths)}
    found = []
    out.mkdir(parents=True, exist_ok=True)
    for moment in mine(model, recipe, labels_of(recipe), unread.values()):
        word, at_s = moment.keyword, moment.at / RATE_HZ
        if word not in HOLES or moment.posterior < SURE:
            continue
        spoken = unread[moment.utterance]
        found.append((word, spoken.path, at_s, said_at(known, spoken.path.stem, word, at_s)))
        start, end = (max(0, round((at_s - before) * RATE_HZ)) for before in _BEFORE_S)
        target = out / word / f"{spoken.path.stem}_nohash_{moment.at}.flac"
        target.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(target, spoken.samples[start:end], RATE_HZ)
    for word in HOLES:
        said = [one[-1] for one in found if one[0] == word]
        told = (word, len(said), said.count(True), said.count(None))
        log.info("%s: %d clips by itself, %d really said, %d without word times", *told)
    with (out / "found.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("word", "path", "at_s", "said"), *found])


def said_at(known: dict[str, Utterance], name: str, word: str, at_s: float) -> bool | None:
    """Say whether the word is said within half a second before a moment; None: no word times."""
    if name not in known:
        return None
    words = known[name].words
    return any(one.lower() == word and start <= at_s <= end + 0.5 for one, start, end in words)


if __name__ == "__main__":
    main()
