"""`optogram serve`: it says where it is, answers there, and ends when it is told to."""

import asyncio
import json
import signal
import subprocess
import sys
import urllib.request

import pytest

from optogram.pictures import RequestError
from optogram.web import serve
from optogram.web.serving import _address, _listening, _names

PROGRAM = [sys.executable, "-c", "from optogram.cli import main; main()", "serve"]


def test_it_says_where_it_is_and_answers_there_until_it_is_interrupted(folder):
    command = [*PROGRAM, str(folder), "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        try:
            address = json.loads(running.stdout.readline())["address"]
            assert address.startswith("http://127.0.0.1:")
            with urllib.request.urlopen(f"{address}index.json", timeout=60) as answer:
                assert json.load(answer)["totals"]["units"] == 320
            running.send_signal(signal.SIGINT)
            running.wait(60)
            assert b"Traceback" not in running.stderr.read()
        finally:
            running.kill()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["nowhere"], "nowhere"),
        (["{folder}", "--port", "99999"], "99999"),
        (["{folder}", "--token", "short"], "at least 8 letters"),
        (["{folder}", "--weights", "w"], "those of a --network"),
    ],
)
def test_what_cannot_be_served_is_said_in_a_sentence(folder, words, sentence):
    command = [*PROGRAM, *(word.format(folder=folder) for word in words)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 2
    assert sentence in ended.stderr
    assert "Traceback" not in ended.stderr


def test_without_what_a_server_needs_it_says_what_to_install(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(RequestError, match=r"pip install 'optogram\[serve\]'"):
        serve([str(folder)])


def test_a_port_that_is_taken_is_refused_and_the_usual_one_replaced():
    with _listening("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(RequestError, match=f"cannot listen on 127.0.0.1:{port}"):
            _listening("127.0.0.1", port)
    with _listening("127.0.0.1", None) as one, _listening("127.0.0.1", None) as other:
        assert one.getsockname()[1] != other.getsockname()[1]


def test_elsewhere_the_address_carries_the_token_and_names_are_known():
    assert _address("::1", 80, None) == "http://[::1]:80/"
    assert _address("10.0.0.7", 80, "abc") == "http://10.0.0.7:80/?token=abc"
    assert _names("10.0.0.7") == ["10.0.0.7"]
    assert all(_names("0.0.0.0"))


def test_anywhere_but_on_loopback_a_token_is_made_up(folder, monkeypatch):
    from optogram.web import serving

    said = []

    class Ended:
        def __init__(self, site):
            self.site = site.app

        def run(self, sockets):
            assert self.site.token is not None
            assert said[0].endswith(f"?token={self.site.token}")

    monkeypatch.setattr(serving, "_server", Ended)
    serve([str(folder)], host="0.0.0.0", port=0, live=False, say=said.append)
    assert len(said[0].partition("token=")[2]) >= 32


def test_it_is_quiet_only_after_a_visitor_was_answered():
    from optogram.web.serving import _Heard

    said = []

    async def app(scope, receive, send):
        said.append(heard.quiet())

    heard = _Heard(app)
    assert heard.quiet() < 0, "nobody has come: nothing is to be loaded yet"
    asyncio.run(heard({"type": "http"}, None, None))
    assert said[0] >= 0
    assert heard.quiet() >= 0
