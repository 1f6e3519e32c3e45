"""Miss rates of words enrolled from a few recordings: enrolment.py --data data.

Same speaker: words of the Speech Commands test set said five times by one speaker that the backbone
was not trained on; four are enrolled, the fifth is tested. Other language: the same with Arabic
words and speakers, which were unknown words in its training. One voice, with --kokoro: recordings
of the wake words name no speakers, so a synthetic voice says a word eight times, up to 12 % faster
or slower and a semitone higher or lower; five are enrolled, three are tested. Any speaker: five
recordings of a wake word from the first three quarters are enrolled, the last quarter is tested.
False alarms: on LibriSpeech's second half of the speakers, at most one per second. `at 0.5/h`: with
the threshold chosen for each trial on that speech, as in DET curves; `as enrolled`: with the
threshold that enrolment set.
"""

import argparse
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import soundfile

from kws.arrays import Samples
from kws.audio import SAMPLE_RATE_HZ
from kws.commands.enroll import _PAD, enroll
from kws.features import Features
from kws.manifest import read_manifest
from kws.model import Model, backbone_path, mean_embeddings, open_model
from kws.templates import TemplateHead
from kws_train.data.audio_files import audio_files, read_samples
from kws_train.data.librispeech import speaker_halves, speaker_of_utterance
from kws_train.synth.voices.engine import Line
from kws_train.synth.voices.kokoro import Kokoro

STEPS_PER_S, BUDGET = 25, 0.5
WORDS = ("computer", "snowboy", "view_glass")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--speakers", type=int, default=6)
    parser.add_argument("--draws", type=int, default=4)
    parser.add_argument("--kokoro", type=Path, nargs=2, metavar=("MODEL", "VOICES"))
    parser.add_argument("--voices", type=int, default=12)
    parser.add_argument("--only", default="", help="Rows whose name holds this, such as one voice")
    options = parser.parse_args()
    model = open_model(backbone_path())
    speech = unseen(options.data / "librispeech", model)
    n_hours = sum(map(len, speech)) / STEPS_PER_S / 3600
    print(f"{n_hours:.2f} h of speech of speakers never used", flush=True)
    for name, trials in {
        "same speaker, 4 recordings": same_speaker(options.data, options.speakers),
        "other language, same speaker, 4": arabic(options.data, options.speakers),
        **{
            f"one voice, {word}, 5 clips": one_voice(options.kokoro, word, options.voices)
            for word in WORDS
            if options.kokoro
        },
        "any speaker, 5 recordings": any_speaker(options.data, options.draws),
    }.items():
        if options.only not in name:
            continue
        rows = [measure(model, speech, n_hours, *trial) for trial in trials]
        n = sum(row[0] for row in rows)
        oracle, fixed = (sum(row[i] for row in rows) / n for i in (1, 2))
        rate = np.mean([row[3] for row in rows])
        print(
            f"{name}: {len(rows)} enrolments, {n} words; misses at {BUDGET}/h {oracle:.1%}; as "
            f"enrolled {fixed:.1%} at {rate:.2f} false alarms/h",
            flush=True,
        )


def measure(model, speech, n_hours, enrolled, tests):
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "word.tflite"
        enroll("word", enrolled, out)
        manifest, _ = read_manifest(out)
    head = TemplateHead(manifest.head, keywords=("word",), n_values=manifest.embedding)
    peaks = np.concatenate([seconds(head, one) for one in speech])
    words = np.array(
        [
            seconds(head, _embedded(model, np.concatenate((_PAD, read_samples(p), _PAD)))).max()
            for p in tests
        ]
    )
    n_allowed = int(BUDGET * n_hours)
    least = np.sort(peaks)[::-1][n_allowed]
    return len(tests), (words <= least).sum(), (words < 0.5).sum(), (peaks >= 0.5).sum() / n_hours


def seconds(head, embeddings):
    """Return the highest posterior of each second."""
    head.reset()
    scores = np.array([head.step(one)[0] for one in embeddings])
    return np.array([scores[i : i + STEPS_PER_S].max() for i in range(0, len(scores), STEPS_PER_S)])


def unseen(corpus, model):
    _, second = speaker_halves(corpus)
    paths = [p for p in audio_files(corpus) if speaker_of_utterance(p.name) in second]
    return [_embedded(model, read_samples(path)) for path in paths]


def same_speaker(data, n_speakers):
    for word in ("left", "right", "up", "yes", "stop", "go"):
        paths = audio_files(data / "speech_commands_test" / word)
        counts = Counter(path.name.partition("_nohash_")[0] for path in paths)
        for speaker in [one for one, n in counts.items() if n == 5][:n_speakers]:
            *first, last = [p for p in paths if p.name.startswith(f"{speaker}_")]
            yield first, [last]


def arabic(data, n_speakers):
    for folder in sorted((data / "arabic_words").iterdir())[:6]:
        paths = audio_files(folder)
        for speaker in sorted({path.name.partition("_")[0] for path in paths})[:n_speakers]:
            *first, last = [p for p in paths if p.name.startswith(speaker)]
            yield first, [last]


def one_voice(files, word, n_voices):
    kokoro = Kokoro(*files)
    random = np.random.default_rng(1)
    texts = [word.replace("_", " ") + end for end in (".", "!", "?", "", ".", "", "!", ".")]
    with tempfile.TemporaryDirectory() as folder:
        for voice in kokoro.native[:: max(1, len(kokoro.native) // n_voices)][:n_voices]:
            paths = [Path(folder) / f"{voice}-{i}.flac" for i in range(len(texts))]
            for text, path in zip(texts, paths, strict=True):
                speed, semitones = random.uniform(0.88, 1.12), random.uniform(-1, 1)
                said = kokoro.speak(Line(text, voice, speed, semitones))
                soundfile.write(path, np.pad(said, 4000), SAMPLE_RATE_HZ)
            yield paths[:5], paths[5:]


def any_speaker(data, n_draws):
    random = np.random.default_rng(1)
    for word in WORDS:
        paths = audio_files(data / "wake_words" / word)
        n = len(paths) * 3 // 4
        for _ in range(n_draws):
            yield [paths[i] for i in random.choice(n, 5, replace=False)], paths[n:]


def _embedded(model: Model, samples: Samples) -> np.ndarray:
    return mean_embeddings(model, Features(model.manifest.features).whole(samples))


if __name__ == "__main__":
    main()
