"""`kws status` and `kws tail` as they are typed."""

import os
import signal
import subprocess
import sys

import pytest


def test_status_and_tail_without_a_daemon_say_where_they_looked(kws, tmp_path):
    path = tmp_path / "kws.sock"
    for command in ("status", "tail"):
        code, out, err = kws(command, "--socket", path)
        assert (code, out) == (2, "")
        assert err.startswith(
            f"Error: No kws daemon is running (no socket at {path}). Start one with `"
        )


@pytest.mark.parametrize("command", ["status", "tail"])
def test_status_and_tail_find_the_socket_of_a_configuration(kws, tmp_path, command):
    config, path = tmp_path / "kws.toml", tmp_path / "own.sock"
    config.write_text(f"[daemon]\nsocket = '{path}'\n")
    code, out, err = kws(command, "--config", config)
    assert (code, out) == (2, "")
    assert f"No kws daemon is running (no socket at {path}" in err
    code, _, err = kws(command, "--config", config, "--socket", path)
    assert code == 2
    assert err.splitlines()[-1] == "Error: Give --socket or --config, not both."


def test_a_configuration_without_a_socket_means_the_usual_one(kws, tmp_path, monkeypatch):
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "kws.sock").touch()
    config = tmp_path / "kws.toml"
    config.write_text("")
    assert str(tmp_path / "kws.sock") in kws("status", "--config", config)[2]


def test_the_logs_of_listen_can_be_json(kws, tmp_path, model, recording):
    import json

    hook = tmp_path / "kws.toml"
    hook.write_text('[[hooks]]\nkeyword = "stop"\ncommand = "false"\n')
    code, _, err = kws(
        *("listen", "--log-format", "json", "--no-vad", "--config", hook),
        *("--model", model, "--input", recording),
    )
    assert code == 0
    assert {json.loads(line)["logger"] for line in err.splitlines()} == {"kws.hooks"}


@pytest.mark.slow
def test_tail_ends_at_ctrl_c_with_130_and_no_traceback(tmp_path):
    path = tmp_path / "kws.sock"
    script = (
        "import asyncio, sys; from pathlib import Path\n"
        "from kws.daemon.status_server import StatusServer\n"
        "async def run():\n"
        "    server = StatusServer(Path(sys.argv[1]), None)\n"
        "    await server.start()\n"
        "    while not server._subscribers: await asyncio.sleep(0.01)\n"
        "    print('followed', flush=True)\n"
        "    while server._subscribers: await asyncio.sleep(0.01)\n"
        "    await server.close()\n"
        "print('up', flush=True)\nasyncio.run(run())\n"
    )
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", script, str(path)], **pipes) as server:
        assert server.stdout.readline() == "up\n"
        while not path.exists():
            assert server.poll() is None
        # What a shell starts in the background ignores Ctrl-C, and so would all that it starts.
        listens = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
        main = f"{listens}; from kws.cli import main; main()"
        command = [sys.executable, "-c", main, "tail", "--socket", str(path)]
        with subprocess.Popen(command, env=os.environ, **pipes) as tail:
            assert server.stdout.readline() == "followed\n"
            tail.send_signal(signal.SIGINT)
            _, err = tail.communicate(timeout=60)
        assert (tail.returncode, err.strip()) == (130, "")
        assert server.wait(60) == 0
