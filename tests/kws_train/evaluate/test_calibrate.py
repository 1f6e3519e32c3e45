"""The calibration table is measured on what training left out, and the runtime uses it."""

import re
import shutil
from dataclasses import replace
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from kws.cli import cli
from kws.config import DecisionSettings
from kws.decision import thresholds_for
from kws.errors import ConfigError, ModelError
from kws.manifest import CalibrationBasis, read_manifest, repack
from kws.matching import Word
from kws.model import bundled_models, open_model
from kws_train.evaluate.build_stream import Stream
from kws_train.evaluate.calibrate import RATES, calibrate_manifest, tail_threshold, write_manifest
from kws_train.evaluate.det import DetCurve, match_detections
from kws_train.evaluate.stream import evaluate_stream
from kws_train.evaluate.stream_results import StreamResults, process_streams
from kws_train.evaluate.traces import Trace

MODEL = bundled_models()["commands-small"]


@pytest.fixture
def manifest():
    return read_manifest(MODEL)[0]


OUTPUT_S = 0.02
SURENESS = np.linspace(0.5, 4.5, 40)  # log odds


def results(manifest, *, said=(), false=(), hours=2.0):
    """What a model said whose scores peak as told, ten seconds apart: (keyword, log odds) each."""
    peaks = [*((one, True) for one in said), *((one, False) for one in false)]
    smoothed = np.zeros((round(3600 * hours / OUTPUT_S), len(manifest.keywords)), np.float32)
    words = []
    for i, ((keyword, log_odds), is_said) in enumerate(peaks):
        at = round((10 + 10 * i) / OUTPUT_S)
        smoothed[at, manifest.keywords.index(keyword)] = 1 / (1 + np.exp(-log_odds))
        if is_said:
            words.append(Word(word=keyword, start_s=9.5 + 10 * i, end_s=10.0 + 10 * i))
    assert len(peaks) * 10 < 3600 * hours - 20
    nothing = np.broadcast_to(np.int16(0), (round(3600 * hours) * 16_000,))
    stream = Stream(nothing, tuple(words), name="clean")
    trace = Trace(manifest, smoothed, n_outputs=2, duration_s=3600 * hours)
    return StreamResults(manifest, [stream], [trace], lambda: [trace])


def equally_sure(*keywords):
    return [(keyword, log_odds) for keyword in keywords for log_odds in SURENESS]


@pytest.fixture
def fickle(manifest):
    """*yes* is heard where nobody says it, often and surely; *stop* hardly ever, *go* never."""
    false = [("yes", log_odds) for log_odds in np.linspace(0.9, 4.0, 50)]
    return results(manifest, said=equally_sure("yes", "stop", "go"), false=[*false, ("stop", 1.5)])


def n_false(streams, thresholds):
    return sum(
        len(one.false) for one in match_detections(streams.gated, streams.streams, thresholds)
    )


def test_a_row_tells_how_many_words_are_missed_there(manifest, fickle):
    made = calibrate_manifest(manifest, fickle)
    n_words = len(fickle.streams[0].words)
    for point in made.calibration:
        (found,) = match_detections(fickle.gated, fickle.streams, point.thresholds)
        assert point.miss_rate == pytest.approx(len(found.missed) / n_words, abs=1e-4)
    rates = [point.miss_rate for point in made.calibration]
    assert rates == sorted(rates, reverse=True)
    assert 0 < rates[-1] < rates[0] < 1


def test_a_row_keeps_to_its_rate_and_hardly_lower_thresholds_do_not(manifest, fickle):
    made = calibrate_manifest(manifest, fickle)
    table = {one.false_alarms_per_hour: one.thresholds for one in made.calibration}
    assert list(table) == [0.5, 1.0, 2.0, 5.0, 10.0, 20.0], "less cannot be told in two hours"
    for rate, thresholds in table.items():
        assert n_false(fickle, thresholds) <= 2 * rate
        lower = {word: threshold - 0.06 for word, threshold in thresholds.items()}
        assert n_false(fickle, lower) > 2 * rate or rate > 10
    assert made.calibrated_on == CalibrationBasis(
        hours=2.0, speech_hours=0.0, words=120, conditions=("clean",)
    )
    between = thresholds_for(DecisionSettings(false_alarms_per_hour=3.0), made)
    assert table[5.0]["yes"] < between["yes"] < table[2.0]["yes"]


