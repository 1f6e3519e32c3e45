"""Training in small: tones are the words, one speaker validates, an epoch takes a second."""

import csv
import gc
import json
import re
import resource
import shutil

import msgspec
import numpy as np
import pytest
import tiny
from processes import forked_children
from tiny import RECIPE

from kws.errors import ConfigError, KwsError
from kws.manifest import FeatureSettings
from kws_train.data.corpus import Corpus, load_corpus
from kws_train.recipe import BilstmRecipe, GruRecipe
from kws_train.scenes.scenes import Scenes

pytestmark = pytest.mark.slow

SMALL_FILE_BYTES = 20_000  # less than the weights and the optimiser of the network


@pytest.fixture(scope="module")
def training(tensorflow):
    from kws_train.fit import training

    return training


@pytest.fixture(scope="module")
def data(tone_words):
    return tone_words


def changed(**fit):
    return tiny.changed(fit=fit)


def history_of(run):
    with (run / "history.csv").open(newline="") as rows:
        return list(csv.DictReader(rows))


def interrupt(training):
    """Return a callback that interrupts a training after its first epoch."""

    class Interrupt(training.keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                raise KeyboardInterrupt

    return Interrupt()


def same_weights(one, other):
    pairs = zip(one.get_weights(), other.get_weights(), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


@pytest.fixture(scope="module")
def two_epochs(training, data, tmp_path_factory):
    """Two epochs without interruption: the model and its run folder."""
    run = tmp_path_factory.mktemp("two")
    return training.fit(changed(epochs=2), data=data, run=run), run


def scenes_in_memory():
    gc.collect()
    return sum(isinstance(one, Scenes | Corpus) for one in gc.get_objects())


def test_a_training_leaves_no_scenes_in_memory(training, data, tmp_path):
    in_bands = tiny.changed(augment={"domain": "bands"})
    before = scenes_in_memory()
    training.fit(in_bands, data=data, run=tmp_path / "run", quiet=True)
    assert scenes_in_memory() <= before, "a search of forty trials would fill it"


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
    assert (run / "unknown.csv").read_text().splitlines() == [
        "word,source,count,probability,seed",
        "other,clip,7,1.0,1",
    ]
    with np.load(run / "examples.npz") as examples:
        assert examples["streams"].shape[2] == examples["clips"].shape[2] == 8
    restored, recipe = training.restore(run)
    assert same_weights(restored, model)
    assert recipe == changed(epochs=2)


@pytest.fixture(scope="module")
def interrupted(training, data, tmp_path_factory):
    """The run folder of a training of two epochs that was killed after the first."""
    run = tmp_path_factory.mktemp("interrupted")
    with pytest.raises(KeyboardInterrupt):
        training.fit(changed(epochs=2), data=data, run=run, callbacks=[interrupt(training)])
    assert [row["epoch"] for row in history_of(run)] == ["0"]
    return run


def test_a_training_whose_scenes_cease_says_so_and_goes_on_later(training, data, tmp_path):
    class Cease(training.keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                for child in forked_children():
                    child.kill()

    with pytest.raises(KwsError, match=r"^The process that prepares batches was killed,"):
        training.fit(changed(epochs=99), data=data, run=tmp_path, callbacks=[Cease()])
    done = history_of(tmp_path)  # a few batches were there already
    assert 1 <= len(done) < 9
    training.fit(changed(epochs=len(done) + 1), data=data, run=tmp_path)
    assert history_of(tmp_path)[:-1] == done


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


def test_a_training_stopped_by_a_full_disk_goes_on_when_there_is_room(
    training, data, two_epochs, tmp_path
):
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)

    class FillDisk(training.keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL_FILE_BYTES, limit[1]))

    try:
        with pytest.raises(KwsError, match=r"^The weights could not be written: "):
            training.fit(changed(epochs=2), data=data, run=tmp_path, callbacks=[FillDisk()])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    model = training.fit(changed(epochs=2), data=data, run=tmp_path)
    assert same_weights(model, two_epochs[0])
    assert history_of(tmp_path) == history_of(two_epochs[1])


def test_a_loss_that_is_not_finite_stops_the_training_and_names_files(training, data, tmp_path):
    with pytest.raises(KwsError) as error:
        training.fit(changed(learning_rate=1e30), data=data, run=tmp_path)
    found = re.fullmatch(
        r"The loss must be finite\. Received: (?:nan|inf) at epoch 1, step ([23]), made of (.+) "
        r"and \d+ more; (.+) lists all\. Check these files; if they are valid audio, "
        r"lower `\[fit\] learning_rate`\. No epoch was complete, so no weights are kept\.",
        str(error.value),
    )
    assert found
    listed = (tmp_path / "not_finite.txt").read_text().splitlines()
    assert listed[:5] == found[2].split(", ")
    corpus = load_corpus(RECIPE.data, data, split="train")
    batches = training.make_batches(RECIPE, corpus, split="train")
    assert listed == [str(path) for path in dict.fromkeys(batches.files(0, int(found[1]) - 1))]


def test_an_interrupted_training_does_not_go_on_with_another_recipe(training, data, interrupted):
    message = (
        "An unfinished training must be resumed with its own recipe. Received: other values in "
        f"[fit] for {interrupted}. Give another --out, or remove that folder."
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


def test_a_run_with_other_keywords_gives_all_but_what_it_knows_of_them(
    training, data, two_epochs, tmp_path
):
    model, run = two_epochs
    still = changed(epochs=1, learning_rate=1e-12, weight_decay=0.0, seed=5)
    other = msgspec.structs.replace(RECIPE.data, keywords=RECIPE.data.keywords[:1])
    still = msgspec.structs.replace(still, data=other)
    begun = training.fit(still, data=data, run=tmp_path, start=run)
    was, now = ([np.asarray(one) for one in it.trainable_variables] for it in (model, begun))
    assert max(np.abs(a - b).max() for a, b in zip(was[:-2], now[:-2], strict=True)) < 1e-6
    for a, b in zip(was[-2:], now[-2:], strict=True):
        assert np.abs(a[..., :3] - b).max() < 1e-6, "silence, unknown and the keyword both know"
    assert was[-1].shape[-1] > 3


def test_frozen_layers_keep_the_weights_that_are_begun_with(training, data, two_epochs, tmp_path):
    model, run = two_epochs
    recipe = changed(epochs=1, learning_rate=1e-2, frozen_layers=len(model.stack) - 1, seed=5)
    begun = training.fit(recipe, data=data, run=tmp_path, start=run)
    moved = [
        max(np.abs(np.array(a) - np.array(b)).max() for a, b in zip(was, now, strict=True))
        for was, now in (
            (one.weights, other.weights)
            for one, other in zip(model.stack, begun.stack, strict=True)
            if one.weights
        )
    ]
    *frozen, last = moved
    assert max(frozen) == 0, "running statistics of normalisation among them"
    assert last > 1e-4


def test_a_window_model_trains_in_stages(training, data, tmp_path):
    model = BilstmRecipe(window_frames=32, hop_frames=8, units=4)
    stages = [{"fit": {"learning_rate": 1e-3}}]
    recipe = msgspec.structs.replace(RECIPE, model=model, then=stages)
    trained, last = training.fit_stages(recipe, data=data, run=tmp_path, quiet=True)
    before, _ = training.restore(tmp_path / "stage-1")
    assert last.fit.learning_rate == 1e-3
    assert len(before.weights) == len(trained.weights)
    assert not same_weights(before, trained)


def test_a_run_can_end_part_of_the_way_back(training, data, two_epochs, tmp_path):
    before, run = two_epochs
    ends = [
        training.fit(
            changed(epochs=1, learning_rate=1e-2, seed=5, start_share=share),
            data=data,
            run=tmp_path / str(share),
            start=run,
        )
        for share in (0.0, 0.25)
    ]
    moved = 0.0
    for begun, there, back in zip(*(one.get_weights() for one in (before, *ends)), strict=True):
        assert np.abs(0.25 * begun + 0.75 * there - back).max() < 1e-6
        moved = max(moved, np.abs(there - begun).max())
    assert moved > 1e-3
    kept, _ = training.restore(tmp_path / "0.25")
    assert same_weights(kept, ends[1])


def test_a_run_that_is_killed_at_its_end_goes_back_once(
    training, data, two_epochs, tmp_path, monkeypatch
):
    """The mixed weights are there, the mark of a finished run is not yet."""
    recipe = changed(epochs=1, learning_rate=1e-2, start_share=0.5)
    options = {"data": data, "start": two_epochs[1]}
    whole = training.fit(recipe, run=tmp_path / "whole", **options)

    def die(run):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training, "mark_finished", die)
        with pytest.raises(KeyboardInterrupt):
            training.fit(recipe, run=tmp_path / "killed", **options)
    training.fit(recipe, run=tmp_path / "killed", **options)
    again, _ = training.restore(tmp_path / "killed")
    assert same_weights(again, whole)
    assert len(history_of(tmp_path / "killed")) == 1


def test_a_training_from_nothing_has_no_weights_to_go_back_to(training, data, tmp_path):
    rule = r"^`\[fit\] start_share` must have trained weights to start from\. Received: a training"
    with pytest.raises(ConfigError, match=rule):
        training.fit(changed(start_share=0.5), data=data, run=tmp_path)


def test_a_run_of_another_architecture_cannot_be_begun_with(training, data, two_epochs, tmp_path):
    other = msgspec.structs.replace(RECIPE, model=msgspec.structs.replace(RECIPE.model, channels=5))
    with pytest.raises(ConfigError, match=r"^The initial weights must be of the same archi"):
        training.fit(other, data=data, run=tmp_path, start=two_epochs[1])


def test_a_stage_begins_with_the_one_before(training, data, tmp_path, monkeypatch):
    recipe = msgspec.structs.replace(RECIPE, then=[{"fit": {"learning_rate": 1e-12}}])
    model, stage = training.fit_stages(recipe, data=data, run=tmp_path)
    assert stage.fit.learning_rate == 1e-12
    first, _ = training.restore(tmp_path / "stage-1")
    assert model.statistics == first.statistics
    runs = []
    monkeypatch.setattr(training, "fit", lambda recipe, *, run, **_: runs.append(run))
    again, _ = training.fit_stages(recipe, data=data, run=tmp_path)
    assert runs == [], "what has finished is not done again"
    assert same_weights(again, model)
    (tmp_path / "finished").unlink()
    training.fit_stages(recipe, data=data, run=tmp_path)
    assert runs == [tmp_path], "nor is its first stage when the last is"


def test_an_average_over_weights_is_kept_also_across_an_interruption(training, data, tmp_path):
    recipe = changed(epochs=2, average=0.9)
    whole = training.fit(recipe, data=data, run=tmp_path / "whole")
    plain = training.fit(changed(epochs=2), data=data, run=tmp_path / "plain")
    assert not same_weights(whole, plain)
    run = tmp_path / "halted"
    with pytest.raises(KeyboardInterrupt):
        training.fit(recipe, data=data, run=run, callbacks=[interrupt(training)])
    resumed = training.fit(recipe, data=data, run=run)
    assert same_weights(resumed, whole)


def test_a_teacher_changes_what_is_learned(training, data, two_epochs, tmp_path):
    plain, run = two_epochs
    taught = training.fit(changed(epochs=2, teacher=str(run)), data=data, run=tmp_path / "taught")
    assert not same_weights(plain, taught)
    assert len(taught.weights) == len(plain.weights)
    other = msgspec.structs.replace(
        changed(teacher=str(run)), features=FeatureSettings(kind="logmel", n_mels=9)
    )
    with pytest.raises(ConfigError, match="A teacher must have the same features"):
        training.fit(other, data=data, run=tmp_path / "other")


@pytest.fixture(scope="module")
def aware(training, data, two_epochs, tmp_path_factory):
    """Two epochs with fake quantisation after the two without: the model and its run folder."""
    run = tmp_path_factory.mktemp("aware")
    recipe = changed(epochs=2, quantize_aware=True, average=0.9)
    return training.fit(recipe, data=data, run=run, start=two_epochs[1]), run


def test_ranges_are_learned_and_are_among_the_weights(training, aware, two_epochs):
    from kws_train.networks.fake_quant import quant_ranges

    model, run = aware
    assert not quant_ranges(two_epochs[0])
    found = quant_ranges(model)
    assert [len(ranges.points) for ranges in found] == [3, 1, 1, 1]
    assert all(np.asarray(ranges.high).min() > 0.0 for ranges in found)
    restored, _ = training.restore(run)
    assert same_weights(restored, model)
    assert len(quant_ranges(restored)) == len(found)


def test_normalisation_stays_as_it_was(aware, two_epochs):
    for was, now in zip(two_epochs[0].stack, aware[0].stack, strict=True):
        if hasattr(was, "norm"):
            for i in (2, 3):
                assert np.array_equal(was.norm.weights[i], now.norm.weights[i])


def test_an_interrupted_training_goes_on_with_its_ranges(
    training, data, aware, two_epochs, tmp_path
):
    model, _ = aware
    recipe = changed(epochs=2, quantize_aware=True, average=0.9)
    options = {"data": data, "run": tmp_path, "start": two_epochs[1]}
    with pytest.raises(KeyboardInterrupt):
        training.fit(recipe, callbacks=[interrupt(training)], **options)
    resumed = training.fit(recipe, **options)
    assert same_weights(resumed, model)


def test_a_teacher_of_another_architecture_teaches_a_recurrent_student_that_rounds(
    training, data, two_epochs, tmp_path
):
    from kws_train.networks.fake_quant import quant_ranges

    start = msgspec.structs.replace(RECIPE, model=GruRecipe(units=(4,), dropout=0.0))
    untrained = write_untrained(training, start, tmp_path / "untrained")
    fit = msgspec.structs.replace(
        RECIPE.fit, teacher=str(two_epochs[1]), quantize_aware=True, loss="focal"
    )
    recipe = msgspec.structs.replace(start, fit=fit)
    run = tmp_path / "taught"
    taught = training.fit(recipe, data=data, run=run, start=tmp_path / "untrained")
    assert len(taught.weights) > len(untrained.weights)
    assert all(np.isfinite(weight).all() for weight in taught.get_weights())
    restored, _ = training.restore(run)
    assert same_weights(restored, taught)
    found = quant_ranges(restored)
    assert [len(ranges.points) for ranges in found] == [3, 12, 1]
    assert all(np.asarray(ranges.high).min() > 0.0 for ranges in found)


def write_untrained(training, recipe, run):
    """Write a run folder with the initial weights of a recipe; return the model."""
    mean, std = [8.0] * recipe.features.n_features, [4.0] * recipe.features.n_features
    model = training._build(recipe, mean=mean, std=std)
    run.mkdir()
    model.save_weights(run / "model.weights.h5")
    settings = {"recipe": msgspec.to_builtins(recipe), "mean": mean, "std": std}
    (run / "settings.json").write_text(json.dumps(settings))
    return model


def test_quantisation_aware_training_from_nothing_is_refused(training, data, tmp_path):
    message = (
        "`[fit] quantize_aware = true` must have trained weights to start from. Received: a "
        "training from random weights. Put it into a `[[then]]`, or give a run folder with --start."
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        training.fit(changed(quantize_aware=True), data=data, run=tmp_path)


def test_a_folder_without_a_finished_epoch_is_refused(training, tmp_path):
    with pytest.raises(ConfigError) as error:
        training.restore(tmp_path)
    assert re.fullmatch(
        rf"A run folder must hold settings\.json and model\.weights\.h5 of one training\. "
        rf"Received: {re.escape(str(tmp_path))} \(.+\)\. Make one with `kws train`\.",
        str(error.value),
    )
