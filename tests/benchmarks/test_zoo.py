"""Rows of the zoo in small: one that is interrupted, and one that diverges."""

import argparse
import json
import logging

import msgspec
import pytest
import sounds
import tiny

from kws_train.recipe import load_recipe

pytestmark = pytest.mark.slow  # TensorFlow has to be imported


@pytest.fixture(scope="module")
def zoo(tensorflow):
    import zoo

    return zoo


@pytest.fixture(scope="module")
def tone_words(tmp_path_factory):
    """A folder of tones by speakers in the training and the validation split."""
    folder = tmp_path_factory.mktemp("tones")
    for word, hz in (("low", 500), ("high", 2500), ("other", 1200)):
        for i in range(14):
            wave = sounds.tone_in_noise(hz, seed=i)
            sounds.write(folder / "words" / word / f"{i:04x}_nohash_0.wav", wave)
    return folder


@pytest.fixture
def options(zoo, tone_words, tmp_path, monkeypatch):
    """The options of two rows of tones, `calm` and `wild`; nothing is exported or measured."""
    recipes = tmp_path / "recipes"
    recipes.mkdir()
    last = {"fit": {"epochs": 2}, "augment": {"domain": "audio"}}
    recipe = msgspec.structs.replace(tiny.RECIPE, then=[last])
    staged = tiny.toml(recipe, augment={"domain": "bands"})
    (recipes / "calm.toml").write_text(staged.replace("tone_words", "calm"))
    wild = tiny.toml(fit={"learning_rate": 1e30}).replace("tone_words", "wild")
    (recipes / "wild.toml").write_text(wild)
    monkeypatch.setattr(zoo, "RECIPES", recipes)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for step in ("export", "measure", "write_page"):
        monkeypatch.setattr(zoo, step, lambda *_: {})
    return argparse.Namespace(
        data=tone_words, runs=tmp_path / "runs", minutes=0.001, only=["wild", "calm"]
    )


def test_an_interrupted_row_is_resumed(zoo, options, monkeypatch):
    real = zoo.Curve.on_epoch_end

    def interrupt(curve, epoch, logs=None):
        real(curve, epoch, logs)
        if len(zoo.read_curve(curve.path)) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(zoo.Curve, "on_epoch_end", interrupt)
    with pytest.raises(KeyboardInterrupt):
        zoo.is_made("calm", options)
    run = options.runs / "calm"
    plan = (options.runs / "calm.toml").read_text()
    spent = zoo.read_curve(run / "curve.csv")[0].minutes
    monkeypatch.setattr(zoo.Curve, "on_epoch_end", real)
    assert zoo.is_made("calm", options)
    assert (options.runs / "calm.toml").read_text() == plan, "as many epochs as planned before"
    n_epochs = [stage.fit.epochs for stage in load_recipe(options.runs / "calm.toml").stages()]
    points = zoo.read_curve(run / "curve.csv")
    assert len(points) == sum(n_epochs), "the first epoch is not done again"
    minutes = [point.minutes for point in points]
    assert minutes[0] == spent
    assert minutes == sorted(minutes)
    assert all(0.0 <= point.accuracy <= 1.0 for point in points)
    assert (run / "budget.json").is_file()


def test_a_row_that_diverges_does_not_keep_the_others(zoo, options, monkeypatch, caplog):
    made = []
    monkeypatch.setattr(
        zoo, "make", lambda name, _, real=zoo.make: (real(name, _), made.append(name))
    )
    monkeypatch.setattr("sys.argv", ["zoo.py", *_arguments(options)])
    with caplog.at_level(logging.ERROR), pytest.raises(SystemExit) as left:
        zoo.main()
    assert left.value.code == "not finished: wild; see above"
    assert made == ["calm"]
    (record,) = [one for one in caplog.records if one.name == "kws.zoo"]
    text = record.getMessage()
    assert text.startswith("wild: The loss must be finite. Received: ")
    assert "No epoch was complete, so no weights are kept." in text


def test_the_page_keeps_rows_and_pictures_whose_runs_are_not_there(zoo, tmp_path, monkeypatch):
    page = tmp_path / "docs" / "zoo.md"
    page.parent.mkdir()
    kept = "| `gru` | mfcc | 84 |"
    page.write_text(f"before\n{zoo.BEGIN}\n{kept}\n| `bilstm` | mfcc | 141 |\n{zoo.END}\nafter")
    scores = {
        "kind": "window", "parameters": 39948, "bytes": 141_234, "cpu_s": 720.0, "epochs": 23,
        "cpu": {"all": 1.71}, "agreement": 0.978, "clips": {"accuracy": 0.672},
    }  # fmt: skip
    run = tmp_path / "runs" / "bilstm"
    run.mkdir(parents=True)
    (run / "scores.json").write_text(json.dumps(scores))
    drawn = []
    monkeypatch.setattr(zoo, "ROOT", tmp_path)
    monkeypatch.setattr(zoo, "draw_curves", lambda *curves: drawn.append(curves))
    zoo.write_page(argparse.Namespace(runs=tmp_path / "runs"))
    lines = page.read_text().splitlines()
    assert kept in lines
    new = "| `bilstm` | mfcc | window | 39,948 | 141 | 12 | 23 | 1.7 | 97.8% | 67.2% | – | – |"
    assert new in lines
    assert (lines[0], lines[-1], drawn) == ("before", "after", [])


def test_a_keyword_taken_for_another_is_no_false_alarm_in_speech(zoo):
    at_one = {"budget": 1.0, "miss_rate": 0.24, "fa_per_hour": 9.0, "speech_fa_per_hour": 1.00005}
    other = {**at_one, "budget": 2.0, "miss_rate": 0.1}
    stream = {"points": [{**at_one, "miss_rate": 0.9}], "speech_points": [other, at_one]}
    assert zoo.missed(stream) == "24%"
    stream["speech_points"] = [{**at_one, "speech_fa_per_hour": 3.0}]
    assert zoo.missed(stream) == "24% (3.0/h)"


def test_curves_are_drawn_where_there_is_an_accuracy(zoo, tmp_path):
    from training_curve import Point

    spelt = [Point(1.0, float("nan"), 0.3)]
    zoo.draw_curves({"ctc": spelt}, tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
    rising = [Point(1.0, 0.5, 0.3), Point(2.0, 0.7, 0.2)]
    zoo.draw_curves({"ctc": spelt, "gru": rising}, tmp_path / "one.png")
    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG")


def test_curves_are_those_of_the_rows_that_a_folder_holds(zoo, tmp_path):
    (tmp_path / "gru").mkdir()
    (tmp_path / "gru/curve.csv").write_text("1.000,0.5000,0.3000\n2.500,nan,0.2000\n")
    assert list(zoo.curves_of(tmp_path, ["crnn"])) == []
    (points,) = zoo.curves_of(tmp_path, ["crnn", "gru"]).values()
    assert [(one.minutes, one.val_loss) for one in points] == [(1.0, 0.3), (2.5, 0.2)]


def _arguments(options):
    return [
        f"--data={options.data}",
        f"--runs={options.runs}",
        "--minutes=0.001",
        "--only",
        *options.only,
    ]
