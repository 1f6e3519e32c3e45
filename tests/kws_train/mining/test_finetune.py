"""Fine-tuning in small: a tone between two words is labelled, and learnt."""

import json
import re
import shutil

import msgspec
import numpy as np
import pytest
import soundfile
import sounds
from click.testing import CliRunner

from kws.errors import ConfigError
from kws.features import Features
from kws.manifest import UNKNOWN, FeatureSettings, Manifest
from kws.mined.clip_file import write_clip
from kws.mined.folder import Candidate, MinedFolder
from kws_train.mining.training_clips import write_training_clips
from kws_train.recipe import (
    AugmentRecipe,
    CrnnRecipe,
    DataRecipe,
    FitRecipe,
    Recipe,
    WordCorpus,
)

pytestmark = pytest.mark.slow

RATE_HZ = 16_000
SQUEAK_HZ = 1700  # neither the word at 2500 Hz nor the other one at 1200
RUMBLE_HZ = 680  # nearer to the word at 500 Hz than to anything else
RECIPE = Recipe(
    name="tone_words",
    data=DataRecipe(keywords=["low", "high"], words=[WordCorpus(path="words", weight=3.0)]),
    features=FeatureSettings(kind="logmel", n_mels=20, floor=1.0),
    model=CrnnRecipe(channels=(8, 8, 16), n_blocks=1, kernel_frames=5, gru_units=16, dropout=0.0),
    augment=AugmentRecipe(scene_s=1.6, noise_share=0.0, room_share=0.0, tilt_db=0.0),
    fit=FitRecipe(
        epochs=5,
        scenes_per_epoch=320,
        validation_scenes=16,
        batch_size=16,
        learning_rate=5e-3,
        patience=50,
    ),
)
MANIFEST = Manifest(
    name="tones",
    labels=("_silence_", UNKNOWN, "low", "high"),
    kind="step",
    features=RECIPE.features,
    n_frames=2,
    hop_frames=2,
)


def beep(hz, *, seed, seconds=2.0):
    """A tone of 0.375 s, 1 s after the start, in faint noise."""
    return sounds.tone_in_noise(hz, at_s=(1.0, 1.375), seconds=seconds, seed=seed)


def labelled(path, sounds):
    """Write a folder of `kws mine` in which each (label, sound) was labelled."""
    folder = MinedFolder(path)
    candidates = []
    for i, (_, sound) in enumerate(sounds):
        name = f"{i:012x}-{i:08d}-high"
        write_clip(path / "clips" / f"{name}.flac", sound)
        candidates.append(
            Candidate(
                id=name,
                keyword="high",
                score=0.5,
                kind="detection",
                source=f"/recordings/{i}.wav",
                start_s=1.0,
                end_s=1.4,
                clip=f"clips/{name}.flac",
                word_s=(1.0, 1.4),
                rank=i + 1,
                embedding=b"",
            )
        )
    folder.write_candidates(candidates, manifest=MANIFEST)
    with folder.open_label_log() as labels:
        for candidate, (label, _) in zip(candidates, sounds, strict=True):
            labels.append(candidate.id, label)
    return path


@pytest.fixture(scope="module")
def trained(tensorflow, tone_words, tmp_path_factory):
    """A run that knows a low and a high tone."""
    from kws_train.fit.training import fit

    run = tmp_path_factory.mktemp("run")
    fit(RECIPE, data=tone_words, run=run)
    return run


@pytest.fixture(scope="module")
def squeaks(tmp_path_factory):
    """Sixteen squeaks labelled `high`, and ten rumbles that are nothing."""
    highs = [("high", beep(SQUEAK_HZ + 5 * i, seed=i)) for i in range(16)]
    nothing = [(UNKNOWN, beep(RUMBLE_HZ + 5 * i, seed=100 + i)) for i in range(10)]
    return labelled(tmp_path_factory.mktemp("mined"), highs + nothing)


def heard(run, sounds, label):
    """Return the mean over sounds of the highest posterior of a label after a tone."""
    import keras

    from kws_train.fit.training import restore

    model, recipe = restore(run)
    frames = np.stack([Features(recipe.features).whole(sound) for sound in sounds])
    posteriors = keras.ops.convert_to_numpy(keras.ops.softmax(model.predict_on_batch(frames)))
    return float(posteriors[:, :, recipe.labels.index(label)].max(axis=1).mean())


