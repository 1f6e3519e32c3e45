"""From a request to a model that runs, through all stages, each shortened."""

import hashlib
import json
import re

import numpy as np
import pytest
import soundfile
from msgspec.structs import replace

from kws.manifest import read_manifest
from kws.model import open_model
from kws.model_file import read_model
from kws.run_progress import is_running, read_progress
from kws.spotter import Spotter
from kws_export import head as exported_head
from kws_train.atomic import link
from kws_train.fit.vector_windows import VectorFit
from kws_train.own_word import fine_tuning, head, micro, prepare, recipe, time_budget, word_vectors
from kws_train.own_word.figures import describe_figures
from kws_train.own_word.fine_tuning import fine_tune_word
from kws_train.own_word.pipeline import build_word_model
from kws_train.own_word.workspace import Request, Workspace

RATE_HZ = 16_000


class Buzzer:
    """Says each text with formants of its own; 24 voices differ in pitch."""

    name, version, n_voices = "buzzer", "1", 24

    def draw_voice(self, random: np.random.Generator, /) -> str:
        return f"voice{random.integers(self.n_voices)}"

    def speak(self, line, /) -> np.ndarray:
        text = "".join(filter(str.isalpha, line.text.lower()))
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4])
        formants_hz = np.random.default_rng(seed).uniform(300, 3000, 2)
        return buzz(80 + 7 * int(line.voice[5:]), formants_hz, seconds=0.6 / line.speed)


def buzz(pitch_hz: float, formants_hz: np.ndarray, *, seconds: float) -> np.ndarray:
    t = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    wave = np.zeros(len(t))
    for k in range(1, int(4000 / pitch_hz)):
        near = np.exp(-(((k * pitch_hz - formants_hz) / 150) ** 2)).sum()
        wave += (near + 0.02) * np.sin(2 * np.pi * k * pitch_hz * t)
    return (12_000 * wave / np.abs(wave).max()).astype(np.int16)


@pytest.fixture
def shortened(monkeypatch):
    """Three stages of an epoch of few scenes."""
    monkeypatch.setattr(recipe, "_EPOCHS", (2, 1, 1))
    monkeypatch.setattr(recipe, "_BATCH", 16)
    monkeypatch.setattr(time_budget, "_SCENES_PER_EPOCH", (64, 64))
    monkeypatch.setattr(time_budget, "_N_PROBE_BATCHES", 2)
    monkeypatch.setattr(prepare, "_N_SENTENCES", 60)


