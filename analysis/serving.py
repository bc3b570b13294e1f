"""The flags of `python app.py`: what is shown, and to whom.

Read before Gradio and torch are imported, so that a mistake is said at once and not after seconds.
"""

import argparse
import ipaddress
import re
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from wsss import UserError
from wsss.disk import reading

DEFAULT_CHECKPOINT = Path(__file__).parent.parent / "checkpoints" / "animals"

_NAME = r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?"
"""What a Host header could hold."""


class Serving(NamedTuple):
    """How the page is served."""

    checkpoint: Path
    host: str
    port: int | None  # None: a free one
    name: str | None  # by which a proxy is called
    login: tuple[str, str] | None  # user and password


def serving(argv: Sequence[str] | None, about: str) -> Serving:
    """What the flags ask for; exits with 2 and one sentence where they cannot be."""
    parser = argparse.ArgumentParser(prog="python app.py", description=about)
    parser.add_argument("--checkpoint", type=Path, default=DEFAULT_CHECKPOINT, metavar="DIR")
    parser.add_argument("--port", type=int, metavar="N", help="a free one from 7860 on, unless given or 0")
    parser.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="another one needs --auth")
    parser.add_argument("--name", metavar="NAME[:PORT]", help="of a proxy that hands questions on; needs --auth")
    parser.add_argument("--auth", metavar="USER:PASSWORD", help="asked of every visitor")
    given = parser.parse_args(argv)
    if given.checkpoint != DEFAULT_CHECKPOINT:
        _require_checkpoint(parser, given.checkpoint)
    if given.name is not None and not re.fullmatch(_NAME, given.name):
        parser.error(f"--name {given.name}: must be a host's name such as shapes.example.org, or NAME:PORT")
    if given.auth is None and (given.name is not None or not _is_loopback(given.host)):
        flag = f"--host {given.host}" if given.name is None else f"--name {given.name}"
        parser.error(f"{flag}: others could use this page; ask them for a password by --auth USER:PASSWORD")
    if ":" in given.host:  # Gradio cannot call itself by one
        parser.error(f"--host {given.host}: give an address of IPv4, such as 127.0.0.1 or 0.0.0.0")
    login = _login(parser, given.auth)
    if given.port:
        _require_free(parser, given.host, given.port)
    return Serving(given.checkpoint, given.host, given.port or None, given.name, login)


def _require_checkpoint(parser: argparse.ArgumentParser, folder: Path) -> None:
    try:
        with reading(folder):
            there = (folder / "config.json").is_file()
    except UserError as error:
        parser.error(str(error))
    if not there:
        parser.error(f"{folder}: is not a checkpoint folder, it has no config.json")


def _require_free(parser: argparse.ArgumentParser, host: str, port: int) -> None:
    try:
        socket.create_server((host, port)).close()
    except (OSError, OverflowError) as error:
        parser.error(f"{host}, port {port}: cannot be served on ({error}); choose another")


def _login(parser: argparse.ArgumentParser, given: str | None) -> tuple[str, str] | None:
    if given is None:
        return None
    user, _, password = given.partition(":")
    if not user or len(password) < 8:
        parser.error("--auth must be USER:PASSWORD, with a password of 8 characters at least")
    return user, password


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
