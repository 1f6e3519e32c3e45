"""What a training keeps on disk so that nothing ends it for good, and what stops it.

A file is either whole or not there: weights are written beside their place and moved into it. A
full disk or Ctrl-C costs the epoch under way, no more.
"""

import csv
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import keras

from kws.errors import KwsError
from kws_train.atomic import replacing

__all__ = [
    "BACKUP",
    "HISTORY",
    "Backup",
    "FilesOf",
    "History",
    "KeepWeights",
    "NotFiniteError",
    "StopAtNaN",
    "StopEarly",
    "begun",
    "finish",
    "go_on",
    "is_finished",
    "save_whole",
    "write_whole",
]

BACKUP = "backup"
HISTORY = "history.csv"

FilesOf: TypeAlias = Callable[[int, int], Sequence[Path]]
"""From epoch and batch to the files that the batch is made of."""

_FINISHED = "finished"
_N_NAMED = 5
_BYTES_TO_A_VARIABLE = 2048
_NOT_FINITE = "not_finite.txt"


class NotFiniteError(KwsError):
    """A loss that is no number, or has no end."""


class History(keras.callbacks.Callback):
    """Write losses per epoch into history.csv, a row an epoch.

    Parameters
    ----------
    run : Path
    append : bool
        False begins the file anew.
    """

    def __init__(self, run: Path, *, append: bool) -> None:
        super().__init__()
        self.path, self.append = run / HISTORY, append

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Add a row."""
        row = {"epoch": epoch} | dict(sorted((logs or {}).items()))
        with self.path.open("a" if self.append else "w", encoding="utf-8", newline="") as file:
            rows = csv.DictWriter(file, list(row))
            if not self.append:
                rows.writeheader()
            rows.writerow(row)
        self.append = True


class KeepWeights(keras.callbacks.Callback):
    """Keep the weights of the epoch with the least validation loss, or of the last one.

    Parameters
    ----------
    path : Path
        Ends in `.weights.h5`.
    best_only : bool
    least : float, optional
        The least validation loss of the epochs before.
    """

    def __init__(self, path: Path, *, best_only: bool, least: float | None = None) -> None:
        super().__init__()
        self.path, self.best_only = path, best_only
        self.least = math.inf if least is None else least

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Save, if this epoch is the one to keep."""
        if self.best_only and logs["val_loss"] >= self.least:
            return
        self.least = logs["val_loss"]
        save_whole(self.model, self.path)


class Backup(keras.callbacks.Callback):
    """Keep the state of weights and optimiser after each epoch, until `finish` removes it.

    That of the epoch before is kept with it: the row of the newest in the history may be missing.
    """

    def __init__(self, run: Path) -> None:
        super().__init__()
        self.run = run

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Write this epoch's state, remove that of the epoch before the last."""
        (self.run / BACKUP).mkdir(exist_ok=True)
        save_whole(self.model, _state(self.run, epoch + 1))
        _state(self.run, epoch - 1).unlink(missing_ok=True)


class StopEarly(keras.callbacks.EarlyStopping):
    """Stop after so many epochs without a lower validation loss, those before a break included.

    Parameters
    ----------
    patience : int
        Epochs.
    before : sequence of float
        Validation losses of the epochs that an interrupted training goes on after.
    """

    def __init__(self, *, patience: int, before: Sequence[float] = ()) -> None:
        super().__init__(patience=patience)
        self.before = before

    def on_train_begin(self, logs: Any = None) -> None:
        """Count from the lowest loss so far."""
        super().on_train_begin(logs)
        if self.before:
            self.best = min(self.before)
            self.best_epoch = self.before.index(self.best)
            self.wait = len(self.before) - 1 - self.best_epoch


