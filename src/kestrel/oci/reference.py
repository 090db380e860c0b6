"""Names of images as docker reads them: `[domain/]path[:tag][@digest]`, normalised.

The grammar is that of the distribution project's reference package. A name without a domain is one of Docker Hub's
(`docker.io`), and there a name without a slash is one of `library/`. The first part is a domain only when it looks
like one: it is `localhost`, has a dot or a colon, or an upper-case letter.
"""

import re
from dataclasses import dataclass, replace

from kestrel.base.errors import InvalidArgument
from kestrel.oci.digest import Digest

DEFAULT_DOMAIN = "docker.io"
DEFAULT_TAG = "latest"
_OFFICIAL = "library/"
_PATH_LIMIT = 255

_DOMAIN = re.compile(
    r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*"
    r"|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
)
_PATH = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_HEX64 = re.compile(r"[a-f0-9]{64}")


@dataclass(frozen=True, slots=True)
class Reference:
    """A normalised name. `tag` is empty only when a digest alone was given; with both, the digest decides."""

    domain: str
    path: str
    tag: str = ""
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str, *, default_tag: str = DEFAULT_TAG) -> "Reference":
        """Read a name as people type it; raises InvalidArgument that says what is wrong with it."""
        rest, at, digest_text = text.partition("@")
        digest = Digest.parse(digest_text) if at else None
        if _HEX64.fullmatch(rest):
            raise InvalidArgument(
                f"invalid image name {text!r}", hint="64 hex digits are an id; write sha256: in front to name it"
            )
        name, tag = _split_tag(rest)
        if tag and not _TAG.fullmatch(tag):
            raise InvalidArgument(
                f"invalid tag {tag[:140]!r} in {text[:300]!r}",
                hint="a tag has letters, digits, _ . - and at most 128 characters",
            )
        domain, path = _split_domain(name)
        _check_path(path, text)
        return cls(domain, path, tag or ("" if digest else default_tag), digest)

    @property
    def name(self) -> str:
        """`domain/path`, the repository."""
        return f"{self.domain}/{self.path}"

    @property
    def version(self) -> str:
        """What a registry is asked for: the digest when there is one, else the tag."""
        return str(self.digest) if self.digest else self.tag

    def familiar(self) -> str:
        """Return the short form people use: `busybox:latest`, `ghcr.io/a/b@sha256:...`."""
        return f"{self.familiar_name}{self._suffix()}"

    @property
    def familiar_name(self) -> str:
        """The repository without Docker Hub's domain and `library/`."""
        if self.domain != DEFAULT_DOMAIN:
            return self.name
        rest = self.path.removeprefix(_OFFICIAL)
        return rest if "/" not in rest else self.path

    def with_tag(self, tag: str) -> "Reference":
        """Return the same repository under another tag, without digest."""
        if not _TAG.fullmatch(tag):
            raise InvalidArgument(f"invalid tag {tag[:140]!r}")
        return replace(self, tag=tag, digest=None)

    def with_digest(self, digest: Digest) -> "Reference":
        """Return the same repository at exactly this manifest, without tag."""
        return replace(self, tag="", digest=digest)

    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    def __str__(self) -> str:
        return f"{self.name}{self._suffix()}"


def is_tag(text: str) -> bool:
    """Whether `text` can be a tag."""
    return _TAG.fullmatch(text) is not None


def is_repository(path: str) -> bool:
    """Whether `path` can be a repository's path on a registry (distribution-spec, "Pulling manifests")."""
    return len(path) <= _PATH_LIMIT and _PATH.fullmatch(path) is not None


def _split_tag(rest: str) -> tuple[str, str]:
    head, slash, last = rest.rpartition("/")
    name, colon, tag = last.partition(":")
    if colon and not tag:
        raise InvalidArgument(f"invalid image name {rest!r}", hint="a tag must follow the colon")
    return f"{head}{slash}{name}", tag


def _split_domain(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    looks_like_domain = "." in first or ":" in first or first == "localhost" or first.lower() != first
    if not slash or not looks_like_domain:
        domain, path = DEFAULT_DOMAIN, name
    else:
        domain, path = first, rest
    if domain == "index.docker.io":
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and "/" not in path:
        path = _OFFICIAL + path
    if not _DOMAIN.fullmatch(domain):
        raise InvalidArgument(f"invalid registry {domain[:140]!r} in {name[:300]!r}")
    return domain, path


def _check_path(path: str, text: str) -> None:
    if len(path) > _PATH_LIMIT:
        raise InvalidArgument(f"invalid image name: {path[:40]!r}... has more than {_PATH_LIMIT} characters")
    if _PATH.fullmatch(path):
        return
    if path.lower() != path and _PATH.fullmatch(path.lower()):
        lower = text.replace(path.removeprefix(_OFFICIAL), path.removeprefix(_OFFICIAL).lower())
        raise InvalidArgument(
            f"invalid image name {text!r}: the repository must be lower case", hint=f"did you mean {lower}?"
        )
    raise InvalidArgument(
        f"invalid image name {text[:300]!r}", hint="write it as [registry/]name[:tag], lower case, such as python:3.12"
    )
