"""What is published: the same bytes from the same source, and metadata that indexes take."""

import email
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
PROGRAMS = Path(sys.executable).parent
LOCK = ROOT / "deploy" / "requirements.txt"


def run(*command, cwd=ROOT, **options):
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        **options,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def build(folder, *, umask, mtime):
    """Build sdist and wheel from a copy of the tracked files, in a folder of its own."""
    source = folder / "source"
    for name in run("git", "ls-files", "-z").split("\0")[:-1]:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, source / name)
        os.utime(source / name, (mtime, mtime))
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", source]
    run(*command, cwd=folder, umask=umask)
    return {path.name: path for path in sorted((folder / "dist").iterdir())}


@pytest.fixture(scope="module")
def builds(tmp_path_factory):
    folders = [tmp_path_factory.mktemp(name) for name in ("first", "second")]
    times = ((0o022, 1_700_000_000), (0o077, 1_600_000_000))
    return [
        build(folder, umask=umask, mtime=mtime)
        for folder, (umask, mtime) in zip(folders, times, strict=True)
    ]


@pytest.fixture(scope="module")
def wheel(builds):
    (path,) = [path for path in builds[0].values() if path.suffix == ".whl"]
    return path


@pytest.fixture(scope="module")
def metadata(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("/METADATA")]
        return email.message_from_string(archive.read(name).decode())


def test_two_builds_give_the_same_bytes(builds):
    first, second = (
        {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
        for files in builds
    )
    assert len(first) == 2
    assert first == second


def test_package_indexes_take_them(builds):
    run(PROGRAMS / "twine", "check", "--strict", *builds[0].values())
    run(PROGRAMS / "check-wheel-contents", *[p for p in builds[0].values() if p.suffix == ".whl"])


def test_the_description_has_no_link_that_leads_nowhere_outside_of_the_repository(metadata):
    text = metadata.get_payload()
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert len(text) > 3000
    assert re.findall(r"\]\((?!https://)[^)]*\)", text) == []
    assert "Hooks and Configuration have the rest" in " ".join(text.split())


def test_the_metadata_names_authors_licence_and_systems(metadata):
    assert metadata["Author"] == "The kws contributors"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert "wake word" in metadata["Keywords"]
    versions = {line for line in metadata.get_all("Classifier") if "Python :: 3.1" in line}
    assert versions == {f"Programming Language :: Python :: 3.{minor}" for minor in (11, 12, 13)}


def test_the_source_distribution_holds_all_that_its_tests_and_packages_need(builds):
    (path,) = [path for name, path in builds[0].items() if name.endswith(".tar.gz")]
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    tracked = set(run("git", "ls-files", "-z").split("\0")[:-1])
    left_out = {name for name in tracked - names if not name.startswith((".ci/", "data/"))}
    assert left_out <= {".dockerignore", ".editorconfig", ".gitignore"}
    assert names - tracked == {"PKG-INFO"}


def test_the_locked_releases_are_those_that_kws_asks_for():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    locked = dict(re.findall(r"^([a-z0-9-]+)==(\S+)", LOCK.read_text("utf-8"), re.MULTILINE))
    asked = [one for one in declared["dependencies"] if "platform_machine ==" not in one]
    extras = [
        one for name in ("mqtt", "ui", "files") for one in declared["optional-dependencies"][name]
    ]
    asked += [one for one in extras if not one.startswith("kws[")]
    assert {re.match(r"[a-z0-9-]+", one)[0] for one in asked} <= set(locked)
    for line in LOCK.read_text("utf-8").splitlines():
        assert line.startswith("#") or re.match(
            r"[a-z0-9-]+==\S+ \\$|    --hash=sha256:[0-9a-f]{64}", line
        )


def interpreter(version):
    """Return a Python of that version, from PATH or pyenv."""
    found = [shutil.which(f"python{version}")]
    found += sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    for program in filter(None, found):
        done = subprocess.run(
            [program, "-c", "import venv, ensurepip"], capture_output=True, check=False
        )
        if not done.returncode:
            return program
    return pytest.skip(f"needs Python {version}")


@pytest.mark.system
@pytest.mark.parametrize("version", ["3.12", "3.13"])
def test_the_wheel_runs_on_other_pythons(wheel, tmp_path, version):
    """test_wheel.py has the Python that runs the tests."""
    run(interpreter(version), "-m", "venv", tmp_path / "venv")
    programs = tmp_path / "venv" / "bin"
    run(programs / "python", "-m", "pip", "install", "-q", "--only-binary", ":all:", wheel)
    code = "import kws.models; print(kws.models.__path__[0])"
    demo = run(programs / "python", "-c", code, cwd=tmp_path).strip()
    assert Path(demo).is_relative_to(tmp_path)
    heard = run(
        programs / "kws", "listen", f"{demo}/demo_computer.wav", "--model", "computer", cwd=tmp_path
    )
    assert len(re.findall(r"computer +\d\.\d\d", heard)) == 7
