"""The value of a RUN's `--mount`: fields as in a line of CSV, each kind with keys of its own.

The rules are those of docker (https://docs.docker.com/reference/dockerfile/#run---mount); a key that a kind does not
have is refused with the nearest one that it has.
"""

import csv
import posixpath
from collections.abc import Callable
from dataclasses import replace

from kestrel.base.errors import InvalidArgument
from kestrel.base.units import parse_size
from kestrel.dockerfile import instructions as ins
from kestrel.dockerfile.errors import DockerfileError, suggestion

_WRITABLE = ("readonly", "readwrite")
"""Taken of every mount, as docker does; what secrets and agents are does not change."""
MOUNT_KEYS: dict[str, tuple[str, ...]] = {
    "bind": ("type", "target", "source", "from", *_WRITABLE),
    "cache": ("type", "id", "target", "sharing", "from", "source", "mode", "uid", "gid", *_WRITABLE),
    "tmpfs": ("type", "target", "size", *_WRITABLE),
    "secret": ("type", "id", "source", "target", "env", "required", "mode", "uid", "gid", *_WRITABLE),
    "ssh": ("type", "id", "target", "required", "mode", "uid", "gid", *_WRITABLE),
}
_NO_ONE = (1 << 32) - 1
"""The number that means "leave it as it is" to chown(2), and therefore nobody's."""
_ALIAS = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly", "rw": "readwrite"}
_SWITCHES = ("readonly", "readwrite", "required")
_SHARING = ("shared", "private", "locked")
_NUMBERS = {"mode": "write it in octal, as 0640", "uid": "write a user's number", "gid": "write a group's number"}


def parse_mount(text: str, word: Callable[[str], str] | None = None) -> ins.Mount:
    """Read the value of a `--mount`; with `word` the values are expanded (all but `from`).

    Without it, values that hold variables are not checked yet. Raises DockerfileError without a place.
    """
    fields = [_mount_field(field) for field in _csv(text)]
    kind = next((value for key, _, value in fields if key == "type"), "bind")
    kind = (word(kind) if word is not None else kind).lower()
    if kind not in MOUNT_KEYS:
        if "$" in kind and word is None:
            return ins.Mount()
        raise DockerfileError(f"unknown mount type `{kind}`", hint=_mount_hint(kind, tuple(MOUNT_KEYS)))
    values: dict[str, str] = {}
    for key, written, value in fields:
        if key not in MOUNT_KEYS[kind]:
            known = (*MOUNT_KEYS[kind], *(alias for alias, meant in _ALIAS.items() if meant in MOUNT_KEYS[kind]))
            article = "an" if kind == "ssh" else "a"
            raise DockerfileError(f"{article} {kind} mount has no `{written}`", hint=_mount_hint(written, known))
        if word is not None and key != "from":
            value = word(value)
        elif key == "from" and "$" in value:
            raise DockerfileError("`from` of a mount does not take variables", hint="name a stage for the image")
        values[key] = value
    checked = {k: v for k, v in values.items() if word is not None or "$" not in v}
    return _mount_defaults(_typed_mount(kind, checked), values)


def _csv(text: str) -> list[str]:
    try:
        return next(csv.reader([text], strict=True), [])
    except csv.Error as error:
        raise DockerfileError(f"invalid mount `{text}`: {error}") from None


def _mount_field(field: str) -> tuple[str, str, str]:
    """Return the key, how it is written, and the value."""
    written, equals, value = field.partition("=")
    key = written.strip().lower()
    key = _ALIAS.get(key, key)
    if not equals:
        if key not in _SWITCHES:
            raise DockerfileError(f"`{field}` in a mount is not of the form key=value")
        value = "true"
    return key, written, value


def _mount_hint(word: str, known: tuple[str, ...]) -> str:
    return suggestion(word, known) or f"it is one of {', '.join(k for k in known if k not in _ALIAS)}"


def _typed_mount(kind: str, values: dict[str, str]) -> ins.Mount:
    sharing = values.get("sharing", "shared").lower()
    if sharing not in _SHARING:
        raise DockerfileError(f"unknown sharing `{sharing}` of a mount", hint=_mount_hint(sharing, _SHARING))
    read_only = kind == "bind"
    if "readonly" in values:
        read_only = _switch("readonly", values["readonly"])
    if "readwrite" in values:
        read_only = not _switch("readwrite", values["readwrite"])
    return ins.Mount(
        type=kind,
        target=values.get("target", ""),
        source=values.get("source", ""),
        from_=values.get("from", ""),
        id=values.get("id", ""),
        env=values.get("env", ""),
        sharing=sharing,
        read_only=read_only,
        required=_switch("required", values.get("required", "false")),
        size=_size(values.get("size", "0")),
        mode=_number(values, "mode", 8),
        uid=_number(values, "uid", 10),
        gid=_number(values, "gid", 10),
    )


def _mount_defaults(mount: ins.Mount, written: dict[str, str]) -> ins.Mount:
    """Fill in what follows from the other keys, and refuse what is missing."""
    if mount.type in ("bind", "cache", "tmpfs") and not written.get("target"):
        raise DockerfileError(f"a {mount.type} mount needs a target", hint="add `target=/path`")
    if mount.type == "secret":
        if not any(written.get(key) for key in ("id", "source", "target")):
            raise DockerfileError("a secret mount needs an id", hint="add `id=name`, as in `--secret id=name,src=file`")
        if written.get("id") and written.get("source"):
            raise DockerfileError("`source` of a secret mount is its id, which is given twice", hint="take one out")
        name = mount.id or mount.source or posixpath.basename(mount.target)
        env = mount.env or (name if "env" in written else "")
        target = mount.target or ("" if env else f"/run/secrets/{posixpath.basename(name)}")
        return replace(mount, id=name, source="", env=env, target=target)
    return mount


def _switch(key: str, value: str) -> bool:
    if value.lower() in ("true", "1", "t"):
        return True
    if value.lower() in ("false", "0", "f"):
        return False
    raise DockerfileError(f"`{key}` of a mount is true or false, not `{value}`")


def _number(values: dict[str, str], key: str, base: int) -> int | None:
    text = values.get(key)
    if text is None:
        return None
    try:
        number = int(text, base)
    except ValueError:
        number = -1
    if number < 0 or number >= (0o10000 if key == "mode" else _NO_ONE):
        raise DockerfileError(f"invalid {key} `{text}` of a mount", hint=_NUMBERS[key])
    return number


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except InvalidArgument as error:
        raise DockerfileError(error.message, hint=error.hint) from None
