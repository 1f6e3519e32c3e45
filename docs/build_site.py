"""Collect the pages of the repository and build the site: python docs/build_site.py.

The pages keep their places, so that links lead to the same files. Folders that pages link to get a
page that lists them, and the names of `kws` one that describes them.
"""

import inspect
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import kws

__all__ = ["HTML", "PAGES", "build", "collect"]

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "site"
PAGES, HTML = BUILD / "pages", BUILD / "html"
WORKER, FOREIGN_WORKER = "frame_worker.js", "https://unpkg.com/iframe-worker/shim"
LINK = re.compile(r"(\[[^\]]*\])\(((?!\w+:)[^)#\s]+)")
SHOWN = {".py", ".toml"}
"""Examples that are shown in their page; others are files to fetch from it."""
FOLDERS = {
    "docs/adr": ("Decisions", "What is hard to reverse, and why it was decided so."),
    "examples": ("Examples", "A short program for each use of the Python API."),
    "kws/models": ("Models", "The cards of the bundled models: data, licence, figures, limits."),
}


def build() -> None:
    """Build the site; a link that leads nowhere is an error."""
    collect()
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    config = ["--config-file", str(ROOT / "docs" / "mkdocs.yml")]
    subprocess.run([*command, *config], check=True, env=environment)
    _search_without_network()


def _search_without_network() -> None:
    """Put our own script in place of the one that the theme takes from the network."""
    shutil.copy(ROOT / "docs" / WORKER, HTML / "assets" / WORKER)
    for page in HTML.rglob("*.html"):
        up = "../" * (len(page.relative_to(HTML).parts) - 1)
        text = page.read_text("utf-8").replace(FOREIGN_WORKER, f"{up}assets/{WORKER}")
        page.write_text(text, encoding="utf-8")


def collect() -> None:
    """Copy the pages, and every file that they link to."""
    shutil.rmtree(BUILD, ignore_errors=True)
    for page in _sources():
        copied = PAGES / page.relative_to(ROOT)
        copied.parent.mkdir(parents=True, exist_ok=True)
        copied.write_text(_with_linked_files(page), encoding="utf-8")
    for folder, (title, text) in FOLDERS.items():
        (PAGES / folder / "README.md").write_text(_listing(folder, title, text), encoding="utf-8")
    (PAGES / "docs" / "reference.md").write_text(_reference(), encoding="utf-8")


def _sources() -> list[Path]:
    """Return the pages of the repository."""
    patterns = ("*.md", "docs/*.md", "docs/adr/*.md", "kws/models/*.md", "deploy/**/*.md")
    return [path for pattern in patterns for path in sorted(ROOT.glob(pattern))]


def _with_linked_files(page: Path) -> str:
    """Return a page whose links to folders lead to their listings; copy the files it links to."""

    def linked(match: re.Match[str]) -> str:
        label, link = match.groups()
        target = (page.parent / link).resolve()
        if target.is_dir() and str(target.relative_to(ROOT)) in FOLDERS:
            return f"{label}({link.rstrip('/')}/README.md"
        if target.is_dir():
            return f"{label}({link.rstrip('/')}/{next(target.glob('*.md')).name}"
        if target.suffix != ".md":
            copied = PAGES / target.relative_to(ROOT)
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(target, copied)
        return match[0]

    return LINK.sub(linked, page.read_text("utf-8"))


def _listing(folder: str, title: str, text: str) -> str:
    lines = [f"# {title}\n\n{text}\n"]
    for path in sorted((ROOT / folder).iterdir()):
        if path.suffix == ".md":
            heading = path.read_text("utf-8").partition("\n")[0].lstrip("# ")
            lines.append(f"- [{heading}]({path.name})")
        elif folder == "examples" and path.suffix in SHOWN:
            code = path.read_text("utf-8").strip()
            lines.append(f"## {path.name}\n\n```{path.suffix.lstrip('.')}\n{code}\n```\n")
        elif folder == "examples" and path.is_file():
            shutil.copy(path, PAGES / folder / path.name)
            lines.append(f"## [{path.name}]({path.name})\n")
    return "\n".join(lines) + "\n"


def _reference() -> str:
    """Return the page that mkdocstrings fills: all public names of `kws`, by module."""
    modules: dict[str, list[str]] = {}
    for name in kws.__all__:
        found = getattr(kws, name)
        if inspect.isclass(found) or inspect.isfunction(found):
            modules.setdefault(found.__module__, []).append(name)
    lines = ["# Python reference\n\n[The guide](python.md) has examples.\n"]
    for module, names in sorted(modules.items()):
        lines.append(f"## {module}\n")
        lines += [f"::: {module}.{name}\n" for name in names]
    return "\n".join(lines)


if __name__ == "__main__":
    build()
