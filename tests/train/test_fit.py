"""Training in small: tones are the words, one speaker validates, an epoch takes a second."""

import csv
import json
import re
import shutil

import msgspec
import numpy as np
import pytest
import soundfile

from kws.errors import ConfigError
from kws.manifest import FeatureSettings
from kws.train.settings import (
    AugmentRecipe,
    CrnnRecipe,
    DataRecipe,
    FitRecipe,
    Recipe,
    WordCorpus,
)

pytestmark = pytest.mark.slow

RATE_HZ = 16_000
WORDS_HZ = {"low": 500, "high": 2500, "other": 1200}
RECIPE = Recipe(
    name="tones",
    data=DataRecipe(keywords=["low", "high"], words=[WordCorpus(path="words")]),
    features=FeatureSettings(kind="logmel", n_mels=8, floor=1.0),
    model=CrnnRecipe(channels=(4, 4, 8), n_blocks=1, kernel_frames=3, gru_units=8, dropout=0.0),
    augment=AugmentRecipe(scene_s=1.6),
    fit=FitRecipe(epochs=1, scenes_per_epoch=24, validation_scenes=8, batch_size=8),
)


@pytest.fixture(scope="module")
def training(tensorflow):
    from kws.train import fit

    return fit


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder of tones by speakers in the training and the validation split."""
    from kws.train.data import official_split

    folder = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(1)
    splits = set()
    for word, hz in WORDS_HZ.items():
        for i in range(14):
            path = folder / "words" / word / f"{i:04x}_nohash_0.wav"
            splits.add(official_split(path))
            path.parent.mkdir(parents=True, exist_ok=True)
            t = np.arange(6000) / RATE_HZ
            wave = random.normal(0, 30, RATE_HZ)
            wave[4000:10_000] += 6000 * np.sin(2 * np.pi * hz * random.uniform(0.9, 1.1) * t)
            soundfile.write(path, wave.astype(np.int16), RATE_HZ)
    assert splits >= {"train", "validation"}
    return folder


def changed(**fit):
    return msgspec.structs.replace(RECIPE, fit=msgspec.structs.replace(RECIPE.fit, **fit))


def history_of(run):
    with (run / "history.csv").open(newline="") as rows:
        return list(csv.DictReader(rows))


def same_weights(one, other):
    pairs = zip(one.get_weights(), other.get_weights(), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


@pytest.fixture
def random_logits(random):
    return random.normal(0, 3, (2, 5, 4)).astype(np.float32)


def test_the_loss_of_a_single_label_is_cross_entropy(training, tensorflow, random_logits, random):
    labels = random.integers(4, size=(2, 5))
    wanted = tensorflow.keras.losses.sparse_categorical_crossentropy(
        labels, random_logits, from_logits=True
    )
    loss = training.SetLoss().call(np.eye(4, dtype=np.uint8)[labels], random_logits)
    assert np.abs(np.asarray(loss) - np.asarray(wanted)).max() <= 1e-5


def test_the_loss_of_all_labels_is_zero(training, random_logits):
    loss = training.SetLoss().call(np.ones((2, 5, 4), np.uint8), random_logits)
    assert np.abs(np.asarray(loss)).max() <= 1e-6


def test_the_loss_of_a_set_is_of_the_sum_of_its_posteriors(training, random_logits):
    allowed = np.tile(np.uint8([1, 0, 1, 0]), (2, 5, 1))
    posteriors = np.exp(random_logits) / np.exp(random_logits).sum(axis=-1, keepdims=True)
    wanted = -np.log(posteriors[..., [0, 2]].sum(axis=-1))
    loss = np.asarray(training.SetLoss().call(allowed, random_logits))
    assert np.abs(loss - wanted).max() <= 1e-4


def test_weights_of_outputs_weigh_the_loss(training, random_logits):
    allowed = np.tile(np.uint8([1, 0, 0, 0]), (2, 5, 1))
    loss = training.SetLoss()
    each = np.asarray(loss.call(allowed, random_logits))
    weights = np.arange(10, dtype=np.float32).reshape(2, 5)
    weighted = float(loss(allowed, random_logits, sample_weight=weights))
    assert weighted == pytest.approx(float((each * weights).mean()), rel=1e-5)


def test_labels_are_silence_unknown_and_the_keywords_in_order(training):
    assert training.labels_of(RECIPE) == ["_silence_", "_unknown_", "low", "high"]


@pytest.fixture(scope="module")
def two_epochs(training, data, tmp_path_factory):
    """Two epochs without interruption: the model and its run folder."""
    run = tmp_path_factory.mktemp("two")
    return training.fit(changed(epochs=2), data=data, run=run), run


def test_the_same_seed_gives_the_same_weights_and_another_others(training, data, tmp_path):
    dropping = msgspec.structs.replace(RECIPE.model, dropout=0.5)
    first, again, other = (
        training.fit(
            msgspec.structs.replace(changed(seed=seed), model=dropping),
            data=data,
            run=tmp_path / run,
        )
        for run, seed in (("first", 1), ("again", 1), ("other", 2))
    )
    assert same_weights(first, again)
    assert not same_weights(first, other)


def test_a_run_folder_holds_what_is_needed_later(training, two_epochs):
    model, run = two_epochs
    names = {path.name for path in run.iterdir()}
    assert names >= {"settings.json", "history.csv", "model.weights.h5", "examples.npz", "finished"}
    assert [row["epoch"] for row in history_of(run)] == ["0", "1"]
    with np.load(run / "examples.npz") as examples:
        assert examples["streams"].shape[2] == examples["clips"].shape[2] == 8
    restored, recipe = training.restore(run)
    assert same_weights(restored, model)
    assert recipe == changed(epochs=2)


@pytest.fixture(scope="module")
def interrupted(training, data, tmp_path_factory):
    """The run folder of a training of two epochs that was killed after the first."""
    callbacks = training._callbacks

    def deadly(*args):
        made = callbacks(*args)

        class Kill(training.keras.callbacks.Callback):
            def on_epoch_begin(self, epoch, logs=None):
                if epoch == 1:
                    for callback in made:
                        if isinstance(callback, training.keras.callbacks.CSVLogger):
                            callback.csv_file.close()  # as the end of the process would
                    raise KeyboardInterrupt

        return [*made, Kill()]

    run = tmp_path_factory.mktemp("interrupted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "_callbacks", deadly)
        with pytest.raises(KeyboardInterrupt):
            training.fit(changed(epochs=2), data=data, run=run)
    assert [row["epoch"] for row in history_of(run)] == ["0"]
    return run


def test_an_interrupted_training_goes_on_as_if_it_had_not_been(
    training, data, two_epochs, interrupted, tmp_path
):
    """The same scenes, statistics and weights, and the first epoch is not done again."""
    model, whole = two_epochs
    run = shutil.copytree(interrupted, tmp_path / "run")
    resumed = training.fit(changed(epochs=2), data=data, run=run)
    assert history_of(run) == history_of(whole)
    settings = [json.loads((folder / "settings.json").read_text()) for folder in (run, whole)]
    assert settings[0] == settings[1]
    assert same_weights(resumed, model)


def test_an_interrupted_training_does_not_go_on_with_another_recipe(training, data, interrupted):
    message = (
        "An unfinished training must go on with the recipe that it began with. Received: other "
        f"values in [fit] for {interrupted}. Give another --out, or remove that folder."
    )
    other = changed(epochs=2, learning_rate=0.5)
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        training.fit(other, data=data, run=interrupted)


def test_the_best_epoch_before_an_interruption_stays_the_best(
    training, data, interrupted, tmp_path
):
    run = shutil.copytree(interrupted, tmp_path / "run")
    history = run / "history.csv"
    history.write_text(history.read_text().replace(history_of(run)[0]["val_loss"], "0"))
    best, _ = training.restore(run)
    assert same_weights(training.fit(changed(epochs=2), data=data, run=run), best)


def test_training_anew_in_a_finished_folder_begins_its_history_anew(
    training, data, two_epochs, tmp_path
):
    (tmp_path / "history.csv").write_text("epoch,loss,val_loss\n0,1.0,0.0\n1,1.0,0.0\n")
    model = training.fit(changed(epochs=2), data=data, run=tmp_path)
    assert history_of(tmp_path) == history_of(two_epochs[1])
    assert same_weights(model, two_epochs[0])


def test_another_run_gives_weights_and_statistics_to_begin_with(
    training, data, two_epochs, tmp_path
):
    model, run = two_epochs
    still = changed(epochs=1, learning_rate=1e-12, weight_decay=0.0, seed=5)
    begun = training.fit(still, data=data, run=tmp_path, start=run)
    assert begun.statistics == model.statistics
    for was, now in zip(model.trainable_variables, begun.trainable_variables, strict=True):
        assert np.abs(np.asarray(was) - np.asarray(now)).max() < 1e-6


def test_a_stage_begins_with_the_one_before(training, data, tmp_path, monkeypatch):
    recipe = msgspec.structs.replace(RECIPE, then=[{"fit": {"learning_rate": 1e-12}}])
    model, stage = training.fit_stages(recipe, data=data, run=tmp_path)
    assert stage.fit.learning_rate == 1e-12
    first, _ = training.restore(tmp_path / "stage-1")
    assert model.statistics == first.statistics
    runs = []
    monkeypatch.setattr(training, "fit", lambda recipe, *, data, run, start: runs.append(run))
    again, _ = training.fit_stages(recipe, data=data, run=tmp_path)
    assert runs == [], "what has finished is not done again"
    assert same_weights(again, model)
    (tmp_path / "finished").unlink()
    training.fit_stages(recipe, data=data, run=tmp_path)
    assert runs == [tmp_path], "nor is its first stage when the last is"


def test_batches_of_an_epoch_depend_on_the_seed_alone(training, data):
    first, again = (training._batches(RECIPE, data, split="train") for _ in range(2))
    batch = first[1]
    again[0]  # what was asked for before does not matter
    assert all(np.array_equal(a, b) for a, b in zip(batch, again[1], strict=True))
    again.on_epoch_end()
    assert not np.array_equal(batch[0], again[1][0])


def test_validation_batches_are_the_same_in_every_epoch(training, data):
    batches = training._batches(RECIPE, data, split="validation")
    first = batches[0][0].copy()
    batches.on_epoch_end()
    assert np.array_equal(batches[0][0], first)
    fresh = training._batches(RECIPE, data, split="validation")
    assert np.array_equal(fresh[0][0], first)


def test_a_batch_fits_the_model(training, data):
    frames, targets, weights = training._batches(RECIPE, data, split="train")[0]
    assert frames.shape == (8, 2 * targets.shape[1], 8)
    assert targets.shape == (8, weights.shape[1], 4)


def test_a_folder_without_a_finished_epoch_is_refused(training, tmp_path):
    with pytest.raises(ConfigError) as error:
        training.restore(tmp_path)
    assert re.fullmatch(
        rf"A run folder must hold settings\.json and model\.weights\.h5 of one training\. "
        rf"Received: {re.escape(str(tmp_path))} \(.+\)\. Make one with `kws train`\.",
        str(error.value),
    )
