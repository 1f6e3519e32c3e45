"""Run the tests that run a line, in a copy of the tree; for `mutants.py`."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections import defaultdict
from pathlib import Path
from typing import Any

__all__ = ["LONGEST_TEST_S", "TestsByLine", "copied_tree"]

LONGEST_TEST_S = 60
_ROOT = Path(__file__).parents[1]
_FAST = ("-m", "not slow and not system")


class TestsByLine:
    """Tests in a copy of the tree: the lines that each runs, and the time that it takes.

    Parameters
    ----------
    tree : Path
        The copy.
    paths : list of str
        Folders and files of tests.
    lines : Path
        Keeps which test runs which line; if there is none, it is found out by running them all.
    """

    def __init__(self, tree: Path, paths: list[str], *, lines: Path) -> None:
        self._tree, self._paths = tree, paths
        self._duration_s: dict[str, float] = {}
        self._by_line: dict[tuple[str, int], set[str]] = defaultdict(set)
        _preload()
        if not lines.exists() and (code := self._run(paths, limit_s=3600, lines=lines.absolute())):
            said = (tree / "last.log").read_text()[-2000:]
            raise SystemExit(f"The tests must pass without a change. Exit code: {code}. {said}")
        answer = json.loads(lines.read_text())
        self._duration_s = answer["duration_s"]
        for module, by_line in answer["lines"].items():
            for line, names in by_line.items():
                self._by_line[module, int(line)] = set(names)

    def of_line(self, module: str, line: int) -> list[str]:
        """List the tests that run a line, those of the module first, the quickest of each first.

        A line that runs at import, or in a process of its own, gets the tests of its module.
        """
        stem = f"/test_{Path(module).stem}.py::"
        names = self._by_line.get((module, line), set()) & self._duration_s.keys()
        if not names:
            names = {one for one in self._duration_s if stem in one} or set(self._duration_s)
        return sorted(names, key=lambda one: (stem not in one, self._duration_s[one]))

    def first_failure(self, names: list[str]) -> str | None:
        """Return the first of these tests that fails, or what else went wrong; None: all pass."""
        report = self._tree / "failed.txt"
        report.write_text("")
        limit_s = 2 * LONGEST_TEST_S + 10 * sum(self._duration_s[one] for one in names)
        code = self._run(names, limit_s=limit_s, report=report)
        return report.read_text() or (f"exit code {code}" if code else None)

    def _run(self, names: list[str], *, limit_s: float, **plugin: Path) -> int:
        """Run tests in a forked process, which need not import libraries again."""
        pid = os.fork()
        if not pid:
            _run_tests(self._tree, names, _Plugin(self._tree, **plugin))
        try:
            return _wait(pid, limit_s=limit_s)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)


class _Plugin:
    """A plugin of pytest that writes the first failure, or the lines and the time of each test."""

    def __init__(
        self, tree: Path, *, report: Path | None = None, lines: Path | None = None
    ) -> None:
        self._tree, self._report, self._lines = tree, report, lines
        self._duration_s: dict[str, float] = {}
        self._coverage: Any = None
        if lines:
            import coverage

            self._coverage = coverage.Coverage(
                data_file=None, source=[str(tree / "kws")], config_file=False
            )

    def pytest_sessionstart(self) -> None:
        if self._coverage:
            self._coverage.start()

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        if self._coverage:
            self._coverage.switch_context(nodeid)

    def pytest_runtest_logreport(self, report: Any) -> None:
        time_s = self._duration_s.get(report.nodeid, 0.0) + report.duration
        self._duration_s[report.nodeid] = time_s
        if self._report and report.failed and not self._report.read_text():
            self._report.write_text(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        if not self._coverage or not self._lines:
            return
        self._coverage.stop()
        data = self._coverage.get_data()
        lines = {
            str(Path(path).relative_to(self._tree)): {
                line: [one for one in names if one]
                for line, names in data.contexts_by_lineno(path).items()
            }
            for path in data.measured_files()
        }
        self._lines.write_text(json.dumps({"duration_s": self._duration_s, "lines": lines}))


def _preload() -> None:
    """Import the libraries that tests need, and nothing of the changed tree."""
    for name in ("pytest", "numpy", "msgspec", "ai_edge_litert.interpreter"):
        __import__(name)


def _run_tests(tree: Path, names: list[str], plugin: _Plugin) -> None:
    """Run pytest in this process, a child, and leave it with pytest's exit code."""
    import pytest

    code = 70
    try:
        os.setsid()
        os.chdir(tree)
        quiet = os.open("last.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        folders = [str(tree), str(tree / "train"), str(tree / "export")]
        sys.path[:0] = folders
        os.environ["PYTHONPATH"] = os.pathsep.join(folders)
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        sys.dont_write_bytecode = False
        Path("names.txt").write_text("\n".join(names))
        options = ("-x", "-q", "-p", "no:cacheprovider", f"--timeout={LONGEST_TEST_S}", *_FAST)
        code = int(pytest.main([*options, "@names.txt"], plugins=[plugin]))
    except BaseException:  # noqa: BLE001  a child must never return into its parent's code
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _wait(pid: int, *, limit_s: float) -> int:
    """Wait for a child, and reap orphans as PID 1 must; return its exit code, -1 if too late."""
    deadline_s = time.monotonic() + limit_s
    while True:
        ended, status = os.waitpid(-1, os.WNOHANG)
        if ended == pid:
            return os.waitstatus_to_exitcode(status)
        if not ended:
            time.sleep(0.02)
        if time.monotonic() > deadline_s:
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return -1


def copied_tree(folder: Path) -> Path:
    """Copy what git keeps, with compiled modules."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=_ROOT, capture_output=True, text=True, check=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (_ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(_ROOT / name, folder / name)
    compile_all = [sys.executable, "-m", "compileall", "-q", "kws", "train"]
    subprocess.run(compile_all, cwd=folder, check=True)
    return folder
