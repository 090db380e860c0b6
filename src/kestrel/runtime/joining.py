"""The process that `exec` is to run: a file with the spec's form, or options over what the container's first has."""

from __future__ import annotations

from kestrel.base.errors import InvalidArgument
from kestrel.linux import capabilities
from kestrel.oci import runtime_shape
from kestrel.runtime import bundles
from kestrel.runtime.arguments import Options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def wanted(options: Options, first: dict[str, Any]) -> dict[str, Any]:
    """Return the process in the spec's form."""
    if options.text("process"):
        return bundles.read_spec(options.text("process"), runtime_shape.PROCESS)
    args = options.words[1:]
    if not args:
        raise InvalidArgument("exec args cannot be empty", hint="exec [options] ID COMMAND [ARGUMENT...]")
    process: dict[str, Any] = {**first, "args": args, "terminal": options.on("tty")}
    if options.text("cwd"):
        process["cwd"] = options.text("cwd")
    process["env"] = [*(first.get("env") or ()), *(_variable(word) for word in options.all("env"))]
    user = dict(first.get("user") or {})
    if options.text("user"):
        user.update(_user(options.text("user")))
    if options.all("additional-gids"):
        groups = [
            _number(word, "additional gid") for entry in options.all("additional-gids") for word in entry.split(",")
        ]
        user["additionalGids"] = [*(user.get("additionalGids") or ()), *groups]
    process["user"] = user
    if options.on("no-new-privs"):
        process["noNewPrivileges"] = True
    for option, member in (("apparmor", "apparmorProfile"), ("process-label", "selinuxLabel")):
        if options.text(option):
            process[member] = options.text(option)
    if options.all("cap"):
        process["capabilities"] = _more(first.get("capabilities") or {}, options.all("cap"))
    return process


def groups_below(words: list[str]) -> dict[str, str]:
    """Return the groups to join below the container's, by controller ("" for all): `PATH` or `CONTROLLER,...:PATH`."""
    found = {}
    for word in words:
        controllers, _, path = word.rpartition(":")
        parts = [part for part in path.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise InvalidArgument(f"bad sub cgroup path {path!r}", hint="it is a path below the container's own group")
        found.update(dict.fromkeys(controllers.split(","), "/".join(parts)))
    return found


def _variable(word: str) -> str:
    if "=" not in word:
        raise InvalidArgument(f"--env {word!r} is not NAME=VALUE")
    return word


def _user(text: str) -> dict[str, int]:
    """Return `UID[:GID]`: numbers only, since names would be looked up in the container's files."""
    uid, colon, gid = text.partition(":")
    found = {"uid": _number(uid, "uid")}
    if colon:
        found["gid"] = _number(gid, "gid")
    return found


def _number(text: str, name: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise InvalidArgument(f"{name} {text!r} is not a number", hint="names are not looked up in the container")
    if len(text) > 10 or int(text) > 2**32 - 2:
        raise InvalidArgument(f"{name} {text} is not from 0 to {2**32 - 2}")
    return int(text)


def _more(first: dict[str, list[str]], names: list[str]) -> dict[str, list[str]]:
    """Add capabilities: to what it has and may have, and to the ambient set if anything is inheritable."""
    found = {
        kind: list(first.get(kind) or ()) for kind in ("bounding", "effective", "permitted", "inheritable", "ambient")
    }
    unknown = capabilities.mask(names)[1]
    if unknown:
        raise InvalidArgument(f"unknown capability {unknown[0]!r}")
    for full in map(capabilities.canonical, names):
        for kind in ("bounding", "effective", "permitted", *(("ambient",) if found["inheritable"] else ())):
            if full not in found[kind]:
                found[kind].append(full)
    return found
