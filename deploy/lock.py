"""Write requirements.txt: the newest releases that kws stands on, with hashes, for 64-bit Linux."""

import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
HEAD = """\
# What kws stands on, for 64-bit Linux, with the hashes of every wheel: `make lock` writes it. The
# Debian package and the container install exactly this; 32-bit ARM takes what piwheels has.
"""
# The oldest Python and C library that are supported; hashes are those of all wheels of a release.
EXTRAS = ["--extra", "mqtt", "--extra", "ui"]
TARGET = ["--python-version", "3.11", "--python-platform", "x86_64-manylinux_2_28"]
PLAIN = ["--generate-hashes", "--no-header", "--no-annotate", "--no-emit-index-url", "--quiet"]
# uv ignores that a release is for older Pythons only, as 1.3 of this one is; pip does not.
BOUNDS = "backports-strenum<1.3\n"


def main() -> None:
    """Resolve the dependencies of pyproject.toml and write the file."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as bounds:
        bounds.write(BOUNDS)
        bounds.flush()
        command = [
            sys.executable,
            "-m",
            "uv",
            "pip",
            "compile",
            *EXTRAS,
            *TARGET,
            *PLAIN,
            "--upgrade",
        ]
        words = [*command, "--constraints", bounds.name, str(HERE.parent / "pyproject.toml")]
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
    (HERE / "requirements.txt").write_text(HEAD + done.stdout, encoding="utf-8")


if __name__ == "__main__":
    main()
