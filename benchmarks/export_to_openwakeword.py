"""A head of `kws new` in kws, and exported in openwakeword 0.5.1 and pyopen-wakeword.

python benchmarks/export_to_openwakeword.py HEAD.tflite EXPORTED.tflite --recordings FOLDER \
    --python VENV/bin/python

FOLDER has the recordings in a folder of the keyword's name; VENV is that of openwakeword_heads.py.
"""

import subprocess
import tempfile
from pathlib import Path
from typing import TypeAlias

import click
import numpy as np
import numpy.typing as npt
from openwakeword_heads import Recording, is_in, recordings_stream, speech_stream
from pyopen_wakeword import OpenWakeWord, OpenWakeWordFeatures

from kws.arrays import Samples
from kws.model_file import read_model
from kws.spotter import Spotter

Scores: TypeAlias = npt.NDArray[np.float32]

_CHUNK, _STEP_S = 1280, 0.08
_AUTOFILL_S = 8.0  # of zeros, before the audio of pyopen-wakeword
_WARM_S = 5.0


@click.command()
@click.argument("head", type=Path)
@click.argument("exported", type=Path)
@click.option("--data", type=Path, default=Path("data"), show_default=True)
@click.option("--recordings", type=Path, required=True)
@click.option("--python", "interpreter", type=Path, required=True)
@click.option("--hours", default=0.2, show_default=True)
def main(  # noqa: PLR0917  click passes them by name
    head: Path, exported: Path, data: Path, recordings: Path, interpreter: Path, hours: float
) -> None:
    """Print detections of each program, and how often they agree with kws."""
    manifest, _ = read_model(head)
    (keyword,) = manifest.keywords
    random = np.random.default_rng(1)
    said, spans = recordings_stream(recordings, [keyword], data / "noise/esc10", random)
    speech = speech_stream(data / "librispeech", [keyword], hours=hours, random=random)
    stream = np.concatenate((speech[: round(16_000 * _WARM_S)], said, speech))
    spans = [
        one._replace(start_s=one.start_s + _WARM_S, end_s=one.end_s + _WARM_S) for one in spans
    ]
    threshold = manifest.decision.threshold
    rest_s = manifest.decision.refractory_ms / 1000
    ours = [one.end_s + manifest.decision.delay_ms / 1000 for one in Spotter(head).listen(stream)]
    click.echo("| program | recordings | false alarms | as kws |")
    click.echo("|---|---|---|---|")
    found = {
        "kws": ours,
        "openwakeword 0.5.1, .onnx": _risen(
            _openwakeword(stream, exported.with_suffix(".onnx"), interpreter), threshold, rest_s
        ),
        "pyopen-wakeword, .tflite": _risen(_pyopen(stream, exported), threshold, rest_s),
    }
    expected = _outcomes(spans, ours)
    for name, ends_s in found.items():
        outcomes = _outcomes(spans, ends_s)
        n_false = sum(not any(is_in(one, [end_s]) for one in spans) for end_s in ends_s)
        same = np.mean(np.array(outcomes) == expected)
        click.echo(f"| {name} | {sum(outcomes)} of {len(spans)} | {n_false} | {same:.1%} |")


def _outcomes(spans: list[Recording], ends_s: list[float]) -> list[bool]:
    return [is_in(one, ends_s) for one in spans]


def _risen(scores: Scores, threshold: float, rest_s: float) -> list[float]:
    """Return the ends of the steps in which scores rise to the threshold."""
    ends_s: list[float] = []
    for step in np.flatnonzero(scores >= threshold):
        end_s = float(step + 1) * _STEP_S
        if not ends_s or end_s - ends_s[-1] >= rest_s:
            ends_s.append(end_s)
    return ends_s


def _openwakeword(stream: Samples, model: Path, interpreter: Path) -> Scores:
    script = Path(__file__).with_name("openwakeword_reference.py")
    with tempfile.TemporaryDirectory() as folder:
        audio, out = Path(folder) / "stream.npy", Path(folder) / "scores.npz"
        np.save(audio, stream)
        subprocess.run([interpreter, script, audio, out, model.resolve()], check=True)
        with np.load(out) as stored:
            scores: Scores = stored["scores"][:, 0]
    return scores


def _pyopen(stream: Samples, model: Path) -> Scores:
    """Return the scores of the steps of the stream; those of the zeros before it are left out."""
    features, head = OpenWakeWordFeatures.from_builtin(), OpenWakeWord.from_model(model)
    scores = [
        score
        for at in range(0, len(stream) - _CHUNK + 1, _CHUNK)
        for vectors in features.process_streaming(stream[at : at + _CHUNK].tobytes())
        for score in head.process_streaming(vectors)
    ]
    return np.array(scores[-(len(stream) // _CHUNK) :], np.float32)


if __name__ == "__main__":
    main()
