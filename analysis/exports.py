"""What a visitor takes home: masks, raw arrays and settings in one zip file."""

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from analysis.encoding import Encoding
from analysis.predictor import Predictor
from wsss.mask_files import palette_picture


def archive(files: Mapping[str, bytes]) -> bytes:
    """A zip file of files by name."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as folder:
        for name, content in files.items():
            folder.writestr(name, content)
    return out.getvalue()


def mask_png(mask: np.ndarray, classes: Sequence[str]) -> bytes:
    """A mask (H, W) as a palette PNG in VOC's colors, 255 unlabelled."""
    return _png(palette_picture(mask, tuple(classes)))


def picture_png(rgb: np.ndarray) -> bytes:
    """(H, W, 3) uint8 as a PNG."""
    return _png(Image.fromarray(rgb))


def arrays_npz(**arrays: np.ndarray) -> bytes:
    """Arrays by name, for `numpy.load`."""
    out = io.BytesIO()
    np.savez_compressed(out, **arrays)
    return out.getvalue()


def identity(predictor: Predictor) -> dict[str, Any]:
    """Which checkpoint it is: its name may be another one's tomorrow, the digest of its weights may not."""
    return {key: predictor.facts.get(key) for key in ("name", "commit", "sha256")}


def settings_json(predictor: Predictor, encoding: Encoding, present: Sequence[str], **settings: Any) -> bytes:
    """All that an answer depends on: the checkpoint, the photograph's digest and size, the settings."""
    content = {
        "checkpoint": identity(predictor),
        "classes": list(predictor.classes),
        "present": list(present),
        "photograph": {"sha1": encoding.key, "size": list(encoding.rgb.shape[:2])},
        "settings": settings,
    }
    return json.dumps(content, indent=1).encode()


def _png(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    picture.save(out, format="PNG")
    return out.getvalue()
