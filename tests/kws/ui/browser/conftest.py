"""A page as a user has it: `kws ui` in a process of its own, and Chromium that clicks."""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import wave
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest

from kws.commands.demo import load_demo

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
LIMIT_MS = 15_000


@pytest.fixture(scope="module")
def run_ui(tmp_path_factory):
    """Return a context: `kws ui` with a kws.toml; it yields its folder, its link and its log."""

    @contextlib.contextmanager
    def run_ui(text, *, folder=None):
        folder = folder or tmp_path_factory.mktemp("ui")
        (folder / "kws.toml").write_text(text, encoding="utf-8")
        log = folder / "log"
        with log.open("w") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", "kws", "ui", "--config", "kws.toml", "--port", free_port()],
                cwd=folder,
                env={**os.environ, "XDG_RUNTIME_DIR": str(folder)},
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        try:
            line = process.stdout.readline()
            assert line.startswith("Open http"), log.read_text()
            link = line.split()[1]
            yield SimpleNamespace(folder=folder, link=link, log=log, port=urlsplit(link).port)
        finally:
            process.terminate()
            process.wait(timeout=20)
            process.stdout.close()
        assert "Traceback" not in log.read_text()

    return run_ui


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as one:
        return str(one.getsockname()[1])


def token_of(link):
    return link.partition("token=")[2]


@pytest.fixture(scope="module")
def demo_wav(tmp_path_factory):
    """The recording of the demonstration, again and again: no test may outlast it."""
    path = tmp_path_factory.mktemp("demo") / "demo.wav"
    with wave.open(str(load_demo()[1])) as once, wave.open(str(path), "wb") as often:
        often.setparams(once.getparams())
        often.writeframes(10 * once.readframes(once.getnframes()))
    return path


@pytest.fixture(scope="module")
def microphone_wav(demo_wav):
    """The file in place of the browser's microphone."""
    return demo_wav


@pytest.fixture(scope="module")
def chromium(microphone_wav):
    """A browser whose microphone is a file.

    Closed with each module: Playwright keeps a loop running in the main thread.
    """
    if CHROMIUM is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=LIMIT_MS)

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=[
                "--no-sandbox",
                "--disable-quic",
                "--use-fake-ui-for-media-stream",
                "--use-fake-device-for-media-stream",
                f"--use-file-for-fake-audio-capture={microphone_wav}",
                "--autoplay-policy=no-user-gesture-required",
            ],
        )
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium):
    """Return a function that opens a link; at the end no page may have had an error."""
    contexts, errors = [], []

    def open_page(link, *, width=1200, height=900, dark=False, expected=()):
        context = chromium.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
            permissions=["microphone"],
        )
        context.set_default_timeout(LIMIT_MS)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on(
            "console",
            lambda line: (
                errors.append(line.text)
                if line.type == "error" and not any(one in line.text for one in expected)
                else None
            ),
        )
        page.goto(link)
        return page

    yield open_page
    for context in contexts:
        for page in context.pages:
            text = page.locator("body").inner_text()
            errors += re.findall("null|undefined|NaN|\\[object", text)
        context.close()
    assert errors == []


def until(page, condition, argument=None):
    """Wait until a condition holds in the page, whose policy forbids what Playwright would use."""
    for _ in range(LIMIT_MS // 50):
        if page.evaluate(condition, argument):
            return
        page.wait_for_timeout(50)
    raise AssertionError(condition)
