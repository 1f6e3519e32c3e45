"""Takes from a browser or a source: cut, checked, and never outside of their folder."""

import asyncio
import json
import socket
import wave

import numpy as np
import pytest
import soundfile
from wsproto import ConnectionType, WSConnection
from wsproto.events import BytesMessage, CloseConnection, Request, TextMessage

from kws.commands.demo import load_demo
from kws.config import Config, UiSettings

from .conftest import TOKEN, as_json, ask

RATE = 16_000


@pytest.fixture(scope="module")
def word():
    """A word of the demonstration between pauses, int16 at 16 kHz."""
    labels, path = load_demo()
    samples, _ = soundfile.read(path, dtype="int16")
    said = max(labels.words, key=lambda one: one.end_s - one.start_s)
    cut = samples[round((said.start_s - 0.1) * RATE) : round((said.end_s + 0.1) * RATE)]
    room = np.random.default_rng(1).normal(0, 3, RATE).astype(np.int16)
    return np.concatenate((room, cut, room))


class Client:
    """A page's WebSocket, without a browser."""

    def __init__(self, port, path, request):
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self._connection = WSConnection(ConnectionType.CLIENT)
        protocols = ["kws", f"token.{TOKEN}"]
        self._send(Request(host=f"127.0.0.1:{port}", target=path, subprotocols=protocols))
        self._events = []
        self._next(lambda event: type(event).__name__ == "AcceptConnection")
        self.text(request if isinstance(request, str) else json.dumps(request))

    def text(self, text):
        self._send(TextMessage(data=text))

    def audio(self, data, size=3201):
        for at in range(0, len(data), size):
            self._send(BytesMessage(data=data[at : at + size]))

    def until(self, *kinds):
        """Return all messages up to the first of these kinds."""
        messages = []
        while True:
            event = self._next(lambda event: isinstance(event, TextMessage | CloseConnection))
            if isinstance(event, CloseConnection):
                return [*messages, {"kind": "closed"}]
            messages.append(json.loads(event.data))
            if messages[-1]["kind"] in kinds:
                return messages

    def close(self):
        self._socket.close()

    def _send(self, event):
        self._socket.sendall(self._connection.send(event))

    def _next(self, is_wanted):
        while True:
            while self._events:
                event = self._events.pop(0)
                if is_wanted(event):
                    return event
            self._connection.receive_data(self._socket.recv(65_536))
            self._events += self._connection.events()


def talk(serve, tmp_path, request, work, *, path="/api/record"):
    """Run a function with a client of a server; return what it returns."""

    async def run():
        async with serve() as page:
            page.host.config = Config(ui=UiSettings(folder=str(tmp_path)))

            def in_thread():
                client = Client(page.port, path, request)
                try:
                    return work(client)
                finally:
                    client.close()

            if work is None:
                return None
            return await asyncio.to_thread(in_thread)

    return asyncio.run(run())


def kinds(messages):
    return [one["kind"] for one in messages if one["kind"] != "level"]


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000])
def test_a_take_is_kept_at_16_khz_whatever_the_rate_and_the_pieces(serve, tmp_path, word, rate):
    at = np.arange(0, len(word) - 1, RATE / rate)
    played = np.interp(at, np.arange(len(word)), word).astype("<i2").tobytes()

    def work(client):
        client.audio(played)
        return client.until("take", "problem", "error")

    request = {"word": "stop", "n_takes": 2, "rate_hz": rate}
    messages = talk(serve, tmp_path, request, work)
    assert kinds(messages) == ["ready", "take"]
    assert any(one["kind"] == "level" for one in messages)
    with wave.open(str(tmp_path / "takes/stop/me_nohash_0.wav")) as file:
        assert file.getframerate() == RATE
        assert 0.6 < file.getnframes() / RATE < 2.0


def test_the_checks_are_those_of_kws_record(serve, tmp_path, word):
    def work(client):
        loud = word.astype(np.int32)
        loud[RATE:-RATE] = np.clip(40 * loud[RATE:-RATE], -32_768, 32_767)
        client.audio(loud.astype("<i2").tobytes())
        first = client.until("take", "problem")
        client.audio(word.astype("<i2").tobytes())
        return first[-1], client.until("done")

    problem, later = talk(serve, tmp_path, {"word": "stop", "n_takes": 1}, work)
    assert problem == {
        "kind": "problem",
        "text": "clipped: step back, or turn the microphone down",
    }
    assert kinds(later) == ["take", "done"]


