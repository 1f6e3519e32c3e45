"""docs/mqtt.md from top to bottom: its configuration, its commands, what they print, its tables."""

import contextlib
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from mosquitto import brokers, free_port, until

from kws.commands.demo import load_demo
from kws.mqtt.discovery import Device, Word, device_config
from kws.mqtt.topics import TOGGLE_OFF, TOGGLE_ON, Topics, hermes_detected

PAGE = (Path(__file__).parents[1] / "docs/mqtt.md").read_text(encoding="utf-8")
ENVIRONMENT = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def line_with(words):
    return next(
        line for text in blocks("sh") for line in text.splitlines() if line.startswith(words)
    )


def words_of(line):
    return shlex.split(re.split(r" +# ", line)[0])


def output_of(line, *more):
    command = [*words_of(line), *map(str, more)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=True)
    return done.stdout


@contextlib.contextmanager
def running(line, *more, **options):
    """Run a command of the page until the end of the block."""
    with subprocess.Popen([*words_of(line), *more], env=ENVIRONMENT, **options) as process:
        try:
            yield
        finally:
            process.terminate()


@pytest.mark.slow
def test_the_page_runs_from_top_to_bottom(tmp_path):
    port = free_port()
    socket = tmp_path / "kws.sock"
    play = ["sh", "-c", f"tail -c +45 {load_demo()[1]}; exec sleep 60"]
    (tmp_path / "kws.toml").write_text(
        blocks("toml")[0].replace("[mqtt]", f"[mqtt]\nport = {port}")
        + f"[source]\nname = 'mic'\nstall_s = 60.0\ncommand = {json.dumps(play)}\n"
        f"[daemon]\nsocket = '{socket}'\n"
    )
    (sample,) = blocks("text")
    expected = dict(line.split(" ", 1) for line in sample.splitlines())
    here = ("-p", str(port))
    shown = tmp_path / "shown"
    with brokers(tmp_path, port) as start, shown.open("w") as file:
        start()
        with (
            running(line_with("mosquitto_sub"), *here, stdout=file),
            running(line_with("kws daemon"), cwd=tmp_path, stderr=subprocess.DEVNULL),
        ):
            until(lambda: all(f"{topic} {{" in shown.read_text() for topic in expected))
            printed = dict(line.split(" ", 1) for line in shown.read_text().splitlines())
            for topic, payload in expected.items():
                on_page, sent = json.loads(payload), json.loads(printed[topic])
                assert list(on_page) == list(sent)
                assert {**on_page, "time": ""} == {**sent, "time": ""}
            output_of(line_with("mosquitto_pub"), *here)
            status = line_with("kws status")
            said = status.partition("# ")[2]
            until(lambda: said in output_of(status, "--socket", socket))


def test_the_topics_of_the_page_are_those_of_the_code():
    topics = Topics("NAME", "homeassistant")
    ours = {
        getattr(topics, name) for name, value in vars(Topics).items() if isinstance(value, property)
    }
    ours |= {"kws/NAME/detected/KEYWORD", "kws/NAME/level/SOURCE", hermes_detected("KEYWORD")}
    ours |= {TOGGLE_ON, TOGGLE_OFF}
    table = PAGE.partition("## Topics")[2].partition("##")[0]
    cells = [line.split(" | ") for line in table.splitlines() if line.startswith("| `")]
    shown = {topic for row in cells for topic in re.findall(r"`([^`]+/[^`]+)`", " ".join(row))}
    assert shown == ours
    assert topics.detected("a b") == "kws/NAME/detected/a_b"


def test_the_entities_of_the_page_are_those_of_the_code():
    device = Device(
        name="kitchen",
        version="1",
        words=(Word(keyword="yes", model="m"),),
        sources=("mic",),
        has_expectation=True,
    )
    config = device_config(device, Topics("kitchen", "homeassistant"))
    names = {one["name"] for one in config["components"].values()} - {"yes"}
    table = PAGE.partition("## Home Assistant")[2].partition("An automation")[0]
    assert set(re.findall(r"^\| \w+ \*([^*]+)\*", table, re.MULTILINE)) == names


def test_the_automation_of_the_page_is_yaml_that_reads_what_is_sent():
    (text,) = blocks("yaml")
    automation = yaml.safe_load(text)
    assert set(automation) == {"triggers", "conditions", "actions"}
    assert automation["triggers"][0]["entity_id"] == "event.kitchen_yes"
    assert "attributes.time" in automation["conditions"][0]
