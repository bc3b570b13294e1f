"""The door of the server: who may ask, how much may be sent, and what a browser is told to do with the answers."""

import ipaddress
import json
import socket
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

import gradio as gr
from gradio import processing_utils, route_utils
from starlette.datastructures import FormData, Headers, MutableHeaders
from starlette.formparsers import MultiPartException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = ("127.0.0.1", "localhost", "::1")

MOST_QUESTION = 2**20
"""Bytes of a request; pictures and checkpoints come as uploads."""

MOST_FILE = 20 * 2**20
"""Bytes of an uploaded file; Gradio counts them while it writes them to the disk."""

MOST_UPLOAD = 100 * MOST_FILE + 2**20
"""Bytes of an upload: a browser sends all files that were chosen at once; and what multipart puts around them."""

_UPLOAD = f"{route_utils.API_PREFIX}/upload"  # whole: "/gradio_api/call/upload" is a question, which takes memory

_READS = ("GET", "HEAD", "OPTIONS")

# Scripts and styles stand within Gradio's page, and plotly compiles some; nothing may come from, or go, elsewhere.
_POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; object-src 'none'; base-uri 'self'; "
    "form-action 'self'; frame-ancestors 'none'"
)
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": _POLICY,
}


def fetch_nothing() -> None:
    """Make Gradio refuse a file that a visitor gives by its address: it would ask whatever server that names."""

    async def refuse(url: str) -> None:
        raise gr.Error("A file must be uploaded before it can be used.")

    processing_utils.async_ssrf_protected_get = refuse


def take_only_files() -> None:
    """Make Gradio's uploads refuse fields, which stay in memory, and keep no file of an upload that breaks off."""
    route_utils.GradioMultiPartParser = _FilesOnly


class _FilesOnly(route_utils.GradioMultiPartParser):
    def on_headers_finished(self) -> None:
        super().on_headers_finished()
        if self._current_part.file is None:
            raise MultiPartException("Only files can be uploaded.")

    async def parse(self) -> FormData:
        try:
            return await super().parse()
        except BaseException:  # whatever it was that broke it off
            for file in self._files_to_close_on_error:
                file.close()
                Path(file.name).unlink(missing_ok=True)
            raise


class Refused(Exception):
    """A request that is not let in; its status and one sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status, self.sentence = status, sentence


class Guard:
    """ASGI middleware around the page.

    - Only hosts that are the server's own: a page elsewhere whose name leads here (DNS rebinding) is refused.
    - What changes something must come from the page itself, or from a program, which names no origin.
    - A body that is larger than allowed is refused by its announced length, and cut off where it announces none.

    Args:
        app: what is guarded.
        host: that the server listens on. "0.0.0.0" and "::" stand for all addresses of this machine; then it may be
            called by any address, but by no name other than the machine's.
        name: by which a proxy before the server is called, with its port where that is not the scheme's own. Pages
            under it may ask whether the proxy hands on the name or puts the server's own in its place.
    """

    def __init__(self, app: ASGIApp, host: str = "127.0.0.1", name: str | None = None) -> None:
        self.app = app
        self.any_address = host in ("0.0.0.0", "::")
        self.public = _without_default_port(name.lower()) if name else None
        names = [socket.gethostname().lower()] if self.any_address else []
        names += [_name(self.public)] if self.public else []
        self.hosts = {*LOOPBACK, host.lower(), *names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        body = _Body(receive, send, MOST_UPLOAD if scope["path"].rstrip("/") == _UPLOAD else MOST_QUESTION)
        try:
            self._let_in(scope, body.most)
        except Refused as refused:
            await _refuse(scope, send, refused)
            return
        await self.app(scope, body.receive, body.send)

    def _let_in(self, scope: Scope, most: int) -> None:
        """Raises Refused."""
        headers = Headers(scope=scope)
        host = _only(headers.getlist("host"))
        if host is None or not self._is_ours(_name(host)):
            raise Refused(400, "This server is not called by that name.")
        if scope["type"] == "websocket" or scope["method"] not in _READS:
            self._let_write(headers, host)
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit()) or int(length[:20]) > most:
            raise Refused(413, _too_large(most))

    def _let_write(self, headers: Headers, host: str) -> None:
        origins = headers.getlist("origin")
        if origins and (len(origins) > 1 or _place(origins[0]) not in (_without_default_port(host), self.public)):
            raise Refused(403, "This request comes from another page.")
        if not origins and headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            raise Refused(403, "This request comes from another page.")

    def _is_ours(self, name: str) -> bool:
        return name in self.hosts or (self.any_address and _is_address(name))


class _Body:
    """The two ends of a request, cut off after `most` bytes."""

    def __init__(self, receive: Receive, send: Send, most: int) -> None:
        self._receive, self._send, self.most = receive, send, most
        self._seen = 0
        self._answered = False  # by a refusal of ours

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._seen += len(message.get("body", b""))
            if self._seen > self.most:
                await self._cut_off()
                return {"type": "http.disconnect"}
        return message

    async def send(self, message: Message) -> None:
        if self._answered:
            return
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers[name] = value
        await self._send(message)

    async def _cut_off(self) -> None:
        if not self._answered:
            self._answered = True
            for message in _answer(Refused(413, _too_large(self.most))):
                await self._send(message)


async def _refuse(scope: Scope, send: Send, refused: Refused) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    for message in _answer(refused):
        await send(message)


def _answer(refused: Refused) -> Iterable[Message]:
    content = json.dumps({"error": refused.sentence, "detail": refused.sentence}).encode()
    headers = {"Content-Type": "application/json", "Content-Length": str(len(content)), "Connection": "close"} | HEADERS
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    yield {"type": "http.response.start", "status": refused.status, "headers": raw}
    yield {"type": "http.response.body", "body": content}


def _too_large(most: int) -> str:
    return f"This is larger than {most / 2**20:.0f} MiB."


def _only(values: list[str]) -> str | None:
    return values[0].lower() if len(values) == 1 else None


def _name(host: str) -> str:
    """A Host header without its port, and without the brackets of an IPv6 address."""
    name, _, port = host.rpartition(":")
    return (name if port.isdigit() and name else host).removeprefix("[").removesuffix("]")


def _place(origin: str) -> str:
    """Host and port of an Origin header, "" where it has none."""
    try:
        return _without_default_port(urlsplit(origin.lower()).netloc)
    except ValueError:
        return ""


def _without_default_port(place: str) -> str:
    return place.removesuffix(":80").removesuffix(":443")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
