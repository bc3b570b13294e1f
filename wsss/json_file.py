"""Files of settings, as strangers write them."""

import json
import math
from pathlib import Path
from typing import Any

from wsss import UserError
from wsss.data.picture import require_file
from wsss.words import shown

_MOST = 2**20  # bytes


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file of settings.

    Raises:
        UserError: naming the file: it cannot be read, is no regular file or over 1 MiB, no JSON in UTF-8, no object, or
            holds a key twice or a number that is not finite.
    """
    require_file(path, _MOST)
    try:
        content = json.loads(
            path.read_text("utf-8-sig"), object_pairs_hook=_once, parse_constant=_finite, parse_float=_finite
        )
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:  # json's parser calls itself for each bracket
        reason = "its brackets are nested too deeply" if isinstance(error, RecursionError) else str(error)[:120]
        raise UserError(f"{path}: cannot be read as JSON ({reason})") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: must hold an object {{...}}, got {shown(content)}")
    return content


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:  # json would silently take the last
            raise UserError(f"{shown(key)} stands there twice")
        found[key] = value
    return found


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise UserError(f"holds {text[:40]}, which is not a finite number")
    return value
