"""Share of small changes to a package that its fast tests notice: mutation testing on a sample.

python -m pip install cosmic-ray coverage
python benchmarks/mutants.py kws/daemon --tests tests/kws/daemon --minutes 60 --log mutants.jsonl
python benchmarks/mutants.py kws/daemon --tests tests/kws/daemon --again mutants.jsonl

A mutant is one change by an operator of cosmic-ray, or one statement taken out; annotations are
left alone. Each place is drawn once. A mutant meets the tests that run its line, those of its
module first, up to the first that fails; a failure counts if it comes twice, or after a minute, so
that load is no detection. `--again` repeats the mutants that an earlier run has not noticed.
"""

import argparse
import ast
import contextlib
import dataclasses
import difflib
import itertools
import json
import os
import random
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tests_by_line import LONGEST_TEST_S, TestsByLine, copied_tree

_REMOVED = "remove-statement"


@dataclasses.dataclass(frozen=True)
class Mutant:
    """One change: the module, its line, the operator, and which of its places."""

    module: str
    line: int
    operator: str
    occurrence: int

    def code(self, source: str) -> str:
        """Return the changed module."""
        if self.operator == _REMOVED:
            return _without_statement(source, self.occurrence)
        from cosmic_ray.mutating import mutate_code
        from cosmic_ray.plugins import get_operator

        return str(mutate_code(source, get_operator(self.operator)(), self.occurrence))


def main() -> None:
    """Draw mutants for some time, or repeat the survivors of an earlier run; print the share."""
    _enter_namespace()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("package", help="folder or module that is changed")
    parser.add_argument("--tests", nargs="+", required=True, help="folders or files of tests")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--log", type=Path, default=Path("mutants.jsonl"))
    parser.add_argument("--again", type=Path, help="log of an earlier run")
    parser.add_argument("--part", default="1/1", help="K/N: every N-th mutant from the K-th on")
    parser.add_argument("--lines", type=Path, help="keeps which test runs which line")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        tree = copied_tree(Path(name))
        chosen = TestsByLine(tree, options.tests, lines=options.lines or tree / "lines.json")
        if options.again:
            _repeat(options.again, tree, chosen)
        else:
            mutants = drawn_mutants(tree, options.package, seed=options.seed)
            part, n_parts = map(int, options.part.split("/"))
            mutants = itertools.islice(mutants, part - 1, None, n_parts)
            _test_each(mutants, tree, chosen, log=options.log, limit_s=60 * options.minutes)


def _enter_namespace() -> None:
    """Begin again as PID 1 of a namespace: a mutant may kill every process that it can see."""
    if os.getpid() != 1:
        alone = ["--pid", "--fork", "--kill-child", "--mount-proc"]
        alone += ["--map-root-user"] if os.geteuid() else []
        os.execvp("unshare", ["unshare", *alone, sys.executable, *sys.argv])  # noqa: S606


def _test_each(
    mutants: Iterable[Mutant], tree: Path, tests: TestsByLine, *, log: Path, limit_s: float
) -> None:
    started_s, n_noticed, n = time.monotonic(), 0, 0
    with log.open("w") as file:
        for mutant in mutants:
            if time.monotonic() - started_s > limit_s:
                break
            result = tested(mutant, tree, tests)
            n, n_noticed = n + 1, n_noticed + result["noticed"]
            file.write(json.dumps(result) + "\n")
            file.flush()
    minutes = (time.monotonic() - started_s) / 60
    print(f"{n_noticed} of {n} mutants noticed ({n_noticed / max(n, 1):.0%}), {minutes:.0f} min")


def _repeat(log: Path, tree: Path, tests: TestsByLine) -> None:
    """Test the mutants again that an earlier run has not noticed, wherever their lines are now."""
    results = [json.loads(line) for line in log.read_text().splitlines()]
    n_noticed = sum(one["noticed"] for one in results)
    for result in results:
        if result["noticed"]:
            continue
        mutant = Mutant(**{f.name: result[f.name] for f in dataclasses.fields(Mutant)})
        again = tested(mutant, tree, tests)
        n_noticed += again["noticed"]
        print("noticed " if again["noticed"] else "survived", mutant.module, mutant.line)
        print(again["diff"] if again["diff"] != result["diff"] else "", end="")
    print(f"{n_noticed} of {len(results)} mutants noticed ({n_noticed / len(results):.0%})")


