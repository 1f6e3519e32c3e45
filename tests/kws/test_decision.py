import re

import msgspec
import numpy as np
import pytest

from kws.config import DecisionSettings
from kws.decision import Decision, Hit, most_false_alarms_per_hour, thresholds_for
from kws.errors import ConfigError
from kws.manifest import CalibrationPoint, DecisionDefaults, FeatureSettings, Manifest
from kws.model import open_model

LABELS = ("_silence_", "_unknown_", "yes", "no")


def decision(*, thresholds=None, n_smoothing=1, n_refractory=0, patience=1):
    return Decision(
        LABELS,
        thresholds=thresholds or {"yes": 0.5, "no": 0.5},
        n_smoothing=n_smoothing,
        n_refractory=n_refractory,
        patience=patience,
    )


def run(machine, *, yes=(), no=()):
    """Feed posteriors of the two keywords; return (step, keyword, score) of every hit."""
    n = max(len(yes), len(no))
    columns = [np.pad(np.array(p, np.float32), (0, n - len(p))) for p in (yes, no)]
    rows = np.stack((np.ones(n, np.float32), np.zeros(n, np.float32), *columns), axis=1)
    hits = [(i, machine.step(row)) for i, row in enumerate(rows)]
    return [(i, hit.keyword, pytest.approx(hit.score)) for i, hit in hits if hit]


def test_a_rising_edge_fires_once():
    assert run(decision(), yes=[0.1, 0.4, 0.6, 0.9, 0.9, 0.9, 0.6]) == [(2, "yes", 0.6)]


def test_with_a_patience_so_many_outputs_in_a_row_must_reach_the_threshold():
    yes = [0.9, 0.9, 0.2, 0.8, 0.6, 0.7, 0.9, 0.1]
    assert run(decision(patience=3), yes=yes) == [(5, "yes", 0.6)]
    assert run(decision(patience=2), yes=yes) == [(1, "yes", 0.9), (4, "yes", 0.6)]


def test_a_patience_starts_anew_after_a_gap():
    machine = decision(patience=2)
    assert run(machine, yes=[0.9]) == []
    machine.restart()
    assert run(machine, yes=[0.9, 0.9]) == [(1, "yes", 0.9)]


def test_the_patience_is_a_setting():
    manifest = Manifest(
        name="x",
        labels=("yes",),
        kind="step",
        features=FeatureSettings(),
        n_frames=1,
        hop_frames=1,
        decision=DecisionDefaults(smoothing_ms=0),
    )
    machine = Decision.of(manifest, thresholds={"yes": 0.5}, settings=DecisionSettings(patience=2))
    assert machine.step(np.array([0.9])) is None
    assert machine.step(np.array([0.9])) == Hit("yes", pytest.approx(0.9))


def test_a_posterior_equal_to_its_threshold_fires():
    assert run(decision(), yes=[0.0, 0.5]) == [(1, "yes", 0.5)]


def test_a_keyword_fires_again_after_it_has_fallen():
    assert run(decision(), yes=[0.9, 0.9, 0.2, 0.8]) == [(0, "yes", 0.9), (3, "yes", 0.8)]


def test_what_is_no_keyword_never_fires():
    machine = decision()
    assert [machine.step(np.array([1, 1, 0, 0], np.float32)) for _ in range(5)] == [None] * 5


def test_of_two_keywords_at_once_the_one_furthest_above_its_threshold_fires():
    machine = decision(thresholds={"yes": 0.8, "no": 0.3})
    assert run(machine, yes=[0.9], no=[0.6]) == [(0, "no", 0.6)]


def test_each_keyword_has_a_threshold_of_its_own():
    machine = decision(thresholds={"yes": 0.9, "no": 0.2})
    assert run(machine, yes=[0.85, 0, 0.95, 0], no=[0, 0.1, 0, 0.3]) == [
        (2, "yes", 0.95),
        (3, "no", 0.3),
    ]


def test_a_keyword_without_a_threshold_is_not_listened_for():
    assert run(decision(thresholds={"no": 0.5}), yes=[0.9], no=[0.0, 0.9]) == [(1, "no", 0.9)]