def test_what_was_labelled_is_learnt_and_the_rest_is_kept(
    trained, squeaks, tone_words, tmp_path, monkeypatch
):
    from kws_train.cli import train
    from kws_train.mining import finetune

    monkeypatch.setattr(finetune, "_LEARNING_RATE", 4e-3)  # there are but a hundred steps
    again = tmp_path / "again"
    arguments = ["--fine-tune", squeaks, "--start", trained, "--data", tone_words, "--out", again]
    done = CliRunner().invoke(train, [str(one) for one in arguments])
    assert done.exit_code == 0, done.output
    assert f"trained: {again}." in done.output
    unseen = [beep(SQUEAK_HZ + 3 + 5 * i, seed=50 + i) for i in range(8)]
    rumbles = [beep(RUMBLE_HZ + 3 + 5 * i, seed=70 + i) for i in range(8)]
    assert heard(again, unseen, "high") > heard(trained, unseen, "high") + 0.2
    assert heard(again, rumbles, "low") < heard(trained, rumbles, "low") - 0.2
    for word, hz in (("low", 500), ("high", 2500)):
        known = [beep(hz, seed=90 + i) for i in range(4)]
        assert heard(again, known, word) > heard(trained, known, word) - 0.1
    unknown = (again / "unknown.csv").read_text().splitlines()
    assert any(row.startswith("_unknown_,clip,10,") for row in unknown)


def test_scenes_are_made_of_the_labelled_clips(trained, squeaks, tone_words):
    from kws_train.data.corpus import load_corpus
    from kws_train.fit.batches import make_batches
    from kws_train.mining.finetune import fine_tuning_recipe

    recipe = fine_tuning_recipe(trained, squeaks)
    corpus = load_corpus(recipe.data, tone_words, split="train")
    mined = [clip for clip in corpus.clips["high"] if squeaks in clip.path.parents]
    assert [len(mined), {clip.weight for clip in mined}] == [16, {30.0}]
    files = make_batches(recipe, corpus, split="train").files(0, 0)
    parts = {path.relative_to(squeaks).parts[0] for path in files if squeaks in path.parents}
    assert parts == {"words", "speech"}


def test_a_fine_tuning_goes_on_from_the_run_gently(trained, squeaks):
    from kws_train.mining.finetune import fine_tuning_recipe

    recipe = fine_tuning_recipe(trained, squeaks)
    assert (recipe.fit.epochs, recipe.fit.learning_rate, recipe.fit.keep) == (5, 3e-4, "last")
    assert (recipe.model, recipe.features) == (RECIPE.model, RECIPE.features)
    assert recipe.data.words[0] == RECIPE.data.words[0]
    assert recipe.data.sources[-1].clips == 26


def test_a_second_fine_tuning_on_the_same_folder_has_it_once(trained, squeaks, tmp_path):
    from kws_train.mining.finetune import fine_tuning_recipe

    first = fine_tuning_recipe(trained, squeaks)
    run = tmp_path / "tuned"
    shutil.copytree(trained, run)
    settings = json.loads((run / "settings.json").read_text())
    settings["recipe"] = msgspec.to_builtins(first)
    (run / "settings.json").write_text(json.dumps(settings))
    assert fine_tuning_recipe(run, squeaks).data == first.data


def test_a_folder_without_labels_is_refused(trained, tmp_path):
    from kws_train.mining.finetune import fine_tuning_recipe

    folder = labelled(tmp_path / "mined", [("_unsure_", beep(500, seed=1))])
    message = (
        f"A fine-tuning must have labelled clips. Received: {folder} without any. Run "
        f"`kws mine --out {folder}` and label some."
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        fine_tuning_recipe(trained, folder)


def test_labels_that_the_run_does_not_know_are_refused(trained, tmp_path):
    from kws_train.mining.finetune import fine_tuning_recipe

    folder = labelled(tmp_path / "mined", [("banana", beep(500, seed=1))])
    message = (
        f"Clips to fine-tune on must be labelled with keywords of the run. Received: `banana` in "
        f"{folder}; {trained} knows low, high. Mine with the model that was exported from it."
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        fine_tuning_recipe(trained, folder)


@pytest.mark.parametrize(
    "arguments", [[], ["--fine-tune", "mined"], ["--fine-tune", "m", "--config", "c.toml"]]
)
def test_neither_a_recipe_nor_a_fine_tuning_is_a_usage_error(arguments, tensorflow):
    from kws_train.cli import train

    done = CliRunner().invoke(train, [*arguments, "--data", "data", "--out", "run"])
    assert done.exit_code == 2
    assert done.output.splitlines()[-1] == "Error: Give --config, or --fine-tune and --start."


def test_the_cut_word_is_where_the_tone_is(tmp_path):
    folder = labelled(tmp_path, [("high", beep(2500, seed=1))])
    write_training_clips(MinedFolder(folder))
    (path,) = (folder / "words" / "high").glob("*.flac")
    sound, _ = soundfile.read(path, dtype="int16")
    loud = np.flatnonzero(np.abs(sound) > 3000)
    assert loud[-1] - loud[0] == pytest.approx(6000, abs=50)
    assert len(sound) < 16_000
