"""Image files of a dataset, checked before anything depends on them."""

from __future__ import annotations

import warnings
from pathlib import Path

from rollouts.rows import DatasetError

MAX_PIXELS = 100_000_000
"""of one screenshot; 8K has 33 million. A file of a few kilobytes can claim to hold far more and fill the memory."""


def image_size(path: Path, *, decode: bool = False) -> tuple[int, int]:
    """(width, height) in pixels of an image file.

    Args:
        decode: read all of it, which notices a truncated file; otherwise only its head is read.

    Raises:
        DatasetError: missing, not an image, truncated, or of more than MAX_PIXELS.
    """
    from PIL import Image, UnidentifiedImageError

    if not path.is_file():
        raise DatasetError(f"{path}: there is no such image")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is below
            with Image.open(path) as image:
                width, height = image.size
                if width * height > MAX_PIXELS:
                    raise DatasetError(f"{path}: {width} x {height} pixels; at most {MAX_PIXELS:,} are read")
                if decode:
                    image.load()
    except Image.DecompressionBombError:
        raise DatasetError(f"{path}: an enormous image; at most {MAX_PIXELS:,} pixels are read") from None
    except UnidentifiedImageError:
        raise DatasetError(f"{path}: not an image") from None
    except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises on damaged files
        raise DatasetError(f"{path}: a damaged or truncated image: {error}") from None
    return width, height
