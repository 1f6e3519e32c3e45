"""Searches whose trainings are made up, and one that really trains, in two processes at once."""

import csv
import multiprocessing
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import msgspec
import pytest
import tiny

from kws.errors import ConfigError, KwsError
from kws_train.recipe import SearchRange, load_recipe, write_recipe

pytestmark = pytest.mark.slow  # TensorFlow has to be imported

RANGES = {
    "fit.learning_rate": SearchRange(low=1e-4, high=1e-1, log=True),
    "model.channels": SearchRange(low=4, high=12, step=4),
    "augment.room": SearchRange(choices=["polack", "pyroomacoustics"]),
}
TOML = tiny.toml(
    msgspec.structs.replace(tiny.RECIPE, then=[{"fit": {"epochs": 3}}], search=RANGES),
    fit={"scenes_per_epoch": 16},
)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "recipe.toml"
    path.write_text(TOML, encoding="utf-8")
    return load_recipe(path)


@pytest.fixture(scope="module")
def searching(tensorflow):
    from kws_train.fit import search

    return search


def make_up(monkeypatch, searching):
    """Put trainings of five epochs in place that are worse the farther the rate is from 0.01."""
    trained = []

    def fit(recipe, *, data, run, start, validate, callbacks, load):
        trained.append((recipe, run, validate))
        for epoch in range(5):
            loss = abs(recipe.fit.learning_rate - 0.01) + 1 / (epoch + 1)
            for callback in callbacks:
                callback.on_epoch_end(epoch, {"val_loss": loss})

    monkeypatch.setattr(searching, "fit", fit)
    return trained


@pytest.fixture
def made_up(searching, monkeypatch):
    return make_up(monkeypatch, searching)


@pytest.fixture(scope="module")
def memory():
    """A folder in memory, where there is one: a database waits for the disk at every step."""
    place = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=place if place.is_dir() else None) as folder:
        yield Path(folder)


@pytest.fixture
def tmp_path(memory):
    return Path(tempfile.mkdtemp(dir=memory))


@pytest.fixture(scope="module")
def searched(searching, recipe, memory):
    """Fourteen trials: what each trained, the run folder, and the best recipe."""
    run = memory / "searched"
    with pytest.MonkeyPatch.context() as patch:
        trained = make_up(patch, searching)
        best = searching.search(recipe, data=run, run=run, n_trials=14)
    return trained, run, best


def trials_of(run):
    with (run / "trials.csv").open(newline="") as rows:
        return list(csv.DictReader(rows))


def test_the_best_trial_becomes_a_recipe(recipe, searched):
    _, run, best = searched
    trials = trials_of(run)
    assert [int(trial["trial"]) for trial in trials] == list(range(14))
    ended = [trial for trial in trials if trial["state"] == "complete"]
    least = min(ended, key=lambda trial: float(trial["val_loss"]))
    assert best.fit.learning_rate == float(least["fit.learning_rate"])
    assert best.model.channels == int(least["model.channels"])
    assert best.then == recipe.then
    assert load_recipe(run / "best.toml") == msgspec.structs.replace(best, search={})


def test_values_stay_in_their_ranges(searched):
    trained, _, _ = searched
    assert all(1e-4 <= trial.fit.learning_rate <= 1e-1 for trial, _, _ in trained)
    assert {trial.model.channels for trial, _, _ in trained} == {4, 8, 12}
    assert {trial.augment.room for trial, _, _ in trained} == {"polack", "pyroomacoustics"}
    assert len({run for _, run, _ in trained}) == 14


def test_every_trial_is_one_stage_and_validates_on_the_same_scenes(recipe, searched):
    for trial, _, validate in searched[0]:
        assert (trial.then, trial.search) == ([], {})
        assert validate.augment == recipe.augment
        assert validate.fit == recipe.fit
        assert validate.model == trial.model


def test_a_trial_worse_than_the_median_is_cut_off(searched):
    trials = trials_of(searched[1])
    assert {trial["state"] for trial in trials[:5]} == {"complete"}, "a median needs a few"
    pruned = [float(trial["val_loss"]) for trial in trials if trial["state"] == "pruned"]
    assert pruned
    complete = [float(trial["val_loss"]) for trial in trials if trial["state"] == "complete"]
    assert min(pruned) > min(complete)


