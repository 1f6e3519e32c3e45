"""The rooms keep to themselves, and the repository stays small."""

import ast
import importlib
import importlib.util
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import kws
import kws_export
import kws_train

ROOT = Path(__file__).parents[1]
DEVICE_MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(kws.__path__, "kws.")
    if not module.name.endswith("__main__")
)
WORKBENCH_MODULES = sorted(
    module.name
    for package in (kws_train, kws_export)
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
)
WORKBENCH_LIBRARIES = {
    "tensorflow",
    "keras",
    "scipy",
    "matplotlib",
    "joblib",
    "rich",
    "python_speech_features",
}
LAZY_LIBRARIES = {"soundfile", "pyaudio", "soxr", "prometheus_client"}
CODE_OF_DATA = {
    "pickle", "cPickle", "dill", "shelve", "marshal", "yaml", "joblib", "cloudpickle",
    "eval", "exec", "compile", "__import__", "execfile",
}  # fmt: skip
FEW = ("kws.errors", "kws.config", "kws.events", "kws.manifest", "kws.sinks")


def test_importing_what_runs_on_the_device_loads_no_library_of_the_workbench():
    code = f"import importlib, sys\nfor name in {DEVICE_MODULES}: importlib.import_module(name)"
    loaded = _loaded_by(code)
    assert loaded & (WORKBENCH_LIBRARIES | LAZY_LIBRARIES) == set()
    assert not {name for name in loaded if name.startswith(("kws_train", "kws_export"))}


def test_the_vocabulary_and_the_sinks_do_without_numpy():
    assert "numpy" not in _loaded_by("import " + ", ".join(FEW))


def test_the_command_line_loads_nothing_heavy_before_it_knows_the_command():
    assert _loaded_by("import kws.cli") & {"numpy", "webrtcvad", "ai_edge_litert"} == set()


def test_help_does_without_what_draws_on_the_terminal():
    code = "from kws.cli import cli\ncli(['--help'], standalone_mode=False)"
    assert _loaded_by(code) & {"rich", "numpy", "asyncio"} == set()


def test_a_module_exports_what_it_says():
    for name in DEVICE_MODULES:
        _check_exports(importlib.import_module(name))


@pytest.mark.slow
def test_a_module_of_the_workbench_exports_what_it_says(tensorflow):
    for name in WORKBENCH_MODULES:
        _check_exports(importlib.import_module(name))


def test_each_layer_imports_only_what_it_may():
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_docstring_of_a_package_lists_its_modules():
    for package in ("kws", "kws_train", "kws_export"):
        for path in _package_folder(package).rglob("__init__.py"):
            if path == _package_folder("kws") / "__init__.py":
                continue  # the map of the API; docs/architecture.md lists the modules
            described = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            listed = re.findall(r"^- `(\w+)`: \S", described, re.MULTILINE)
            assert sorted(listed) == _modules_in(path.parent), path.relative_to(ROOT)


def test_the_page_of_the_architecture_names_every_package_and_module():
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(kws(?:_train|_export)?(?:\.\w+)*)`", page)) - {"kws.json"}
    expected = {f"kws.{name}" for name in _modules_in(_package_folder("kws"))}
    for package in ("kws_train", "kws_export"):
        expected |= {
            ".".join(path.parent.relative_to(_package_folder(package).parent).parts)
            for path in _package_folder(package).rglob("__init__.py")
        }
    assert expected - named == set(), "Describe them in docs/architecture.md."
    unknown = {name for name in named if importlib.util.find_spec(name) is None}
    assert unknown == set(), "They do not exist."


def test_the_runtime_holds_nothing_that_turns_data_into_code():
    for path in (ROOT / "kws").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            assert not _turns_into_code(node), f"{path}:{node.lineno}"


@pytest.mark.parametrize(
    "code",
    ["import pickle", "from yaml import load", "eval(text)", "numpy.load(path)",
     "np.load(path, allow_pickle=True)", "np.load(path, allow_pickle=flag)"],
)  # fmt: skip
def test_what_turns_data_into_code_is_seen(code):
    assert any(_turns_into_code(node) for node in ast.walk(ast.parse(code)))


def test_the_repository_holds_no_large_file():
    large = {str(path): path.stat().st_size for path in _tracked() if path.stat().st_size > 2e6}
    assert large == {}


def test_test_clips_stay_below_five_megabytes():
    clips = [path for path in _tracked() if path.is_relative_to(ROOT / "tests/data")]
    assert sum(path.stat().st_size for path in clips) < 5e6


def test_no_weights_but_bundled_models_and_one_example_are_in_the_repository():
    weights = {path for path in _tracked() if path.suffix in {".tflite", ".h5", ".keras", ".onnx"}}
    bundled = set((ROOT / "kws/models").glob("*.tflite"))
    folders = (ROOT / "tests/data/hostile", ROOT / "tests/data/cases")
    by_hand = {path for folder in folders for path in folder.glob("*.tflite")}  # without training
    assert all(path.stat().st_size < 5_000 for path in by_hand)
    example = {ROOT / "examples/digits.tflite"}
    assert weights - bundled - by_hand == example


def _package_folder(package: str) -> Path:
    return Path(importlib.import_module(package).__path__[0])


def _modules_in(folder: Path) -> list[str]:
    """List the modules and packages of a folder, sorted."""
    modules = {path.stem for path in folder.glob("*.py")} - {"__init__", "__main__"}
    return sorted(modules | {path.parent.name for path in folder.glob("*/__init__.py")})


def _turns_into_code(node: ast.AST) -> bool:
    match node:
        case ast.Import(names=names):
            used = {name.name.partition(".")[0] for name in names}
        case ast.ImportFrom(module=module):
            used = {(module or "").partition(".")[0]}
        case ast.Call(func=ast.Name(id=name)):
            used = {name}
        case ast.Call(func=ast.Attribute(attr="load", value=ast.Name(id="np" | "numpy"))):
            unpickles = [one.value for one in node.keywords if one.arg == "allow_pickle"]
            return not (unpickles and getattr(unpickles[0], "value", True) is False)
        case _:
            return False
    return bool(used & CODE_OF_DATA)


def _check_exports(module):
    """`__all__` names what there is, and every public class and function made here."""
    names = set(getattr(module, "__all__", ()))
    assert {name for name in names if not hasattr(module, name)} == set(), module.__name__
    made_here = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    }
    assert made_here - names == set(), module.__name__


def _loaded_by(code):
    """Return the modules that a fresh interpreter holds after running `code`."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules)"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


def _tracked():
    try:
        done = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    paths = [ROOT / name for name in done.stdout.split("\0") if name]
    return [path for path in paths if path.is_file()]
