"""Who is served: only what comes from the page itself, with the token of its link."""

import asyncio
import re
from urllib.parse import urlsplit

import pytest

from kws.config import UiSettings
from kws.errors import ConfigError
from kws.ui.access import Access, new_token

from .conftest import TOKEN, as_json, ask

OWN = {"Host": "127.0.0.1:8420"}
LOCAL = UiSettings()


def refused(headers=OWN, *, path="/api/state", method="GET", token=TOKEN, kind="http", ui=LOCAL):
    """Return the status of a request's refusal; None if it is served."""
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    if kind == "http":
        raw.append((b"authorization", f"Bearer {token}".encode()))
    scope = {"type": kind, "path": path, "method": method, "headers": raw}
    if kind == "websocket":
        scope["subprotocols"] = ["kws", f"token.{token}"]
    found = Access(ui, token=TOKEN).refusal(scope)
    return found and int(found[0])


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_only_the_token_of_the_link_opens_the_page(kind):
    assert refused(kind=kind) is None
    for wrong in ("", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "none"):
        assert refused(kind=kind, token=wrong) == 401
    assert refused(path="/style.css", token="") is None  # it holds nothing of the user


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_a_host_name_of_another_site_is_refused(kind):
    for own in ("127.0.0.1:1", "localhost:8420", "LOCALHOST", "[::1]:8420"):
        assert refused({"Host": own}, kind=kind) is None
    for foreign in ("evil.example:8420", "127.0.0.1.evil.example", "", "192.168.1.4:8420", "[::2]"):
        assert refused({"Host": foreign}, kind=kind) == 403
    assert refused({"Host": "evil.example"}, path="/", kind=kind) == 403


def test_at_an_address_for_others_their_browsers_may_name_the_machine():
    ui = UiSettings(address="0.0.0.0", token=TOKEN, hosts=["kitchen.lan"])
    for own in ("192.168.1.4:8420", "kitchen.lan:8420", "[fe80::1]:8420", "localhost"):
        assert refused({"Host": own}, ui=ui) is None
    assert refused({"Host": "evil.example"}, ui=ui) == 403


def test_another_site_can_neither_change_nor_watch_anything():
    for origin in ("http://evil.example", "null", "http://127.0.0.1:9", "https://localhost:8420"):
        foreign = OWN | {"Origin": origin}
        assert refused(foreign, method="POST") == 403
        assert refused(foreign, kind="websocket") == 403
    own = OWN | {"Origin": "http://127.0.0.1:8420"}
    assert refused(own, method="POST") is None
    assert refused(own, kind="websocket") is None


def test_an_address_beyond_this_machine_needs_a_token():
    with pytest.raises(ConfigError, match=re.escape("needs a `token`. Received: 0.0.0.0 without")):
        UiSettings(address="0.0.0.0")
    with pytest.raises(ConfigError, match="must be an IP address of this machine"):
        UiSettings(address="kitchen")
    for short in ("short", "with space in the token", "a" * 15):
        with pytest.raises(ConfigError, match="`token` of UiSettings"):
            UiSettings(token=short)
    assert UiSettings(address="0.0.0.0", token="a" * 16).token
    assert UiSettings(address="::1").is_local


def test_tokens_are_random_and_fit_into_a_link():
    tokens = {new_token() for _ in range(100)}
    assert len(tokens) == 100
    assert all(UiSettings(token=one) for one in tokens)
    assert min(map(len, tokens)) >= 32


def test_every_answer_forbids_what_the_page_does_not_need(serve):
    async def run():
        async with serve() as page:
            paths = ("/", "/app.js", "/none", "/api/state", "/api/none")
            return [await asyncio.to_thread(ask, page.port, path) for path in paths]

    for status, headers, content in asyncio.run(run()):
        assert status in {200, 404}
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] in {"no-store", "no-cache"}
        assert "server" not in headers
        if status == 404:
            assert "Received: " in as_json(content)["error"]


def test_a_path_that_escapes_finds_nothing(serve):
    escaping = [
        "/../config.py", "/..%2fconfig.py", "/%2e%2e/%2e%2e/config.py", "//etc/passwd",
        "/static/../../config.py", "/app.js/../../__init__.py", "/..\\config.py", "/%00app.js",
    ]  # fmt: skip

    async def run():
        async with serve() as page:
            return [await asyncio.to_thread(ask, page.port, path) for path in escaping]

    for status, _, content in asyncio.run(run()):
        assert status == 404
        assert b"import" not in content


def test_nothing_is_changed_by_get(serve):
    async def run():
        async with serve() as page:
            served = []
            for route in page.server.routes:
                methods = getattr(route, "methods", None) or ()
                if "POST" in methods:
                    assert "GET" not in methods
                    path = re.sub(r"\{.*?\}", "x", route.path)
                    served.append(await asyncio.to_thread(ask, page.port, path))
            return served

    for status, _, _ in asyncio.run(run()):
        assert status in {404, 405}


def test_the_link_carries_the_token_where_no_browser_sends_it(serve):
    async def run():
        async with serve() as page:
            return page.server.link

    link = urlsplit(asyncio.run(run()))
    assert link.fragment == f"token={TOKEN}"
    assert link.query == ""
