"""A server of the page with a host that is none."""

import contextlib
import http.client
import json
from types import SimpleNamespace

import pytest

from kws.config import Config, UiSettings
from kws.ui.feed import LiveFeed
from kws.ui.host import PageModel, PageSource, PageState
from kws.ui.server import UiServer

TOKEN = "a-token-of-the-tests"


class FakeHost:
    """A host whose state a test sets."""

    def __init__(self, path):
        self.config_path = path
        self.config = Config()
        self.n_reloads = 0

    def page_state(self):
        return PageState(
            version="0",
            config=str(self.config_path),
            sources=[PageSource(name="mic", description="mic", state="listening", last_error=None)],
            models=[
                PageModel(name="m", keywords=["yes"], thresholds={"yes": 0.5}, kind="words"),
            ],
            recording=None,
            min_score=None,
        )

    def page_config(self):
        return self.config

    def request_reload(self):
        self.n_reloads += 1


@pytest.fixture
def serve(tmp_path):
    """Return a context: a server of a fake host, in the loop of the test."""

    @contextlib.asynccontextmanager
    async def serve(**settings):
        host = FakeHost(tmp_path / "kws.toml")
        host.config = Config(ui=UiSettings(**settings))
        server = UiServer(host.config.ui, host=host, feed=LiveFeed(), token=TOKEN)
        server.start()
        try:
            yield SimpleNamespace(server=server, host=host, feed=server._feed, port=server.port)
        finally:
            await server.close()

    return serve


def ask(port, path, *, method="GET", token=TOKEN, body=None, **headers):
    """Return status, headers and content of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    if token:
        given["Authorization"] = f"Bearer {token}"
    try:
        connection.request(method, path, body=body, headers=given)
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


def as_json(content):
    return json.loads(content)
