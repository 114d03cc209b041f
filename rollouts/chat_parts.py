"""Images in conversations as OpenAI-compatible servers and clients write them: `image_url` parts with data URLs."""

from __future__ import annotations

import base64
from functools import lru_cache
from typing import Any

from rollouts.images import image_digest, open_image, read_image
from rollouts.rows import DatasetError
from rollouts.trajectory import ContentPart, ImagePart, Message, PromptContent, TextPart

_SIGNATURES = {b"\xff\xd8\xff": "image/jpeg", b"GIF8": "image/gif", b"RIFF": "image/webp", b"BM": "image/bmp"}


def as_openai(turns: list[Message]) -> list[dict[str, object]]:
    """The turns as the body of a request has them; the files of images inside.

    Raises:
        DatasetError: an image cannot be read.
    """
    return [{**turn, "content": _openai_content(turn["content"])} for turn in turns]


def _openai_content(content: str | list[ContentPart]) -> str | list[dict[str, object]]:
    if isinstance(content, str):
        return content
    return [
        {"type": "text", "text": part["text"]}
        if part["type"] == "text"
        else {"type": "image_url", "image_url": {"url": _data_url(part["image"])}}
        for part in content
    ]


@lru_cache(maxsize=64)  # the trajectories of a round share their images
def _data_url(source: str) -> str:
    if source.startswith("data:"):
        return source
    data = read_image(source)
    kind = next((kind for head, kind in _SIGNATURES.items() if data.startswith(head)), "image/png")
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def from_openai(content: object) -> str | list[ContentPart]:
    """The content of a turn in a request: text, or a list of text and image parts.

    Text parts alone are one text. Nothing is fetched and no file is opened for a client: an image is a data URL.

    Raises:
        ValueError: something else; the message says what.
    """
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise ValueError("a content is text or a list of text and image_url parts")
    parts = [_part(part) for part in content]
    texts = [part["text"] for part in parts if part["type"] == "text"]
    return "".join(texts) if len(texts) == len(parts) else parts


def _part(part: Any) -> ContentPart:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text" and isinstance(part.get("text"), str):
        return TextPart(type="text", text=part["text"])
    if kind != "image_url":
        raise ValueError(f"a part of type {kind!r} is not supported; text and image_url are")
    given = part.get("image_url")
    url = given.get("url") if isinstance(given, dict) else given
    if not isinstance(url, str) or not url.startswith("data:"):
        raise ValueError("image_url must be a data URL (data:image/png;base64,...); nothing is fetched from elsewhere")
    try:
        open_image(read_image(url))
    except DatasetError as error:
        raise ValueError(str(error)) from None
    return ImagePart(type="image", image=url)


def without_bulk(content: PromptContent) -> PromptContent:
    """The prompt for a record: images that are data URLs by their digest alone."""
    if isinstance(content, str):
        return content
    return [
        turn
        if isinstance(turn["content"], str)
        else Message(role=turn["role"], content=[_named(part) for part in turn["content"]])
        for turn in content
    ]


def _named(part: ContentPart) -> ContentPart:
    if part["type"] == "text" or not part["image"].startswith("data:"):
        return part
    return ImagePart(type="image", image=f"blake2b:{image_digest(part['image'])}")
