"""Build the demo recording `kws/models/demo.wav` and its labels, `demo.json`.

    python benchmarks/make_demo.py DATA

Ten keywords and six other words of Speech Commands' test split, between sentences of LibriSpeech,
in recorded noise; each clip by a different speaker. One minute, so that the file stays under 2 MB.
"""

import sys
import wave
from pathlib import Path

import msgspec
import numpy as np

from kws.audio import SAMPLE_RATE_HZ
from kws.matching import LabelledRecording
from kws_train.data.librispeech import quiet_utterances, speaker_halves
from kws_train.evaluate.build_stream import build_stream

KEYWORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
OTHERS = ("happy", "seven", "marvin", "house", "visual", "follow")
LENGTH_S = 62
SEED = 7
SNR_DB = 15.0


def main(data: Path, out: Path) -> None:
    """Write the recording and its labels."""
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
    with wave.open(str(out / "demo.wav"), "wb") as file:
        file.setparams((1, 2, SAMPLE_RATE_HZ, 0, "NONE", ""))
        file.writeframes(stream.samples.tobytes())
    labels = LabelledRecording(
        recording="demo.wav", duration_s=stream.duration_s, words=list(stream.words)
    )
    (out / "demo.json").write_bytes(msgspec.json.format(msgspec.json.encode(labels), indent=1))
    print(f"{stream.duration_s:.1f} s, {len(stream.words)} words: {[w.word for w in stream.words]}")


def _any(paths: list[Path], random: np.random.Generator) -> Path:
    return paths[int(random.integers(len(paths)))]


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(__file__).parent.parent / "kws/models")
