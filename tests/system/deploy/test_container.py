"""The container file: podman builds the image, and kws in it hears what it hears here."""

import json
import os
import shutil
import subprocess
import sys
from importlib.resources import files

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.system, pytest.mark.timeout(1800)]

BASE = "docker.io/library/python:3.11-slim"
# Limits that need no right to raise them, as podman's own defaults would.
LIMITS = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096")
RECORDER = """
import sys, time, wave, kws.models
with wave.open(kws.models.__path__[0] + "/demo.wav") as wav:
    while audio := wav.readframes(1280):
        sys.stdout.buffer.write(audio)
        sys.stdout.buffer.flush()
        time.sleep(0.08)
time.sleep(3600)
"""
CONFIG = """
[source]
name = "words"
command = ["/opt/kws/bin/python", "-c", '''{recorder}''']
"""


@pytest.fixture(scope="module")
def podman(tmp_path_factory):
    """Run podman on a store of its own; return what it printed."""
    if not shutil.which("podman") or not shutil.which("runc"):
        pytest.skip("needs podman and runc: run tests/system/debian-packages")
    if os.geteuid():
        pytest.skip("needs root, for containers")
    store = tmp_path_factory.mktemp("store")
    settings = store / "storage.conf"
    places = f'runroot = "{store}/run"\ngraphroot = "{store}/graph"\n'
    settings.write_text(f'[storage]\ndriver = "overlay"\n{places}')
    environment = {**os.environ, "CONTAINERS_STORAGE_CONF": str(settings)}

    def run(*words, check=True):
        command = ["podman", "--runtime=runc", "--cgroup-manager=cgroupfs", *map(str, words)]
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
            check=False,
        )
        assert not check or done.returncode == 0, done.stdout[-8000:]
        return done.stdout if check else not done.returncode

    if not run("info", check=False):
        pytest.skip("needs podman with overlay file systems")
    yield run
    # podman mounts the store over itself; `system reset` would take this machine's networks, too.
    subprocess.run(["umount", store / "graph/overlay"], capture_output=True, check=False)
    shutil.rmtree(store, ignore_errors=True)


@pytest.fixture(scope="module")
def image(podman, box, source, wheels, tmp_path_factory):
    """Build the image as the file says, on Debian with its own Python where none can be pulled."""
    if not podman("pull", "--quiet", BASE, check=False):
        _import_base(podman, box("amd64").path, tmp_path_factory.mktemp("base") / "base.tar")
    pip = tmp_path_factory.mktemp("pip") / "pip.conf"
    pip.write_text("[global]\nno-index = true\nfind-links = /wheels\n")
    volumes = (f"{pip}:/etc/pip.conf:ro", f"{wheels('amd64')}:/wheels:ro")
    options = [word for volume in volumes for word in ("--volume", volume)]
    options += ["--isolation=chroot", "--network=host", "--layers=false", *LIMITS]
    podman("build", *options, "-f", source / "deploy/Containerfile", "-t", "kws", source)
    return "kws"


def test_the_image_hears_what_is_heard_here(podman, image):
    listen = ("listen", "--json", "--input")
    there = "/opt/kws/lib/python3.11/site-packages/kws/models/demo.wav"
    heard = podman("run", "--rm", "--network=none", *LIMITS, image, *listen, there)
    here = [sys.executable, "-m", "kws", *listen, str(files("kws.models") / "demo.wav")]
    expected = subprocess.run(here, capture_output=True, text=True, check=True).stdout
    assert _detections(heard) == _detections(expected)


def test_the_image_runs_the_daemon_as_a_user_of_its_own(podman, image, tmp_path, wait_for):
    config = tmp_path / "kws.toml"
    config.write_text(CONFIG.format(recorder=RECORDER))
    volume = ("--volume", f"{config}:/etc/kws/kws.toml:ro")
    podman("run", "--detach", "--name=kws", "--network=none", *LIMITS, *volume, image)
    try:
        wait_for(lambda: "detected `" in podman("logs", "kws"), limit_s=120, pause_s=1)
        assert "words" in podman("exec", "kws", "kws", "status")
        assert podman("exec", "kws", "id", "-un").strip() == "kws"
        podman("stop", "--time", "10", "kws")
        assert podman("inspect", "--format", "{{.State.ExitCode}}", "kws").strip() == "0"
    finally:
        podman("rm", "--force", "kws")


def _import_base(podman, root, archive):
    """Take a root of Debian for the base image, in which Python is called `python`."""
    (root / "usr/local/bin/python").symlink_to("/usr/bin/python3")
    subprocess.run(["tar", "-C", root, "-cf", archive, "."], check=True)
    podman("import", "--quiet", archive, BASE)
    archive.unlink()


def _detections(said):
    lines = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    found = [line for line in lines if line["event"] == "detection"]
    assert len(found) > 5
    return found
