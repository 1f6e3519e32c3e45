"""Callbacks that save a training after each epoch or stop it, and resuming from what they saved.

All files are written atomically: a full disk or Ctrl-C loses the current epoch, no more.
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
    "BatchFiles",
    "CsvHistory",
    "EarlyStopping",
    "NonFiniteLossError",
    "StateCheckpoint",
    "StopOnNonFiniteLoss",
    "WeightsCheckpoint",
    "completed_epochs",
    "is_finished",
    "mark_finished",
    "resume",
    "save_weights",
    "write_text",
]

BACKUP = "backup"
HISTORY = "history.csv"

BatchFiles: TypeAlias = Callable[[int, int], Sequence[Path]]
"""From epoch and batch to the files that the batch was made of."""

_FINISHED = "finished"
_N_NAMED = 5
_BYTES_TO_A_VARIABLE = 2048
_NOT_FINITE = "not_finite.txt"


class NonFiniteLossError(KwsError):
    """A loss that is infinite or not a number."""


class CsvHistory(keras.callbacks.Callback):
    """Write the losses of each epoch as a row of history.csv.

    Parameters
    ----------
    run : Path
    append : bool
        False replaces the file.
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


class WeightsCheckpoint(keras.callbacks.Callback):
    """Save the weights of the epoch with the lowest validation loss, or of the last one.

    Parameters
    ----------
    path : Path
        Ends in `.weights.h5`.
    best_only : bool
    best : float, optional
        The lowest validation loss of the epochs completed before.
    """

    def __init__(self, path: Path, *, best_only: bool, best: float | None = None) -> None:
        super().__init__()
        self.path, self.best_only = path, best_only
        self.best = math.inf if best is None else best

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Save the weights, unless an earlier epoch was better."""
        if self.best_only and logs["val_loss"] >= self.best:
            return
        self.best = logs["val_loss"]
        save_weights(self.model, self.path)


class StateCheckpoint(keras.callbacks.Callback):
    """Save the state of weights and optimiser after each epoch; `mark_finished` removes it.

    The last two states are kept, because the newest may be missing its row in the history.
    """

    def __init__(self, run: Path) -> None:
        super().__init__()
        self.run = run

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Save the state of this epoch; remove the one of two epochs ago."""
        (self.run / BACKUP).mkdir(exist_ok=True)
        save_weights(self.model, _state(self.run, epoch + 1))
        _state(self.run, epoch - 1).unlink(missing_ok=True)


class EarlyStopping(keras.callbacks.EarlyStopping):
    """Keras's early stopping on the validation loss, continued across an interruption.

    Parameters
    ----------
    patience : int
        Epochs.
    completed : sequence of float
        Validation losses of the epochs completed before the interruption.
    """

    def __init__(self, *, patience: int, completed: Sequence[float] = ()) -> None:
        super().__init__(patience=patience)
        self.completed = completed

    def on_train_begin(self, logs: Any = None) -> None:
        """Count epochs since the lowest loss so far."""
        super().on_train_begin(logs)
        if self.completed:
            self.best = min(self.completed)
            self.best_epoch = self.completed.index(self.best)
            self.wait = len(self.completed) - 1 - self.best_epoch


class StopOnNonFiniteLoss(keras.callbacks.Callback):
    """Stop at a loss that is not finite, and name the files that the batch was made of.

    Parameters
    ----------
    run : Path
        The folder for the complete list of files.
    training, validation : function
        From epoch and batch to files.
    """

    def __init__(self, run: Path, *, training: BatchFiles, validation: BatchFiles) -> None:
        super().__init__()
        self.run, self.training, self.validation = run, training, validation
        self.epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Store the number of the epoch."""
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Check the loss of a training step.

        Raises
        ------
        NonFiniteLossError
            If it is infinite or not a number.
        """
        self._check("step", batch, logs, self.training)

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        """Check the loss of a validation batch.

        Raises
        ------
        NonFiniteLossError
            If it is infinite or not a number.
        """
        self._check("validation batch", batch, logs, self.validation)

    def _check(self, what: str, batch: int, logs: Any, files_of: BatchFiles) -> None:
        loss = float((logs or {}).get("loss", 0.0))
        if math.isfinite(loss):
            return
        files = [str(path) for path in dict.fromkeys(files_of(self.epoch, batch))]
        (self.run / _NOT_FINITE).write_text("".join(f"{path}\n" for path in files))
        named = ", ".join(files[:_N_NAMED])
        more = f" and {len(files) - _N_NAMED} more" if len(files) > _N_NAMED else ""
        raise NonFiniteLossError(
            f"The loss must be finite. Received: {loss} at epoch {self.epoch + 1}, {what} "
            f"{batch + 1}, made of {named}{more}; {self.run / _NOT_FINITE} lists all. Check these "
            f"files; if they are valid audio, lower `[fit] learning_rate`. {self._last_good()}"
        )

    def _last_good(self) -> str:
        """Say what is left of the training."""
        if not completed_epochs(self.run):
            return "No epoch was complete, so no weights are kept."
        return f"The weights after epoch {self.epoch} are kept in {self.run}."


def save_weights(model: keras.Model, path: Path) -> None:
    """Save the weights and optimiser state of a model atomically.

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
            # HDF5 crashes on a full disk, so reserve the space first.
            unfinished.write_bytes(bytes(n_bytes))
            model.save_weights(unfinished)
    except OSError as error:
        raise KwsError(
            f"The weights could not be written: {error} ({path}). Free disk space; the same "
            f"command resumes after the last completed epoch."
        ) from error


def completed_epochs(run: Path) -> list[float]:
    """Return the validation losses of the epochs that an interrupted training can resume after.

    Removes later rows from the history, whose state was not saved.
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
    write_text(run / HISTORY, "".join(lines))
    return [float(row["val_loss"]) for row in csv.DictReader(lines)]


def mark_finished(run: Path) -> None:
    """Mark a training as finished, then remove the state to resume from."""
    (run / _FINISHED).touch()
    shutil.rmtree(run / BACKUP, ignore_errors=True)


def is_finished(run: Path) -> bool:
    """Return whether the training of a run folder has finished."""
    return (run / _FINISHED).is_file()


def resume(model: keras.Model, run: Path, *, n_epochs: int) -> None:
    """Load the state of a compiled model after `n_epochs` completed epochs."""
    model.optimizer.build(model.trainable_variables)
    model.load_weights(_state(run, n_epochs))


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with replacing(path) as unfinished:
        unfinished.write_bytes(text.encode())


def _states(run: Path) -> list[Path]:
    return list((run / BACKUP).glob("epoch-*.weights.h5"))


def _state(run: Path, n_epochs: int) -> Path:
    return run / BACKUP / f"epoch-{n_epochs}.weights.h5"
