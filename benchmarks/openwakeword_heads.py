"""Models of openWakeWord in kws and in openwakeword 0.5.1: scores, detections and CPU time.

python benchmarks/openwakeword_heads.py --recordings FOLDER --python VENV/bin/python

FOLDER has recordings of each word in a folder of its name, such as those of `kws synth FOLDER
--word alexa=75 --word hey_jarvis=75 ...`. VENV has the package and what it needs:
`pip install --no-deps openwakeword==0.5.1` and `pip install onnxruntime tqdm scipy scikit-learn
requests`. The models are those of the package.
"""

import subprocess
import tempfile
import time
from pathlib import Path
from typing import NamedTuple, TypeAlias

import click
import numpy as np
import numpy.typing as npt

from kws.arrays import Samples
from kws.audio import SAMPLE_RATE_HZ
from kws.errors import ModelError
from kws.features import Features
from kws.model import open_model, with_embedding
from kws.onnx_file import check_onnx_operators
from kws.spotter import Spotter
from kws_train.data.audio_files import audio_files, read_samples
from kws_train.data.librispeech import quiet_utterances, speaker_halves

Scores: TypeAlias = npt.NDArray[np.float32]

_STEP_S = 0.08
_PHASE = 480  # openwakeword's vectors end 30 ms earlier in an 80 ms step than those of kws
_PAUSE_S = 2.0  # after a recording
_FLOOR = 10.0  # standard deviation of the noise in it, on the scale of 16 bits
_SNR_DB = 10.0  # of every second recording
_THRESHOLD, _REFRACTORY_S, _SAME_S = 0.5, 2.0, 0.5


class Recording(NamedTuple):
    """A word in a stream."""

    word: str
    start_s: float
    end_s: float


class Outcome(NamedTuple):
    """What an engine says of a stream."""

    scores: Scores  # (steps, models)
    detections: dict[str, list[float]]
    cpu_s: float


@click.command()
@click.option("--data", type=Path, default=Path("data"), show_default=True)
@click.option("--recordings", type=Path, required=True)
@click.option("--python", "interpreter", type=Path, required=True)
@click.option("--hours", default=1.0, show_default=True)
def main(data: Path, recordings: Path, interpreter: Path, hours: float) -> None:
    """Print tables of agreement on recordings and on speech of held-out speakers."""
    words = sorted(one.name for one in recordings.iterdir() if one.is_dir())
    random = np.random.default_rng(1)
    speech = speech_stream(data / "librispeech", words, hours=hours, random=random)
    said, spans = recordings_stream(recordings, words, data / "noise/esc10", random)
    results = {}
    for name, stream in (("recordings", said), ("speech", speech)):
        theirs, models = _theirs(stream, words, interpreter)
        results[name] = theirs, _ours(stream, words, models)
    _print_table(words, spans, results)
    n_s = len(speech) / SAMPLE_RATE_HZ
    theirs, ours = results["speech"]
    click.echo(
        f"\nCPU per second of audio, {len(words)} models: openwakeword "
        f"{1000 * theirs.cpu_s / n_s:.1f} ms, kws {1000 * ours.cpu_s / n_s:.2f} ms"
    )


def speech_stream(
    corpus: Path, words: list[str], *, hours: float, random: np.random.Generator
) -> Samples:
    """Return speech of held-out speakers without the words."""
    _, held_out = speaker_halves(corpus)
    paths = quiet_utterances(corpus, without=words, speakers=held_out)
    parts, n = [], 0
    for i in random.permutation(len(paths)):
        parts.append(read_samples(paths[i]))
        n += len(parts[-1])
        if n >= hours * 3600 * SAMPLE_RATE_HZ:
            break
    return np.concatenate(parts)


