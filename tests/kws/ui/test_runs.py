"""Runs of `kws new` by what lies in their working folders; reports apart from the page."""

import asyncio
import contextlib
import json
import time

import pytest

from kws.config import Config, UiSettings
from kws.run_progress import ProgressWriter
from kws.ui import runs

from .conftest import as_json, ask

STAGES = {"audio": 2.0, "training": 10.0, "report": 1.0}
POINT = {
    "budget": 0.5, "fa_per_hour": 0.4, "fa_low": 0.0, "fa_high": 1.0, "threshold": 0.8,
    "miss_rate": 0.07, "miss_low": 0.04, "miss_high": 0.1,
}  # fmt: skip
FIGURES = {
    "keywords": ["hey computer"], "tested_on": "other voices", "n_words": 220, "hours": 2.4,
    "points": {"clean": [POINT, POINT | {"budget": None}], "10 dB": [POINT]}, "budget": 0.5,
    "thresholds": {}, "confused_by": {}, "n_bytes": 63_000, "cpu_ms": 2.0, "minutes": 9.0,
}  # fmt: skip


def begin(folder, phrase):
    """Make a working folder as `kws new` does."""
    (folder / "run").mkdir(parents=True)
    (folder / "request.json").write_text(json.dumps({"phrases": [phrase], "layout": 3}))
    return folder


def finish(folder, report="<h1>A report</h1>"):
    (folder / "figures.json").write_text(json.dumps(FIGURES))
    (folder / "run" / "report.html").write_text(report)


def test_each_state_of_a_run_is_told(tmp_path):
    going = begin(tmp_path / "going.work", "kitchen light")
    finish(begin(tmp_path / "done.work", "hey computer"))
    with (
        contextlib.suppress(OSError),
        ProgressWriter(begin(tmp_path / "bad.work", "a"), STAGES) as one,
    ):
        one.begin("audio")
        raise OSError("No space left on device")
    begin(tmp_path / "old.work", "b")
    (tmp_path / "no run").mkdir()
    with ProgressWriter(going, STAGES) as progress:
        progress.begin("training")
        found = {one.phrases[0]: one for one in runs._list([tmp_path]).runs}
    assert {name: one.state for name, one in found.items()} == {
        "kitchen light": "running", "hey computer": "finished", "a": "failed", "b": "stopped",
    }  # fmt: skip
    assert [one.state for one in found["kitchen light"].stages] == ["done", "now", "next"]
    assert found["kitchen light"].minutes_left == pytest.approx(11.0, abs=0.3)
    assert found["a"].text == "No space left on device"
    assert found["hey computer"].figures.points["clean"][1].budget is None
    assert [one.has_report for one in found.values()].count(True) == 1


def test_time_left_counts_down_and_never_below_the_stages_to_come(tmp_path, monkeypatch):
    folder = begin(tmp_path / "x.work", "x")
    now_s = time.time()
    with ProgressWriter(folder, STAGES) as progress:
        progress.begin("training")
        for minutes, left in ((4, 7.0), (30, 1.0)):
            monkeypatch.setattr(runs.time, "time", lambda m=minutes: now_s + 60 * m)
            assert runs._list([tmp_path]).runs[0].minutes_left == pytest.approx(left, abs=0.2)


def test_damaged_folders_are_shown_as_far_as_they_can_be_read(tmp_path):
    folder = tmp_path / "x.work"
    folder.mkdir()
    (folder / "request.json").write_text("{")
    (folder / "figures.json").write_text("[]")
    (one,) = runs._list([tmp_path, tmp_path / "missing"]).runs
    assert (one.phrases, one.state, one.stages) == (["x.work"], "stopped", [])


def test_a_report_has_an_address_of_its_own_for_a_minute_and_runs_no_script(serve, tmp_path):
    finish(begin(tmp_path / "x.work", "x"), report="<script>alert(1)</script>")

    async def run():
        async with serve() as page:
            page.host.config = Config(ui=UiSettings(runs=[str(tmp_path)]))
            listed = as_json((await asyncio.to_thread(ask, page.port, "/api/runs"))[2])
            wanted = json.dumps({"run": listed["runs"][0]["id"]})

            def request(body):
                return ask(page.port, "/api/runs/report", method="POST", body=body)

            bodies = (wanted, json.dumps({"run": "../x.work"}))
            answers = [await asyncio.to_thread(request, body) for body in bodies]
            url = as_json(answers[0][2])["url"]
            report = await asyncio.to_thread(ask, page.port, url, token="")
            other = "A" if url.endswith("_") else "_"
            forged = await asyncio.to_thread(ask, page.port, url[:-1] + other, token="")
            return answers[1], report, forged

    missing, report, forged = asyncio.run(run())
    assert missing[0] == 404
    assert report[0] == 200
    assert report[2] == b"<script>alert(1)</script>"
    policy = report[1]["content-security-policy"]
    assert policy.startswith("sandbox; default-src 'none'")
    assert "script" not in policy
    assert forged[0] == 404


def test_an_address_of_a_report_ends_and_their_number_is_bounded(tmp_path, monkeypatch):
    tickets = runs._Tickets()
    first = tickets.add(tmp_path)
    for _ in range(64):
        last = tickets.add(tmp_path)
    with pytest.raises(runs.NotThereError):
        tickets.path(first)
    assert tickets.path(last) == tmp_path
    now_s = time.monotonic()
    monkeypatch.setattr(runs.time, "monotonic", lambda: now_s + 61)
    with pytest.raises(runs.NotThereError, match="This address of a report is over"):
        tickets.path(last)
