"""Other systems than Linux: what runs there needs nothing of POSIX, the rest says what it needs."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kws import platforms
from kws.commands.demo import load_demo
from kws.config import HookSettings, SourceSettings
from kws.errors import ConfigError, DeviceError, HookError, KwsError
from kws.sinks.hooks import Hooks
from kws.sources import open_source

ROOT = Path(__file__).parents[2]
POSIX_ONLY = {
    "crypt", "curses", "fcntl", "grp", "nis", "posix", "pty", "pwd", "readline", "resource", "spwd",
    "syslog", "termios", "tty",
}  # fmt: skip
RUNTIME = [path for path in (ROOT / "kws").rglob("*.py") if "daemon" not in path.parts]
WORKBENCH = [*(ROOT / "train").rglob("*.py"), *(ROOT / "export").rglob("*.py")]


@pytest.mark.parametrize("path", [*RUNTIME, *WORKBENCH], ids=lambda path: path.stem)
def test_no_module_but_those_of_the_daemon_imports_posix_modules_at_its_top(path):
    imported = set()
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.Import):
            imported |= {one.name.partition(".")[0] for one in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported.add(node.module.partition(".")[0])
    assert imported & POSIX_ONLY == set()


# Such modules are hidden from kws alone: the standard library here is that of Linux. So are the
# functions and signals that Windows does not have.
HIDE = """
import builtins, os, signal, sys
import numpy, soxr, webrtcvad, ai_edge_litert.interpreter, rich.live, importlib.metadata, soundfile
import asyncio, multiprocessing.connection, subprocess

find = builtins.__import__
def hidden(name, globals=None, locals=None, fromlist=(), level=0):
    importer = (globals or {}).get("__name__", "").partition(".")[0]
    if name.partition(".")[0] in POSIX_ONLY and importer in {"kws", "kws_train", "kws_export"}:
        raise ImportError(f"{name} is not there, for {globals['__name__']}")
    return find(name, globals, locals, fromlist, level)
builtins.__import__ = hidden
for name in ("geteuid", "getuid", "getsid", "killpg", "setsid", "fork", "set_blocking", "pread",
             "environb", "getgrouplist", "O_NOFOLLOW", "O_DIRECTORY", "WNOHANG"):
    delattr(os, name)
for name in ("SIGHUP", "SIGKILL", "SIGXCPU", "SIGALRM"):
    delattr(signal, name)
from kws import platforms
platforms.is_linux = platforms.is_posix = lambda: False
"""


def run_elsewhere(code, *arguments):
    script = f"POSIX_ONLY = {POSIX_ONLY!r}\n{HIDE}\n{code}"
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_a_file_is_listened_to_without_posix():
    code = "import kws\nfrom kws.cli import main\nmain(sys.argv[1:])"
    done = run_elsewhere(code, "listen", load_demo()[1], "--threshold", "0.5")
    assert (done.returncode, done.stderr.splitlines()[1:]) == (0, [])
    words = [line.split()[-2] for line in done.stdout.splitlines() if line.strip()]
    assert words.count("left") == words.count("right") == 1


def test_a_model_that_is_not_bundled_is_checked_without_posix(model):
    code = "import kws.model_check\nsys.exit(kws.model_check.main())"
    done = run_elsewhere(code, model, 1, os.getpid())
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
@pytest.mark.parametrize("command", ["new", "eval", "train", "mine"])
def test_the_commands_of_the_workbench_import_nothing_of_posix(command):
    done = run_elsewhere("from kws.cli import main\nmain(sys.argv[1:])", command, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"Usage: python -c {command}") or "Usage: kws" in done.stdout


@pytest.mark.parametrize("command", ["daemon", "status", "tail", "wyoming"])
def test_what_needs_linux_says_so(monkeypatch, kws, tmp_path, command):
    monkeypatch.setattr(platforms, "is_linux", lambda: False)
    monkeypatch.setattr(platforms, "is_posix", lambda: False)
    monkeypatch.setattr(platforms.platform, "system", lambda: "Windows")
    config = ["--config", str(tmp_path / "kws.toml")] if command == "daemon" else []
    code, _, err = kws(command, *config)
    assert code == KwsError.exit_code
    assert "needs Linux" in err
    assert "Received: Windows. Run " in err


def test_macos_has_a_name_that_people_know(monkeypatch):
    monkeypatch.setattr(platforms, "is_linux", lambda: False)
    monkeypatch.setattr(platforms.platform, "system", lambda: "Darwin")
    with pytest.raises(ConfigError, match=r"^It needs Linux\. Received: macOS\. Go\.$"):
        platforms.require_linux("It", error=ConfigError, remedy="Go.")
    platforms.require_posix("It", error=ConfigError, remedy="Go.")


def test_hooks_and_commands_say_that_they_need_another_system_than_windows(monkeypatch):
    monkeypatch.setattr(platforms, "is_posix", lambda: False)
    with pytest.raises(HookError, match=r"^A hook needs Linux or macOS\."):
        Hooks([HookSettings(command="true")], keywords=["stop"])
    Hooks([], keywords=["stop"]).close()
    with pytest.raises(DeviceError, match=r"^A command as a source needs Linux or macOS\."):
        open_source(SourceSettings(command="true"))
    with pytest.raises(
        DeviceError, match=r"^The source udp://127\.0\.0\.1:\d+ needs Linux or macOS"
    ):
        open_source(SourceSettings(input="udp://127.0.0.1:0"))
