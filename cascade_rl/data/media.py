"""Images, sound and video in a row, which a text would leave out; and what only looks like them by its name.

A column or key called ``image`` often holds something else: rows of software engineering name the container image
there. Refused is what can be looked at or listened to: bytes, files and addresses of them, and a placeholder for them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

NAMES = ("image", "images", "audio", "audios", "video", "videos")
"""Columns, and keys of messages, that usually hold media."""
_OBJECT_KEYS = ("bytes", "path", "url", "array", "data", "base64", "image_url")
"""Keys of an object that holds media (``datasets``, OpenAI)."""
_FILE = re.compile(
    r"\.(png|jpe?g|gif|webp|bmp|tiff?|svg|ico|heic|avif|mp3|wav|flac|ogg|opus|m4a|aac|mp4|mov|avi|mkv|webm|mpe?g)\Z",
    re.IGNORECASE,
)
_DATA = re.compile(r"data:(image|audio|video)/|(/9j/|iVBORw0KGgo|R0lGOD|UklGR|SUQz)[A-Za-z0-9+/]{32}")
"""Addresses with the media themselves in them, and how JPEG, PNG, GIF, RIFF and MP3 files begin in base64."""


def is_media(value: Any) -> bool:
    """Whether the value of a column or key of ``NAMES`` is an image, sound or video, or names a file with one.

    Lists count as media, since containers are named one by one. Numbers, flags and other text do not.
    """
    if isinstance(value, str):
        text = value.strip()
        return bool(_DATA.match(text) or _FILE.search(re.split("[?#]", text, maxsplit=1)[0]))
    if isinstance(value, Mapping):
        return any(value.get(key) for key in _OBJECT_KEYS) or any(is_media(item) for item in value.values())
    if isinstance(value, list | tuple):
        return any(item is not None and item != "" for item in value)
    return isinstance(value, bytes) and bool(value)


def placeholder(name: str) -> str:
    """How texts mark the place of what is in column ``name``: ``<image>`` (LLaVA and what follows it)."""
    return f"<{name.removesuffix('s')}>"
