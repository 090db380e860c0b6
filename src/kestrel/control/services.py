"""What this door needs: the services it words requests to, and a platform that can describe and stop itself."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from kestrel.build import Builder
from kestrel.control.requests import Request
from kestrel.distribution import Logins
from kestrel.engine import Engine
from kestrel.images import ImageService


class Platform(Protocol):
    """The daemon as a whole."""

    def status(self) -> dict[str, Any]:
        """Say what runs, where it listens, and what this machine withholds."""
        ...

    async def usage(self) -> dict[str, Any]:
        """Say what takes how much room on disk."""
        ...

    async def prune(self, *, everything: bool) -> dict[str, Any]:
        """Remove what nothing uses; say what was removed and how many bytes that freed."""
        ...

    async def down(self, *, everything: bool) -> None:
        """Stop; with `everything`, end containers and take network, mounts and cgroups away first."""
        ...


Bootstrap = Callable[[str, str, tuple[str, ...], Callable[[Any], None]], Awaitable[dict[str, Any]]]
"""Makes a base image: (name, variant, packages, progress) to a description of the image."""


RegistryAdministration = Callable[[tuple[str, ...], Mapping[str, Any], "Emit"], Awaitable[Any]]
"""Does what the words of `kestrel registry` say, with these options, sending events while it works."""

Emit = Callable[[dict[str, Any]], Awaitable[None]]
"""Sends one event to the client while a verb works."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Everything the verbs may call."""

    engine: Engine
    images: ImageService
    logins: Logins
    builder: Builder
    bootstrap: Bootstrap
    platform: Platform
    registry: RegistryAdministration
    log: logging.Logger


Verb = Callable[[Services, Any, Emit], Awaitable[Any]]
Verbs = Mapping[str, tuple[type[Request], Verb]]
"""By name: the request a verb takes, and what does it."""
