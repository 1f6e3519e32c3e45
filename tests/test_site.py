"""The documentation as a site: every link leads somewhere, nothing is fetched from elsewhere."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import kws

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
HTML = ROOT / "build" / "site" / "html"


@pytest.fixture(scope="module")
def site():
    """Build the site; mkdocs refuses links and anchors that lead nowhere."""
    script = ROOT / "docs" / "build_site.py"
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return {
        path.relative_to(HTML).as_posix(): path.read_text("utf-8") for path in HTML.rglob("*.html")
    }


def test_every_page_of_the_repository_is_there(site):
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "kws").rglob("*.md")]
    missing = {path.relative_to(ROOT).with_suffix(".html").as_posix() for path in pages} - set(site)
    assert missing == {"README.html"}  # the index


def test_examples_are_shown_and_what_is_no_text_is_fetched(site):
    page = site["examples/index.html"]
    assert "phrases" in page
    assert 'href="digits.tflite"' in page
    example = ROOT / "examples" / "digits.tflite"
    assert (HTML / "examples" / "digits.tflite").read_bytes() == example.read_bytes()


def test_nothing_is_fetched_from_elsewhere(site):
    for name, text in site.items():
        loaded = re.findall(r'<script[^>]* src="([^"]+)"|<link[^>]* href="([^"]+)"', text)
        foreign = [one for pair in loaded for one in pair if "://" in one or one.startswith("//")]
        assert foreign == [], name


def test_the_reference_has_every_public_name(site):
    reference = site["docs/reference.html"]
    names = [name for name in kws.__all__ if name not in {"__version__", "Event"}]
    assert [name for name in names if f'.{name}"' not in reference] == []


def test_the_search_finds_a_setting_without_a_network(site):
    index = (HTML / "search" / "search_index.js").read_text("utf-8")
    pages = json.loads(index.partition("=")[2].rstrip(";\n "))["docs"]
    found = {one["location"].partition("#")[0] for one in pages if "cooldown_s" in one["text"]}
    assert "docs/configuration.html" in found
    assert 'src="../assets/frame_worker.js"' in site["docs/hooks.html"]
    assert (HTML / "assets" / "frame_worker.js").is_file()


def test_issues_ask_for_what_doctor_says():
    for path in sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("[!c]*.yml")):
        form = yaml.safe_load(path.read_text("utf-8"))
        (doctor,) = [one for one in form["body"] if one.get("id") == "doctor"]
        assert "kws doctor" in doctor["attributes"]["label"]
        assert doctor["validations"]["required"]
