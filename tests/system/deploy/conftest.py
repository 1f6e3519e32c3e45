"""Root file systems of Debian to install kws into, of this and of the Raspberry Pi's architectures.

They are made once, by mmdebstrap, in the folder that KWS_TEST_ROOTS names (else in the user's
cache); every test changes an overlay of its own.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SOURCES = (
    "kws",
    "train",
    "export",
    "deploy",
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "NOTICE",
)
CACHE = Path(
    os.environ.get("KWS_TEST_ROOTS")
    or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kws" / "roots"
)
SUITE = "bookworm"
BOARD_PACKAGES = (
    "alsa-utils,base-files,base-passwd,bash,coreutils,dash,findutils,grep,libc-bin,libstdc++6,mawk,"
    "passwd,python3,python3.11-venv,python3-venv,sed,tar,util-linux"
)
PACKAGES = {
    "amd64": "alsa-utils,dbus,libnss-systemd,python3,python3-venv,systemd,systemd-sysv",
    "arm64": BOARD_PACKAGES,
    "armhf": f"{BOARD_PACKAGES},libpython3.11-dev,python3-numpy",
}
MACHINES = {"amd64": "x86_64", "arm64": "aarch64", "armhf": "armv7l"}
QEMU = {"arm64": "aarch64", "armhf": "arm"}
DECLARED = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = DECLARED["project"]
TOOLS = ("pip", *DECLARED["build-system"]["requires"])  # of a build without a network
LOCK = ROOT / "deploy" / "requirements.txt"  # of 64-bit processors
STATE = f"{zlib.crc32(repr((LOCK.read_text(), PROJECT, TOOLS)).encode()):08x}"


class Box:
    """A root file system that a test may change; its commands see no network and no host."""

    def __init__(self, path, *, binds=()):
        self.path = path
        self._binds = [f"--bind-ro={source}:{target}" for source, target in binds]

    def run(self, *command, limit_s=900, code=0, environment=None):
        """Run a command; return what it printed, errors too, if it ends with the exit code."""
        settings = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/wheels", "LC_ALL": "C.UTF-8"}
        settings.update(environment or {})
        done = subprocess.run(
            [*self._enter(settings), *map(str, command)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=limit_s,
            check=False,
        )
        assert done.returncode == code, f"{command} ended with {done.returncode}:\n{done.stdout}"
        return done.stdout

    def boot(self, *, limit_s=240):
        """Start systemd and wait until something in it powers off; return the console's text."""
        # A terminal of its own: systemd-nspawn does not boot on a pipe.
        shell = " ".join([*self._nspawn({}), "--boot", "--console=interactive"])
        done = subprocess.run(
            ["script", "-qec", shell, "/dev/null"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=limit_s,
            check=False,
        )
        return done.stdout

    def _enter(self, settings):
        return [*self._nspawn(settings), "--pipe"]

    def _nspawn(self, settings):
        environment = [f"--setenv={key}={value}" for key, value in settings.items()]
        place = ["--quiet", f"--directory={self.path}", f"--machine=kws-{os.getpid()}"]
        alone = ["--register=no", "--keep-unit", "--private-network", "--resolv-conf=off"]
        return ["systemd-nspawn", *place, *alone, *self._binds, *environment]


class Board(Box):
    """The same for another processor: emulated threads die under the filters of systemd-nspawn."""

    def __init__(self, path, *, binds=()):
        super().__init__(path)
        self._mounts = [(source, f"{path}{target}") for source, target in binds]

    def _enter(self, settings):
        steps = [f"mount -t proc proc {self.path}/proc"]
        steps += [f"mkdir -p {to} && mount --bind {of} {to}" for of, to in self._mounts]
        environment = [f"{key}={value}" for key, value in settings.items()]
        # Nothing of this machine's environment: PYTHONDONTWRITEBYTECODE makes each start slower.
        steps.append(f'exec chroot {self.path} /usr/bin/env -i HOME=/root "$@"')
        # In namespaces of their own, processes go with the first one, and mounts with the last.
        alone = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child"]
        alone += ["sh", "-c", " && ".join(steps), "sh"]
        return [*alone, "PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", *environment]


@pytest.fixture(scope="session")
def base():
    """Make the root file system of an architecture, or skip where that cannot be."""

    def make(architecture):
        _need_root("systemd-nspawn", "mmdebstrap", "script")
        if architecture in QEMU:
            _register(QEMU[architecture])
        path = CACHE / f"{SUITE}-{architecture}"
        if not path.exists():
            _bootstrap(architecture, path)
        return path

    return make


@pytest.fixture(scope="session")
def emulator():
    """Name the machine that qemu emulates for an architecture."""
    return QEMU.__getitem__


@pytest.fixture
def bootstrap():
    """What makes a root: `bootstrap("arm64", path, archive)`."""
    _need_root("mmdebstrap")
    return _bootstrap


@pytest.fixture(scope="module")
def box(base, tmp_path_factory):
    """Lay an overlay over an architecture's root: `box("arm64", binds=[...])`."""
    with contextlib.ExitStack() as at_exit:

        def make(architecture, *, binds=()):
            lower = base(architecture)
            folder = tmp_path_factory.mktemp(f"box-{architecture}")
            for name in ("upper", "work", "root"):
                (folder / name).mkdir()
            options = f"lowerdir={lower},upperdir={folder / 'upper'},workdir={folder / 'work'}"
            mount = ["mount", "-t", "overlay", "overlay", "-o", options, str(folder / "root")]
            done = subprocess.run(mount, capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"needs overlay file systems: {done.stderr.strip()}")
            at_exit.callback(subprocess.run, ["umount", str(folder / "root")], check=True)
            kind = Board if architecture in QEMU else Box
            return kind(folder / "root", binds=binds)

        yield make


@pytest.fixture(scope="session")
def source(tmp_path_factory):
    """A copy of the checkout: what an earlier build left there would get into the wheel."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, folder / name, ignore=ignore)
        else:
            shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="session")
def wheel(source, tmp_path_factory):
    """The wheel, built from the copy."""
    copy, out = tmp_path_factory.mktemp("build") / "kws", tmp_path_factory.mktemp("dist")
    shutil.copytree(source, copy)
    _pip("wheel", "--no-deps", "--wheel-dir", out, copy)
    (path,) = out.glob("kws-*.whl")
    return path


@pytest.fixture(scope="session")
def wheels(base):
    """Collect what kws stands on as wheels for an architecture; return their folder."""

    def make(architecture):
        folder = CACHE / f"wheels-{architecture}-{STATE}"
        if not folder.exists():
            partial = folder.with_suffix(".part")
            shutil.rmtree(partial, ignore_errors=True)
            _download(partial, architecture, base(architecture))
            partial.rename(folder)
        return folder

    return make


def _need_root(*programs):
    if os.geteuid():
        pytest.skip("needs root, for containers")
    if missing := [name for name in programs if not shutil.which(name)]:
        pytest.skip(f"needs {', '.join(missing)}: run tests/system/debian-packages")


def _bootstrap(architecture, path, archive=None):
    """Unpack Debian; of other architectures without running it, which takes a tenth of the time.

    From the release alone: nothing here needs security updates, whose indexes change daily.
    """
    archive = archive or _archive()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    shutil.rmtree(partial, ignore_errors=True)
    variant = "extract" if architecture in QEMU else "apt"
    options = [f"--variant={variant}", f"--include={PACKAGES[architecture]}"]
    command = ["mmdebstrap", "--quiet", *options, f"--architectures={architecture}", SUITE]
    done = subprocess.run([*command, partial, archive], capture_output=True, text=True, check=False)
    if done.returncode:
        shutil.rmtree(partial, ignore_errors=True)
        said = done.stderr.strip()[-2000:]
        if _answers(archive):
            pytest.fail(f"mmdebstrap failed though {archive} answers: {said}")
        pytest.skip(f"needs an archive of Debian that answers: {said}")
    for library in partial.glob("usr/lib/*/*/lib*.so.3"):  # what update-alternatives would link
        if library.parent.name in {"blas", "lapack"}:
            (library.parents[1] / library.name).symlink_to(f"{library.parent.name}/{library.name}")
    partial.rename(path)


def _archive():
    """Return the archive from which apt on this machine takes the release."""
    wanted = ("Created-By: Packages", f"Codename: {SUITE}", "Component: main", "Origin: Debian")
    listing = ["apt-get", "indextargets", "--format", "$(REPO_URI)", *wanted]
    for _ in range(2):
        done = subprocess.run(listing, capture_output=True, text=True, check=True)
        if found := done.stdout.split():
            return found[0]
        subprocess.run(["apt-get", "update", "-qq"], capture_output=True, check=False)
    return pytest.skip(
        f"needs an archive of Debian {SUITE} among the sources of apt, and a network"
    )


def _answers(archive):
    """Tell whether apt, with its proxies, can fetch from an archive."""
    with tempfile.TemporaryDirectory() as folder:
        release = f"{archive.rstrip('/')}/dists/{SUITE}/InRelease"
        command = ["/usr/lib/apt/apt-helper", "download-file", release, f"{folder}/InRelease"]
        return not subprocess.run(command, capture_output=True, check=False).returncode


def _register(machine):
    """Let the kernel run programs of an architecture, as systemd-binfmt does at boot."""
    registry = Path("/proc/sys/fs/binfmt_misc")
    rule = Path(f"/usr/lib/binfmt.d/qemu-{machine}.conf")
    if not rule.exists():
        pytest.skip("needs qemu-user-static: run tests/system/debian-packages")
    if not (registry / "register").exists():
        mount = ["mount", "-t", "binfmt_misc", "binfmt_misc", str(registry)]
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip("needs binfmt_misc, which this kernel or container does not allow")
    if not (registry / f"qemu-{machine}").exists():
        (registry / "register").write_text(rule.read_text().strip())


def _download(folder, architecture, root):
    machine = MACHINES[architecture]
    tags = ("linux", "manylinux2014", *(f"manylinux_2_{minor}" for minor in range(17, 36)))
    platforms = [option for tag in tags for option in ("--platform", f"{tag}_{machine}")]
    chosen = ("--only-binary", ":all:", "--python-version", "3.11", *platforms)
    _pip("download", "--dest", folder, *TOOLS)
    if architecture != "armhf":
        _pip("download", "--dest", folder, *chosen, "--require-hashes", "--requirement", LOCK)
        return
    _pip("download", "--no-deps", "--dest", folder, *chosen, "tflite-runtime")
    extras = PROJECT["optional-dependencies"]["mqtt"]
    _pip("download", "--dest", folder, *chosen, "click", "rich", *extras)
    _cross_compile(folder, root, "msgspec", "webrtcvad-wheels")


def _cross_compile(folder, root, *packages):
    """Build wheels for 32-bit ARM, which PyPI does not have, with Debian's cross compiler."""
    compiler = "arm-linux-gnueabihf-gcc"
    _need_root(compiler)
    environment = {
        "CC": compiler,
        "LDSHARED": f"{compiler} -shared",
        "CFLAGS": f"-I{root}/usr/include/python3.11 -I{root}/usr/include",
        "SETUPTOOLS_EXT_SUFFIX": ".cpython-311-arm-linux-gnueabihf.so",
        "_PYTHON_HOST_PLATFORM": "linux-armv7l",
    }
    from_source = [option for name in packages for option in ("--no-binary", name)]
    _pip("wheel", "--no-deps", "--wheel-dir", folder, *from_source, *packages, **environment)


def _pip(*arguments, **environment):
    command = [sys.executable, "-m", "pip", *map(str, arguments)]
    settings = {**os.environ, **environment}
    done = subprocess.run(command, capture_output=True, text=True, env=settings, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