def test_nothing_fires_in_the_refractory_time_whatever_the_keyword():
    hits = run(decision(n_refractory=3), yes=[0.9, 0, 0.9, 0, 0.9], no=[0, 0.9, 0, 0.9, 0])
    assert hits == [(0, "yes", 0.9), (4, "yes", 0.9)]


def test_a_keyword_that_rose_in_the_refractory_time_must_fall_first():
    hits = run(decision(n_refractory=2), yes=[0.9, 0, 0], no=[0, 0, 0.9, 0.9, 0.9, 0.1, 0.9])
    assert hits == [(0, "yes", 0.9), (6, "no", 0.9)]


def test_the_moving_average_is_of_so_many_steps_and_begins_with_zeros():
    machine = decision(n_smoothing=4)
    averages = []
    for value in (0.8, 0.4, 0.0, 0.2, 0.2, 0.6):
        machine.step(np.array([0, 0, value, 0], np.float32))
        averages.append(float(machine.smoothed[2]))
    assert averages == pytest.approx([0.2, 0.3, 0.3, 0.35, 0.2, 0.25])


def test_the_score_is_the_moving_average():
    hits = run(decision(n_smoothing=3), yes=[0.3, 0.6, 0.9, 0.9])
    assert hits == [(2, "yes", 0.6)]


def test_smoothing_over_no_steps_is_none():
    assert run(decision(n_smoothing=0), yes=[0.2, 0.7]) == [(1, "yes", 0.7)]


def test_restart_forgets_the_posteriors_but_not_the_refractory_time():
    machine = decision(n_smoothing=2, n_refractory=3)
    assert run(machine, yes=[0.9, 0.9]) == [(1, "yes", 0.9)]
    machine.restart()
    assert machine.smoothed.tolist() == [0, 0, 0, 0]
    assert run(machine, yes=[0.9, 0.9, 0.0, 0.0, 0.9, 0.9]) == [(5, "yes", 0.9)]


def test_time_without_posteriors_uses_up_the_refractory_time():
    machine = decision(n_refractory=5)
    assert run(machine, yes=[0.9, 0.0]) == [(0, "yes", 0.9)]
    machine.skip(3)
    assert run(machine, yes=[0.9, 0.0, 0.9]) == [(2, "yes", 0.9)]
    machine.skip(100)
    assert run(machine, no=[0.9]) == [(0, "no", 0.9)]


def test_reset_forgets_everything():
    machine = decision(n_smoothing=2, n_refractory=100)
    first = run(machine, yes=[0.9, 0.9, 0.9])
    machine.reset()
    assert run(machine, yes=[0.9, 0.9, 0.9]) == first == [(1, "yes", 0.9)]


def test_a_hit_is_a_keyword_and_its_score():
    assert decision().step(np.array([0, 0, 0.75, 0], np.float32)) == Hit("yes", 0.75)


@pytest.fixture
def manifest():
    return Manifest(
        name="two",
        labels=LABELS,
        kind="step",
        features=FeatureSettings(),
        n_frames=2,
        hop_frames=2,
        decision=DecisionDefaults(threshold=0.6),
        calibration=(
            CalibrationPoint(false_alarms_per_hour=1.0, thresholds={"yes": 0.4, "no": 0.7}),
            CalibrationPoint(false_alarms_per_hour=0.1, thresholds={"yes": 0.8}),
        ),
    )


def test_the_models_threshold_holds_where_nothing_is_set(manifest):
    assert thresholds_for(DecisionSettings(), manifest) == {"yes": 0.6, "no": 0.6}


def test_a_threshold_holds_for_all_keywords_that_have_none_of_their_own(manifest):
    settings = DecisionSettings(threshold=0.3, thresholds={"no": 0.9})
    assert thresholds_for(settings, manifest) == {"yes": 0.3, "no": 0.9}


def test_a_threshold_of_zero_is_not_taken_for_none(manifest):
    assert thresholds_for(DecisionSettings(threshold=0.0), manifest) == {"yes": 0.0, "no": 0.0}


@pytest.mark.parametrize(
    ("budget", "yes", "no"),
    [(1.0, 0.4, 0.7), (0.1, 0.8, 0.6), (10**-0.5, 0.6, 0.65), (10**-0.25, 0.5, 0.675)],
)
def test_a_budget_is_looked_up_between_points_by_the_logarithm_of_the_rate(
    manifest, budget, yes, no
):
    """A point that does not name a keyword stands for the model's own threshold."""
    settings = DecisionSettings(false_alarms_per_hour=budget)
    assert thresholds_for(settings, manifest) == pytest.approx({"yes": yes, "no": no})


