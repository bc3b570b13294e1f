"""A visitor of the running app without a browser: sends whatever it likes, and sees the bare answers."""

import http.client
import json
import os
import re
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx
import psutil


@contextmanager
def running(checkpoint: Path, *flags: str, **environment: str) -> Iterator[str]:
    """The app, as a newcomer starts it; gives its address, and ends it.

    What it prints goes to a file: a pipe that nobody reads would make it wait once it is full.
    """
    command = [sys.executable, "-u", "app.py", "--checkpoint", str(checkpoint), *flags]
    with tempfile.NamedTemporaryFile("a") as log:
        root = Path(__file__).parent.parent
        app = subprocess.Popen(
            command, cwd=root, env=os.environ | environment, stdout=log.fileno(), stderr=log.fileno()
        )
        try:
            deadline = time.monotonic() + 180
            while not (found := re.search(r"http://127\.0\.0\.1:\d+", Path(log.name).read_text(errors="replace"))):
                assert app.poll() is None and time.monotonic() < deadline, Path(log.name).read_text(errors="replace")
                time.sleep(0.1)
            yield found[0]
        finally:
            app.terminate()
            app.wait(60)


class Answer(NamedTuple):
    """To a raw request."""

    status: int
    headers: dict[str, str]  # names in small letters
    body: bytes


def raw(address: str, target: str, method: str = "GET", body: Any = None, **headers: str) -> Answer:
    """Ask for just this target: unlike a browser, "../" and the like are left as they are."""
    place = urlsplit(address)
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=60)
    try:
        connection.putrequest(method, target, skip_host="Host" in headers)
        chunked = body is not None and not isinstance(body, bytes)
        if chunked:
            connection.putheader("Transfer-Encoding", "chunked")
        elif body is not None and "Content_Length" not in headers:
            connection.putheader("Content-Length", str(len(body)))
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        with suppress(BrokenPipeError, ConnectionResetError):  # the server has answered and will not read the rest
            connection.endheaders(body, encode_chunked=chunked)
        answer = connection.getresponse()
        return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
    finally:
        connection.close()


class Refusal(Exception):
    """The words in which a question was refused; "" where there were none."""


class Visitor:
    """A session of its own."""

    def __init__(self, address: str) -> None:
        self.address, self.session = address, secrets.token_hex(8)
        self.http = httpx.Client(timeout=120)
        names = [d["api_name"] for d in self.http.get(f"{address}/config").json()["dependencies"]]
        self.numbers = {name: number for number, name in enumerate(names) if name}

    def upload(self, name: str, content: bytes) -> dict[str, Any]:
        """A file as an input takes it."""
        answer = self.http.post(f"{self.address}/gradio_api/upload", files={"files": (name, content)})
        answer.raise_for_status()
        return file(answer.json()[0])

    def ask(self, endpoint: str, *data: Any) -> list[Any]:
        """The answer of an endpoint. Raises Refusal."""
        self.join(endpoint, *data)
        return self.answer()

    def warm(self, given: dict[str, Any], name: str) -> None:
        """Ask what waits until all is imported that the app imports behind its start: it would count as memory.

        Args:
            given: an uploaded picture.
            name: of a class of the app's network.
        """
        self.ask("segment", given, 0, False)
        self.ask("cam", given, name, "GradCAM", "image score", 0, 0)

    def join(self, endpoint: str, *data: Any) -> None:
        """Put a question into the server's queue, for `answer` to wait for. Raises Refusal."""
        question = {"data": data, "fn_index": self.numbers[endpoint], "session_hash": self.session}
        joined = self.http.post(f"{self.address}/gradio_api/queue/join", json=question)
        if joined.status_code != 200:
            raise Refusal(str(joined.json().get("detail")))

    def answer(self) -> list[Any]:
        """The last question's. Raises Refusal."""
        for message in self._messages():
            if message["msg"] == "process_completed":
                output = message["output"]
                if message["success"]:
                    return output["data"]
                raise Refusal(output.get("error") or "")
            if message["msg"] == "unexpected_error":
                raise Refusal("")
        raise Refusal("")

    def _messages(self) -> Iterator[dict[str, Any]]:
        stream = f"{self.address}/gradio_api/queue/data?session_hash={self.session}"
        with self.http.stream("GET", stream) as answer:
            for line in answer.iter_lines():
                if line.startswith("data:"):
                    yield json.loads(line[5:])

    def fetch(self, shown: dict[str, Any]) -> bytes:
        """The content of a file in an answer."""
        return self.http.get(f"{self.address}/gradio_api/file={shown['path']}").content

    def close(self) -> None:
        self.http.close()


def file(path: str, **more: Any) -> dict[str, Any]:
    """A reference to a file on the server, as a browser sends it; nothing keeps it from naming any other."""
    return {"path": path, "meta": {"_type": "gradio.FileData"}, **more}


def server(address: str) -> psutil.Process:
    """The process of the app at that address, which the tests have started."""
    for child in psutil.Process().children():
        ports = {c.laddr.port for c in child.net_connections("inet") if c.status == "LISTEN"}
        if urlsplit(address).port in ports:
            return child
    raise AssertionError("no app is running")