@pytest.fixture
def speech(tmp_path):
    """Five minutes of buzzing, a file a minute."""
    random = np.random.default_rng(1)
    folder = tmp_path / "radio"
    folder.mkdir()
    for i in range(5):
        words = [
            buzz(random.uniform(80, 250), random.uniform(300, 3000, 2), seconds=0.5)
            for _ in range(60)
        ]
        pauses = np.zeros(RATE_HZ // 2, np.int16)
        samples = np.concatenate([part for word in words for part in (word, pauses)])
        soundfile.write(folder / f"{i:02d}.flac", samples, RATE_HZ)
    return folder


@pytest.mark.slow
def test_text_becomes_a_model_with_figures_and_a_report(tmp_path, shortened, speech, capfd):
    said: list[str] = []
    request = Request(
        phrases=("hey robot", "Lights out"), speech=(speech,), minutes=1, n_clips=60, small=True
    )
    workspace = Workspace(tmp_path / "work", notify=said.append)
    everything = {"out": tmp_path / "robot.tflite", "workspace": workspace}
    everything |= {"engines": [Buzzer()], "cache": tmp_path / "cache"}
    result = build_word_model(request, **everything)
    assert "loss:" not in capfd.readouterr().out
    assert any(line.startswith("  epoch 4 of 4: ") for line in said)
    progress = read_progress(workspace.folder)
    assert list(progress.stages)[-1] == progress.stage == "report"
    assert not is_running(workspace.folder)

    manifest, _ = read_manifest(result.model)
    assert manifest.keywords == ("hey_robot", "lights_out")
    assert [point.false_alarms_per_hour for point in manifest.calibration][:4] == [0.1, 0.2, 0.5, 1]
    figures = result.figures
    assert set(figures.points) == {"clean", "10 dB"}
    assert figures.tested_on == "held-out synthetic voices; expect more misses with people"
    assert 0.3 <= figures.thresholds["hey_robot"] < 1
    assert figures.n_bytes == result.model.stat().st_size < 100_000
    assert "no noise given: white, pink and brown noise are used" in said
    assert {"hey_robot", "lights_out"} <= {folder.name for folder in workspace.test_clips.iterdir()}
    assert "lights_out" in result.report.read_text(encoding="utf-8")
    assert 0 < figures.minutes < 10
    text = describe_figures(figures, model=result.model, report=result.report)
    assert "false_alarms_per_hour = 0.5" in text
    Spotter(open_model(result.model)).process(np.zeros(RATE_HZ, np.int16))

    spoken = list((tmp_path / "cache").rglob("*.flac"))
    weights = (workspace.run / "model.weights.h5").stat().st_mtime_ns
    result.model.unlink()
    again = build_word_model(request, **everything)
    assert said[-1] == "already finished: nothing to do"
    assert again.figures == figures
    assert again.model.stat().st_size == figures.n_bytes

    # After an interruption in the evaluation, the stages before keep their results.
    workspace.figures.unlink()
    exported = workspace.exported.stat().st_mtime_ns
    n_messages = len(said)
    again = build_word_model(request, **everything)
    assert (workspace.run / "model.weights.h5").stat().st_mtime_ns == weights
    assert list((tmp_path / "cache").rglob("*.flac")) == spoken
    assert workspace.exported.stat().st_mtime_ns == exported
    assert "measuring on held-out words and speech" in said[n_messages:]
    assert said[-1].startswith("7 of 7, report: ")
    assert not any("calibrating" in line for line in said[n_messages:])
    assert again.figures.points == figures.points


@pytest.mark.slow
def test_text_becomes_a_head_on_the_speech_embedding(tmp_path, speech, monkeypatch):
    monkeypatch.setattr(head, "VectorFit", lambda: VectorFit(epochs=2, batches=10, n_hard=20))
    monkeypatch.setattr(word_vectors, "_N_SCENES", (60, 60))
    said: list[str] = []
    request = Request(phrases=("hey robot", "Lights out"), speech=(speech,), minutes=1, n_clips=40)
    everything = {
        "engines": [Buzzer()],
        "cache": tmp_path / "cache",
        "vectors": tmp_path / "vectors",
        "out": tmp_path / "robot.tflite",
    }
    workspace = Workspace(tmp_path / "work", notify=said.append)
    result = build_word_model(request, workspace=workspace, **everything)

    manifest, _ = read_manifest(result.model)
    assert manifest.labels == ("_unknown_", "hey_robot", "lights_out")
    assert manifest.takes.name == "speech_embedding"
    assert manifest.decision.smoothing_ms == 640
    assert [point.false_alarms_per_hour for point in manifest.calibration][:4] == [0.1, 0.2, 0.5, 1]
    assert set(result.figures.points) == {"clean", "10 dB"}
    assert "lights_out" in result.report.read_text(encoding="utf-8")
    Spotter(open_model(result.model)).process(np.zeros(RATE_HZ, np.int16))

    # With time left and recordings to compare on, both are fine-tuned as one network.
    longer = replace(request, minutes=9)
    fine_tune_word(longer, workspace, vectors=tmp_path / "vectors")
    assert not workspace.fine_tuning.exists()
    for path in (workspace.synthetic / "validation" / "hey_robot").iterdir():
        link(path, workspace.recordings / "validation" / "hey_robot" / path.name)
    monkeypatch.setattr(fine_tuning, "FEWEST_RECORDINGS", 1)
    monkeypatch.setattr(fine_tuning._Training, "seconds_per_batch", lambda self: 300.0)
    monkeypatch.setattr(exported_head, "MIN_AGREEMENT", 1.01)
    fine_tune_word(longer, workspace, vectors=tmp_path / "vectors")
    assert said[-1].startswith("the fine-tuned network is not used, the head stays: An exported")
    workspace.fine_tuning.unlink()
    monkeypatch.setattr(exported_head, "MIN_AGREEMENT", 0.5)  # it was trained for two batches
    fine_tune_word(longer, workspace, vectors=tmp_path / "vectors")
    assert re.match(r"recordings missed among unknown speakers, clean / 10 dB: .* kept$", said[-1])
    assert set(json.loads(workspace.fine_tuning.read_text())) == {"head", "fine-tuned"}
    whole, content = read_manifest(workspace.fine_tuned)
    assert (whole.takes, whole.labels) == (None, manifest.labels)
    assert (whole.n_frames, whole.call_ms, whole.context_frames) == (8, 80, 172)
    assert len(content) > 300_000
    Spotter(open_model(workspace.fine_tuned)).process(np.zeros(RATE_HZ, np.int16))

    # A second word embeds no speech again.
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "vectors").rglob("*.npy")}
    build_word_model(
        replace(request, phrases=("Go home",)),
        workspace=Workspace(tmp_path / "second", notify=said.append),
        **everything | {"out": tmp_path / "home.tflite"},
    )
    now = {path: path.stat().st_mtime_ns for path in (tmp_path / "vectors").rglob("*.npy")}
    assert now | kept == now
    embedded = [line for line in said if re.match(r"preparing \d+ scenes", line)]
    n_scenes = sum(int(line.split()[1]) for line in embedded[2:])
    assert len(now) - len(kept) <= n_scenes


