"""A root that cannot be made is a failure, unless it is Debian's archive that cannot be reached."""

import functools
import http.server
import threading

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.system]


@pytest.fixture
def archive(tmp_path):
    """An archive that answers, with a release that nobody signed."""
    release = tmp_path / "debian/dists/bookworm/InRelease"
    release.parent.mkdir(parents=True)
    release.write_text("Origin: nobody\n")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/debian"
        server.shutdown()


def test_an_archive_that_answers_and_does_not_serve_is_a_failure(bootstrap, archive, tmp_path):
    with pytest.raises(pytest.fail.Exception, match=r"mmdebstrap failed though .* answers"):
        bootstrap("armhf", tmp_path / "root", archive)
    assert not list(tmp_path.glob("root*"))


def test_an_archive_out_of_reach_is_a_reason_to_skip(bootstrap, tmp_path):
    with pytest.raises(pytest.skip.Exception, match="needs an archive of Debian that answers"):
        bootstrap("armhf", tmp_path / "root", "http://127.0.0.1:1/debian")
    assert not list(tmp_path.glob("root*"))