def test_the_same_command_goes_on_with_the_study(searching, made_up, recipe, tmp_path):
    run = tmp_path / "run"
    searching.search(recipe, data=tmp_path, run=run, n_trials=1)
    searching.search(recipe, data=tmp_path, run=run, n_trials=3)
    assert len(made_up) == len(trials_of(run)) == 3
    assert len({trial.fit.learning_rate for trial, _, _ in made_up}) == 3
    searching.search(recipe, data=tmp_path, run=run, n_trials=3)
    assert len(made_up) == 3, "enough is enough"


def test_the_same_seed_searches_the_same(searching, made_up, recipe, tmp_path):
    for run in ("first", "again"):
        searching.search(recipe, data=tmp_path, run=tmp_path / run, n_trials=2)
    drawn = [trial for trial, _, _ in made_up]
    assert drawn[:2] == drawn[2:]


def test_a_loss_that_is_not_finite_ends_the_trial_alone(searching, recipe, tmp_path, monkeypatch):
    from kws_train.fit.checkpoints import NonFiniteLossError

    calls = []

    def fit(recipe, *, callbacks, **where):
        calls.append(recipe)
        if len(calls) == 1:
            raise NonFiniteLossError("as it happens")
        callbacks[0].on_epoch_end(0, {"val_loss": 1.0})

    monkeypatch.setattr(searching, "fit", fit)
    best = searching.search(recipe, data=tmp_path, run=tmp_path / "run", n_trials=2)
    assert [trial["state"] for trial in trials_of(tmp_path / "run")] == ["pruned", "complete"]
    assert best.fit.learning_rate == calls[1].fit.learning_rate


def test_other_errors_end_the_search(searching, recipe, tmp_path, monkeypatch):
    def fit(recipe, **where):
        raise ConfigError("no data")

    monkeypatch.setattr(searching, "fit", fit)
    with pytest.raises(ConfigError, match=r"^no data$"):
        searching.search(recipe, data=tmp_path, run=tmp_path / "run", n_trials=2)
    assert [trial["state"] for trial in trials_of(tmp_path / "run")] == ["fail"]


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        (
            {},
            "A search needs ranges to search in. Received: a recipe without `[search]`. Add it, "
            "as in docs/training.md.",
        ),
        (
            {"fit.rate": SearchRange(low=1, high=2)},
            "`[search]` must name settings as `table.key`. Received: `fit.rate`. "
            "docs/training.md lists every key.",
        ),
        (
            {"fit.loss": SearchRange(choices=["set", "focal"])},
            "A search compares losses, so the loss must be the same in every trial. Received: "
            "`fit.loss` in `[search]`. Take it out, and search once for each loss.",
        ),
        (
            {"fit.batch_size": SearchRange(low=0, high=2)},
            "`[search]` must stay within the rules of recipes. Received: Expected `int` >= 1 - at "
            "`$.fit.batch_size`, for {'fit.batch_size': 0}. Correct its ranges.",
        ),
    ],
)
def test_ranges_that_cannot_be_searched_are_refused(searching, recipe, tmp_path, ranges, message):
    recipe = msgspec.structs.replace(recipe, search=ranges)
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        searching.search(recipe, data=tmp_path, run=tmp_path / "run", n_trials=1)


@pytest.mark.parametrize("url", ["nonsense", "sqlite:////no/such/folder/study.db"])
def test_a_storage_that_cannot_be_opened_is_refused(searching, recipe, tmp_path, url):
    with pytest.raises(ConfigError) as error:
        searching.search(recipe, data=tmp_path, run=tmp_path / "run", n_trials=1, storage=url)
    assert re.fullmatch(
        rf"--storage must be the URL of a database that can be opened\. Received: "
        rf"{re.escape(url)} \(.+\)\. Give one such as sqlite:///study\.db or "
        rf"postgresql://user@host/name\.",
        str(error.value),
    )


@pytest.mark.parametrize(
    "line",
    [
        "{ low = 1 }",
        "{ low = 2, high = 2 }",
        "{ low = 1, high = 2, choices = [1] }",
        "{ }",
    ],
)
def test_a_range_has_two_ends_or_choices(tmp_path, line):
    path = tmp_path / "recipe.toml"
    path.write_text(f"{tiny.toml()}\n'fit.epochs' = {line}\n")  # its last table is [search]
    with pytest.raises(ConfigError, match="either `choices`, or `low` and a greater `high`"):
        load_recipe(path)


def test_a_written_recipe_is_read_as_the_same(recipe, tmp_path):
    write_recipe(tmp_path / "written.toml", recipe)
    assert load_recipe(tmp_path / "written.toml") == recipe