@pytest.mark.slow
def test_text_becomes_a_network_for_esphome(tmp_path, speech, monkeypatch):
    pytest.importorskip("pymicro_features")
    monkeypatch.setattr(micro, "_EPOCHS", 2)
    monkeypatch.setattr(micro, "_BATCHES_PER_MINUTE", 20)
    monkeypatch.setattr(word_vectors, "_N_SCENES", (60, 60))
    said: list[str] = []
    request = Request(
        phrases=("Hey robot",), speech=(speech,), minutes=1, n_clips=40, format="microwakeword"
    )
    everything = {
        "engines": [Buzzer()],
        "cache": tmp_path / "cache",
        "vectors": tmp_path / "vectors",
        "out": tmp_path / "out/robot.tflite",
        "workspace": Workspace(tmp_path / "work", notify=said.append),
    }
    result = build_word_model(request, **everything)
    stated = json.loads(result.model.with_suffix(".json").read_text(encoding="utf-8"))
    assert (stated["wake_word"], stated["model"]) == ("hey robot", "robot.tflite")
    manifest, _ = read_model(result.model)
    assert manifest.keywords == ("hey_robot",)
    figures = result.figures
    cutoff = stated["micro"]["probability_cutoff"]
    assert figures.thresholds["hey_robot"] == pytest.approx(cutoff, abs=1e-6)
    assert figures.n_bytes == result.model.stat().st_size < 100_000
    assert set(figures.points) == {"clean", "10 dB"}
    assert figures.points["clean"][-1].threshold == pytest.approx(cutoff, abs=1e-6)
    assert "hey_robot" in result.report.read_text(encoding="utf-8")
    assert any(line.startswith("  epoch 2 of 2: ") for line in said)

    # A finished folder gives the files again.
    result.model.unlink()
    result.model.with_suffix(".json").unlink()
    assert build_word_model(request, **everything).figures == figures
    assert read_model(result.model)[0] == manifest


@pytest.mark.slow
def test_recordings_alone_will_do_in_any_language(tmp_path, shortened, speech):
    for i in range(12):
        word = buzz(90 + 10 * i, np.array([500.0, 1800.0]), seconds=0.6)
        quiet = np.random.default_rng(i).normal(0, 5, RATE_HZ // 3).astype(np.int16)
        path = tmp_path / "recordings" / f"{i:02d}.wav"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, np.concatenate((quiet, word, quiet)), RATE_HZ)
    said: list[str] = []
    request = Request(
        phrases=("schön",),
        language="de",
        recordings=path.parent,
        speech=(speech,),
        minutes=1,
        small=True,
    )
    result = build_word_model(
        request,
        out=tmp_path / "a.tflite",
        workspace=Workspace(tmp_path / "work", notify=said.append),
        engines=[],
    )
    assert result.figures.keywords == ("schön",)
    assert result.figures.tested_on == "held-out recordings"
    assert result.figures.n_words == 2
    assert any(line.endswith("9 for train, 1 for validation, 2 for test") for line in said)
