"""The network that every training of `kws new` begins with: the bundled one, in 16-bit floats.

`python -m kws.new.backbone RUN` packs the weights of a run folder, such as that of `commands`.
"""

import json
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from kws.train import zoo
from kws.train.fit import labels_of, restore
from kws.train.settings import Recipe

__all__ = ["pack", "recipe_of_backbone", "unpack"]

_PACKED = Path(str(files("kws.new"))) / "backbone.npz"


def pack(run: Path, out: Path = _PACKED) -> None:
    """Write the weights of a run folder, its recipe and its statistics into one file."""
    model, recipe = restore(run)
    mean, std = model.statistics
    settings = {"recipe": msgspec.to_builtins(recipe), "mean": mean, "std": std}
    weights = {f"{i:03d}": np.array(one, np.float16) for i, one in enumerate(model.weights)}
    np.savez_compressed(out, settings=np.array(json.dumps(settings)), **weights)


def unpack(run: Path) -> Path:
    """Make a run folder of what was packed, if it is not there; return it."""
    settings = run / "settings.json"
    if settings.is_file():
        return run
    packed = np.load(_PACKED)
    recipe, mean, std = _settings(packed)
    model = zoo.build(recipe.model, n_labels=len(labels_of(recipe)), mean=mean, std=std)
    for i, weight in enumerate(model.weights):
        weight.assign(packed[f"{i:03d}"].astype(np.float32))
    run.mkdir(parents=True, exist_ok=True)
    model.save_weights(run / "model.weights.h5")
    settings.write_text(str(packed["settings"]), encoding="utf-8")
    return run


def recipe_of_backbone() -> Recipe:
    """Return the recipe that the packed weights were trained by."""
    return _settings(np.load(_PACKED))[0]


def _settings(packed: Any) -> tuple[Recipe, list[float], list[float]]:
    settings = json.loads(str(packed["settings"]))
    return msgspec.convert(settings["recipe"], Recipe), settings["mean"], settings["std"]


if __name__ == "__main__":
    pack(Path(sys.argv[1]))
