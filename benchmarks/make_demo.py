"""Build the demo recordings of `kws demo` and their labels, in `kws/models`.

    python benchmarks/make_demo.py DATA [demo] [demo_computer]

`demo`: ten keywords and six other words of Speech Commands' test split, between sentences of
LibriSpeech, in recorded noise; each clip by a different speaker. One minute, so that the file stays
under 2 MB.

`demo_computer`: the word by several people: the first seven recordings of Picovoice's
wake-word-benchmark that belong neither to the last quarter, which is for final figures, nor to the
300 that trained the bundled model (`benchmarks/own_word.py`). Each is cut to the word with 0.27 s
around it, so that the file stays under 300 kB.
"""

import sys
import wave
from pathlib import Path

import msgspec
import numpy as np

from kws.arrays import Samples
from kws.audio import SAMPLE_RATE_HZ
from kws.matching import LabelledRecording, Word
from kws_train.data.audio_files import audio_files, read_samples
from kws_train.data.librispeech import quiet_utterances, speaker_halves
from kws_train.data.speech_span import speech_span
from kws_train.evaluate.build_stream import build_stream

KEYWORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
OTHERS = ("happy", "seven", "marvin", "house", "visual", "follow")
LENGTH_S = 62
SEED = 7
SNR_DB = 15.0
N_TRAINED = 300
AROUND_S, FADE_S, PAUSE_S = 0.27, 0.02, 0.08
N_WORDS = 7
LOUDEST = 12_000


def make_commands(data: Path, out: Path) -> None:
    """Write the recording of commands and its labels."""
    test = data / "speech_commands_test"
    random = np.random.default_rng(SEED)
    clips = [(word, _any(sorted((test / word).glob("*.flac")), random)) for word in KEYWORDS]
    clips += [
        (word, _any(sorted((test / "_unknown_").glob(f"{word}_*.flac")), random)) for word in OTHERS
    ]
    corpus = data / "librispeech"
    utterances = quiet_utterances(corpus, without=KEYWORDS, speakers=speaker_halves(corpus)[1])
    short = [path for path in utterances if path.stat().st_size < 9_000]
    noise = [data / "noise/speech_commands" / name for name in ("running_tap.flac",)]
    stream = build_stream(
        clips, short, noise, snr_db=SNR_DB, seed=SEED, most_s=LENGTH_S, n_background=1
    )
    _write(out, "demo", stream.samples, list(stream.words))


def make_computer(data: Path, out: Path) -> None:
    """Write the recording of the wake word and its labels."""
    paths = audio_files(data / "wake_words" / "computer")
    n_known = len(paths) * 3 // 4
    trained = {paths[i * n_known // N_TRAINED] for i in range(N_TRAINED)}
    pieces, words, n_samples = [], [], 0
    for path in [path for path in paths[:n_known] if path not in trained][:N_WORDS]:
        samples = read_samples(path)
        start, end = speech_span(samples, said="computer")
        first = max(0, start - round(AROUND_S * SAMPLE_RATE_HZ))
        piece = _faded(samples[first : end + round(AROUND_S * SAMPLE_RATE_HZ)])
        edges = [(n_samples + edge - first) / SAMPLE_RATE_HZ for edge in (start, end)]
        words.append(Word(word="computer", start_s=round(edges[0], 3), end_s=round(edges[1], 3)))
        pieces += [piece, np.zeros(round(PAUSE_S * SAMPLE_RATE_HZ), np.int16)]
        n_samples += sum(map(len, pieces[-2:]))
    _write(out, "demo_computer", np.concatenate(pieces), words)


def _write(out: Path, name: str, samples: Samples, words: list[Word]) -> None:
    with wave.open(str(out / f"{name}.wav"), "wb") as file:
        file.setparams((1, 2, SAMPLE_RATE_HZ, 0, "NONE", ""))
        file.writeframes(samples.tobytes())
    duration_s = len(samples) / SAMPLE_RATE_HZ
    labels = LabelledRecording(recording=f"{name}.wav", duration_s=duration_s, words=words)
    (out / f"{name}.json").write_bytes(msgspec.json.format(msgspec.json.encode(labels), indent=1))
    print(f"{duration_s:.1f} s, {len(words)} words: {[word.word for word in words]}")


def _faded(samples: Samples) -> Samples:
    """Bring a clip to a common level, and fade it in and out."""
    wave = samples * (LOUDEST / max(1.0, float(np.abs(samples.astype(np.float32)).max())))
    n = round(FADE_S * SAMPLE_RATE_HZ)
    ramp = np.linspace(0, 1, n)
    wave[:n] *= ramp
    wave[-n:] *= ramp[::-1]
    return wave.astype(np.int16)


def _any(paths: list[Path], random: np.random.Generator) -> Path:
    return paths[int(random.integers(len(paths)))]


MAKERS = {"demo": make_commands, "demo_computer": make_computer}

if __name__ == "__main__":
    for name in sys.argv[2:] or MAKERS:
        MAKERS[name](Path(sys.argv[1]), Path(__file__).parent.parent / "kws/models")
