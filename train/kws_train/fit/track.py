"""Losses per epoch sent to Weights & Biases, for those who ask for it."""

from pathlib import Path
from typing import Any

import keras
import msgspec

from kws.errors import ConfigError
from kws_train.optional import load_library
from kws_train.recipe import Recipe

__all__ = ["Track"]


class Track(keras.callbacks.Callback):
    """Log each epoch, stage after stage, as one run of a Weights & Biases project.

    With WANDB_MODE=offline nothing leaves the machine; what is to be sent lies in the run folder.

    Parameters
    ----------
    project : str
    recipe : Recipe
        Logged as the run's settings.
    run : Path
        The run folder, whose name the run gets.

    Raises
    ------
    ConfigError
        If wandb is not installed or nobody is logged in.
    """

    def __init__(self, project: str, *, recipe: Recipe, run: Path) -> None:
        super().__init__()
        wandb = load_library("wandb", purpose="--wandb")
        run.mkdir(parents=True, exist_ok=True)
        try:
            self._run = wandb.init(
                project=project, name=run.name, dir=str(run), config=msgspec.to_builtins(recipe)
            )
        except wandb.errors.Error as error:
            raise ConfigError(
                f"--wandb needs an account, or WANDB_MODE=offline. Received: {error}. Run `wandb "
                f"login`, or set that variable."
            ) from error

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Log the losses of an epoch."""
        self._run.log({"epoch": epoch} | dict(logs or {}))

    def close(self) -> None:
        """Send what is left."""
        self._run.finish()
