"""The page of a run holds what was measured, needs nothing else, and works in a real browser."""

import json
import queue
import re
import shutil
import subprocess
import threading
from contextlib import contextmanager
from html import unescape
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from kws.errors import ConfigError
from kws.model import model_path, open_model
from kws_train.evaluate.report import write_report
from kws_train.evaluate.stream_results import process_streams

pytestmark = pytest.mark.slow

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
# Runs inside the page: waits for every sound, then writes down what the browser made of it all.
PROBE = """
<script>
const errors = [];
addEventListener("error", (event) => errors.push(String(event.message || event.target.src)), true);
addEventListener("load", async () => {
  const sounds = [...document.querySelectorAll("audio")];
  for (const sound of sounds) {
    sound.preload = "auto";
    sound.load();
    for (let i = 0; i < 200 && !(sound.duration > 0) && !sound.error; i++) {
      await new Promise((resume) => setTimeout(resume, 50));
    }
  }
  await fetch("/found", { method: "POST", body: JSON.stringify({
    errors,
    widths: [...document.images].map((image) => image.naturalWidth),
    durations: sounds.map((sound) => sound.duration),
    overflow: document.documentElement.scrollWidth - innerWidth,
    ground: getComputedStyle(document.body).backgroundColor,
  }) });
});
</script>
"""


class Links(HTMLParser):
    """Collects whatever a page would load or lead to."""

    def __init__(self):
        super().__init__()
        self.links, self.tags = [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [v for name, v in attributes if name in {"src", "srcset", "href", "action"}]


@contextmanager
def serve(page):
    """Serve one page on this machine; gives its URL and a queue of what is sent back."""
    answers = queue.Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.answer(page.encode())

        def do_POST(self):
            answers.put(self.rfile.read(int(self.headers["Content-Length"])))
            self.answer(b"")

        def answer(self, body):
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/", answers
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def run(tmp_path_factory, make_tone, make_corpus):
    """A run folder with a report on the bundled model; its settings hold markup."""
    from kws_train.data.librispeech import quiet_utterances
    from kws_train.evaluate.build_stream import build_stream

    run = tmp_path_factory.mktemp("run")
    (run / "history.csv").write_text("epoch,loss,val_loss\n0,2.0,2.1\n1,1.0,1.2\n")
    (run / "settings.json").write_text(json.dumps({"name": "</pre><script>alert(1)</script>"}))
    clips = tmp_path_factory.mktemp("clips")
    for word, hz in (("go", 300), ("stop", 700), ("_silence_", 900)):
        make_tone(clips / word / "a_nohash_0.wav", hz=hz, amplitude=0 if word[0] == "_" else 4000)
    clip = clips / "go" / "a_nohash_0.wav"
    background = quiet_utterances(make_corpus(clips / "speech"), without=["go"])
    stream = build_stream([("go", clip)] * 5 + [("stop", clip)] * 4, background, seed=1)
    results = process_streams(open_model(model_path("commands-small")), [stream])
    write_report(
        run, model_path("commands-small"), clips=clips, results=results, command="kws 'a<b'"
    )
    return run


def test_the_page_is_self_contained(run):
    page = Links()
    page.feed((run / "report.html").read_text(encoding="utf-8"))
    assert len(page.links) > 10
    assert all(link.startswith("data:") for link in page.links)
    assert not set(page.tags) & {"script", "iframe", "link rel=stylesheet"}


def test_what_comes_from_files_and_options_is_escaped(run):
    text = (run / "report.html").read_text(encoding="utf-8")
    assert "<script>" not in text
    assert "</pre><script>alert(1)</script>" in unescape(text)
    assert "kws 'a<b'" in unescape(text)


def test_the_page_says_what_was_measured(run):
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", (run / "report.html").read_text("utf-8")))
    for part in (
        "Speech Commands v0.02 (Warden 2018), training split",
        "146,752 multiply-accumulates per call",
        "miss rate at one false alarm per hour, clean",
        "Worst misses",
        "9 keywords, of 1 clips, among 1 different utterances of 1 speakers",
    ):
        assert part in unescape(text)


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1200, 420])
def test_a_browser_shows_every_picture_and_knows_every_sound(run, tmp_path, dark, width):
    page = (run / "report.html").read_text(encoding="utf-8").replace("<head>", f"<head>{PROBE}")
    with serve(page) as (url, answers), (tmp_path / "log").open("w") as log:
        browser = subprocess.Popen(
            [
                CHROMIUM,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--remote-debugging-port=0",  # or it would leave as soon as the page is loaded
                f"--user-data-dir={tmp_path / 'profile'}",
                f"--blink-settings=preferredColorScheme={0 if dark else 1}",
                f"--window-size={width},2000",
                "--enable-logging=stderr",
                url,
            ],
            stderr=log,
        )
        try:
            found = json.loads(answers.get(timeout=90))
        finally:
            browser.terminate()
            browser.wait(timeout=20)
    assert found["errors"] == []
    assert "CONSOLE" not in (tmp_path / "log").read_text(encoding="utf-8", errors="replace")
    assert len(found["widths"]) >= 3 + 4
    assert min(found["widths"]) > 0
    assert len(found["durations"]) == len(found["widths"]) - 3
    assert all(0.5 < seconds < 5 for seconds in found["durations"])
    assert found["overflow"] <= 0
    assert found["ground"] == ("rgb(20, 24, 28)" if dark else "rgb(246, 247, 249)")


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    message = (
        f"A run folder must hold settings.json and history.csv. Received: {tmp_path} without "
        f"history.csv. Give the folder that `kws train --out` wrote."
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        write_report(tmp_path, model_path("commands-small"), clips=tmp_path, results=None)
