"""Images for prompts: from the network, a file or base64 to Pillow, and to base64. Needs Pillow."""

from __future__ import annotations

import base64
import binascii
import importlib
import io
import os
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

from lanner.errors import InvalidArgumentError, LannerError, ModelNotFoundError

if TYPE_CHECKING:
    from PIL import Image

IMAGE_TOKEN = "<IMAGE_TOKEN>"  # where an image stands in a prompt's text
_MAX_BYTES = 256 << 20
_TIMEOUT_S = 30.0


def load_image(image_url: str | os.PathLike[str] | Image.Image, timeout_s: float = _TIMEOUT_S) -> Image.Image:
    """An image in RGB; transparency is laid on white.

    Args:
        image_url: ``http(s)://…``, ``file://…``, a path, ``data:image/…;base64,…``, or an image of Pillow's.
        timeout_s: seconds without a byte from the network after which it fails.

    Raises:
        ModelNotFoundError: there is no such file.
        LannerError: it cannot be fetched, or is no image.

    >>> from PIL import Image
    >>> load_image("data:image/png;base64," + encode_image_base64(Image.new("L", (4, 2)))).mode
    'RGB'
    """
    pillow = _pillow()
    if not isinstance(image_url, (str, os.PathLike)):
        return _rgb(image_url)
    name = os.fspath(image_url)
    data = _read(name, timeout_s)
    try:
        with pillow.open(io.BytesIO(data)) as image:
            image.load()
            return _rgb(image)
    except Exception as error:  # Pillow's readers raise whatever a broken file makes them stumble over
        raise LannerError(f"{_shown(name)}: is no image that Pillow reads: {error}", "corrupt") from error


def encode_image_base64(image: str | os.PathLike[str] | Image.Image) -> str:
    """An image as PNG in base64: what stands behind ``data:image/png;base64,``. Takes what `load_image` takes.

    >>> from PIL import Image
    >>> encode_image_base64(Image.new("RGB", (4, 2)))[:8]
    'iVBORw0K'
    """
    buffer = io.BytesIO()
    load_image(image).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def _pillow() -> Any:
    try:
        return importlib.import_module("PIL.Image")
    except ModuleNotFoundError:
        raise LannerError("images need Pillow: pip install pillow", "unsupported") from None


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layer = image.convert("RGBA")
        ground = _pillow().new("RGBA", layer.size, "white")
        ground.alpha_composite(layer)
        image = ground
    return image.convert("RGB")


def _read(name: str, timeout_s: float) -> bytes:
    if name.startswith("data:"):
        head, comma, text = name.partition(",")
        if not comma or not head.endswith(";base64"):
            raise InvalidArgumentError(f"{_shown(name)}: an image as data: is in base64")
        try:
            return base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError) as error:
            raise InvalidArgumentError(f"{_shown(name)}: is no base64: {error}") from None
    try:
        if name.startswith(("http://", "https://")):
            request = urllib.request.Request(name, headers={"User-Agent": "lanner"})
            with urllib.request.urlopen(request, timeout=timeout_s) as reply:
                data: bytes = reply.read(_MAX_BYTES + 1)
        else:
            path = urllib.request.url2pathname(name.removeprefix("file://")) if name.startswith("file://") else name
            with open(path, "rb") as file:
                data = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        raise ModelNotFoundError(f"{name}: there is no such file") from None
    except (OSError, ValueError) as error:
        cause = error if isinstance(error, urllib.error.HTTPError) else getattr(error, "reason", None) or error
        raise LannerError(f"{_shown(name)}: {cause}", "io") from error
    if len(data) > _MAX_BYTES:
        raise LannerError(f"{name}: has more than {_MAX_BYTES >> 20} MB", "corrupt")
    return data


def _shown(name: str) -> str:
    return name if len(name) <= 100 else f"{name[:100]}…"
