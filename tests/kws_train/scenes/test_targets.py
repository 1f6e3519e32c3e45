import numpy as np
import pytest

from kws.manifest import SILENCE, UNKNOWN, FeatureSettings
from kws_train.scenes.targets import Marker, output_ends

LABELS = [SILENCE, UNKNOWN, "yes", "no"]
RATE_HZ = 16_000
ENDS = output_ends(2 * RATE_HZ, FeatureSettings(window_samples=480), time_stride=2)
SPAN = (RATE_HZ // 2, RATE_HZ)


@pytest.fixture
def marker():
    return Marker(LABELS, ENDS)


def right_at(targets, at_s):
    """Return the labels that are right at the output that ends first after a time."""
    return {
        LABELS[i] for i in np.flatnonzero(targets.allowed[np.searchsorted(ENDS, at_s * RATE_HZ)])
    }


def test_outputs_end_where_the_last_of_their_frames_does():
    ends = output_ends(RATE_HZ, FeatureSettings(window_samples=480), time_stride=2)
    n_frames = 1 + (RATE_HZ - 480) // 160
    assert len(ends) == n_frames // 2
    assert ends[:2].tolist() == [640, 960]
    assert ends[-1] <= RATE_HZ


def test_silence_alone_is_right_where_nothing_is_marked(marker):
    targets = marker.silence()
    assert targets.allowed.tolist() == [[1, 0, 0, 0]] * len(ENDS)
    assert targets.weight.tolist() == [1.0] * len(ENDS)


@pytest.mark.parametrize(
    ("at_s", "right"),
    [
        (0.75, {SILENCE}),
        (0.96, {SILENCE, "yes"}),
        (1.15, {"yes"}),
        (1.4, {SILENCE, "yes"}),
        (1.6, {SILENCE}),
    ],
)
def test_an_isolated_word_is_required_after_its_end(marker, at_s, right):
    targets = marker.silence()
    marker.require(targets, "yes", SPAN)
    assert right_at(targets, at_s) == right


def test_a_word_close_to_speech_is_permitted_and_not_required(marker):
    targets = marker.silence()
    marker.permit(targets, "yes", SPAN)
    assert right_at(targets, 0.75) == right_at(targets, 1.15) == {SILENCE, UNKNOWN, "yes"}
    assert right_at(targets, 1.6) == {SILENCE}
    assert set(targets.weight.tolist()) == {1.0}


def test_speech_may_be_unknown_until_a_quarter_of_a_second_after_it(marker):
    targets = marker.silence()
    marker.add_speech(targets, SPAN)
    assert right_at(targets, 0.75) == right_at(targets, 1.2) == {SILENCE, UNKNOWN}
    assert right_at(targets, 1.3) == {SILENCE}


def test_the_word_of_a_clip_is_required_from_its_middle_at_the_same_total_weight(marker):
    isolated, clip = marker.silence(), marker.silence()
    marker.require(isolated, "yes", SPAN)
    marker.require_from_middle(clip, "yes", SPAN)
    assert right_at(clip, 0.7) == {SILENCE}
    assert right_at(clip, 0.8) == right_at(clip, 1.3) == {"yes"}
    totals = [one.weight[one.weight != 1].sum() for one in (isolated, clip)]
    assert totals[0] == pytest.approx(totals[1])
