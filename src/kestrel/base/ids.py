"""Identities: 64 hex digits for things, as docker and containerd do, and readable names for people."""

import os
import re

from kestrel.base.errors import InvalidArgument, NotFound

ID_LENGTH = 64
SHORT_LENGTH = 12
NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")

_LEFT = (
    "amber bold brave bright brisk calm clear clever cosy crisp daring dusky eager early easy fair fleet fond "
    "fresh gentle glad golden grand happy hardy keen kind light lively lucky mellow merry mild neat nimble noble "
    "patient plain proud quick quiet rapid ready sharp silent smooth steady still sunny swift tidy vivid warm wise"
).split()
_RIGHT = (
    "auk avocet bittern bunting buzzard chough coot crake crane curlew dipper dove dunlin eagle egret eider falcon "
    "finch gannet godwit goose grebe grouse gull harrier heron hobby hoopoe ibis jackdaw jay knot lark linnet "
    "magpie martin merlin osprey ouzel owl petrel pipit plover puffin rail raven robin rook ruff shrike siskin "
    "skua snipe stilt stork swallow swan swift teal tern thrush twite wagtail warbler wren"
).split()


def new_id() -> str:
    """Return a fresh 64-digit lower-case hex identity (256 random bits)."""
    return os.urandom(32).hex()


def short(identity: str) -> str:
    """Return the first 12 digits, the form people read."""
    return identity[:SHORT_LENGTH]


def new_name(taken: "set[str] | frozenset[str]" = frozenset()) -> str:
    """Return a readable `adjective-bird` name that is not in `taken`."""
    while True:
        a, b, digit = os.urandom(3)
        name = f"{_LEFT[a % len(_LEFT)]}-{_RIGHT[b % len(_RIGHT)]}"
        if name in taken:
            name = f"{name}-{digit}"
        if name not in taken:
            return name


def check_name(name: str) -> str:
    """Return `name` if docker would take it as a container name, else raise InvalidArgument."""
    if not NAME.fullmatch(name):
        raise InvalidArgument(
            f"invalid name {name!r}",
            hint="use letters, digits, and _ . - after the first character, 128 at most",
        )
    return name


def find(wanted: str, ids: "list[str]", what: str = "container") -> str:
    """Return the one identity that `wanted` is, or is a prefix of.

    Raises NotFound when none matches and InvalidArgument when several do.
    """
    if wanted in ids:
        return wanted
    matches = [i for i in ids if i.startswith(wanted)] if wanted else []
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise InvalidArgument(f"{wanted!r} matches {len(matches)} {what}s", hint="give more digits")
    raise NotFound(f"no such {what}: {wanted}")