def test_a_named_threshold_goes_before_the_budget(manifest):
    settings = DecisionSettings(false_alarms_per_hour=1.0, thresholds={"yes": 0.99})
    assert thresholds_for(settings, manifest) == pytest.approx({"yes": 0.99, "no": 0.7})


@pytest.mark.parametrize("budget", [0.09, 1.1])
def test_a_budget_beyond_the_calibration_is_refused(manifest, budget):
    message = (
        f"`false_alarms_per_hour` must lie in what the model `two` was calibrated for: 0.1 to 1. "
        f"Received: {budget:g}. Choose from that, or set `threshold`."
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        thresholds_for(DecisionSettings(false_alarms_per_hour=budget), manifest)


def test_a_budget_for_a_model_without_calibration_is_refused(manifest):
    message = (
        "`false_alarms_per_hour` must lie in what the model `two` was calibrated for: none: it has "
        "no calibration table. Received: 0.5. Choose from that, or set `threshold`."
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        thresholds_for(
            DecisionSettings(false_alarms_per_hour=0.5),
            msgspec.structs.replace(manifest, calibration=()),
        )


def test_a_threshold_and_a_budget_together_are_refused(manifest):
    message = (
        "`threshold` and `false_alarms_per_hour` exclude each other. Received: both. Keep one."
    )
    settings = DecisionSettings(threshold=0.5, false_alarms_per_hour=0.5)
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        thresholds_for(settings, manifest)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("yess", " Did you mean `yes`?"), ("_unknown_", ""), ("stop", ""), ("YES", "")],
)
def test_a_threshold_for_a_word_the_model_does_not_know_is_refused(manifest, name, hint):
    message = (
        f"`[decision.thresholds]` must name keywords of the model `two`. Received: `{name}`."
        f"{hint} It knows: yes, no."
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        thresholds_for(DecisionSettings(thresholds={name: 0.5}), manifest)


@pytest.mark.parametrize(
    ("yes", "no", "rate"),
    [
        (0.8, 0.6, None),  # `no` is below its threshold at every rate
        (0.4, 0.7, 1.0),
        (0.8, 0.7, 0.1),
        (0.6, 0.9, 10**-0.5),
        (0.9, 0.9, 0.1),  # at most the lowest rate of the table
        (0.3, 0.9, None),
    ],
)
def test_the_rate_at_some_thresholds_is_that_which_no_keyword_exceeds(manifest, yes, no, rate):
    points = (
        manifest.calibration[0],
        CalibrationPoint(false_alarms_per_hour=0.1, thresholds={"yes": 0.8, "no": 0.7}),
    )
    manifest = msgspec.structs.replace(manifest, calibration=points)
    found = most_false_alarms_per_hour({"yes": yes, "no": no}, manifest)
    assert found == (None if rate is None else pytest.approx(rate, rel=1e-4))


@pytest.mark.parametrize("budget", [0.1, 0.2, 1.0])
def test_the_thresholds_of_a_budget_have_its_rate(budget):
    manifest = open_model("computer").manifest
    thresholds = thresholds_for(DecisionSettings(false_alarms_per_hour=budget), manifest)
    assert most_false_alarms_per_hour(thresholds, manifest) == pytest.approx(budget, rel=1e-4)


def test_a_model_without_a_table_has_no_rate(manifest):
    without = msgspec.structs.replace(manifest, calibration=())
    assert most_false_alarms_per_hour({"yes": 0.5, "no": 0.5}, without) is None


def test_the_outputs_of_a_malicious_model_are_brought_into_0_to_1():
    posteriors = [np.nan, 1e18, 0.0, np.inf, -np.inf, np.nan, 0.9]
    assert run(decision(), yes=posteriors) == [(1, "yes", 1.0), (3, "yes", 1.0), (6, "yes", 0.9)]
    assert run(decision(n_smoothing=2), yes=[np.nan, -1e18, 0.6, 0.6]) == [(3, "yes", 0.6)]