def tested(mutant: Mutant, tree: Path, tests: TestsByLine) -> dict[str, Any]:
    """Run the tests of a mutant's line; return what there is to know of it."""
    path = tree / mutant.module
    source = path.read_text()
    code = mutant.code(source)
    diff = "".join(
        difflib.unified_diff(source.splitlines(keepends=True), code.splitlines(keepends=True), n=1)
    ).split("\n", 2)[2]
    names = tests.of_line(mutant.module, mutant.line)
    started_s = time.monotonic()
    _write(path, code)
    try:
        failed = tests.first_failure(names)
        if failed and time.monotonic() - started_s < LONGEST_TEST_S:
            failed = tests.first_failure([failed] if failed in names else names)
    finally:
        _write(path, source)
    return dataclasses.asdict(mutant) | {
        "noticed": bool(failed),
        "by": failed,
        "n_tests": len(names),
        "spent_s": round(time.monotonic() - started_s, 1),
        "diff": diff,
    }


def _write(path: Path, code: str) -> None:
    """Change a module; its compiled form may be as new and as long as that of another change."""
    path.write_text(code)
    for cached in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
        cached.unlink()


def drawn_mutants(tree: Path, package: str, *, seed: int) -> Iterator[Mutant]:
    """Yield mutants in random order, one of each place."""
    start = tree / package
    modules = sorted(start.rglob("*.py")) if start.is_dir() else [start]
    places: dict[tuple[str, tuple[int, int]], list[Mutant]] = defaultdict(list)
    for path in modules:
        name = str(path.relative_to(tree))
        for position, mutant in _mutants(name, path.read_text()):
            places[name, position].append(mutant)
    chance = random.Random(seed)  # noqa: S311
    for place in chance.sample(sorted(places), len(places)):
        mutant = chance.choice(places[place])
        with contextlib.suppress(AttributeError):  # cosmic-ray replaces no exception with a dot
            mutant.code((tree / mutant.module).read_text())
            yield mutant


def _mutants(module: str, source: str) -> Iterator[tuple[tuple[int, int], Mutant]]:
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.plugins import get_operator, operator_names

    for n, statement in enumerate(_removable(ast.parse(source))):
        # A place beside those of the statement's own parts.
        yield (statement.lineno, -1), Mutant(module, statement.lineno, _REMOVED, n)
    annotated = _annotations(ast.parse(source))
    tree, lines = get_ast(source), source.splitlines()
    for name in operator_names():
        if get_operator(name).arguments() or name.endswith("NoOp"):
            continue
        operator = get_operator(name)()
        positions = (
            start for node in ast_nodes(tree) for start, _ in operator.mutation_positions(node)
        )
        for n, (line, column) in enumerate(positions):
            is_marker = lines[line - 1].startswith("*,", column)  # of keyword-only arguments
            if not is_marker and not any(
                first <= (line, column) < last for first, last in annotated
            ):
                yield (line, column), Mutant(module, line, name, n)


def _annotations(tree: ast.AST) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """List where annotations begin and end."""
    annotations = (
        one
        for node in ast.walk(tree)
        for one in (getattr(node, "annotation", None), getattr(node, "returns", None))
        if isinstance(one, ast.expr)
    )
    return [
        ((one.lineno, one.col_offset), (one.end_lineno or one.lineno, one.end_col_offset or 0))
        for one in annotations
    ]


def _removable(tree: ast.AST) -> list[ast.stmt]:
    """List the statements that can be taken out: calls, assignments to attributes, `raise`."""
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Raise)
        or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call | ast.Await))
        or (isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute))
        or isinstance(node, ast.AugAssign)
    ]


def _without_statement(source: str, n: int) -> str:
    statement = _removable(ast.parse(source))[n]
    lines = source.splitlines(keepends=True)
    first = lines[statement.lineno - 1]
    kept = first.encode()[: statement.col_offset].decode()
    lines[statement.lineno - 1 : statement.end_lineno] = [f"{kept}pass\n"]
    return "".join(lines)


if __name__ == "__main__":
    main()
