"""Kokoro-82M (Apache-2.0) by `kokoro-onnx`: some fifty voices, and endless blends of them.

A style vector's first half is the timbre, its second the melody. A blend's name says how it is
made: `af_bella`, `af_bella:0.31+am_adam:0.69` (the shares of each), `af_bella/am_adam` (the timbre
of one, the melody of the other). What follows a `~` is the number of the accent that it has.
"""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kws.errors import ConfigError
from kws.features import Samples
from kws_train.optional import load_library
from kws_train.synth.voices.accents import accented, split_accent, with_accent
from kws_train.synth.voices.backend import Line, digest_of, interval, raised
from kws_train.synth.voices.onnx import open_session

__all__ = ["HELD_OUT", "LANGUAGES", "Kokoro"]

HELD_OUT = ("af_nova", "am_onyx", "bf_lily", "bm_fable")
"""Voices that nothing is made with, so that tests may be."""

LANGUAGES = {"en": "ab", "es": "e", "fr": "f", "hi": "h", "it": "i", "pt": "p"}
"""Languages that it speaks here, and what the names of their voices begin with."""

_PHONEMES = {"es": "es", "fr": "fr-fr", "hi": "hi", "it": "it", "pt": "pt-br"}
_MOST_BLENDED = 3
_NATIVE_SHARE = 0.7  # the others have learned it from afar
_HALF = 128
_RATE_HZ = 24_000

Style = npt.NDArray[np.float32]


class Kokoro:
    """See `Backend`.

    Parameters
    ----------
    model, voices : Path
        The ONNX model, and an .npz with a style (510, 1, 256) for each voice.
    language : str
        A key of `LANGUAGES`.
    held_out : bool
        True: speak with `HELD_OUT` alone, unblended; False: with all others.

    Raises
    ------
    ConfigError
        If a file or the library is missing, or it does not speak the language.
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
                f"backend, such as espeak-ng."
            )
        self._arguments = (model, voices, language, held_out)
        self._opened, self.version = _open(model, voices)
        names = [name for name in self._opened.get_voices() if (name in HELD_OUT) == held_out]
        # Voices whose own language it is, unblended.
        self.native = [name for name in names if name[0] in LANGUAGES[language]]
        self._names, self._language, self._blends = names, language, not held_out
        self.n_voices = len(names)

    def __reduce__(self) -> Any:
        model, voices, language, held_out = self._arguments
        return functools.partial(Kokoro, language=language, held_out=held_out), (model, voices)

    def draw_voice(self, random: np.random.Generator, /) -> str:
        """See `Backend`: a voice or a blend of some; of those that speak English, most accented."""
        voice = self._draw_timbre(random)
        return with_accent(voice, random) if self._blends and self._language == "en" else voice

    def _draw_timbre(self, random: np.random.Generator) -> str:
        """Draw a voice, an average or a Dirichlet mix of two or three, or two halves."""
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
        """See `Backend`."""
        voice, accent = split_accent(line.voice)
        text, language = line.text, self._spoken(voice)
        if accent is not None:
            text = accented(self._opened.tokenizer.phonemize(text, language), accent)
        wave, _ = self._opened.create(
            text,
            voice=self._style(voice),
            speed=float(np.clip(line.speed / interval(line.semitones), 0.5, 2.0)),
            lang=language,
            is_phonemes=accent is not None,
        )
        return raised(wave, rate_hz=_RATE_HZ, semitones=line.semitones)

    def _spoken(self, voice: str) -> str:
        """Return the pronunciation: British voices speak British English, all others American."""
        if self._language == "en":
            return "en-gb" if voice.startswith("b") else "en-us"
        return _PHONEMES[self._language]

    def _style(self, voice: str) -> Style:
        if "/" in voice:
            timbre, melody = (self._opened.get_voice_style(name) for name in voice.split("/"))
            return np.concatenate([timbre[..., :_HALF], melody[..., _HALF:]], axis=-1)
        parts = [part.partition(":")[::2] for part in voice.split("+")]
        total = sum(float(share or 1) for _, share in parts)
        styles = [float(share or 1) * self._opened.get_voice_style(name) for name, share in parts]
        return np.asarray(sum(styles) / total, np.float32)


@functools.lru_cache(maxsize=2)
def _open(model: Path, voices: Path) -> tuple[Any, str]:
    """Open it, once a process; return it and its version."""
    library = load_library("kokoro_onnx", purpose="Kokoro", package="kokoro-onnx")
    session = open_session(model)
    return library.Kokoro.from_session(session, str(voices)), digest_of(model, voices)
