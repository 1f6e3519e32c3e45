"""The gate saves work and loses nothing: ten minutes of speech with it and without it."""

import wave

import numpy as np
import pytest

from kws.commands.demo import load_demo
from kws.config import DecisionSettings, GateSettings
from kws.model import model_path, open_model
from kws.spotter import Spotter

LEVELS_DB = (-15, -12, -9, -6, -3, 0, 3, -10, -7, -4, -1, 2)
MOST_LOST = 0.005
EARLIER_S = 0.25  # three outputs: a lower threshold is reached before a higher one
AT_THE_EDGE = 0.05  # a score may fall to either side of the threshold: states begin elsewhere


@pytest.mark.slow
def test_ten_minutes_of_speech_give_the_same_detections_with_the_gate():
    _, path = load_demo()
    with wave.open(str(path)) as file:
        recording = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(float)
    # Each time at another level, and cut so that frames and blocks fall elsewhere.
    speech = np.concatenate(
        [recording[37 * i :] * 10 ** (db / 20) for i, db in enumerate(LEVELS_DB)]
    )
    samples = np.clip(np.rint(speech), -32768, 32767).astype(np.int16)
    assert len(samples) >= 10 * 60 * 16_000
    model = open_model(model_path("commands"))
    threshold = model.manifest.decision.threshold
    without, gated = (
        Spotter(
            model,
            gate=GateSettings(enabled=enabled),
            decision=DecisionSettings(threshold=threshold - slack),
        ).process(samples)
        for enabled, slack in ((False, 0.0), (True, AT_THE_EDGE))
    )
    lost = [
        detection
        for detection in without
        if not any(
            other.keyword == detection.keyword and abs(other.end_s - detection.end_s) <= EARLIER_S
            for other in gated
        )
    ]
    assert len(without) > 50
    assert len(lost) <= MOST_LOST * len(without)
