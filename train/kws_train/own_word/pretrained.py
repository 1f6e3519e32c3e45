"""The pretrained network that `kws new` fine-tunes, packed in one file of 16-bit floats.

It is the bundled `commands-small` before the last stage of its recipe. `python -m
kws_train.own_word.pretrained pack RUN FILE` packs a run folder, `unpack RUN FILE` restores one.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from kws_train.fit.training import restore
from kws_train.networks import architectures
from kws_train.recipe import Recipe

__all__ = ["pack_run", "pretrained_recipe", "unpack_run"]

_PACKED = Path(__file__).with_name("pretrained.npz")


def pack_run(run: Path, out: Path = _PACKED) -> None:
    """Write the weights, the recipe and the feature statistics of a run folder to one file."""
    model, recipe = restore(run)
    mean, std = model.statistics
    settings = {"recipe": msgspec.to_builtins(recipe), "mean": mean, "std": std}
    content: dict[str, Any] = {"settings": np.array(json.dumps(settings))}
    for i, weight in enumerate(model.weights):
        content[f"{i:03d}"] = np.array(weight, np.float16)
    np.savez_compressed(out, **content)


def unpack_run(run: Path, packed_in: Path = _PACKED) -> Path:
    """Restore a packed run folder, unless it exists; return it."""
    settings = run / "settings.json"
    if settings.is_file():
        return run
    packed = np.load(packed_in)
    recipe, mean, std = _settings(packed)
    model = architectures.build(recipe.model, n_labels=len(recipe.labels), mean=mean, std=std)
    for i, weight in enumerate(model.weights):
        weight.assign(packed[f"{i:03d}"].astype(np.float32))
    run.mkdir(parents=True, exist_ok=True)
    model.save_weights(run / "model.weights.h5")
    settings.write_text(str(packed["settings"]), encoding="utf-8")
    return run


def pretrained_recipe() -> Recipe:
    """Return the recipe of the pretrained network."""
    return _settings(np.load(_PACKED))[0]


def _settings(packed: Any) -> tuple[Recipe, list[float], list[float]]:
    settings = json.loads(str(packed["settings"]))
    return msgspec.convert(settings["recipe"], Recipe), settings["mean"], settings["std"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["pack", "unpack"])
    parser.add_argument("paths", type=Path, nargs=2, metavar=("RUN", "FILE"))
    options = parser.parse_args()
    {"pack": pack_run, "unpack": unpack_run}[options.what](*options.paths)
