"""The kubeconfig that makes plain `kubectl` work: ours in full below the data root, and one context in the user's.

A file of the user's is changed as little as can be: entries named as this Kestrel are put in or replaced, and the
current context is set only when there is none. `remove` takes exactly those entries out again.
"""

from base64 import b64encode
from pathlib import Path
from typing import Any

import yaml

from kestrel.base import files
from kestrel.base.errors import InvalidArgument
from kestrel.http.tls import Certificate

JSON = dict[str, Any]  # Any: a document of the user's


def document(name: str, url: str, authority: bytes, client: Certificate) -> JSON:
    """Return a whole kubeconfig with one cluster, one user and one context, all called `name`."""
    cluster = {"server": url, "certificate-authority-data": b64encode(authority).decode()}
    user = {
        "client-certificate-data": b64encode(client.certificate).decode(),
        "client-key-data": b64encode(client.key).decode(),
    }
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "preferences": {},
        "clusters": [{"name": name, "cluster": cluster}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
    }


def merged(theirs: JSON, ours: JSON) -> JSON:
    """Return a document of the user's with our entries in it."""
    result = without(theirs, ours["current-context"])
    for section in ("clusters", "users", "contexts"):
        result[section] = [*(result.get(section) or []), *ours[section]]
    result["current-context"] = theirs.get("current-context") or ours["current-context"]
    return result


def without(theirs: JSON, name: str) -> JSON:
    """Return a document of the user's with the entries of that name taken out."""
    result = {"apiVersion": "v1", "kind": "Config", **theirs}
    for section in ("clusters", "users", "contexts"):
        result[section] = [entry for entry in theirs.get(section) or [] if entry.get("name") != name]
    if result.get("current-context") == name:
        result["current-context"] = ""
    return result


def install(path: Path, ours: JSON) -> None:
    """Put our entries into the user's file, made if there is none. Raises InvalidArgument when it is not YAML."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _write(path, merged(_read(path), ours))


def remove(path: Path, name: str) -> None:
    """Take our entries out of the user's file; a file that holds nothing else is deleted."""
    if not path.exists():
        return
    rest = without(_read(path), name)
    if any(rest[section] for section in ("clusters", "users", "contexts")):
        _write(path, rest)
    else:
        path.unlink()


def _read(path: Path) -> JSON:
    try:
        found = yaml.load(path.read_text(), Loader=yaml.CSafeLoader) or {}
    except FileNotFoundError:
        return {}
    except yaml.YAMLError as error:
        raise InvalidArgument(
            f"{path} is not a kubeconfig: {error}", hint="mend or move it, or set KESTREL_KUBECONFIG to another file"
        ) from error
    if not isinstance(found, dict):
        raise InvalidArgument(f"{path} is not a kubeconfig", hint="set KESTREL_KUBECONFIG to another file")
    return found


def _write(path: Path, value: JSON) -> None:
    files.replace(path, yaml.dump(value, Dumper=yaml.CSafeDumper, sort_keys=False).encode())