def test_a_worker_that_is_killed_leaves_the_study_to_the_other(
    searching, made_up, recipe, tmp_path, monkeypatch
):
    quick = searching.fit

    def fit(recipe, *, run, **options):
        run.mkdir(parents=True)
        time.sleep(0.3)
        quick(recipe, run=run, **options)

    def work(run):
        storage = f"sqlite:///{tmp_path / 'study.db'}"
        searching.search(recipe, data=run, run=run, n_trials=4, storage=storage, study="shared")

    monkeypatch.setattr(searching, "fit", fit)
    fork = multiprocessing.get_context("fork")
    runs = [tmp_path / "killed", tmp_path / "left"]
    killed, left = (fork.Process(target=work, args=(run,), daemon=True) for run in runs)
    for process in (killed, left):
        process.start()
    while not list(runs[0].glob("trial-*")):
        time.sleep(0.01)
    killed.kill()
    for process in (killed, left):
        process.join()
    assert (killed.exitcode, left.exitcode) == (-signal.SIGKILL, 0)
    states = {trial["trial"]: trial["state"] for trial in trials_of(runs[1])}
    unfinished = [path.name.removeprefix("trial-") for path in runs[0].glob("trial-*")]
    assert [states.pop(number) for number in unfinished] == ["running"]
    assert len(states) == 4
    assert set(states.values()) <= {"complete", "pruned"}
    assert load_recipe(runs[1] / "best.toml").name == "tone_words"


@pytest.fixture
def locked_at_end(searching, made_up, tmp_path, monkeypatch):
    """Lock the database for some seconds when a training ends, as a process on a busy disk does."""
    path, trained = tmp_path / "study.db", searching.fit

    def lock(*, for_s):
        def fit(*arguments, **options):
            trained(*arguments, **options)
            other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            other.execute("BEGIN EXCLUSIVE")
            threading.Timer(for_s, other.close).start()

        monkeypatch.setattr(searching, "fit", fit if for_s else trained)
        return f"sqlite:///{path}"

    return lock


def test_a_database_that_another_process_locks_is_waited_for(
    searching, recipe, tmp_path, locked_at_end
):
    url = locked_at_end(for_s=7)  # more than the five seconds that SQLite waits by itself
    searching.search(recipe, data=tmp_path, run=tmp_path / "run", n_trials=1, storage=url)
    assert [trial["state"] for trial in trials_of(tmp_path / "run")] == ["complete"]


def test_a_database_that_stays_locked_ends_the_search_with_an_error(
    searching, recipe, tmp_path, monkeypatch, locked_at_end
):
    monkeypatch.setattr(searching, "_LOCK_S", 0.05)
    url = locked_at_end(for_s=2)
    options = {"data": tmp_path, "run": tmp_path / "run", "n_trials": 2, "storage": url}
    with pytest.raises(KwsError, match=r"must stay writable\. Received: .*locked") as caught:
        searching.search(recipe, **options)
    assert "The same command continues the study" in str(caught.value)
    time.sleep(2.5)
    locked_at_end(for_s=0)
    searching.search(recipe, **options)
    states = [trial["state"] for trial in trials_of(tmp_path / "run")]
    assert sorted(states) == ["complete", "complete", "running"]


def test_the_study_is_drawn(searched):
    _, run, _ = searched
    for name in ("history.png", "importance.png"):
        content = (run / name).read_bytes()
        assert content.startswith(b"\x89PNG")
        assert len(content) < 100_000


def test_two_processes_share_a_study(tensorflow, tone_words, tmp_path):
    config = tmp_path / "recipe.toml"
    config.write_text(TOML, encoding="utf-8")
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    started = [
        subprocess.Popen(
            [
                Path(sys.executable).with_name("kws"),
                *("train", "--config", config, "--data", tone_words, "--out", tmp_path / name),
                *("--search", "3", "--storage", storage, "--study", "shared"),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for name in ("one", "two")
    ]
    outputs = [process.communicate(timeout=300)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0], outputs
    runs = [tmp_path / "one", tmp_path / "two"]
    numbers = [{path.name for path in run.glob("trial-*")} for run in runs]
    assert all(numbers), "both have trained"
    assert not numbers[0] & numbers[1], "and none the same"
    assert 3 <= len(numbers[0] | numbers[1]) <= 4
    trials = max((trials_of(run) for run in runs), key=len)
    assert {trial["state"] for trial in trials} <= {"complete", "pruned", "running"}
    for run in runs:
        assert load_recipe(run / "best.toml").name == "tone_words"
