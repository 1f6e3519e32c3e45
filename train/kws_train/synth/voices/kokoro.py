"""Kokoro-82M (Apache-2.0) by `kokoro-onnx`: some fifty voices and blends of them.

The first half of a style vector is the timbre, the second the prosody. Names of blends list their
parts: `af_bella`, `af_bella:0.31+am_adam:0.69` (shares), `af_bella/am_adam` (timbre of one, prosody
of the other). A number after `~` is the accent, see `kws_train.synth.voices.accents`.
"""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kws.arrays import Samples
from kws.errors import ConfigError
from kws_train.optional import load_library
from kws_train.synth.voices.accents import apply_accent, draw_accent, split_accent
from kws_train.synth.voices.engine import Line, digest_files, pitch_ratio, raise_pitch
from kws_train.synth.voices.onnx import open_session

__all__ = ["HELD_OUT", "LANGUAGES", "Kokoro"]

HELD_OUT = ("af_nova", "am_onyx", "bf_lily", "bm_fable")
"""Voices reserved for tests; training clips never use them."""

LANGUAGES = {"en": "ab", "es": "e", "fr": "f", "hi": "h", "it": "i", "pt": "p"}
"""Supported languages, and the first letters of the names of their voices."""

_PHONEMES = {"es": "es", "fr": "fr-fr", "hi": "hi", "it": "it", "pt": "pt-br"}
_MOST_BLENDED = 3
_NATIVE_SHARE = 0.7  # the other voices speak the language with a foreign accent
_HALF = 128
_RATE_HZ = 24_000

Style = npt.NDArray[np.float32]


class Kokoro:
    """See `VoiceEngine`.

    Parameters
    ----------
    model, voices : Path
        The ONNX model, and an .npz with a style (510, 1, 256) for each voice.
    language : str
        A key of `LANGUAGES`.
    held_out : bool
        True: use the voices of `HELD_OUT` only, unblended; False: all others.

    Raises
    ------
    ConfigError
        If a file or the library is missing, or the language is not supported.
    """

    name = "kokoro"

    def __init__(
        self, model: Path, voices: Path, *, language: str = "en", held_out: bool = False
    ) -> None:
        load_library("kokoro_onnx", purpose="`--kokoro`", package="kokoro-onnx")
        for path in (model, voices):
            if not path.is_file():
                raise ConfigError(
                    f"Kokoro needs its model and its voices. Received: {path}, which is no file. "
                    f"Give both, or leave `--kokoro` away for another voice."
                )
        if language not in LANGUAGES:
            raise ConfigError(
                f"Kokoro speaks {', '.join(LANGUAGES)}. Received: {language}. Choose another "
                f"`--backend`, such as espeak-ng."
            )
        self._arguments = (model, voices, language, held_out)
        self._opened, self.version = _open(model, voices)
        names = [name for name in self._opened.get_voices() if (name in HELD_OUT) == held_out]
        # The voices of this language, unblended.
        self.native = [name for name in names if name[0] in LANGUAGES[language]]
        self._names, self._language, self._blends = names, language, not held_out
        self.n_voices = len(names)

    def __reduce__(self) -> Any:
        model, voices, language, held_out = self._arguments
        return functools.partial(Kokoro, language=language, held_out=held_out), (model, voices)

    def draw_voice(self, random: np.random.Generator, /) -> str:
        """See `VoiceEngine`: a voice or a blend; in English, most of them with an accent."""
        voice = self._draw_timbre(random)
        return draw_accent(voice, random) if self._blends and self._language == "en" else voice

    def _draw_timbre(self, random: np.random.Generator) -> str:
        """Draw a voice, an average or Dirichlet mix of two or three, or timbre/prosody of two."""
        pool = self.native if self.native and random.random() < _NATIVE_SHARE else self._names
        kind = random.choice(["one", "average", "mix", "halves"], p=[0.2, 0.2, 0.35, 0.25])
        if kind == "one" or not self._blends or len(pool) < 2:
            return str(random.choice(pool))
        if kind == "halves":
            return "/".join(random.choice(pool, 2, replace=False))
        n = min(int(random.integers(2, _MOST_BLENDED + 1)), len(pool))
        names = random.choice(pool, n, replace=False)
        shares = random.dirichlet(np.ones(n)) if kind == "mix" else np.full(n, 1 / n)
        return "+".join(f"{name}:{share:.2f}" for name, share in zip(names, shares, strict=True))

    def speak(self, line: Line, /) -> Samples:
        """See `VoiceEngine`."""
        voice, accent = split_accent(line.voice)
        text, language = line.text, self._language_code(voice)
        if accent is not None:
            text = apply_accent(self._opened.tokenizer.phonemize(text, language), accent)
        wave, _ = self._opened.create(
            text,
            voice=self._style(voice),
            speed=float(np.clip(line.speed / pitch_ratio(line.semitones), 0.5, 2.0)),
            lang=language,
            is_phonemes=accent is not None,
        )
        return raise_pitch(wave, rate_hz=_RATE_HZ, semitones=line.semitones)

    def _language_code(self, voice: str) -> str:
        """Return the language code: British voices speak British English, all others American."""
        if self._language == "en":
            return "en-gb" if voice.startswith("b") else "en-us"
        return _PHONEMES[self._language]

    def _style(self, voice: str) -> Style:
        if "/" in voice:
            timbre, prosody = (self._opened.get_voice_style(name) for name in voice.split("/"))
            return np.concatenate([timbre[..., :_HALF], prosody[..., _HALF:]], axis=-1)
        parts = [part.partition(":")[::2] for part in voice.split("+")]
        total = sum(float(share or 1) for _, share in parts)
        styles = [float(share or 1) * self._opened.get_voice_style(name) for name, share in parts]
        return np.asarray(sum(styles) / total, np.float32)


@functools.lru_cache(maxsize=2)
def _open(model: Path, voices: Path) -> tuple[Any, str]:
    """Open the model, once per process; return it and its version."""
    library = load_library("kokoro_onnx", purpose="Kokoro", package="kokoro-onnx")
    session = open_session(model)
    return library.Kokoro.from_session(session, str(voices)), digest_files(model, voices)
