"""Who owns what COPY and ADD write, and with which mode: `--chown` and `--chmod`, and USER by name.

Names are looked up in the stage's own /etc/passwd and /etc/group, read by descriptor inside its root.
"""

import re
from dataclasses import dataclass

from kestrel.base.errors import InvalidArgument, nearest
from kestrel.build.graph import CopyFiles, Execute, Step
from kestrel.build.tree import Tree

RANGE = 1 << 16
"""Users and groups of a sandbox that has its own are below this, as those of images mostly are."""
_LARGEST = (1 << 32) - 2
"""The next number means "leave it as it is" to chown(2)."""
_CLAUSE = re.compile(r"([ugoa]*)((?:[-+=](?:[ugo]|[rwxXst]*))+)")
_ACTION = re.compile(r"([-+=])([ugo]|[rwxXst]*)")
_CLASS_BITS = {"u": 0o4700, "g": 0o2070, "o": 0o1007}
_PERMISSION = {"r": 0o444, "w": 0o222, "x": 0o111}


@dataclass(frozen=True, slots=True)
class Mode:
    """A parsed `--chmod`: a number, or symbolic clauses that depend on what is there."""

    text: str
    fixed: int | None = None

    def apply(self, mode: int, *, directory: bool) -> int:
        """Return the mode a file with `mode` gets."""
        return self.fixed if self.fixed is not None else _symbolic(self.text, mode, directory)


def parse_mode(text: str) -> Mode | None:
    """Read `755`, `0644` or `u+x,go-w`; None for an empty text. Raises InvalidArgument."""
    if not text:
        return None
    if re.fullmatch(r"[0-7]{1,5}", text) and int(text, 8) <= 0o7777:
        return Mode(text, int(text, 8))
    if text[0].isdigit() or not all(_CLAUSE.fullmatch(clause) for clause in text.split(",")):
        raise InvalidArgument(f"invalid mode `{text}` for --chmod", hint="write it as 755 or as u=rwX,go=rX")
    return Mode(text)


def _symbolic(text: str, mode: int, directory: bool) -> int:
    """Carry out chmod's clauses (POSIX chmod, without the umask that an empty class would consult)."""
    for clause in text.split(","):
        match = _CLAUSE.fullmatch(clause)
        assert match is not None  # parse_mode has checked
        classes = match[1].replace("a", "ugo") or "ugo"
        reach = 0o1000 if not match[1] or "a" in match[1] else 0
        for name in classes:
            reach |= _CLASS_BITS[name]
        for operator, what in _ACTION.findall(match[2]):
            bits = _bits(what, mode, directory) & reach
            if operator == "+":
                mode |= bits
            elif operator == "-":
                mode &= ~bits
            else:
                mode = (mode & ~(reach & 0o7777)) | bits
    return mode


def _bits(what: str, mode: int, directory: bool) -> int:
    if what in ("u", "g", "o"):
        shift = {"u": 6, "g": 3, "o": 0}[what]
        return (mode >> shift & 7) * 0o111
    bits = 0
    for letter in what:
        if letter == "X":
            bits |= 0o111 if directory or mode & 0o111 else 0
        elif letter == "s":
            bits |= 0o6000
        elif letter == "t":
            bits |= 0o1000
        else:
            bits |= _PERMISSION[letter]
    return bits


def numeric_owner(text: str) -> tuple[int, int] | None:
    """Read `--chown=1000` or `1000:50` without looking anywhere; None when a name is in it."""
    user, colon, group = text.partition(":")
    if not user.isdecimal() or (colon and group and not group.isdecimal()):
        return None
    return _number(user), _number(group) if group else _number(user)


def find_owner(text: str, root: Tree) -> tuple[int, int]:
    """Return user and group for `--chown`, names looked up in the root's own files. Raises InvalidArgument.

    A user alone gives its own group: the passwd entry's for a name, the same number for a number.
    """
    user, _, group = text.partition(":")
    if not user:
        raise InvalidArgument(f"the owner `{text}` names no user", hint="write USER or USER:GROUP, names or numbers")
    if user.isdecimal():
        uid = gid = _number(user)
    else:
        uid, gid = _lookup(root, "etc/passwd", "user", user, (2, 3))
    if group:
        gid = _number(group) if group.isdecimal() else _lookup(root, "etc/group", "group", group, (2, 2))[0]
    return uid, gid


def beyond_range(step: Step) -> bool:
    """Tell whether a step names users or groups that no range of a sandbox holds, and files may be theirs after it."""
    operation = step.operation
    numbers: list[int | None] = []
    if isinstance(operation, CopyFiles):
        numbers = list(numeric_owner(operation.chown) or () if operation.chown else ())
    elif isinstance(operation, Execute):
        numbers = [int(word) for word in operation.user.split(":") if word.isdecimal()]
        numbers += [number for each in operation.mounts for number in (each.mount.uid, each.mount.gid)]
    return any(number is not None and number >= RANGE for number in numbers)


def _number(text: str) -> int:
    digits = text.lstrip("0") or "0"
    if len(digits) > len(str(_LARGEST)) or int(digits) > _LARGEST:
        raise InvalidArgument(f"{digits[:40]} is no number of a user or group", hint=f"they end with {_LARGEST}")
    return int(digits)


def _lookup(root: Tree, path: str, what: str, name: str, fields: tuple[int, int]) -> tuple[int, int]:
    try:
        lines = root.read(path).decode("utf-8", "surrogateescape").splitlines()
    except OSError:
        lines = []
    names = []
    for line in lines:
        parts = line.split(":")
        names.append(parts[0])
        if parts[0] == name and len(parts) > max(fields) and all(parts[f].isdecimal() for f in fields):
            return int(parts[fields[0]]), int(parts[fields[1]])
    close = nearest(name, names)
    hint = f"did you mean `{close}`?" if close else f"add the {what} in a RUN before, or give a number"
    raise InvalidArgument(f"no {what} `{name}` in /{path} of the stage", hint=hint)
