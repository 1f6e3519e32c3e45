import json
import re
import tomllib
from pathlib import Path

import jsonschema
import pytest

from kws.commands.config_report import json_schema, render, settings_of
from kws.config import Config, load_config, parse_config

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "examples" / "kws.toml"
PAGES = ("configuration", "hooks", "daemon", "deploy", "recipes")


@pytest.fixture
def written(tmp_path):
    """Write a kws.toml with drop-ins; returns its path."""

    def write(text, **drop_ins):
        path = tmp_path / "kws.toml"
        path.write_text(text)
        for name, drop_in in drop_ins.items():
            (tmp_path / "kws.toml.d").mkdir(exist_ok=True)
            (tmp_path / "kws.toml.d" / f"{name}.toml").write_text(drop_in)
        return path

    return write


def test_what_is_shown_is_the_same_configuration(written):
    text = EXAMPLE.read_text() + (
        '\n[hooks.environment]\n"A\\u007f" = "\\t\\"b"\n[[models]]\nname = "computer"\n'
        '[models.decision]\nthresholds = {computer = 0.4}\n[[models]]\nname = "hey_computer"\n'
    ).replace("[model]", "")
    text = text.replace('[model]\nname = "commands"\n', "")
    path = written(text)
    assert parse_config(render(settings_of(path))) == load_config(path)


def test_the_origin_of_each_key_is_shown(written, kws):
    path = written("[decision]\nthreshold = 0.5\n", room="\n[decision]\nsmoothing_ms = 20\n")
    code, out, err = kws("config", "show", path)
    assert (code, err) == (0, "")
    shown = {" ".join(line.split()) for line in out.splitlines()}
    assert f"threshold = 0.5 # {path}:2" in shown
    assert f"smoothing_ms = 20 # {path}.d/room.toml:3" in shown
    assert "# refractory_ms: not set # default" in shown
    assert "hangover_ms = 700 # default" in shown
    code, out, _ = kws("config", "show", path, "--json")
    lines = [json.loads(line) for line in out.splitlines()]
    assert {"key": "decision.threshold", "value": 0.5, "file": str(path), "line": 2} in lines
    assert {"key": "gate.enabled", "value": True, "file": None, "line": None} in lines
    names = {line["key"].partition(".")[0] for line in lines}
    assert names == set(Config.__struct_fields__) - {"models", "sources", "hooks"}


def test_a_list_is_shown_in_place_of_its_single_table(written):
    path = written('[[sources]]\nname = "a"\n[[sources]]\nname = "b"\n')
    shown = render(settings_of(path))
    assert shown.count("[[sources]]") == 2
    assert "[source]" not in shown


def test_a_good_file_is_valid(written, kws):
    path = written(
        '[[models]]\nname = "computer"\n[[hooks]]\nkeyword = "computer"\ncommand = "true"\n'
    )
    assert kws("config", "check", path) == (
        0,
        f"{path} is valid: model `computer`, hooks: 1.\n",
        "",
    )


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("[gate]\nenabeld = true", 2, "Did you mean `enabled`?"),
        ('[model]\nname = "/nowhere/x.tflite"', 4, "/nowhere/x.tflite"),
        ('[[hooks]]\nkeyword = "banana"\ncommand = "true"', 5, "banana"),
        ('[[hooks]]\ncommand = "/nowhere/program"', 5, "/nowhere/program"),
        ('[source]\ncommand = "/nowhere/recorder"', 3, "/nowhere/recorder"),
        ("[decision.thresholds]\nbanana = 0.5", 2, "banana"),
    ],
)
def test_what_a_file_breaks_is_told_with_the_exit_code_of_its_kind(
    written, kws, text, code, message
):
    ended, out, err = kws("config", "check", written(text))
    assert (ended, out) == (code, "")
    assert err.startswith("Error: ")
    assert message in err


def test_a_missing_file_is_an_error(tmp_path, kws, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for command in ("check", "show"):
        code, _, err = kws("config", command)
        assert code == 2
        assert "must be readable. Received: kws.toml (No such file" in err


@pytest.fixture(scope="module")
def validator():
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_the_schema_takes_every_example_of_the_docs(validator):
    pages = [(ROOT / "docs" / f"{name}.md") for name in PAGES]
    texts = [EXAMPLE.read_text(), (ROOT / "deploy" / "kws.toml").read_text()]
    for page in filter(Path.exists, pages):
        texts += re.findall(r"```toml\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    assert len(texts) > 5
    for text in texts:
        validator.validate(tomllib.loads(text))


@pytest.mark.parametrize(
    "text",
    [
        "[gate]\nenabeld = true",
        "[decision]\nthreshold = 1.5",
        '[recording]\nformat = "mp3"',
        '[[hooks]]\nkeyword = "go"',
        "[daemon]\nmetrics_port = 0",
    ],
)
def test_the_schema_refuses_what_kws_refuses(validator, text):
    with pytest.raises(jsonschema.ValidationError):
        validator.validate(tomllib.loads(text))


def test_the_schema_describes_every_key():
    tables = json_schema()["$defs"]
    missing = [
        f"{name}.{key}"
        for name, table in tables.items()
        if name != "Config"
        for key, rule in table["properties"].items()
        if not rule.get("description")
    ]
    assert not missing
    hook = tables["HookSettings"]["properties"]
    assert hook["cooldown_s"]["description"].startswith("Time after an event in which the next")
    assert tables["ListenerSettings"]["properties"]["n_threads"]["description"]


def test_the_schema_is_printed(kws):
    code, out, _ = kws("config", "schema")
    assert (code, json.loads(out)) == (0, json.loads(json.dumps(json_schema())))
