"""`kws new` tells its stage of how many, and the time left, in place of Keras' lines."""

import pytest

from kws.run_progress import ProgressWriter, read_progress
from kws_train.own_word.stages import EpochProgress, Stages, describe_minutes


@pytest.mark.slow
def test_a_stage_tells_its_number_and_the_time_left(tensorflow):
    said = []
    stages = Stages({"audio": 2, "training": 10, "report": 0.5}, notify=said.append)
    for name in ("audio", "training", "report"):
        stages.begin(name)
    assert said == [
        "1 of 3, audio: about 12 min left in all",
        "2 of 3, training: about 10 min left in all",
        "3 of 3, report: less than 1 min left in all",
    ]


@pytest.mark.slow
def test_a_stage_is_written_for_the_page(tensorflow, tmp_path):
    with ProgressWriter(tmp_path, {"audio": 2, "training": 10}) as progress:
        stages = Stages({"audio": 2, "training": 10}, notify=print, progress=progress)
        stages.begin("training")
        assert read_progress(tmp_path).stage == "training"


@pytest.mark.slow
def test_epochs_are_told_every_quarter_of_a_minute_with_the_time_left(tensorflow, monkeypatch):
    now_s = 0.0
    monkeypatch.setattr("kws_train.own_word.stages.time.monotonic", lambda: now_s)
    said = []
    progress = EpochProgress(8, notify=said.append)
    for epoch in range(8):
        now_s += 10
        progress.on_epoch_end(epoch)
    assert said == [
        "  epoch 2 of 8: about 1 min left",
        "  epoch 4 of 8: less than 1 min left",
        "  epoch 6 of 8: less than 1 min left",
        "  epoch 8 of 8: less than 1 min left",
    ]


@pytest.mark.parametrize(("minutes", "words"), [(0.4, "less than 1 min"), (2.6, "about 3 min")])
def test_a_time_is_told_in_words(minutes, words):
    assert describe_minutes(minutes) == words
