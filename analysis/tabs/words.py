"""What a visitor is told when a question cannot be answered: one sentence, never a path or a traceback."""

import functools
import inspect
import logging
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import gradio as gr

from wsss import UserError

_LOG = logging.getLogger(__name__)


def in_words(answer: Callable) -> Callable:
    """A handler, or a generator of answers, whose failures reach the visitor in words.

    A UserError is the visitor's to mend and is shown as it is. Anything else is ours: the log gets its traceback under
    a number, and the visitor the number.
    """

    @functools.wraps(answer)
    def once(*given):
        with _told(answer.__name__):
            return answer(*given)

    @functools.wraps(answer)
    def stream(*given):
        with _told(answer.__name__):
            yield from answer(*given)

    return stream if inspect.isgeneratorfunction(answer) else once


@contextmanager
def _told(name: str) -> Iterator[None]:
    try:
        yield
    except gr.Error:
        raise
    except UserError as error:
        text = str(error)
        raise gr.Error(f"{text[:1].upper()}{text[1:]}.") from None
    except Exception:
        number = secrets.token_hex(4)
        _LOG.exception("error %s in %s", number, name)
        raise gr.Error(f"Something went wrong on the server; its log tells more under {number}.") from None
