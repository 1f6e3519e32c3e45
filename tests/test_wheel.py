"""The wheel alone, in a clean environment away from the checkout, does what a user needs."""

import json
import os
import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.system]

ROOT = Path(__file__).parents[1]
UNWANTED = {"tensorflow", "keras", "scipy", "matplotlib", "joblib", "pocketsphinx", "pytest"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("dist")
    _run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", out, ROOT, cwd=out)
    (path,) = out.glob("kws-*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Return the folder of the programs of an environment that holds nothing but the wheel."""
    root = tmp_path_factory.mktemp("clean") / "venv"
    venv.create(root, with_pip=True)
    # Wheels only: a user's machine need not have a compiler.
    pip = (root / "bin/python", "-m", "pip", "install", "-q", "--only-binary", ":all:")
    _run(*pip, wheel, cwd=root)
    return root / "bin"


def test_the_wheel_holds_the_package_its_licence_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    info = f"{'-'.join(wheel.name.split('-')[:2])}.dist-info"
    assert {name.partition("/")[0] for name in names} == {"kws", "kws_train", "kws_export", info}
    assert {f"{info}/licenses/LICENSE", f"{info}/licenses/NOTICE"} <= names
    modules = {
        path.relative_to(ROOT / root).as_posix()
        for root, package in (("", "kws"), ("train", "kws_train"), ("export", "kws_export"))
        for path in (ROOT / root / package).rglob("*.py")
    }
    assert modules - names == set()
    assert {"kws_train/recipes/commands.toml", "kws/models/commands-small.tflite"} <= names
    assert "kws_train/own_word/pretrained.npz" in names
    assert {"kws/py.typed", "kws/ui/static/index.html", "kws/ui/static/app.js"} <= names


def test_the_runtime_brings_no_training_library(installed, tmp_path):
    listed = _run(installed / "python", "-m", "pip", "list", "--format", "json", cwd=tmp_path)
    packages = {package["name"].lower() for package in json.loads(listed)}
    assert "kws" in packages
    assert packages & UNWANTED == set()


def test_the_installed_command_plays_the_demonstration(installed, tmp_path):
    printed = _run(installed / "kws", "demo", cwd=tmp_path)
    totals = re.findall(r"(\d+) matched, (\d+) missed, (\d+) false; ", printed)
    assert len(totals) == 2, printed
    n_matched, n_missed, n_false = (int(number) for number in totals[0])
    assert totals[1] == ("7", "0", "0")
    assert n_matched + n_missed == 10
    assert n_matched >= 5
    assert n_false <= 5


def test_the_installed_command_listens_to_a_file(installed, tmp_path):
    code = "from kws.commands.demo import load_demo; print(load_demo()[1])"
    recording = _run(installed / "python", "-c", code, cwd=tmp_path).strip()
    assert Path(recording).is_relative_to(installed.parent)
    printed = _run(installed / "kws", "listen", "--input", recording, "--json", cwd=tmp_path)
    *events, end = [json.loads(line) for line in printed.splitlines()]
    detections = [event for event in events if event["event"] == "detection"]
    assert end["event"] == "end"
    assert end["detections"] == len(detections) > 0
    assert {event["model"] for event in detections} == {"commands"}


def test_a_command_of_the_workbench_says_which_extra_it_needs(installed, tmp_path):
    arguments = ("train", "--config", "recipe.toml", "--data", "data", "--out", "run")
    done = subprocess.run(
        [installed / "kws", *arguments],
        cwd=tmp_path,
        env=_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.endswith(f"Run `{installed / 'pip'} install 'kws[train]'`.\n")
    assert "Traceback" not in done.stderr


def _run(*command, cwd):
    """Return what the command printed; fail with what it complained of."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env=_environment(),
        capture_output=True,
        text=True,
        timeout=540,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _environment():
    """Nothing of the environment that runs the tests may leak into the clean one."""
    leaks = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}
    return {key: value for key, value in os.environ.items() if key not in leaks}
