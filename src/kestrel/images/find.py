"""Which image a person means: by name, id, digest, or the beginning of an id."""

import re

from kestrel.base.errors import InvalidArgument, NotFound, nearest
from kestrel.images.store import Images, Row
from kestrel.oci.digest import Digest
from kestrel.oci.reference import Reference

_DIGITS = re.compile(r"[0-9a-f]{2,64}")


def find(images: Images, name: str) -> Row:
    """Return the image. Raises NotFound with the nearest name, InvalidArgument for what is none or means several."""
    row = _called(images, name)
    if row is None:
        raise _unknown(images, name)
    return row


def normal(name: str) -> str:
    """Return a name in full, empty when it is none."""
    try:
        return str(Reference.parse(name))
    except InvalidArgument:
        return ""


def _called(images: Images, name: str) -> "Row | None":
    if name.startswith(("sha256:", "sha512:")):
        return images.digested(Digest.parse(name)) if len(name) > 70 else _beginning(images, name[7:])
    if not _DIGITS.fullmatch(name) or len(name) < 64:
        row = images.named(Reference.parse(name))
        if row is not None:
            return row
    return _beginning(images, name)


def _beginning(images: Images, digits: str) -> "Row | None":
    if not _DIGITS.fullmatch(digits):
        return None
    rows = images.prefixed(digits)
    if len({row.id for row in rows}) > 1:
        raise InvalidArgument(f"{digits!r} matches {len({row.id for row in rows})} images", hint="give more digits")
    return rows[0] if rows else None


def _unknown(images: Images, name: str) -> NotFound:
    known = [each.familiar() for each in images.every_name()]
    near = nearest(name, known) or nearest(f"{name}:latest", known)
    if near:
        return NotFound(f"no such image: {name}", hint=f"did you mean {near}?", image=name)
    if name.startswith("sha256:") or _DIGITS.fullmatch(name):
        return NotFound(f"no such image: {name}", hint="`kestrel images` lists those on this host", image=name)
    return NotFound(f"no such image: {name}", hint=f"fetch it with `kestrel pull {name}`", image=name)
