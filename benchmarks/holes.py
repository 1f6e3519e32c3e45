"""Compare data sources for words that lack recordings: `on`, `off` and unknown words.

python benchmarks/holes.py --data data

The network of the bundled model is trained on real clips alone. From its weights, training
continues for each source and seed, for the same few epochs, on the real clips and one more source,
with clips among the scenes as in the last stage of the bundled model. The float networks classify
the test clips. Finished trainings and measurements are skipped. The printed table is for
docs/experiments.md: means over the seeds, minimum and maximum in brackets. It selects nothing,
since it is measured on the test set.
"""

import argparse
import csv
import json
import logging
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as kws_train does

import keras
import msgspec
import numpy as np
import soundfile

from kws.arrays import Samples
from kws.audio import SAMPLE_RATE_HZ as RATE_HZ
from kws.manifest import UNKNOWN
from kws_train.data.align import AlignedUtterance, read_alignment
from kws_train.data.audio_files import audio_files, read_samples
from kws_train.data.corpus import Spoken
from kws_train.data.librispeech import speaker_halves, speaker_of_utterance
from kws_train.evaluate.clips import labelled_clips
from kws_train.evaluate.training_plots import confusion_matrix
from kws_train.fit.checkpoints import is_finished
from kws_train.fit.hard_negatives import mine_hard_negatives, recording_key
from kws_train.fit.training import fit, restore
from kws_train.recipe import Recipe, WordCorpus, load_recipe

ROOT = Path(__file__).parents[1]
COMMANDS = ROOT / "train/kws_train/recipes/commands-small.toml"
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
"""A word's start and end before the peak of its posterior, which comes after its end."""

log = logging.getLogger("kws.holes")


