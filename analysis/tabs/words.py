"""What a visitor is told when a question cannot be answered: one sentence, never a path or a traceback."""

import functools
import html
import inspect
import logging
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import gradio as gr
from gradio.exceptions import InvalidPathError

from wsss import UserError

_LOG = logging.getLogger(__name__)
_FOLDERS = re.compile(r"^/[^:'\"]*/(?=[^/:'\"]*:)|(?<![\w.:/])/(?:[^/\s:'\"]+/)+")
"""Of an absolute path, up to the file's name; where a sentence begins with "PATH:" it may have spaces."""
_LONGEST = 400


def in_words(answer: Callable) -> Callable:
    """A handler, or a generator of answers, whose failures reach the visitor in words.

    A UserError is the visitor's to mend and is shown as it is. Anything else is ours: the log gets its traceback under
    a number, and the visitor the number.
    """

    @functools.wraps(answer)
    def once(*given):
        with as_gr_error(answer.__name__):
            return answer(*given)

    @functools.wraps(answer)
    def stream(*given):
        with as_gr_error(answer.__name__):
            yield from answer(*given)

    return stream if inspect.isgeneratorfunction(answer) else once


def failures_in_words(page: gr.Blocks) -> None:
    """What fails before or after the handlers, where Gradio takes inputs and gives outputs, reaches the visitor too."""
    ask = page.process_api

    @functools.wraps(ask)
    async def asked(*given, **named):
        with as_gr_error("the page"):
            return await ask(*given, **named)

    page.process_api = asked


@contextmanager
def as_gr_error(name: str) -> Iterator[None]:
    """Within, every failure becomes a gr.Error in words; `name` says in the log what was asked."""
    try:
        yield
    except gr.Error:
        raise
    except InvalidPathError:  # of a file that nobody has uploaded
        raise gr.Error("A file must be uploaded before it can be used.") from None
    except UserError as error:
        raise gr.Error(sentence(str(error))) from None
    except Exception:
        number = secrets.token_hex(4)
        _LOG.exception("error %s in %s", number, name)
        raise gr.Error(f"Something went wrong on the server; its log tells more under {number}.") from None


def sentence(text: str) -> str:
    """A sentence for the visitor: files by their names alone, and nothing that a browser would take for HTML."""
    text = " ".join(_FOLDERS.sub("", text).split())
    text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
    return html.escape(f"{text[:1].upper()}{text[1:].rstrip('.')}.", quote=False)
