"""What is said over the socket, as bytes: JSON, whatever text it is made of."""

from typing import Any

import msgspec


def encode(message: Any) -> bytes:
    """Return a message as JSON. Names of files that are not UTF-8 are shown with U+FFFD, and nothing else changes."""
    try:
        return msgspec.json.encode(message, enc_hook=str)
    except UnicodeEncodeError:
        return msgspec.json.encode(_legible(msgspec.to_builtins(message, enc_hook=str)))


def _legible(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    if isinstance(value, dict):
        return {_legible(key): _legible(each) for key, each in value.items()}
    return [_legible(each) for each in value] if isinstance(value, list | tuple) else value
