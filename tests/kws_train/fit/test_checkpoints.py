"""What is kept on disk is whole, whatever happens while it is written."""

import contextlib
import re
import resource

import numpy as np
import pytest

from kws.errors import KwsError

pytestmark = pytest.mark.slow  # TensorFlow has to be imported

HEADER = "epoch,loss,val_loss\r\n"


@pytest.fixture(scope="module")
def checkpoints(tensorflow):
    from kws_train.fit import checkpoints

    return checkpoints


@pytest.fixture
def model(tensorflow):
    keras = tensorflow.keras
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(40)])
    model.compile(optimizer="adam", loss="mse")
    model.optimizer.build(model.trainable_variables)
    return model


@contextlib.contextmanager
def full_disk():
    """No file may grow above a kilobyte; not even that which the tests' report goes to."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_said_and_costs_no_weights(checkpoints, model, tmp_path):
    path = tmp_path / "a.weights.h5"
    path.write_bytes(b"as it was")
    message = (
        f"The weights could not be written: [Errno 27] File too large ({path}). Free disk space; "
        f"the same command resumes after the last completed epoch."
    )
    with full_disk(), pytest.raises(KwsError, match=f"^{re.escape(message)}$"):
        checkpoints.save_weights(model, path)
    assert path.read_bytes() == b"as it was"
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_reserved_on_the_disk_is_enough(checkpoints, model, tmp_path, monkeypatch):
    sizes = []
    save = type(model).save_weights

    def measured(self, path):
        sizes.append(path.stat().st_size)
        save(self, path)

    monkeypatch.setattr(type(model), "save_weights", measured)
    checkpoints.save_weights(model, tmp_path / "a.weights.h5")
    assert (tmp_path / "a.weights.h5").stat().st_size <= sizes[0]


def test_the_history_has_a_row_an_epoch_and_is_added_to_or_begun_anew(checkpoints, tmp_path):
    for append, n_rows in ((False, 2), (True, 4), (False, 2)):
        history = checkpoints.CsvHistory(tmp_path, append=append)
        history.on_epoch_end(0, {"val_loss": 0.5, "loss": 1.0})
        history.on_epoch_end(1, {"val_loss": 0.25, "loss": 0.75})
        text = (tmp_path / "history.csv").read_bytes().decode()
        assert text == HEADER + "0,1.0,0.5\r\n1,0.75,0.25\r\n" * (n_rows // 2)


def keep(checkpoints, model, path, *, best_only, least=None):
    kept = checkpoints.WeightsCheckpoint(path, best_only=best_only, best=least)
    kept.set_model(model)
    return kept


@pytest.mark.parametrize(
    ("best_only", "least", "epochs"),
    [(True, None, [0, 2]), (True, 0.4, [2]), (False, None, [0, 1, 2, 3])],
)
def test_weights_are_kept_of_the_best_epoch_or_the_last(
    checkpoints, model, tmp_path, best_only, least, epochs
):
    path = tmp_path / "a.weights.h5"
    kept = keep(checkpoints, model, path, best_only=best_only, least=least)
    saved = []
    for epoch, loss in enumerate((0.5, 0.6, 0.3, 0.3)):
        kept.on_epoch_end(epoch, {"val_loss": loss})
        if path.is_file():
            saved.append(epoch)
            path.unlink()
    assert saved == epochs


def backup(checkpoints, model, run, n_epochs):
    kept = checkpoints.StateCheckpoint(run)
    kept.set_model(model)
    for epoch in range(n_epochs):
        model.layers[0].bias.assign(np.full(40, float(epoch + 1)))
        kept.on_epoch_end(epoch)
    return kept


def test_two_epochs_are_backed_up_until_training_ends(checkpoints, model, tmp_path):
    kept = backup(checkpoints, model, tmp_path, 4)
    names = {path.name for path in (tmp_path / "backup").iterdir()}
    assert names == {"epoch-3.weights.h5", "epoch-4.weights.h5"}
    kept.on_train_end()
    assert (tmp_path / "backup").is_dir()
    assert not checkpoints.is_finished(tmp_path)
    checkpoints.mark_finished(tmp_path)
    assert not (tmp_path / "backup").exists()
    assert checkpoints.is_finished(tmp_path)


@pytest.mark.parametrize(
    ("rows", "losses"),
    [
        (["0,1,.9", "1,1,.8", "2,1,.7"], [0.9, 0.8, 0.7]),
        (["0,1,.9", "1,1,.8"], [0.9, 0.8]),
        (["0,1,.9", "1,1,.8", "2,1,.7", "3,1,.6"], [0.9, 0.8, 0.7]),
        (["0,1,.9"], []),
    ],
    ids=["whole", "row missing", "state missing", "nothing in common"],
)
def test_a_training_goes_on_where_history_and_state_agree(
    checkpoints, model, tmp_path, rows, losses
):
    backup(checkpoints, model, tmp_path, 3)
    history = tmp_path / "history.csv"
    history.write_bytes((HEADER + "\r\n".join(rows) + "\r\n").encode())
    assert checkpoints.completed_epochs(tmp_path) == losses
    if not losses:
        return
    kept = "".join(f"{row}\r\n" for row in rows[: len(losses)])
    assert history.read_bytes() == (HEADER + kept).encode()
    checkpoints.resume(model, tmp_path, n_epochs=len(losses))
    assert np.all(np.asarray(model.layers[0].bias) == len(losses))


def test_a_row_cut_short_is_no_row(checkpoints, model, tmp_path):
    backup(checkpoints, model, tmp_path, 2)
    (tmp_path / "history.csv").write_bytes(f"{HEADER}0,1,.9\r\n1,1".encode())
    assert checkpoints.completed_epochs(tmp_path) == [0.9]


@pytest.mark.parametrize("missing", ["history.csv", "backup"])
def test_without_history_or_state_a_training_begins_anew(checkpoints, model, tmp_path, missing):
    if missing == "history.csv":
        backup(checkpoints, model, tmp_path, 1)
    else:
        (tmp_path / "history.csv").write_text(f"{HEADER}0,1,.9\r\n", newline="")
    assert checkpoints.completed_epochs(tmp_path) == []


@pytest.mark.parametrize(
    ("hook", "what"),
    [("on_train_batch_end", "step 18"), ("on_test_batch_end", "validation batch 18")],
)
def test_a_loss_that_is_not_finite_names_the_files_of_its_batch(checkpoints, tmp_path, hook, what):
    asked = []
    files = [tmp_path / f"{i}.wav" for i in (3, 1, 2, 3, 4, 5, 6)]

    def files_of(epoch, batch):
        asked.append((epoch, batch))
        return files

    stop = checkpoints.StopOnNonFiniteLoss(tmp_path, training=files_of, validation=files_of)
    stop.on_epoch_begin(2)
    getattr(stop, hook)(16, {"loss": 1.5})
    assert asked == []
    named = ", ".join(str(tmp_path / f"{i}.wav") for i in (3, 1, 2, 4, 5))
    message = (
        f"The loss must be finite. Received: nan at epoch 3, {what}, made of {named} and 1 more; "
        f"{tmp_path / 'not_finite.txt'} lists all. Check these files; if they are valid "
        f"audio, lower `[fit] learning_rate`. No epoch was complete, so no weights are kept."
    )
    with pytest.raises(KwsError, match=f"^{re.escape(message)}$"):
        getattr(stop, hook)(17, {"loss": float("nan")})
    assert asked == [(2, 17)]
    listed = (tmp_path / "not_finite.txt").read_text().splitlines()
    assert listed == [str(path) for path in dict.fromkeys(files)]


def test_a_loss_that_is_not_finite_names_the_weights_that_are_kept(
    checkpoints, tmp_path, monkeypatch
):
    monkeypatch.setattr(checkpoints, "completed_epochs", lambda _run: [0.5, 0.4])
    stop = checkpoints.StopOnNonFiniteLoss(
        tmp_path, training=lambda _epoch, _batch: [], validation=lambda _epoch, _batch: []
    )
    stop.on_epoch_begin(2)
    kept = f"The weights after epoch 2 are kept in {tmp_path}."
    with pytest.raises(KwsError, match=f"{re.escape(kept)}$"):
        stop.on_train_batch_end(0, {"loss": float("inf")})


@pytest.mark.parametrize(
    ("before", "further", "n_epochs"),
    [
        ([], [1.0, 2.0, 2.0, 2.0, 2.0], 4),
        ([1.0, 2.0], [2.0, 2.0, 2.0], 2),
        ([2.0, 1.0], [0.5, 2.0, 2.0, 2.0, 2.0], 4),
        ([1.0, 2.0], [1.5, 1.5, 0.5], 2),
    ],
    ids=["unbroken", "waited before the break", "better after it", "not better after it"],
)
def test_patience_lasts_over_a_break(checkpoints, model, before, further, n_epochs):
    stop = checkpoints.EarlyStopping(patience=3, completed=before)
    stop.set_model(model)
    model.stop_training = False
    stop.on_train_begin()
    ran = 0
    while not model.stop_training:
        stop.on_epoch_end(len(before) + ran, {"val_loss": further[ran]})
        ran += 1
    assert ran == n_epochs
