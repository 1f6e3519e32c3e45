import signal
import socket
import subprocess
import sys

import pytest
from wyoming.event import Event, read_event, write_event

from kws.wyoming.addresses import parse_uri

PROGRAM = [sys.executable, "-m", "kws", "wyoming"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_the_command_serves_until_a_signal(number, code):
    with subprocess.Popen(
        [*PROGRAM, "--uri", "tcp://127.0.0.1:0"], stderr=subprocess.PIPE, text=True
    ) as service:
        serving, listening = service.stderr.readline(), service.stderr.readline()
        assert serving == "Serving computer.\n"
        uri, _, reach = listening.removeprefix("Listening on ").partition(", ")
        assert reach == "for programs on this machine.\n"
        with socket.create_connection(("127.0.0.1", int(uri.rpartition(":")[2])), 10) as client:
            with client.makefile("rwb") as file:
                write_event(Event("ping", {"text": "here"}), file)
                assert read_event(file).data == {"text": "here"}
            service.send_signal(number)
            assert service.wait(10) == code
        assert service.stderr.read() == ""


def test_an_address_for_all_machines_is_said_to_be_one():
    assert not parse_uri("tcp://0.0.0.0:1").is_local
    assert not parse_uri("tcp://[::]:1").is_local
    assert not parse_uri("tcp://pi.local:1").is_local
    assert parse_uri("tcp://[::1]:1").is_local
    assert str(parse_uri("tcp://[::1]:1")) == "tcp://[::1]:1"
    assert parse_uri("unix:///run/kws.sock").is_local


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--uri", "http://x"], 2, "An address must be tcp://HOST:PORT or unix:///PATH"),
        (["--model", "nabu"], 4, "must be a bundled model's name or a file"),
        (["--threshold", "2"], 2, "--threshold"),
        (["--trigger-level", "0"], 2, "--trigger-level"),
        (["--custom-model-dir", "/none"], 2, "A custom model directory must be a folder"),
        (["--uri", "tcp://127.0.0.1:0", "--zeroconf"], 2, "Only an address that other machines"),
    ],
)
def test_a_wrong_option_is_an_error(options, code, message, kws):
    got, out, err = kws("wyoming", *options)
    assert (got, out) == (code, "")
    assert message in err
    assert "Traceback" not in err


def test_without_the_package_the_extra_is_named():
    code = "import sys; sys.modules['wyoming'] = None; from kws.cli import main; main(['wyoming'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Error: `kws wyoming` needs the package wyoming. Received: ")
    assert done.stderr.endswith("pip install 'kws[wyoming]'`.\n")