def recordings_stream(
    folder: Path, words: list[str], noise: Path, random: np.random.Generator
) -> tuple[Samples, list[Recording]]:
    """Return a stream of all recordings, every second one in noise, and where they are."""
    paths = [(word, path) for word in words for path in audio_files(folder / word)]
    noises = audio_files(noise)
    parts, spans, at = [], [], 0
    for n, i in enumerate(random.permutation(len(paths))):
        word, path = paths[i]
        n_pause = round(_PAUSE_S * SAMPLE_RATE_HZ)
        clip = np.pad(read_samples(path).astype(np.float64), (n_pause // 2, n_pause))
        clip += random.normal(0, _FLOOR, len(clip))
        if n % 2:
            around = read_samples(noises[int(random.integers(len(noises)))]).astype(np.float64)
            around = np.resize(around, len(clip))
            power = np.square(clip).sum() / (len(clip) - 1.5 * n_pause)
            ratio = power / max(1.0, np.square(around).mean()) / 10 ** (_SNR_DB / 10)
            clip += around * np.sqrt(ratio)
        parts.append(np.clip(np.rint(clip), -32768, 32767).astype(np.int16))
        start, end = at + n_pause // 2, at + len(clip) - n_pause // 2
        spans.append(Recording(word, start / SAMPLE_RATE_HZ, end / SAMPLE_RATE_HZ))
        at += len(clip)
    return np.concatenate(parts), spans


def _theirs(stream: Samples, words: list[str], interpreter: Path) -> tuple[Outcome, list[Path]]:
    """Return the outcome of the package, whose rule is that of wyoming-openwakeword, and files."""
    script = Path(__file__).with_name("openwakeword_reference.py")
    with tempfile.TemporaryDirectory() as folder:
        audio, out = Path(folder) / "stream.npy", Path(folder) / "scores.npz"
        np.save(audio, stream)
        subprocess.run([interpreter, script, audio, out, *words], check=True)
        with np.load(out) as stored:
            scores, cpu_s = stored["scores"], float(stored["cpu_s"])
            models = [_same_in_kws(Path(one)) for one in stored["files"].tolist()]
    detections: dict[str, list[float]] = {word: [] for word in words}
    for column, word in enumerate(words):
        for step in np.flatnonzero(scores[:, column] >= _THRESHOLD):
            end_s = float(step + 1) * _STEP_S
            if not detections[word] or end_s - detections[word][-1] >= _REFRACTORY_S:
                detections[word].append(end_s)
    return Outcome(scores, detections, cpu_s), models


def _same_in_kws(path: Path) -> Path:
    """Return the .onnx itself, or the .tflite where kws refuses its control flow.

    The package's .onnx and .tflite of hey_rhasspy are different networks.
    """
    try:
        check_onnx_operators(path.read_bytes(), name=path.name)
    except ModelError:
        return path.with_suffix(".tflite")
    return path


def _ours(stream: Samples, words: list[str], models: list[Path]) -> Outcome:
    """Return the outcome of kws, gate included; scores are those of the models without it."""
    stream = np.concatenate((np.zeros(_PHASE, np.int16), stream))
    joined = [with_embedding(open_model(path)) for path in models]
    frames = Features(joined[0].manifest.features).whole(stream)
    scores = np.concatenate([one.run(frames) for one in joined], axis=1)
    spotter = Spotter([str(path) for path in models])
    detections: dict[str, list[float]] = {word: [] for word in words}
    started_s = time.process_time()
    chunk = round(_STEP_S * SAMPLE_RATE_HZ)
    for at in range(0, len(stream), chunk):
        for one in spotter.process(stream[at : at + chunk]):
            detections[one.keyword].append(one.end_s)
    cpu_s = time.process_time() - started_s
    return Outcome(scores.astype(np.float32), detections, cpu_s)


def _print_table(
    words: list[str], spans: list[Recording], results: dict[str, tuple[Outcome, Outcome]]
) -> None:
    click.echo("| model | scores correlate | detected: theirs; kws | agree | on speech |")
    click.echo("|---|---|---|---|---|")
    n_agreed = 0
    for column, word in enumerate(words):
        pairs = [
            [one.scores[:, column] for one in results[name]] for name in ("recordings", "speech")
        ]
        n = [min(map(len, pair)) for pair in pairs]
        first = round(5 / _STEP_S)  # theirs begins with vectors of noise
        a, b = (
            np.concatenate([pair[i][first:end] for pair, end in zip(pairs, n, strict=True)])
            for i in (0, 1)
        )
        own = [one for one in spans if one.word == word]
        theirs, ours = (
            [is_in(one, it.detections[word]) for one in own] for it in results["recordings"]
        )
        agreed = sum(x == y for x, y in zip(theirs, ours, strict=True))
        n_agreed += agreed
        alarms = "; ".join(str(len(one.detections[word])) for one in results["speech"])
        correlation = np.corrcoef(a, b)[0, 1]
        click.echo(
            f"| {word} | {correlation:.4f} | {sum(theirs)}; {sum(ours)} of {len(own)} | "
            f"{agreed / len(own):.1%} | {alarms} |"
        )
    click.echo(f"\n{n_agreed / len(spans):.1%} of {len(spans)} recordings agree.")


def is_in(recording: Recording, ends_s: list[float]) -> bool:
    return any(recording.start_s <= one <= recording.end_s + _SAME_S for one in ends_s)


if __name__ == "__main__":
    main()