def main() -> None:
    """Run the missing trainings and measurements; print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=ROOT / "data")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs/holes")
    parser.add_argument("--epochs", type=int, default=4, help="of 6,400 scenes, per source")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    base = train_base(options.runs, options.data)
    measured = [[measure(base / "clips.json", base, options.data)]]
    for seed in range(1, options.seeds + 1):  # so that a table can be had before the last seed
        measured += [[train_way(name, seed, base=base, options=options) for name in WAYS]]
    print("| trained on | accuracy | the eight | `on` | `off` | `_unknown_` |")
    print("|---|---|---|---|---|---|")
    print_row("real clips alone, where all begin", measured[0])
    for i, name in enumerate(WAYS):
        print_row(name, [of_seed[i] for of_seed in measured[1:]])


def print_row(name: str, scores: Sequence[dict[str, float]]) -> None:
    """Print means over seeds, with minimum and maximum."""
    cells = []
    for figure in scores[0]:
        values = [100 * one[figure] for one in scores]
        spread = f" [{min(values):.1f}, {max(values):.1f}]" if len(values) > 1 else ""
        cells.append(f"{np.mean(values):.1f} %{spread}")
    print(f"| {name} | {' | '.join(cells)} |", flush=True)


def train_base(runs: Path, data: Path) -> Path:
    """Train on real clips alone: from scratch, then with whole clips among the scenes."""
    real = {"words": REAL}
    first, base = runs / "nothing", runs / "base"
    recipe = load_recipe(ROOT / "train/kws_train/recipes/crnn.toml")
    fitting = msgspec.structs.replace(recipe.fit, epochs=5, cosine_epochs=5, validation_scenes=640)
    recipe = msgspec.structs.replace(with_sources(recipe, real), fit=fitting)
    train(recipe, data=data, run=first)
    train(going_on(real, epochs=6, n_scenes=12_800, seed=1), data=data, run=base, start=first)
    return base


def train_way(name: str, seed: int, *, base: Path, options: argparse.Namespace) -> dict[str, float]:
    """Continue from the base with one source and seed; return the figures of the test clips."""
    way = WAYS[name]
    run = options.runs / f"{folder_of(name)}-{seed}"
    taught = options.runs / f"{folder_of(name)}-words"
    if (teacher := way.get("taught_by")) and not taught.is_dir():
        teach_itself(options.runs / f"{folder_of(teacher)}-1", options.data, taught)
    recipe = going_on(
        way, epochs=options.epochs, n_scenes=6_400, seed=seed, more=[taught] if teacher else []
    )
    train(recipe, data=options.data, run=run, start=base)
    return measure(run / "clips.json", run, options.data)


def train(recipe: Recipe, *, data: Path, run: Path, start: Path | None = None) -> None:
    """Train, unless the run is finished."""
    if not is_finished(run):
        fit(recipe, data=data, run=run, start=start)
        keras.backend.clear_session()


def measure(file: Path, run: Path, data: Path) -> dict[str, float]:
    """Return the figures of a run for the table, from its file or by measuring."""
    if not file.is_file():
        model, recipe = restore(run)
        confusion = confusion_matrix(model, recipe, test_clips(data))
        recall = dict(zip(recipe.labels, confusion.diagonal() / confusion.sum(1), strict=True))
        eight = np.mean([recall[word] for word in recipe.data.keywords if word not in HOLES])
        figures = {"accuracy": confusion.trace() / confusion.sum(), "eight": eight}
        figures |= {name: recall[name] for name in (*HOLES, UNKNOWN)}
        file.write_text(json.dumps({name: float(figure) for name, figure in figures.items()}))
        keras.backend.clear_session()
    return json.loads(file.read_text())  # type: ignore[no-any-return]


@cache
def test_clips(data: Path) -> list[tuple[str, Samples]]:
    """Return labels and samples of the test clips."""
    labels = load_recipe(COMMANDS).labels
    found = labelled_clips(data / "speech_commands_test", labels=labels, split="test")
    return [(label, read_samples(path)) for path, label in found]


def folder_of(name: str) -> str:
    """Return the name of the run folders of a source."""
    return "".join(letter if letter.isalnum() else "-" for letter in name).strip("-")


def going_on(
    way: dict[str, Any], *, epochs: int, n_scenes: int, seed: int, more: Sequence[Path] = ()
) -> Recipe:
    """Return the last stage of the bundled model with other sources and augmentation."""
    replace = msgspec.structs.replace
    recipe = load_recipe(COMMANDS).stages()[-1]
    augment = replace(recipe.augment, mined_share=0.0)
    if not way.get("recorded"):
        augment = replace(augment, room_share=0.0, microphone_share=0.0)
    fitting = replace(
        recipe.fit,
        epochs=epochs,
        cosine_epochs=epochs,
        scenes_per_epoch=n_scenes,
        validation_scenes=640,
        batch_size=64,
        average=0.99,
        start_share=0.0,
        seed=seed,
    )
    return replace(with_sources(recipe, way, more=more), augment=augment, fit=fitting)


def with_sources(recipe: Recipe, way: dict[str, Any], *, more: Sequence[Path] = ()) -> Recipe:
    """Return a recipe with the word sources of one row of the table."""
    replace = msgspec.structs.replace
    words = [replace(one, optional=False) for one in recipe.data.words if one.path in way["words"]]
    words += [WordCorpus(path=str(folder.resolve()), split="train") for folder in more]
    speech = recipe.data.speech
    if not way.get("cut"):
        speech = [replace(one, alignment=None, word_weight=0.0) for one in speech]
    return replace(recipe, data=replace(recipe.data, words=words, speech=speech))


def teach_itself(run: Path, data: Path, out: Path) -> None:
    """Self-training: cut words out of speech where a network detects them with confidence.

    Transcripts are used only to log how many of these clips they agree with.
    """
    model, recipe = restore(run)
    first, _ = speaker_halves(data / "librispeech")
    known = read_alignment(data / "alignment.jsonl")
    paths = [p for p in audio_files(data / "librispeech") if speaker_of_utterance(p.name) in first]
    unread = {
        recording_key(one): one for one in (Spoken(path, read_samples(path), ()) for path in paths)
    }
    found = []
    out.mkdir(parents=True, exist_ok=True)
    for moment in mine_hard_negatives(model, recipe, unread.values()):
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


def said_at(known: dict[str, AlignedUtterance], name: str, word: str, at_s: float) -> bool | None:
    """Return whether the word is said within half a second before a time; None: unknown."""
    if name not in known:
        return None
    words = known[name].words
    return any(one.lower() == word and start <= at_s <= end + 0.5 for one, start, end in words)


if __name__ == "__main__":
    main()