class StopAtNaN(keras.callbacks.Callback):
    """Stop at a loss that is not finite, and name the files that went into it.

    Parameters
    ----------
    run : Path
        Where the whole list of files goes.
    training, validation : function
        From epoch and batch to files.
    """

    def __init__(self, run: Path, *, training: FilesOf, validation: FilesOf) -> None:
        super().__init__()
        self.run, self.training, self.validation = run, training, validation
        self.epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Remember the epoch."""
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Look at the loss of a step.

        Raises
        ------
        NotFiniteError
            If it is not.
        """
        self._check("step", batch, logs, self.training)

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        """Look at the loss of a batch of validation.

        Raises
        ------
        NotFiniteError
            If it is not.
        """
        self._check("validation batch", batch, logs, self.validation)

    def _check(self, what: str, batch: int, logs: Any, files_of: FilesOf) -> None:
        loss = float((logs or {}).get("loss", 0.0))
        if math.isfinite(loss):
            return
        files = [str(path) for path in dict.fromkeys(files_of(self.epoch, batch))]
        (self.run / _NOT_FINITE).write_text("".join(f"{path}\n" for path in files))
        named = ", ".join(files[:_N_NAMED])
        more = f" and {len(files) - _N_NAMED} more" if len(files) > _N_NAMED else ""
        raise NotFiniteError(
            f"The loss must be finite. Received: {loss} at epoch {self.epoch + 1}, {what} "
            f"{batch + 1}, made of {named}{more}; {self.run / _NOT_FINITE} lists all. Look at "
            f"these files; if they are sound, lower `[fit] learning_rate`."
        )


def save_whole(model: keras.Model, path: Path) -> None:
    """Save the weights of a model; where that fails, what was there before stays.

    Raises
    ------
    KwsError
        If they cannot be written.
    """
    optimizer = model.optimizer.variables if model.optimizer else []
    variables = [*model.variables, *optimizer]
    n_bytes = sum(math.prod(variable.shape) * 8 + _BYTES_TO_A_VARIABLE for variable in variables)
    try:
        with replacing(path) as unfinished:
            # HDF5 crashes where it finds the disk full, so find out before.
            unfinished.write_bytes(bytes(n_bytes))
            model.save_weights(unfinished)
    except OSError as error:
        raise KwsError(
            f"Weights must be written to the run folder. Received: {error} for {path}. Make room "
            f"on the disk; the same command goes on after the last whole epoch."
        ) from error


def begun(run: Path) -> list[float]:
    """Return the validation losses of the epochs that an interrupted training goes on after.

    Later rows, whose state was not kept, are taken out of the history.
    """
    try:
        text = (run / HISTORY).read_bytes().decode()
    except OSError:
        return []
    lines = [line for line in text.splitlines(keepends=True) if line.endswith("\n")]
    kept = [int(path.name.split("-")[1].split(".")[0]) for path in _states(run)]
    n_epochs = max((n for n in kept if n < len(lines)), default=0)
    if not n_epochs:
        return []
    lines = lines[: n_epochs + 1]
    write_whole(run / HISTORY, "".join(lines))
    return [float(row["val_loss"]) for row in csv.DictReader(lines)]


def finish(run: Path) -> None:
    """Mark a training as finished, then remove what nobody goes on from any more."""
    (run / _FINISHED).touch()
    shutil.rmtree(run / BACKUP, ignore_errors=True)


def is_finished(run: Path) -> bool:
    """Tell whether the training of a run folder came to its end."""
    return (run / _FINISHED).is_file()


def go_on(model: keras.Model, run: Path, *, n_epochs: int) -> None:
    """Bring a compiled model into the state that it was in after so many epochs."""
    model.optimizer.build(model.trainable_variables)
    model.load_weights(_state(run, n_epochs))


def write_whole(path: Path, text: str) -> None:
    """Write a text file; where that fails, what was there before stays."""
    with replacing(path) as unfinished:
        unfinished.write_bytes(text.encode())


def _states(run: Path) -> list[Path]:
    return list((run / BACKUP).glob("epoch-*.weights.h5"))


def _state(run: Path, n_epochs: int) -> Path:
    return run / BACKUP / f"epoch-{n_epochs}.weights.h5"
