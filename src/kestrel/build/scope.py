"""Which variables are in force where: ARG scopes, predefined arguments, and the environment of the stage.

The rules (https://docs.docker.com/reference/dockerfile/#arg): ARGs before the first FROM feed only FROM lines, and a
bare `ARG NAME` of a stage that repeats one; inside a stage a value is in scope from its line on, ENV wins over ARG,
stages built on a stage inherit its ARGs. The platform arguments exist everywhere but have to be named in a stage;
the proxy arguments need not be named, and count for the cache only where they are.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from kestrel.dockerfile.expand import Expander
from kestrel.dockerfile.instructions import Arg
from kestrel.oci.platform import Platform

PROXIES = tuple(
    name
    for base in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
    for name in (base, base.lower())
)


def platform_args(platform: Platform, stage: str = "") -> dict[str, str]:
    """Return the predefined arguments that speak of platforms; builds run for this machine only."""
    text = "/".join(part for part in (platform.os, platform.architecture, platform.variant) if part)
    args = {}
    for prefix in ("BUILD", "TARGET"):
        args[f"{prefix}PLATFORM"] = text
        args[f"{prefix}OS"] = platform.os
        args[f"{prefix}OSVERSION"] = ""
        args[f"{prefix}ARCH"] = platform.architecture
        args[f"{prefix}VARIANT"] = platform.variant
    args["TARGETSTAGE"] = stage or "default"
    return args


@dataclass(slots=True)
class Scope:
    """The variables at one place; `args` in the order they were declared, None when declared without a value."""

    given: Mapping[str, str]
    predefined: Mapping[str, str]
    outer: Mapping[str, str] = field(default_factory=dict)
    escape: str = "\\"
    args: dict[str, str | None] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    undeclared: Mapping[str, str] = field(default_factory=dict)
    """What needs no ARG here: before the first stage that is all that is predefined."""
    used: set[str] = field(default_factory=set)
    """Names of given arguments that some ARG took."""

    def declare(self, arg: Arg) -> None:
        """Carry out an ARG line."""
        for name, default in arg.pairs:
            name = self.word(name)
            if name in self.given:
                self.args[name] = self.given[name]
                self.used.add(name)
            elif default is not None:
                self.args[name] = self.word(default)
            elif name in self.outer:
                self.args[name] = self.outer[name]
            elif name in self.predefined:
                self.args[name] = self.predefined[name]
            else:
                self.args.setdefault(name, None)

    def values(self) -> dict[str, str]:
        """Return what an expansion sees."""
        declared = {name: value for name, value in self.args.items() if value is not None}
        return {**self.undeclared, **declared, **self.env}

    def word(self, text: str) -> str:
        """Expand a text to one word."""
        return Expander(self.escape).word(text, self.values())

    def words(self, text: str) -> list[str]:
        """Expand a text and split it."""
        return Expander(self.escape).words(text, self.values())

    def body(self, text: str) -> str:
        """Expand the body of a here-document; a backslash escapes whatever the directive says, as in a shell."""
        return Expander(plain_quotes=True).word(text, self.values())

    def set_args(self) -> dict[str, str]:
        """Return the ARGs that have a value and are not hidden by ENV: a RUN sees them in its environment."""
        return {n: v for n, v in self.args.items() if v is not None and n not in self.env}

    def proxies(self) -> dict[str, str]:
        """Return the proxy arguments of the request; the environment has them, the cache does not.

        Programs disagree on the case of these names, so each is there in both, whichever was given. One that the
        Dockerfile declares is an argument like any other.
        """
        found = {}
        for name in PROXIES:
            value = self.given.get(name, self.given.get(name.swapcase()))
            if value is not None and name not in self.args:
                found[name] = value
        return found

    def child(self) -> "Scope":
        """Return the scope of a stage built on this one's stage."""
        return replace(self, args=dict(self.args), env=dict(self.env))
