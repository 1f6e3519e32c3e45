"""The documentation says what the code does: commands, options, keys, defaults, links."""

import inspect
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import msgspec
import numpy as np
import pytest
import soundfile

import kws
import kws.config as runtime
import kws_train.recipe as recipes
from kws.cli import cli
from kws.commands.demo import load_demo
from kws.config import load_config, parse_config
from kws.events import Detection, Peak, to_json
from kws.manifest import DataSource, DecisionDefaults, FeatureSettings

ROOT = Path(__file__).parents[1]
DEBIAN = ROOT / "deploy" / "debian"
OF_PROJECT = ("README", "CONTRIBUTING", "SECURITY", "GOVERNANCE", "CODE_OF_CONDUCT")
PAGES = [*(ROOT / f"{name}.md" for name in OF_PROJECT), *sorted((ROOT / "docs").rglob("*.md"))]
CONFIGURATION = {
    "[model]": runtime.ModelSettings,
    "[[models]]": runtime.ListenerSettings,
    "[source] and [[sources]]": runtime.SourceSettings,
    "[gate]": runtime.GateSettings,
    "[decision]": runtime.DecisionSettings,
    "[[hooks]]": runtime.HookSettings,
    "[recording]": runtime.RecordingSettings,
    "[daemon]": runtime.DaemonSettings,
    "[wyoming]": runtime.WyomingSettings,
    "[mqtt]": runtime.MqttSettings,
    "[ui]": runtime.UiSettings,
}
TRAINING = {
    "Top level": recipes.Recipe,
    "[data]": recipes.DataRecipe,
    "[[data.words]]": recipes.WordCorpus,
    "[[data.speech]]": recipes.SpeechCorpus,
    "[[data.sources]]": DataSource,
    "[features]": FeatureSettings,
    **recipes.MODEL_RECIPES,
    "[augment]": recipes.AugmentRecipe,
    "[fit]": recipes.FitRecipe,
    "[search]": recipes.SearchRange,
    "[decision]": DecisionDefaults,
}


def test_every_key_of_kws_toml_is_explained_with_its_default():
    page = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")
    assert _documented(page, CONFIGURATION) == _defined(CONFIGURATION)
    named = {name for heading in CONFIGURATION for name in re.findall(r"\[([a-z]+)\]", heading)}
    assert named == set(runtime.Config.__struct_fields__)


def test_every_key_of_a_recipe_is_explained_with_its_default():
    page = (ROOT / "docs/training.md").read_text(encoding="utf-8")
    assert _documented(page, TRAINING) == _defined(TRAINING)


def test_the_page_of_commands_is_what_the_commands_say():
    # In a fresh interpreter: click keeps the help option of a command that a test has called alone.
    code = "import regenerate; print(regenerate.render())"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT / "docs", capture_output=True, text=True, check=True
    )
    page = (ROOT / "docs/commands.md").read_text(encoding="utf-8")
    assert page.split() == done.stdout.split(), "Run `make docs`."


def test_man_pages_and_completion_are_what_the_commands_say():
    code = "import json, regenerate as r; print(json.dumps([r.man_pages(), r.completions()]))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT / "docs", capture_output=True, text=True, check=True
    )
    for folder, files in zip(("man", "completion"), json.loads(done.stdout), strict=True):
        there = {one.name: one.read_text("utf-8") for one in (DEBIAN / folder).iterdir()}
        assert there == files, "Run `make docs`."
    pages = {page.stem for page in (DEBIAN / "man").iterdir()}
    assert {"kws", "kws-listen", "kws-new", "kws-config-check", "kws-eval-stream"} <= pages


def test_every_command_of_the_workbench_is_installed():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    commands = declared["project"]["entry-points"]["kws.commands"]
    context = click.Context(cli)
    missing = [name for name in commands if cli.get_command(context, name) is None]
    assert not missing, "Run `pip install -e .` again."


