"""Runs of `kws new` in Chromium, while one goes on and when it is finished."""

import re

import pytest
from playwright.sync_api import expect

from kws.run_progress import ProgressWriter

from ..test_runs import STAGES, begin, finish

pytestmark = pytest.mark.slow


def test_stages_time_left_curve_and_report_are_shown_as_they_come(run_ui, open_page, demo_wav):
    with run_ui(f'[source]\ninput = "{demo_wav}"\n') as running:
        page = open_page(running.link)
        page.get_by_role("link", name="Runs").click()
        expect(page.get_by_text("No run of kws new")).to_be_visible()
        expect(page.get_by_text('kws new "hey computer"')).to_be_visible()
        folder = begin(running.folder / "kitchen.work", "kitchen light")
        with ProgressWriter(folder, STAGES) as progress:
            progress.begin("training")
            progress.tell("epoch 3 of 8")
            run = page.get_by_role("region", name="Run kitchen light")
            expect(run).to_contain_text("running")
            expect(run).to_contain_text("about 11 min left")
            expect(run).to_contain_text("epoch 3 of 8")
            expect(run.get_by_role("list", name="Stage 2 of 3")).to_be_visible()
            expect(run.locator("[aria-current=step]")).to_have_text("training")
            progress.begin("report")
            finish(
                folder, "<title>Report</title><h1>A report</h1><script>document.title=1</script>"
            )
        expect(run).to_contain_text("finished")
        curve = run.get_by_role("img", name=re.compile("clean, 7 % missed at 0.40 an hour"))
        expect(curve).to_be_visible()
        assert curve.locator("circle").count() == 2
        expect(run.get_by_role("row", name="clean")).to_contain_text("7.0 %")
        with page.context.expect_page() as opened:
            run.get_by_role("button", name="Open the report").click()
        report = opened.value
        expect(report.get_by_role("heading")).to_have_text("A report")
        assert report.title() == "Report"  # its script did not run
        page.close()
