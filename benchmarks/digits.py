"""Measure a model of the recipe `digits`: the digits of the test set, alone and in a stream.

python benchmarks/digits.py MODEL --data data

The digits are 240 of the unknown words of the 12-class test set; its other 168 unknown words are
unknown here, too. Sentences with a word that sounds like a digit, such as *to* and *for*, are left
out of the stream.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from zoo import RECIPES, digit_clips

from kws_train.recipe import load_recipe


def main() -> None:
    """Print the output of `kws eval clips` and `kws eval stream`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path, default=Path("data"))
    options = parser.parse_args()
    recipe = load_recipe(RECIPES / "digits.toml")
    alike = {word for words in recipe.data.homophones.values() for word in words}
    command = [sys.executable, "-m", "kws", "eval"]
    with tempfile.TemporaryDirectory() as folder:
        test = digit_clips(options.data, Path(folder))
        subprocess.run([*command, "clips", options.model, test], check=True)
        stream = ["--keywords", test, "--background", options.data / "librispeech"]
        stream += [f"--without={word}" for word in sorted(alike)]
        stream += ["--noise", options.data / "noise/esc10", "--noise-pattern", "4-*"]
        stream += ["--snr-db", "inf", "--snr-db", "10", "--minutes", "30"]
        subprocess.run([*command, "stream", options.model, *map(str, stream)], check=True)


if __name__ == "__main__":
    main()
