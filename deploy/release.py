"""Make a release: changelog, version, commit and tag; wheel, sdist, .deb, SBOM and checksums.

`python deploy/release.py 0.2.0` works on a clean checkout and leaves the files in dist/; nothing is
uploaded or pushed. With `--dry-run` it does the same in a copy, and leaves the checkout as it is.
"""

import argparse
import datetime
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path

from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
UNRELEASED = "## [Unreleased]\n"
FORM = re.compile(r"\d+\.\d+\.\d+(?:(?:a|b|rc)\d+)?")


class ReleaseError(Exception):
    """What is in the way of a release."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the release that the command line names; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("version")
    parser.add_argument("--dry-run", action="store_true", help="in a copy of the last commit")
    parser.add_argument("--without-deb", action="store_true", help="build no Debian package")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="default: dist/")
    options = parser.parse_args(arguments)
    try:
        if options.dry_run:
            with tempfile.TemporaryDirectory() as folder:
                copy = Path(folder) / "kws"
                run("git", "clone", "--quiet", ROOT, copy, cwd=ROOT)
                made = release(copy, options.version, deb=not options.without_deb)
                shutil.copytree(made, options.out, dirs_exist_ok=True)
        else:
            made = release(ROOT, options.version, deb=not options.without_deb)
            if made != options.out:
                shutil.copytree(made, options.out, dirs_exist_ok=True)
    except ReleaseError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    for path in sorted(options.out.iterdir()):
        print(f"{path.stat().st_size:>10}  {path}")
    if options.dry_run:
        print("The checkout is as it was: this was a dry run.")
    else:
        print(f"Publish it: git push --follow-tags && twine upload {options.out}/kws-*")
    return 0


def release(checkout: Path, version: str, *, deb: bool) -> Path:
    """Release a version of a checkout; return the folder of the files."""
    check(checkout, version)
    write_changelog(checkout / "CHANGELOG.md", version, day=datetime.datetime.now(datetime.UTC))
    write_version(checkout / "pyproject.toml", version)
    run("git", "commit", "--quiet", "--all", "--message", f"Release {version}", cwd=checkout)
    run("git", "tag", "--annotate", f"v{version}", "--message", f"kws {version}", cwd=checkout)
    out = checkout / "dist"
    shutil.rmtree(out, ignore_errors=True)
    build(checkout, out, version, deb=deb)
    write_checksums(out)
    return out


def check(checkout: Path, version: str) -> None:
    """Check that the version is a new one, and that the checkout can be released.

    Raises
    ------
    ReleaseError
        If not.
    """
    if not FORM.fullmatch(version):
        raise ReleaseError(f"A version must be such as 1.2.3 or 1.2.3rc1. Received: {version}.")
    present = tomllib.loads((checkout / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    if Version(version) < Version(present):
        raise ReleaseError(f"A version must not be below {present}. Received: {version}.")
    if run("git", "tag", "--list", f"v{version}", cwd=checkout):
        raise ReleaseError(f"A version must be new. Received: {version}, which has a tag already.")
    if changed := run("git", "status", "--porcelain", cwd=checkout):
        raise ReleaseError(f"The checkout must be clean. Received: {changed.splitlines()[0]}.")
    text = (checkout / "CHANGELOG.md").read_text("utf-8")
    if UNRELEASED not in text or not _section(text, UNRELEASED).strip():
        raise ReleaseError("CHANGELOG.md must say what changed below [Unreleased]. Received: none.")


def write_changelog(path: Path, version: str, *, day: datetime.datetime) -> None:
    """Put what is unreleased below the version and its day."""
    text = path.read_text("utf-8")
    heading = f"{UNRELEASED}\n## [{version}] - {day:%Y-%m-%d}\n"
    path.write_text(text.replace(UNRELEASED, heading, 1), encoding="utf-8")


def write_version(path: Path, version: str) -> None:
    """Set the version in pyproject.toml."""
    text = path.read_text("utf-8")
    path.write_text(
        re.sub(r'(?m)^version = ".*"$', f'version = "{version}"', text, count=1), encoding="utf-8"
    )


def build(checkout: Path, out: Path, version: str, *, deb: bool) -> None:
    """Build wheel, sdist, SBOM, container file and Debian package from a commit."""
    when = {"SOURCE_DATE_EPOCH": run("git", "log", "-1", "--format=%ct", cwd=checkout).strip()}
    python = sys.executable
    run(python, "-m", "build", "--no-isolation", "--outdir", out, cwd=checkout, environment=when)
    run(python, "-m", "twine", "check", "--strict", *out.iterdir(), cwd=checkout)
    project, lock = checkout / "pyproject.toml", checkout / "deploy" / "requirements.txt"
    bom = ("--output-reproducible", "--of", "JSON", "-o", out / f"kws-{version}.cdx.json")
    components = [python, "-m", "cyclonedx_py", "requirements", lock, "--pyproject", project]
    run(*components, *bom, cwd=checkout)
    shutil.copy(checkout / "deploy" / "Containerfile", out / f"kws-{version}.Containerfile")
    if deb:
        environment = {**when, "PYTHON": python, "VERSION": version}
        run("sh", "deploy/debian/build", cwd=checkout, environment=environment)


def write_checksums(out: Path) -> None:
    """Write SHA256SUMS, as `sha256sum --check` reads it."""
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n"
        for path in sorted(out.iterdir())
    ]
    (out / "SHA256SUMS").write_text("".join(lines), encoding="utf-8")


def run(*command: object, cwd: Path, environment: dict[str, str] | None = None) -> str:
    """Run a command; return what it prints.

    Raises
    ------
    ReleaseError
        If it fails.
    """
    words = [str(word) for word in command]
    done = subprocess.run(
        words,
        cwd=cwd,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ReleaseError(f"{' '.join(words)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def _section(text: str, heading: str) -> str:
    """Return the text from a heading to the next of the same level."""
    return text.partition(heading)[2].partition("\n## ")[0]


if __name__ == "__main__":
    sys.exit(main())
