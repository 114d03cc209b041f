"""Images of prompts: files, data URLs, bytes and Pillow images, checked before anything depends on them."""

from __future__ import annotations

import base64
import binascii
import contextlib
import functools
import hashlib
import io
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rollouts.rows import DatasetError

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 100_000_000
"""of one screenshot; 8K has 33 million. A file of a few kilobytes can claim to hold far more and fill the memory."""


class ImageError(DatasetError):
    """An image of a row cannot be read."""


def image_size(path: Path, *, decode: bool = False) -> tuple[int, int]:
    """(width, height) in pixels of an image file.

    Args:
        decode: read all of it, which notices a truncated file; otherwise only its head is read.

    Raises:
        ImageError: missing, not an image, truncated, or of more than MAX_PIXELS.
    """
    if not path.is_file():
        raise ImageError(f"{path}: there is no such image")
    with _opened(path, str(path)) as image:
        if decode:
            image.load()
        return image.size


def read_image(source: str) -> bytes:
    """The encoded image behind a path or a data URL.

    Raises:
        ImageError: there is none.
    """
    if source.startswith("data:"):
        head, comma, body = source.partition(",")
        try:
            if not comma or not head.endswith(";base64"):
                raise ValueError("it is not of the form data:image/png;base64,...")
            return base64.b64decode(body, validate=True)
        except (ValueError, binascii.Error) as error:
            raise ImageError(f"{source[:40]}...: not a data URL: {error}") from None
    path = Path(source)
    if not path.is_file():
        raise ImageError(f"{path}: there is no such image")
    try:
        return path.read_bytes()
    except OSError as error:
        raise ImageError(f"{path}: cannot be read: {error.strerror}") from None


@functools.lru_cache(maxsize=65536)
def image_digest(source: str) -> str:
    """Digest of the file behind a path or data URL; of the name alone where it cannot be read."""
    try:
        data = read_image(source)
    except ImageError:
        data = source.encode()
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def open_image(data: bytes, name: str = "an image") -> Image.Image:
    """The picture of an encoded image, RGB; what is transparent is white.

    Raises:
        ImageError: not an image, truncated, or of more than MAX_PIXELS.
    """
    from PIL import Image

    with _opened(io.BytesIO(data), name) as image:
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            opaque = Image.new("RGBA", image.size, "white")
            return Image.alpha_composite(opaque, image.convert("RGBA")).convert("RGB")
        return image.convert("RGB")


def data_url(data: bytes) -> str:
    """An encoded image as text."""
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def image_source(value: object, folder: Path) -> str:
    """A path or data URL for whatever a row holds as an image.

    Args:
        value: a path (also `file://`), a data URL, bytes, {"bytes": ..., "path": ...} or a Pillow image, as
            `datasets` gives them, or {"url": ...} as in OpenAI's messages.
        folder: where relative paths begin.

    Raises:
        ImageError: something else, or an address on a network.
    """
    from PIL import Image

    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path") or value.get("url")
    if isinstance(value, bytes | bytearray | memoryview):
        return data_url(bytes(value))
    if isinstance(value, Image.Image):
        buffer = io.BytesIO()
        value.save(buffer, "PNG", compress_level=1)
        return data_url(buffer.getvalue())
    if not isinstance(value, str) or not value:
        raise ImageError(f"{str(value)[:80]!r} is not an image; a path, data URL, bytes or Pillow image is expected")
    if value.startswith("data:"):
        return value
    if value.startswith(("http://", "https://")):
        raise ImageError(f"{value[:80]!r}: images are not fetched from the network; store them beside the rows")
    path = Path(value.removeprefix("file://")).expanduser()
    return str(path if path.is_absolute() else folder / path)


@contextlib.contextmanager
def _opened(file: Path | io.BytesIO, name: str) -> Iterator[Image.Image]:
    """The image of a file; whatever is wrong with it becomes an ImageError that begins with the name."""
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is below
            with Image.open(file) as image:
                width, height = image.size
                if width * height > MAX_PIXELS:
                    raise ImageError(f"{name}: {width} x {height} pixels; at most {MAX_PIXELS:,} are read")
                yield image
    except Image.DecompressionBombError:
        raise ImageError(f"{name}: an enormous image; at most {MAX_PIXELS:,} pixels are read") from None
    except UnidentifiedImageError:
        raise ImageError(f"{name}: not an image") from None
    except ImageError:
        raise
    except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises on damaged files
        raise ImageError(f"{name}: a damaged or truncated image: {error}") from None
