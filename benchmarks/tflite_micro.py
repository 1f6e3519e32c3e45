"""Models of microWakeWord in TensorFlow Lite Micro itself: memory, and outputs beside those of kws.

python benchmarks/tflite_micro.py MODEL.tflite ... --python VENV/bin/python

VENV has the package tflite-micro (`pip install tflite-micro`): the interpreter of microcontrollers,
for Python on x86-64. Without MODEL, those of the package pymicro-wakeword are taken.
"""

import json
import re
import subprocess
import tempfile
from pathlib import Path

import click
import numpy as np
import pymicro_wakeword
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from kws_export.tensor_arena import tensor_arena_bytes

_N_CALLS = 500
_SCRIPT = """
import sys
import numpy as np
from tflite_micro.python.tflite_micro import runtime
model, inputs, outputs = sys.argv[1:]
interpreter = runtime.Interpreter.from_file(model, arena_size=1 << 20)
found = []
for frames in np.load(inputs):
    interpreter.set_input(frames, 0)
    interpreter.invoke()
    found.append(int(interpreter.get_output(0)[0, 0]))
np.save(outputs, np.array(found))
interpreter.print_allocations()
"""


@click.command()
@click.argument("models", nargs=-1, type=Path)
@click.option("--python", "python", type=Path, required=True)
def main(models: tuple[Path, ...], python: Path) -> None:
    """Print a row for each model."""
    folder = Path(pymicro_wakeword.__file__).parent / "models"
    click.echo("| model | measured | estimate | stated in the JSON | equal outputs |")
    click.echo("|---|---|---|---|---|")
    for path in models or sorted(folder.glob("*.tflite")):
        stated = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        estimate = tensor_arena_bytes(path.read_bytes())
        n_bytes, equal = _measured(path, python)
        click.echo(
            f"| {path.stem} | {n_bytes} | {estimate} | {stated['micro']['tensor_arena_size']} | "
            f"{equal:.2%} |"
        )


def _measured(path: Path, python: Path) -> tuple[int, float]:
    """Return the bytes of the arena that are used, and the share of equal outputs."""
    interpreter = Interpreter(str(path), experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
    interpreter.allocate_tensors()
    (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()
    random = np.random.default_rng(1)
    frames = random.integers(-128, 128, (_N_CALLS, *taken["shape"])).astype(np.int8)
    ours = []
    for one in frames:
        interpreter.set_tensor(taken["index"], one)
        interpreter.invoke()
        ours.append(int(interpreter.get_tensor(given["index"])[0, 0]))
    with tempfile.TemporaryDirectory() as folder:
        inputs, outputs = Path(folder) / "inputs.npy", Path(folder) / "outputs.npy"
        np.save(inputs, frames)
        command = [str(python), "-c", _SCRIPT, str(path), str(inputs), str(outputs)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        theirs = np.load(outputs)
    used = re.search(r"Arena allocation total (\d+) bytes", done.stdout + done.stderr)
    assert used, done.stderr
    return int(used[1]), float(np.mean(theirs == np.array(ours)))


if __name__ == "__main__":
    main()