def test_what_fires_falsely_must_be_surer_than_what_does_not(manifest, fickle):
    for row in calibrate_manifest(manifest, fickle).calibration:
        assert row.thresholds["yes"] > row.thresholds["stop"] >= row.thresholds["go"]
        assert row.thresholds["go"] == row.thresholds["left"], "of which nothing is known either"


def test_a_threshold_for_each_keyword_misses_less_than_one_for_all(manifest, fickle):
    for row in calibrate_manifest(manifest, fickle).calibration[1:4]:
        (own,) = match_detections(fickle.gated, fickle.streams, row.thresholds)
        common = fickle.gated_curve.at_budget(row.false_alarms_per_hour)
        assert len(own.missed) / 120 < common.miss_rate - 0.1


def test_keywords_of_which_the_same_is_known_have_one_threshold(manifest):
    false = [(word, log_odds) for word in manifest.keywords for log_odds in (1.0, 2.0, 3.0)]
    alike = results(manifest, said=equally_sure("yes", "stop"), false=false)
    for row in calibrate_manifest(manifest, alike).calibration:
        assert len(set(row.thresholds.values())) == 1


def test_a_rate_whose_threshold_nothing_reaches_is_left_out(manifest):
    sure = results(manifest, said=equally_sure("yes"), false=5 * [("yes", 7.0)], hours=1.0)
    made = calibrate_manifest(manifest, sure)
    assert [one.false_alarms_per_hour for one in made.calibration] == [5.0, 10.0, 20.0]


def test_a_model_that_detects_nothing_is_not_calibrated(manifest):
    message = (
        "A model must detect keywords at 20 false alarms per hour to be calibrated. Received: "
        "commands-small, which detects none in 1 hours. Train it longer, or measure longer streams "
        "with --minutes."
    )
    with pytest.raises(ModelError, match=f"^{re.escape(message)}$"):
        calibrate_manifest(manifest, results(manifest, said=[("yes", -3.0)], hours=1.0))


def test_a_calibrated_file_is_the_same_model_and_takes_a_budget(tmp_path, manifest, pitch, tones):
    made = calibrate_manifest(
        manifest, results(manifest, said=equally_sure("go")[:9], false=[("go", 1.0)])
    )
    path = tmp_path / "model.tflite"
    shutil.copy(MODEL, path)
    write_manifest(path, made, path)
    again, content = read_manifest(path)
    assert again == made
    assert repack(content, manifest) == repack(MODEL.read_bytes(), manifest)
    frames = np.ones((4, manifest.features.n_features), np.float32)
    np.testing.assert_array_equal(open_model(path).step(frames), open_model(MODEL).step(frames))
    facts = CliRunner().invoke(cli, ["info", str(path)]).stdout
    assert "2 h (clean) with 9 keywords among 0 h of different speech" in facts
    pitch.manifest = msgspec.structs.replace(
        pitch.manifest,
        calibration=tuple(
            msgspec.structs.replace(one, thresholds={"go": 0.5, "stop": 0.5})
            for one in made.calibration
        ),
    )
    assert evaluate_stream(process_streams(pitch, [tones])).calibrated[
        0
    ].miss_rate == pytest.approx(2 / 8)


