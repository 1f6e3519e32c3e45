"""A release of a copy of this checkout: what it changes there, and what comes out."""

import datetime
import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
VERSION = "9.8.7rc1"
IDENTITY = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]


def git(checkout, *words):
    done = subprocess.run(
        ["git", *IDENTITY, *words], cwd=checkout, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def release(checkout, *options, code=0):
    """Run the script of this checkout on another one; return what it prints."""
    environment = {
        f"GIT_{who}_{what}": value
        for who in ("AUTHOR", "COMMITTER")
        for what, value in (("NAME", "Test"), ("EMAIL", "test@example.org"))
    }
    done = subprocess.run(
        [sys.executable, checkout / "deploy" / "release.py", *options],
        cwd=checkout,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout
    return done.stdout


@pytest.fixture
def checkout(tmp_path):
    """A clone with all that is in the checkout now, committed."""
    git(tmp_path, "init", "--quiet", "kws")
    clone = tmp_path / "kws"
    for name in git(ROOT, "ls-files", "-z").split("\0")[:-1]:
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        (clone / name).write_bytes((ROOT / name).read_bytes())
    git(clone, "add", "--all")
    git(clone, "commit", "--quiet", "--message", "Begin")
    return clone


@pytest.mark.slow
def test_a_dry_run_makes_everything_and_changes_nothing(checkout, tmp_path):
    before = git(checkout, "rev-parse", "HEAD")
    out = tmp_path / "out"
    told = release(checkout, VERSION, "--dry-run", "--without-deb", "--out", out)
    assert "The checkout is as it was" in told
    assert (git(checkout, "rev-parse", "HEAD"), git(checkout, "tag")) == (before, "")
    assert git(checkout, "status", "--porcelain") == ""
    made = {path.name: path for path in out.iterdir()}
    assert set(made) == {
        f"kws-{VERSION}-py3-none-any.whl",
        f"kws-{VERSION}.tar.gz",
        f"kws-{VERSION}.cdx.json",
        f"kws-{VERSION}.Containerfile",
        "SHA256SUMS",
    }
    for line in made["SHA256SUMS"].read_text().splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256(made.pop(name).read_bytes()).hexdigest() == digest
    assert set(made) == {"SHA256SUMS"}
    bom = json.loads((out / f"kws-{VERSION}.cdx.json").read_text())
    assert bom["bomFormat"] == "CycloneDX"
    locked = re.findall(r"(?m)^([a-z0-9-]+)==", (ROOT / "deploy" / "requirements.txt").read_text())
    assert {one["name"] for one in bom["components"]} == set(locked)
    assert (bom["metadata"]["component"]["name"], bom["metadata"]["component"]["version"]) == (
        "kws",
        VERSION,
    )


@pytest.mark.slow
def test_a_release_commits_and_tags_the_version_and_the_changelog(checkout):
    release(checkout, VERSION, "--without-deb")
    assert git(checkout, "tag").split() == [f"v{VERSION}"]
    assert git(checkout, "log", "-1", "--format=%s").strip() == f"Release {VERSION}"
    changed = git(checkout, "diff", "--name-only", "HEAD~1", "HEAD").split()
    assert changed == ["CHANGELOG.md", "pyproject.toml"]
    today = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
    text = (checkout / "CHANGELOG.md").read_text("utf-8")
    assert f"## [Unreleased]\n\n## [{VERSION}] - {today}\n" in text
    assert f'version = "{VERSION}"' in (checkout / "pyproject.toml").read_text("utf-8")
    assert "must say what changed" in release(checkout, "9.8.7", code=2)
    assert "which has a tag already" in release(checkout, VERSION, code=2)


def test_old_versions_and_checkouts_with_changes_are_refused(checkout):
    for version, message in {
        "1.2": "A version must be such as 1.2.3 or 1.2.3rc1. Received: 1.2.",
        "0.0.9": "A version must not be below 0.1.0. Received: 0.0.9.",
        "0.1.0rc1": "A version must not be below 0.1.0. Received: 0.1.0rc1.",
    }.items():
        assert release(checkout, version, code=2) == f"Error: {message}\n"
    (checkout / "README.md").write_text("other")
    assert "must be clean. Received:  M README.md." in release(checkout, VERSION, code=2)