@pytest.mark.parametrize("page", [*PAGES, ROOT / "Makefile"], ids=lambda page: page.name)
def test_commands_in_the_docs_have_the_options_they_are_shown_with(page):
    for words in _kws_commands(page):
        command, rest = _command_of(words)
        known = {option for parameter in command.params for option in parameter.opts}
        known |= {option for parameter in cli.params for option in parameter.opts}
        unknown = [word for word in rest if word.startswith("--") and word not in known]
        assert not unknown, f"{page.name}: {shlex.join(words)}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_make_targets_in_the_docs_exist(page):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    shown = set(re.findall(r"(?:^|`)make ([a-z-]+)", page.read_text("utf-8"), re.MULTILINE))
    assert shown <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_in_the_docs_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
    files = [link for link in links if "://" not in link]
    assert [link for link in files if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_extras_in_the_docs_exist(page):
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = re.findall(r"(?:kws|\.)\[([a-z-]+(?:,[a-z-]+)*)\]'", page.read_text(encoding="utf-8"))
    extras = {extra for one in named for extra in one.split(",")}
    assert extras <= set(declared["optional-dependencies"])


def test_configurations_in_the_docs_are_valid():
    pages = [page for page in PAGES if page.name != "training.md"]
    examples = [text for page in pages for text in _blocks(page, "toml")]
    assert len(examples) >= 4
    for text in examples:
        parse_config(text)
    load_config(ROOT / "examples/kws.toml")


def test_parts_of_recipes_in_the_docs_are_valid(tmp_path):
    path = ROOT / "train/kws_train/recipes/commands-small.toml"
    whole = path.read_text("utf-8").partition("[[then]]")[0]
    parts = _blocks(ROOT / "docs/training.md", "toml")
    assert len(parts) >= 2
    (tmp_path / "recipe.toml").write_text("\n".join([whole, *parts]), encoding="utf-8")
    recipe = recipes.load_recipe(tmp_path / "recipe.toml")
    assert recipe.stages()[1:]
    for key in recipe.search:
        table, name = key.split(".")
        assert hasattr(getattr(recipe, table), name)


def test_the_event_in_the_docs_is_what_kws_prints():
    event = Detection(keyword="stop", score=0.871, start_s=12.34, end_s=12.81, model="commands")
    peak = Peak(**event.fields(), peak=0.987)
    for page, events in (("hooks.md", [event]), ("python.md", [event, peak])):
        (text,) = _blocks(ROOT / "docs" / page, "json")
        assert text.splitlines() == [to_json(one) for one in events]


def test_the_hook_in_the_docs_runs():
    line = next(text for text in _blocks(ROOT / "docs/hooks.md", "sh") if "KWS_KEYWORD" in text)
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True)
    assert done.stdout == "heard stop\n"


def test_make_help_lists_every_target():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = makefile.partition(".PHONY: ")[2].partition("\n")[0].split()
    done = subprocess.run(
        ["make", "--no-print-directory", "help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert [line.split()[0] for line in done.stdout.splitlines()] == phony
    assert all(len(line.split()) > 2 for line in done.stdout.splitlines())


@pytest.mark.slow
def test_the_commands_of_the_readme_run(tmp_path):
    recording = tmp_path / "recording.wav"
    soundfile.write(recording, np.zeros(16_000, np.int16), 16_000)
    (tmp_path / "kws.toml").write_text("[gate]\nhangover_ms = 600\n")
    for line in (
        "kws demo",
        "kws models",
        "kws info commands",
        "kws listen --input recording.wav",
        "kws listen --input recording.wav --json",
        "kws listen --config kws.toml --input recording.wav",
        "tail -c +45 recording.wav | kws listen --input -",
        f"{shlex.quote(sys.executable)} {ROOT}/examples/file.py recording.wav",
    ):
        done = _run(line, cwd=tmp_path)
        assert done.returncode == 0, f"{line}\n{done.stderr}"


def test_the_page_of_the_python_api_runs_from_top_to_bottom(tmp_path):
    shutil.copy(load_demo()[1], tmp_path / "recording.wav")
    code = "\n".join(_blocks(ROOT / "docs/python.md", "python"))
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    *_, message, _ = done.stdout.splitlines()
    assert message in (ROOT / "docs/python.md").read_text(encoding="utf-8")


def test_the_page_of_the_python_api_names_every_argument_and_method():
    page = (ROOT / "docs/python.md").read_text(encoding="utf-8")
    arguments = set(inspect.signature(kws.Spotter).parameters)
    methods = {name for name, _ in inspect.getmembers(kws.Spotter, inspect.isfunction)}
    for name in arguments | {f"{name}(" for name in methods if not name.startswith("_")}:
        assert f"`{name}" in page, name


def test_the_python_of_the_readme_runs(tmp_path):
    soundfile.write(tmp_path / "recording.wav", np.zeros(16_000, np.int16), 16_000)
    (code,) = _blocks(ROOT / "README.md", "python")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture
def foreign_models(tmp_path):
    """Files of other tools under the names of the docs, a recording of alexa, and words."""
    openwakeword = Path(pytest.importorskip("pyopen_wakeword").__file__).parent / "models"
    micro = Path(pytest.importorskip("pymicro_wakeword").__file__).parent / "models"
    shutil.copy(openwakeword / "alexa.tflite", tmp_path / "alexa_v0.1.tflite")
    for suffix in ("json", "tflite"):
        shutil.copy(micro / f"hey_jarvis.{suffix}", tmp_path)
    shutil.copy(micro / "hey_jarvis.tflite", tmp_path / "hey_computer.tflite")
    stated = json.loads((micro / "hey_jarvis.json").read_text(encoding="utf-8"))
    stated |= {"model": "hey_computer.tflite", "wake_word": "hey computer"}
    (tmp_path / "hey_computer.json").write_text(json.dumps(stated), encoding="utf-8")
    data = ROOT / "tests/data"
    clip, rate_hz = soundfile.read(data / "wake_words/alexa.flac", dtype="int16")
    soundfile.write(tmp_path / "recording.wav", np.pad(clip, (0, rate_hz)), rate_hz)
    (tmp_path / "words/hey_jarvis").mkdir(parents=True)
    shutil.copy(data / "wake_words/hey_jarvis.flac", tmp_path / "words/hey_jarvis")
    shutil.copytree(data / "librispeech", tmp_path / "librispeech")
    return tmp_path


@pytest.mark.slow
def test_the_commands_of_the_pages_of_other_models_run(foreign_models):
    outputs = []
    for page in ("other-models.md", "esphome.md"):
        lines = [line for part in _blocks(ROOT / "docs" / page, "sh") for line in part.splitlines()]
        for line in [one for one in lines if one.split()[1] in {"listen", "info", "eval"}]:
            done = _run(line, cwd=foreign_models)
            assert done.returncode == 0, line + done.stderr
            outputs.append(done.stdout)
    heard, described, *unheard, measured = outputs
    assert re.search(r" s  alexa  \d", heard), heard
    assert "keywords      alexa\n" in described
    assert len(unheard) == 3
    assert all(", 0 detections, " in one for one in unheard)
    assert re.search(r"^ +hey_jarvis +0.0% ", measured, re.MULTILINE), measured


@pytest.mark.slow
def test_every_service_on_the_page_of_home_assistant_serves_what_it_names(tmp_path):
    (tmp_path / "models").mkdir()
    lines = [
        words
        for words in _kws_commands(ROOT / "docs/home-assistant.md")
        if words[1:2] == ["wyoming"] and "--model" in words
    ]
    assert len(lines) == 3
    for words in lines:
        rest = [re.sub(r":10400$", ":0", word) for word in words[1:]]
        if "--uri" not in rest:
            rest += ["--uri", "tcp://127.0.0.1:0"]
        command = [sys.executable, "-m", "kws", *rest]
        with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as service:
            assert service.stderr.readline().startswith("Serving ")
            listening = service.stderr.readline()
            port = int(re.search(r":(\d+),", listening)[1])
            with socket.create_connection(("127.0.0.1", port), 10) as client:
                client.sendall(b'{"type": "describe"}\n')
                info = client.makefile("rb")
                info.readline()
                models = json.loads(info.read1(65_536).decode())["wake"][0]["models"]
            named = [rest[i + 1] for i, word in enumerate(rest) if word == "--model"]
            assert [model["name"] for model in models] == named
            service.terminate()


@pytest.mark.slow
def test_the_table_on_the_page_of_home_assistant_has_the_daemon_serve(tmp_path):
    (text,) = _blocks(ROOT / "docs/home-assistant.md", "toml")
    with socket.create_server(("127.0.0.1", 0)) as one:
        port = one.getsockname()[1]
    (tmp_path / "kws.toml").write_text(
        text.replace("0.0.0.0:10400", f"127.0.0.1:{port}")
        + f"[source]\ncommand = 'sleep 60'\n[daemon]\nsocket = '{tmp_path}/kws.sock'\n"
    )
    command = [sys.executable, "-m", "kws", "-v", "daemon", "--config", "kws.toml"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as daemon:
        assert f"The Wyoming service listens on tcp://127.0.0.1:{port}" in daemon.stderr.readline()
        with socket.create_connection(("127.0.0.1", port), 10) as client:
            client.sendall(b'{"type": "describe"}\n')
            assert b'"info"' in client.makefile("rb").readline()
        daemon.terminate()


def test_the_page_of_home_assistant_knows_every_option_of_either_service():
    page = (ROOT / "docs/home-assistant.md").read_text(encoding="utf-8")
    theirs = (
        "uri models-dir custom-model-dir preload-model threshold trigger-level model output-dir "
        "debug debug-probability refractory-seconds debug-recording-dir vad-threshold"
    )
    ours = [option for one in cli.commands["wyoming"].params for option in one.opts]
    for option in [*(f"--{name}" for name in theirs.split()), *ours]:
        if option not in {"--log-format", "-h", "--help", "-v", "--verbose"}:
            assert f"`{option}" in page or f" {option}" in page, option


def _documented(page, tables):
    """Return the rows | `key` | default | of each table, by heading."""
    sections = {
        part.partition("\n")[0].strip(): part for part in re.split(r"^##+ ", page, flags=re.M)
    }
    row = re.compile(r"^\| `([a-z_]+)` \| (.+?) \| .+ \|$", re.MULTILINE)
    return {heading: row.findall(sections[heading]) for heading in tables}


def _defined(tables):
    return {
        heading: [(f.name, _default(f)) for f in msgspec.structs.fields(table)]
        for heading, table in tables.items()
    }


def _default(field):
    """Write a default as the docs do: as TOML, in backticks."""
    value = field.default
    if value is msgspec.NODEFAULT and field.default_factory is not msgspec.NODEFAULT:
        value = field.default_factory()
    if value is msgspec.NODEFAULT:
        return "must be set"
    if value is None:
        return "none"
    if isinstance(value, msgspec.Struct):
        return "table"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, str):
        return f'`"{value}"`'
    return f"`{list(value) if isinstance(value, tuple) else value}`"


def _blocks(page, language):
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def _kws_commands(page):
    """Give the words of every `kws …` in shell blocks, in recipes of make, and in backticks."""
    lines = [line for text in _blocks(page, "sh") for line in text.splitlines()]
    lines += re.findall(r"^\t@?(\.venv/bin/kws .+)", page.read_text(encoding="utf-8"), re.MULTILINE)
    lines += re.findall(r"`(kws [^`]+)`", page.read_text(encoding="utf-8"))
    for line in lines:
        for part in line.partition(" #")[0].split("|"):
            words = shlex.split(part)
            if words and Path(words[0]).name == "kws":
                yield words


def _command_of(words):
    """Walk down the groups; return the command and the words after its name."""
    command, rest = cli, words[1:]
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        found = command.get_command(click.Context(command), rest[0])
        assert found, shlex.join(words)
        command, rest = found, rest[1:]
    return command, rest


def _run(line, *, cwd):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["sh", "-c", line],
        cwd=cwd,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