def test_a_file_that_cannot_be_written_is_named_and_left_alone(tmp_path, manifest):
    message = (
        f"A model must go to a file that can be written. Received: {tmp_path}/none/out.tflite "
        f"(No such file or directory). Give another with --out."
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        write_manifest(MODEL, manifest, tmp_path / "none" / "out.tflite")


def test_a_rate_that_is_estimated_is_kept_to_in_the_worst_condition(manifest, tones):
    quiet, noisy = tail([0.4], hours=2.0), tail([0.4, 0.5, 0.6, 0.6], hours=2.0)
    streams = SimpleNamespace(
        streams=[tones, replace(tones, name="10 dB")],
        gated=2 * results(manifest).gated,
        by_condition=lambda: {tones.name: quiet, "10 dB": noisy},
    )
    made = calibrate_manifest(manifest, streams, beyond=True)
    table = {one.false_alarms_per_hour: one.thresholds["stop"] for one in made.calibration}
    assert table == {rate: round(tail_threshold(noisy, rate), 4) for rate in RATES}
    assert table[0.5] > tail_threshold(quiet, 0.5)


def tail(scores, *, hours: float) -> DetCurve:
    """Return the curve of false alarms with these scores."""
    thresholds = np.unique([0.3, *scores, 0.99])
    n_false = np.array([np.sum(np.asarray(scores) >= one) for one in thresholds])
    return DetCurve(thresholds, n_false=n_false, n_missed=0 * n_false, hours=hours, n_words=1)


def test_the_threshold_of_a_rare_rate_goes_on_from_the_scores_that_were_seen():
    mean, n, hours = 0.5, 400, 10.0
    odds = np.log(0.3 / 0.7) + mean * -np.log((np.arange(n) + 0.5) / n)  # exponential quantiles
    curve = tail(1 / (1 + np.exp(-odds)), hours=hours)
    for rate in (0.05, 0.5, 5.0):
        right = np.log(0.3 / 0.7) + mean * np.log(n / (rate * hours))
        threshold = tail_threshold(curve, rate)
        assert np.log(threshold / (1 - threshold)) == pytest.approx(right, abs=0.08)


def test_a_tail_that_falls_faster_is_fitted_where_it_falls():
    mean, n, hours = 0.2, 2000, 100.0
    odds = 1.5 + mean * -np.log((np.arange(n) + 0.5) / n)
    many = np.linspace(0.31, 0.8, 20_000)  # of a level that scores hardly go beyond
    curve = tail(np.concatenate((1 / (1 + np.exp(-odds)), many)), hours=hours)
    right = 1.5 + mean * np.log(n / (0.5 * hours))
    fitted = tail_threshold(curve, 0.5, n_tail=500)
    assert np.log(fitted / (1 - fitted)) == pytest.approx(right, abs=0.05)
    assert tail_threshold(curve, 0.5) > fitted + 0.02


def test_few_false_alarms_say_little_and_none_still_something():
    few, none = tail([0.31, 0.33], hours=0.5), tail([], hours=0.5)
    assert 0.3 < tail_threshold(none, 0.5) < tail_threshold(few, 0.5) < 0.6
    assert tail_threshold(few, 0.1) > tail_threshold(few, 0.5) > tail_threshold(few, 5.0) >= 0.3


def test_the_same_speech_in_other_noise_says_no_more_than_once():
    scores = [0.35, 0.5, 0.8]
    once, sixfold = tail(scores, hours=0.25), tail(6 * scores, hours=1.5)
    assert tail_threshold(sixfold, 0.5, n_draws=6) == pytest.approx(tail_threshold(once, 0.5))
    assert tail_threshold(sixfold, 0.5) > tail_threshold(once, 0.5) + 0.02


def test_draws_of_noise_are_counted_by_the_condition(manifest, tones):
    quiet, noisy = tail([], hours=0.25), tail([0.6] * 6, hours=1.5)
    streams = SimpleNamespace(
        streams=[tones, *6 * [replace(tones, name="10 dB")]],
        gated=7 * results(manifest).gated,
        by_condition=lambda: {tones.name: quiet, "10 dB": noisy},
    )
    made = calibrate_manifest(manifest, streams, beyond=True)
    table = {one.false_alarms_per_hour: one.thresholds["stop"] for one in made.calibration}
    assert table[0.5] == round(tail_threshold(noisy, 0.5, n_draws=6), 4)


def test_what_only_a_high_threshold_brings_forth_does_not_count():
    plain = DetCurve(
        np.array([0.3, 0.31, 0.5, 0.9, 0.99]),
        n_false=np.array([1, 1, 0, 0, 0]),
        n_missed=np.zeros(5, int),
        hours=0.5,
        n_words=1,
    )
    doubled = replace(plain, n_false=np.array([1, 1, 0, 1, 0]))
    assert tail_threshold(doubled, 0.5) == tail_threshold(plain, 0.5)