def test_where_all_takes_exist_nothing_is_recorded(serve, tmp_path):
    folder = tmp_path / "takes" / "stop"
    folder.mkdir(parents=True)
    for name in ("me_nohash_0", "me_nohash_1", "you_nohash_0"):
        (folder / f"{name}.wav").touch()
    request = {"word": "stop", "n_takes": 2}
    messages = talk(serve, tmp_path, request, lambda client: client.until("done"))
    assert messages == [{"kind": "ready", "n": 2}, {"kind": "done", "n": 2}]
    request["speaker"] = "you"
    messages = talk(serve, tmp_path, request, lambda client: client.until("ready"))
    assert messages[-1]["n"] == 1


def test_digital_silence_is_told_once(serve, tmp_path):
    def work(client):
        client.audio(bytes(2 * RATE * 7))
        return client.until("problem")

    messages = talk(serve, tmp_path, {"word": "stop"}, work)
    assert "only digital silence" in messages[-1]["text"]


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        ({"word": "../stop"}, "A word and a speaker must be names"),
        ({"word": "a/b"}, "A word and a speaker must be names"),
        ({"word": ""}, "A word and a speaker must be names"),
        ({"word": "stop", "speaker": "x/../../y"}, "A word and a speaker must be names"),
        ({"word": "stop", "input": "cellar"}, "a source of kws. Received: 'cellar'"),
        ({"word": "stop", "rate_hz": 0}, "Received: 0 Hz"),
        ({"word": "stop", "rate_hz": 10**9}, "1000000000 Hz"),
        ("no json", "A page must first say what it wants"),
        ({"input": "mic"}, "A page must first say what it wants"),
    ],
)
def test_a_request_that_cannot_be_met_is_answered_and_writes_nothing(
    serve, tmp_path, request_, text
):
    messages = talk(serve, tmp_path / "own", request_, lambda client: client.until("error"))
    assert text in messages[-1]["text"]
    assert not (tmp_path / "own").exists()


def test_a_source_of_kws_gives_takes_too(serve, tmp_path, word):
    async def run():
        async with serve() as page:
            page.host.config = Config(ui=UiSettings(folder=str(tmp_path)))
            connect = asyncio.to_thread(
                Client, page.port, "/api/record", {"word": "stop", "input": "mic"}
            )
            client = await connect
            await asyncio.to_thread(client.until, "ready")
            waiting = asyncio.create_task(asyncio.to_thread(client.until, "take", "problem"))
            for at in range(0, len(word), 1280):
                await asyncio.sleep(0.01)
                page.feed.put_audio("mic", word[at : at + 1280].astype("<i2").tobytes())
            messages = await waiting
            client.close()
            for _ in range(100):
                if not page.feed._taps:
                    break
                await asyncio.sleep(0.05)
            return messages, page.feed._taps

    messages, taps = asyncio.run(run())
    assert messages[-1]["kind"] == "take"
    assert taps == []  # nothing is left behind


def test_takes_are_listed_played_and_deleted_and_nothing_else_is(serve, tmp_path):
    folder = tmp_path / "takes" / "stop"
    folder.mkdir(parents=True)
    for n in (10, 2):
        (folder / f"me_nohash_{n}.wav").write_bytes(b"RIFF")
    (folder / "notes.txt").write_text("secret")
    (tmp_path / "takes" / "secret.wav").write_bytes(b"secret")

    async def run():
        async with serve() as page:
            page.host.config = Config(ui=UiSettings(folder=str(tmp_path)))

            def call(path, **options):
                return ask(page.port, path, **options)

            answers = [await asyncio.to_thread(call, "/api/takes")]
            for take in ("me_nohash_2", "..%2Fsecret", "me_nohash_3", "notes"):
                path = f"/api/takes/stop/{take}.wav"
                answers.append(await asyncio.to_thread(call, path))
            for take in ("../secret", "me_nohash_2", "me_nohash_2"):
                body = json.dumps({"word": "stop", "take": take})
                answers.append(
                    await asyncio.to_thread(call, "/api/takes/delete", method="POST", body=body)
                )
            body = json.dumps({"word": "stop"})
            answers.append(await asyncio.to_thread(call, "/api/enroll", method="POST", body=body))
            return answers

    listed, played, *missing, escaping, deleted, again, enrolled = asyncio.run(run())
    assert as_json(listed[2])["words"] == [
        {"word": "stop", "takes": ["me_nohash_2", "me_nohash_10"], "model": None}
    ]
    assert played[2] == b"RIFF"
    assert [one[0] for one in missing] == [404, 404, 404]
    assert (escaping[0], deleted[0], again[0]) == (404, 200, 404)
    assert (tmp_path / "takes" / "secret.wav").exists()
    assert enrolled[0] == 400
    assert "3 recordings or more. Received: 1" in as_json(enrolled[2])["error"]


def test_a_trial_needs_an_enrolled_model(serve, tmp_path):
    messages = talk(
        serve, tmp_path, {"word": "stop"}, lambda client: client.until("error"), path="/api/try"
    )
    assert "There is no model of this word yet. Received: stop." in messages[-1]["text"]
