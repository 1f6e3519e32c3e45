"""Start `kws wyoming` in the add-on: its options become arguments, and Home Assistant is told.

Runs in the add-on's container, with the standard library alone.
"""

import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

PORT = 10400
ANSWER_S = 10
PATIENCE_S = 120


def arguments(options: dict[str, Any]) -> list[str]:
    """Return the command line for the add-on's options; what is empty is left out."""
    command = ["kws", *(["-v"] if options.get("debug_logging") else []), "wyoming"]
    command += ["--uri", f"tcp://0.0.0.0:{PORT}"]
    for model in options.get("models") or []:
        command += ["--model", model]
    for key in ("custom_model_dir", "threshold", "trigger_level", "refractory_seconds",
                "debug_recording_dir"):  # fmt: skip
        if options.get(key) not in (None, ""):
            command += ["--" + key.replace("_", "-"), str(options[key])]
    return command


def announce(*, supervisor: str, token: str, port: int = PORT) -> None:
    """Tell Home Assistant, by the Supervisor, where the service is; once it answers."""
    deadline_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline_s:
        try:
            socket.create_connection(("127.0.0.1", port), ANSWER_S).close()
            break
        except OSError:
            time.sleep(0.5)
    found = {"service": "wyoming", "config": {"uri": f"tcp://{socket.gethostname()}:{port}"}}
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    connection = http.client.HTTPConnection(supervisor, timeout=ANSWER_S)
    try:
        connection.request("POST", "/discovery", json.dumps(found), headers)
        answer = connection.getresponse()
        problem = "" if answer.status < 300 else f"{answer.status} {answer.reason}"
    except (OSError, http.client.HTTPException) as error:
        problem = str(error)
    finally:
        connection.close()
    if problem:
        print(f"Home Assistant was not told of the service: {problem}. Add it by hand.", flush=True)


def main() -> int:
    """Run the service until it ends; return its exit code."""
    options = json.loads(Path(os.environ.get("OPTIONS_FILE", "/data/options.json")).read_text())
    if folder := options.get("custom_model_dir"):
        Path(folder).mkdir(parents=True, exist_ok=True)
    command = arguments(options)
    token = os.environ.pop("SUPERVISOR_TOKEN", "")
    if token:
        supervisor = os.environ.get("SUPERVISOR", "supervisor")
        threading.Thread(
            target=announce, kwargs={"supervisor": supervisor, "token": token}, daemon=True
        ).start()
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
