"""Random variation of synthetic speech: engine, voice, speed, pitch and punctuation of a clip."""

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from kws_train.synth.phrases import Phrase
from kws_train.synth.voices.accents import split_accent
from kws_train.synth.voices.engine import Line, VoiceEngine

__all__ = ["draw_line", "engine_weights", "speaker_name"]

_ENDS = ("", ".", ".", "!", "?", ",")
_PAUSES = (" ", " ", " ", ", ", "... ")
_MAX_VOICES = 60  # of an engine, in its probability to be drawn
_SPEEDS = (0.75, 1.35)
_STD_SEMITONES, _SEMITONES = 1.2, (-3.0, 3.0)


def draw_line(phrase: Phrase, engine: VoiceEngine, random: np.random.Generator) -> Line:
    """Draw a random rendition of a phrase: voice, speed, pitch, pauses and intonation."""
    pauses = [str(pause) for pause in random.choice(_PAUSES, len(phrase.words) - 1)]
    words = phrase.text.split(" ")
    text = words[0] + "".join(pause + word for pause, word in zip(pauses, words[1:], strict=True))
    if random.random() < 0.5:
        text = text[0].upper() + text[1:]
    return Line(
        text + str(random.choice(_ENDS)),
        engine.draw_voice(random),
        speed=round(float(np.exp(random.uniform(*np.log(_SPEEDS)))), 2),
        semitones=round(float(np.clip(random.normal(0, _STD_SEMITONES), *_SEMITONES)), 1),
    )


def engine_weights(engines: Sequence[VoiceEngine]) -> npt.NDArray[np.float64]:
    """Return the probability of each engine to be drawn: by its number of voices, limited."""
    n_voices = np.minimum([engine.n_voices for engine in engines], _MAX_VOICES)
    return np.asarray(n_voices / n_voices.sum())


def speaker_name(voice: str) -> str:
    """Return a voice's name as a speaker: no accent, no shares, words separated by hyphens."""
    plain = re.sub(r":[\d.]+|_", "", split_accent(voice)[0])
    return re.sub(r"[^A-Za-z0-9]+", "-", plain)
