"""Piper by `piper-tts` (GPL, never required); one voice file may hold hundreds of speakers.

`python -m piper.download_voices` downloads voices; the licence of each is in its model card.
"""

import functools
import importlib.metadata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from kws.arrays import Samples
from kws.errors import ConfigError
from kws_train.optional import load_library
from kws_train.synth.voices.accents import apply_accent, draw_accent, split_accent
from kws_train.synth.voices.engine import Line, digest_files, pitch_ratio, raise_pitch
from kws_train.synth.voices.onnx import open_session

__all__ = ["Piper", "language_of"]

_HELD_OUT_EVERY = 10
_MAX_WEIGHT = 200.0  # of a file with thousands of speakers, so that other files are drawn, too


class Piper:
    """See `VoiceEngine`. A voice is named `file#speaker`, in English often with an accent appended.

    Parameters
    ----------
    models : sequence of Path
        Voice files, .onnx, with their .onnx.json beside them.
    held_out : bool
        True: use every tenth speaker of files with ten or more; False: all others.

    Raises
    ------
    ConfigError
        If the library is missing, or no voice remains.
    """

    name = "piper"

    def __init__(self, models: Sequence[Path], *, held_out: bool = False) -> None:
        load_library("piper", purpose="Piper", package="piper-tts")
        self._models = {path.stem: path for path in models}
        self._held_out = held_out
        self._speakers = {
            name: found
            for name, path in self._models.items()
            if (found := _speakers(path, held_out=held_out))
        }
        if not self._speakers:
            raise ConfigError(
                f"Piper needs a voice. Received: {', '.join(map(str, models)) or 'none'}"
                f"{', of which no speaker is held out' if held_out else ''}. "
                f"Run `python -m piper.download_voices en_US-libritts_r-medium`."
            )
        self._english = {name for name, path in self._models.items() if language_of(path) == "en"}
        self.n_voices = sum(map(len, self._speakers.values()))
        version = importlib.metadata.version("piper-tts")
        self.version = f"{version}-{digest_files(*(self._models[name] for name in self._speakers))}"

    def __reduce__(self) -> Any:
        return functools.partial(Piper, held_out=self._held_out), (list(self._models.values()),)

    def draw_voice(self, random: np.random.Generator, /) -> str:
        """See `VoiceEngine`: files with more speakers are drawn more often."""
        names = list(self._speakers)
        weights = np.minimum([len(self._speakers[name]) for name in names], _MAX_WEIGHT)
        name = str(random.choice(names, p=weights / weights.sum()))
        voice = f"{name}#{random.choice(self._speakers[name])}"
        is_accented = name in self._english and not self._held_out
        return draw_accent(voice, random) if is_accented else voice

    def speak(self, line: Line, /) -> Samples:
        """See `VoiceEngine`."""
        library = load_library("piper", purpose="Piper", package="piper-tts")
        plain, accent = split_accent(line.voice)
        name, _, speaker = plain.rpartition("#")
        voice = _open(self._models[name])
        text = line.text
        if accent is not None:
            phonemes = " ".join(map("".join, voice.phonemize(text)))
            text = f"[[ {apply_accent(phonemes, accent)} ]]"
        settings = library.SynthesisConfig(
            speaker_id=int(speaker), length_scale=pitch_ratio(line.semitones) / line.speed
        )
        chunks = [chunk.audio_float_array for chunk in voice.synthesize(text, settings)]
        wave = np.concatenate(chunks) if chunks else np.zeros(0, np.float32)
        return raise_pitch(wave, rate_hz=voice.config.sample_rate, semitones=line.semitones)


def language_of(model: Path) -> str:
    """Return the language of a voice file, such as `en`."""
    settings = _settings(model)
    spoken = settings.get("language", {}).get("family") or settings["espeak"]["voice"]
    return str(spoken).partition("-")[0]


def _settings(model: Path) -> dict[str, Any]:
    path = model.with_name(f"{model.name}.json")
    try:
        settings = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
        msgspec.convert(settings["espeak"]["voice"], str)
    except (OSError, msgspec.MsgspecError, LookupError, TypeError) as error:
        raise ConfigError(
            f"A voice of Piper needs its settings beside it. Received: {path} ({error!r}). "
            f"Download the voice again, or take it out of the folder."
        ) from error
    return settings


def _speakers(model: Path, *, held_out: bool) -> list[int]:
    n = max(1, int(_settings(model).get("num_speakers", 1)))
    few = n < _HELD_OUT_EVERY
    return [i for i in range(n) if (not few and i % _HELD_OUT_EVERY == 0) == held_out]


@functools.lru_cache(maxsize=8)
def _open(model: Path) -> Any:
    """Open a voice, once per process."""
    library = load_library("piper", purpose="Piper", package="piper-tts")
    settings = library.PiperConfig.from_dict(_settings(model))
    return library.PiperVoice(session=open_session(model), config=settings)
