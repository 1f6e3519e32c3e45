"""Where in a clip its word is spoken, by energy.

Other modules that locate speech answer other questions and therefore do not use this one:
`kws_train.synth.clip_checks.trimmed` keeps everything audible of a clip without background noise,
`kws_train.synth.splice` and `kws_train.data.align` need the boundaries of phones and of words in
sentences, which only forced alignment gives, `kws.mined.folder` knows the times of a
detection and moves its cuts to quiet moments, `kws.commands.record` splits a live recording into
takes by voice activity, and `kws.commands.enroll` works on the model's own features, since the
runtime does not import this package.
"""

from typing import TypeAlias

import numpy as np

from kws.arrays import Samples
from kws.audio import SAMPLE_RATE_HZ as RATE_HZ

__all__ = ["Span", "speech_span"]

Span: TypeAlias = tuple[int, int]
"""A stretch of audio: [start, end) in samples."""

_CLOSURE_S = 0.12  # pauses within a word, such as the closure of a stop
_PAUSE_S = 0.6  # pauses between the words of a phrase
_FRAMES_PER_S = 100
_BELOW_PEAK_DB = 28.0
_ABOVE_FLOOR = 0.35  # of the range between background and peak


def speech_span(samples: Samples, *, said: str) -> Span:
    """Return where an isolated word or phrase is spoken: [start, end) in samples, by its energy.

    All 10 ms frames within 28 dB of the loudest and in the upper 65 % of the range between
    background and peak, bridging pauses up to 120 ms, or 600 ms between the words of a phrase. Of
    several stretches, the one with the greatest area above that level, in decibels times seconds: a
    click is louder than a word, but shorter.

    Parameters
    ----------
    samples : int16 [shape=(n,)]
        At 16 kHz.
    said : str
        The word, or the words of the phrase with spaces or underscores between them.
    """
    is_phrase = len(said.replace("_", " ").split()) > 1
    pause_s = _PAUSE_S if is_phrase else _CLOSURE_S
    hop = RATE_HZ // _FRAMES_PER_S
    n_frames = max(1, len(samples) // hop)
    padded = np.zeros(n_frames * hop, np.float32)
    padded[: min(len(samples), len(padded))] = samples[: len(padded)]
    power_db = 10 * np.log10(np.mean(padded.reshape(n_frames, hop) ** 2, axis=1) + 1.0)
    power_db = np.convolve(np.pad(power_db, 1, mode="edge"), np.ones(3) / 3, mode="valid")
    floor, peak = np.percentile(power_db, 10), power_db.max()
    least_db = max(floor + _ABOVE_FLOOR * (peak - floor), peak - _BELOW_PEAK_DB)
    loud = np.flatnonzero(power_db >= least_db)
    stretches = np.split(loud, np.flatnonzero(np.diff(loud) > round(_FRAMES_PER_S * pause_s)) + 1)
    word = max(stretches, key=lambda stretch: float((power_db[stretch] - least_db).sum()))
    return int(word[0]) * hop, min(len(samples), (int(word[-1]) + 1) * hop)
