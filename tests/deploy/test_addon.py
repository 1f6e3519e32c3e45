"""The add-on is as Home Assistant's documentation asks for, and starts the service as configured.

The rules are those of the page "App configuration" of developers.home-assistant.io; there is no
package on PyPI that checks them.
"""

import http.server
import json
import re
import runpy
import subprocess
import sys
import threading
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import pytest
import yaml
from msgspec import Meta

from kws.cli import cli

ADDON = Path(__file__).parents[2] / "deploy/homeassistant"
PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"
ELEMENT = re.compile(
    r"(bool|email|url|port|device(\(.+\))?|match\(.*\)|list\(.+\)"
    r"|(str|password)(\(\d*,\d*\))?|int(\(-?\d*,-?\d*\))?|float(\(-?[\d.]*,-?[\d.]*\))?)\??"
)
Port = Annotated[str, Meta(pattern=r"^\d{1,5}/(tcp|udp)$")]


class AddonConfig(msgspec.Struct, forbid_unknown_fields=True):
    """The documented keys that a service without devices, ingress or privileges may have."""

    name: str
    version: str
    slug: Annotated[str, Meta(pattern=r"^[-_.A-Za-z0-9]+$")]
    description: str
    arch: list[Literal["aarch64", "amd64", "armhf", "armv7", "i386"]]
    options: dict[str, Any]
    schema: dict[str, str | list[str]]
    init: bool = True
    startup: Literal["initialize", "system", "services", "application", "once"] = "application"
    boot: Literal["auto", "manual", "manual_only"] = "auto"
    discovery: list[str] = []
    hassio_api: bool = False
    map: list[
        Annotated[
            str,
            Meta(
                pattern="^(data|ssl|addons|backup|share|media|homeassistant_config"
                "|all_addon_configs|addon_config)(:(rw|ro))?$"
            ),
        ]
    ] = []
    backup_exclude: list[str] = []
    ports: dict[Port, int | None] = {}
    watchdog: Annotated[str, Meta(pattern=r"^(https?|tcp)://\[HOST\]:(\[PORT:\d+\]|\d+).*$")] = ""


class Text(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    description: str


class Translation(msgspec.Struct, forbid_unknown_fields=True):
    configuration: dict[str, Text]
    network: dict[Port, str]


@pytest.fixture(scope="module")
def config():
    text = (ADDON / "config.yaml").read_text(encoding="utf-8")
    return msgspec.convert(yaml.safe_load(text), AddonConfig)


@pytest.fixture(scope="module")
def run():
    return runpy.run_path(str(ADDON / "run.py"))


def test_the_configuration_follows_the_rules(config):
    elements = [
        one for it in config.schema.values() for one in ([it] if isinstance(it, str) else it)
    ]
    assert [one for one in elements if not ELEMENT.fullmatch(one)] == []
    needed = {key for key, it in config.schema.items() if not str(it).endswith("?")}
    assert needed == set(config.options)
    assert config.version == tomllib.loads(PYPROJECT.read_text("utf-8"))["project"]["version"]


def test_every_option_has_a_text_and_a_line_in_the_documentation(config):
    text = (ADDON / "translations/en.yaml").read_text(encoding="utf-8")
    translation = msgspec.convert(yaml.safe_load(text), Translation)
    assert set(translation.configuration) == set(config.schema)
    assert set(translation.network) == set(config.ports)
    documentation = (ADDON / "DOCS.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(\w+)`", documentation, re.MULTILINE)) == set(config.schema)


def test_every_option_becomes_one_of_the_command(config, run):
    everything = config.options | {
        "threshold": 0.7,
        "refractory_seconds": 2.5,
        "debug_recording_dir": "/share/kws/recordings",
        "debug_logging": True,
    }
    assert set(everything) == set(config.schema)
    command = run["arguments"](everything)
    assert command == [
        "kws", "-v", "wyoming", "--uri", "tcp://0.0.0.0:10400", "--model", "hey_computer",
        "--model", "computer", "--custom-model-dir", "/share/kws", "--threshold", "0.7",
        "--trigger-level", "1", "--refractory-seconds", "2.5",
        "--debug-recording-dir", "/share/kws/recordings",
    ]  # fmt: skip
    known = {option for one in cli.commands["wyoming"].params for option in one.opts}
    assert {word for word in command if word.startswith("--")} <= known
    least = run["arguments"]({"models": [], "threshold": None, "debug_recording_dir": ""})
    assert least == ["kws", "wyoming", "--uri", "tcp://0.0.0.0:10400"]


def test_home_assistant_is_told_where_the_service_is(run):
    told = []

    class Supervisor(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            told.append((self.path, self.headers["Authorization"], json.loads(body)))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Supervisor) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        port = server.server_port
        # The supervisor's port answers for that of the service; it sees a connection and a request.
        threading.Thread(target=server.handle_request, daemon=True).start()
        run["announce"](supervisor=f"127.0.0.1:{port}", token="secret", port=port)
    ((path, authorization, message),) = told
    assert (path, authorization) == ("/discovery", "Bearer secret")
    assert message["service"] == "wyoming"
    assert re.fullmatch(rf"tcp://.+:{port}", message["config"]["uri"])


def test_the_entry_point_starts_the_service_with_its_options(tmp_path):
    program = tmp_path / "kws"
    program.write_text('#!/bin/sh\necho "$@"\nexit 4\n')
    program.chmod(0o755)
    options = tmp_path / "options.json"
    options.write_text(json.dumps({"models": ["computer"], "custom_model_dir": f"{tmp_path}/new"}))
    done = subprocess.run(
        [sys.executable, ADDON / "run.py"],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "OPTIONS_FILE": str(options)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 4
    assert done.stdout.split()[:5] == [
        "wyoming",
        "--uri",
        "tcp://0.0.0.0:10400",
        "--model",
        "computer",
    ]
    assert (tmp_path / "new").is_dir()


def test_the_image_installs_what_the_entry_point_runs():
    image = (ADDON / "Dockerfile").read_text(encoding="utf-8")
    assert "[wyoming,micro]" in image
    for source in re.findall(r"^COPY (\S+) ", image, re.MULTILINE):
        assert source == "kws-*.whl" or (ADDON / source).is_file()
