"""What maintainer scripts would have done, done as data.

No script of any package runs. For the packages every image has, their effects are few and known, and stand here one
function each, with the script they replace. Of all other scripts only literal `update-alternatives --install` lines
are read. What is not covered is told by `unhandled`.
"""

import hashlib
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from kestrel.images.bootstrap.catalog import Package
from kestrel.images.bootstrap.sources import Source, public
from kestrel.images.bootstrap.tree import Tree, normal

_MAIL, _UTMP, _SHADOW, _STAFF, _NOGROUP = 8, 43, 42, 50, 65534

EXCLUDED = ("usr/share/man/", "usr/share/doc/", "usr/share/info/", "usr/share/locale/", "usr/share/lintian/")
"""What the image does without, as Debian's slim images do; copyright files stay, their licences want that."""

_COVERED = frozenset(
    "apt base-files base-passwd bash ca-certificates dash debconf debianutils dpkg init-system-helpers libc-bin "
    "libc6 login mawk passwd perl-base python3 python3-minimal python3.11 python3.11-minimal util-linux".split()
)
"""Packages whose scripts have no effect that is missed: either done here, or only caches and byte-code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """One package in the tree: its control files and the names it holds, as packaged."""

    package: Package
    control: Mapping[str, bytes]
    names: Sequence[str]

    @property
    def key(self) -> str:
        """Return the name of its files in dpkg's database; co-installable packages carry the architecture."""
        if self.package.fields.get("multi-arch") == "same":
            return f"{self.package.name}:{self.package.fields['architecture']}"
        return self.package.name


def finish(tree: Tree, installed: Sequence[Installed], sources: Sequence[Source], trusted: Mapping[str, bytes]) -> None:
    """Bring the tree of unpacked packages into a state in which programs and dpkg work.

    `trusted` are certificate authorities beyond Debian's, by file name.
    """
    names = {item.package.name for item in installed}
    tree.complete()
    _base_files(tree)
    _accounts(tree, shadow="passwd" in names)
    _libc_bin(tree)
    _shell(tree)
    if "ca-certificates" in names:
        _certificates(tree, trusted)
    if "apt" in names:
        _apt(tree, sources)
    if "python3-pip" in names:
        _python(tree)
    _alternatives(tree, installed)
    _dpkg(tree, installed)


def unhandled(installed: Iterable[Installed]) -> list[str]:
    """Return the packages whose scripts did something this module does not do in their place, as far as it shows."""
    boring = re.compile(r"^\s*(#|set -e|exit 0|if |fi$|then$|update-alternatives|--slave|py3compile|dpkg-maintscript)")
    left = []
    for item in installed:
        script = item.control.get("postinst", b"").decode("utf-8", "replace")
        lines = [line for line in script.replace("\\\n", " ").splitlines() if line.strip() and not boring.match(line)]
        if lines and item.package.name not in _COVERED:
            left.append(item.package.name)
    return sorted(left)


def _base_files(tree: Tree) -> None:
    """base-files.postinst: directories, links and first versions of files in /etc and /root."""
    for name in ("mnt", "srv", "opt", "etc/opt", "var/opt", "media", "home", "boot", "proc", "sys", "dev", "run"):
        tree.directory(name)
    for name in ("bin", "etc", "games", "include", "lib", "sbin", "share", "src", "share/man"):
        tree.directory(f"usr/local/{name}", mode=0o2775, gid=_STAFF)
    tree.symlink("usr/local/man", "share/man")
    tree.directory("tmp", mode=0o1777)
    tree.directory("var/tmp", mode=0o1777)
    tree.directory("root", mode=0o700)
    tree.directory("run/lock", mode=0o1777)
    tree.directory("var/mail", mode=0o2775, gid=_MAIL)
    tree.directory("var/spool")
    for name, target in (("var/run", "/run"), ("var/lock", "/run/lock"), ("var/spool/mail", "../mail")):
        tree.symlink(name, target)
    for name, mode in (("wtmp", 0o664), ("btmp", 0o660), ("lastlog", 0o664)):
        tree.file(f"var/log/{name}", b"", mode=mode, gid=_UTMP)
    for default, name in (
        ("dot.profile", "root/.profile"),
        ("dot.bashrc", "root/.bashrc"),
        ("profile", "etc/profile"),
        ("motd", "etc/motd"),
    ):
        _from_default(tree, f"usr/share/base-files/{default}", name)


def _from_default(tree: Tree, default: str, name: str) -> None:
    content = tree.read(default)
    if content is not None and name not in tree.entries:
        tree.file(name, content)


def _accounts(tree: Tree, *, shadow: bool) -> None:
    """base-passwd.postinst copies its masters; passwd.postinst then runs shadowconfig."""
    passwd = (tree.read("usr/share/base-passwd/passwd.master") or b"root:*:0:0:root:/root:/bin/sh\n").decode()
    group = (tree.read("usr/share/base-passwd/group.master") or b"root:*:0:\n").decode()
    users = [line.split(":") for line in passwd.splitlines() if line]
    groups = [line.split(":") for line in group.splitlines() if line]
    if shadow:
        day = tree.newest // 86400
        lines = [f"{user[0]}:{user[1]}:{day}:0:99999:7:::" for user in users]
        tree.file("etc/shadow", _lines(lines), mode=0o640, gid=_SHADOW)
        lines = [f"{entry[0]}:{entry[1]}::" for entry in groups]
        tree.file("etc/gshadow", _lines(lines), mode=0o640, gid=_SHADOW)
        users = [[user[0], "x", *user[2:]] for user in users]
        groups = [[entry[0], "x", *entry[2:]] for entry in groups]
        for name in ("etc/subuid", "etc/subgid"):
            tree.file(name, b"")
    tree.file("etc/passwd", _lines(":".join(user) for user in users))
    tree.file("etc/group", _lines(":".join(entry) for entry in groups))


def _lines(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _libc_bin(tree: Tree) -> None:
    """libc-bin.postinst, without ld.so.cache: the loader finds the multiarch directories by itself (ld.so(8))."""
    _from_default(tree, "usr/share/libc-bin/nsswitch.conf", "etc/nsswitch.conf")


def _shell(tree: Tree) -> None:
    """dash.postinst: /bin/sh. The package holds the link since Debian 12; this is for those that do not."""
    if "usr/bin/sh" not in tree.entries:
        for shell in ("dash", "bash"):
            if f"usr/bin/{shell}" in tree.entries:
                tree.symlink("usr/bin/sh", shell)
                return


def _certificates(tree: Tree, trusted: Mapping[str, bytes]) -> None:
    """ca-certificates.postinst: the list of authorities, the bundle, a link per authority.

    The links by subject hash (`c_rehash`) are left out: OpenSSL, GnuTLS and Python find the bundle first.
    """
    tree.directory("usr/local/share/ca-certificates", mode=0o2775, gid=_STAFF)
    for name, content in sorted(trusted.items()):
        tree.file(f"usr/local/share/ca-certificates/{name}", content)
    shipped = [n for n in tree.beneath("usr/share/ca-certificates") if n.endswith(".crt")]
    local = [n for n in tree.beneath("usr/local/share/ca-certificates") if n.endswith(".crt")]
    tree.file("etc/ca-certificates.conf", _lines(n.removeprefix("usr/share/ca-certificates/") for n in shipped))
    bundle = b""
    for name in shipped + local:
        bundle += (tree.read(name) or b"").rstrip(b"\n") + b"\n"
        tree.symlink(f"etc/ssl/certs/{name.rpartition('/')[2].removesuffix('.crt')}.pem", f"/{name}")
    tree.file("etc/ssl/certs/ca-certificates.crt", bundle)


def _apt(tree: Tree, sources: Sequence[Source]) -> None:
    """apt.postinst makes the user _apt; and an image with apt knows the archives it came from."""
    passwd = (tree.read("etc/passwd") or b"").decode()
    if "\n_apt:" not in passwd:
        tree.file("etc/passwd", passwd + f"_apt:x:100:{_NOGROUP}::/nonexistent:/usr/sbin/nologin\n")
        shadow = tree.read("etc/shadow")
        if shadow is not None:
            line = f"_apt:*:{tree.newest // 86400}:0:99999:7:::\n"
            tree.file("etc/shadow", shadow.decode() + line, mode=0o640, gid=_SHADOW)
    blocks = [
        f"Types: deb\nURIs: {public(source.uri)}\nSuites: {source.suite}\n"
        f"Components: {' '.join(source.components)}\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
        for source in sources
    ]
    tree.file("etc/apt/sources.list.d/debian.sources", "\n".join(blocks))


def _python(tree: Tree) -> None:
    """Let pip install into the image's own Python.

    PEP 668's marker protects a Debian system's tools from pip. In an image the whole file system is the application's
    environment and is thrown away with it, so the official Python images have no such marker, and Dockerfiles are
    written for that: `RUN pip install -r requirements.txt`.
    """
    for name in [n for n in tree.entries if re.fullmatch(r"usr/lib/python3\.\d+/EXTERNALLY-MANAGED", n)]:
        tree.remove(name)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Choice:
    link: str
    name: str
    path: str
    priority: int
    slaves: tuple[tuple[str, str, str], ...]


def _alternatives(tree: Tree, installed: Sequence[Installed]) -> None:
    """Every postinst that runs update-alternatives: the links, and the state by which it can change them later."""
    choices: dict[str, list[_Choice]] = {}
    for item in installed:
        for choice in _choices(item.control.get("postinst", b"").decode("utf-8", "replace")):
            if _exists(tree, choice.path):
                choices.setdefault(choice.name, []).append(choice)
    tree.directory("etc/alternatives")
    for name, offered in sorted(choices.items()):
        best = max(offered, key=lambda choice: (choice.priority, choice.path))
        for link, slave, path in ((best.link, name, best.path), *best.slaves):
            if _exists(tree, path):
                tree.symlink(f"etc/alternatives/{slave}", path)
                tree.symlink(normal(link), f"/etc/alternatives/{slave}")
        tree.file(f"var/lib/dpkg/alternatives/{name}", _alternative_state(best.link, offered))


def _exists(tree: Tree, path: str) -> bool:
    return normal(path) in tree.entries


def _choices(script: str) -> list[_Choice]:
    found = []
    for line in script.replace("\\\n", " ").splitlines():
        line = line.strip()
        if not line.startswith("update-alternatives ") or "$" in line or "`" in line:
            continue
        try:
            words = shlex.split(re.split(r"\|\||&&|;|>", line)[0])
        except ValueError:
            continue
        choice = _choice(words)
        if choice:
            found.append(choice)
    return found


def _choice(words: list[str]) -> _Choice | None:
    if "--install" not in words:
        return None
    at = words.index("--install")
    main = words[at + 1 : at + 5]
    if len(main) < 4 or not main[3].lstrip("-").isdigit():
        return None
    slaves = [words[i + 1 : i + 4] for i, word in enumerate(words) if word == "--slave"]
    return _Choice(
        link=main[0],
        name=main[1],
        path=main[2],
        priority=int(main[3]),
        slaves=tuple((s[0], s[1], s[2]) for s in slaves if len(s) == 3),
    )


def _alternative_state(link: str, offered: list[_Choice]) -> str:
    """Write a file of /var/lib/dpkg/alternatives: mode, link, slaves, then each choice with its slaves' paths."""
    slaves = {slave: where for choice in offered for where, slave, _ in choice.slaves}
    lines = ["auto", link]
    for slave in sorted(slaves):
        lines += [slave, slaves[slave]]
    lines.append("")
    for choice in sorted(offered, key=lambda c: c.path):
        paths = {slave: path for _, slave, path in choice.slaves}
        lines += [choice.path, str(choice.priority), *(paths.get(slave, "") for slave in sorted(slaves))]
    return _lines([*lines, ""])


def _dpkg(tree: Tree, installed: Sequence[Installed]) -> None:
    """dpkg's database (`man 1 dpkg`, FILES): what is installed, which files each package has, its scripts, triggers."""
    ordered = sorted(installed, key=lambda item: item.key)
    tree.file("var/lib/dpkg/status", "\n".join(_status(tree, item) for item in ordered))
    for name in ("available", "diversions", "statoverride", "lock", "lock-frontend"):
        tree.file(f"var/lib/dpkg/{name}", b"", mode=0o640 if name.startswith("lock") else 0o644)
    for name in ("info", "updates", "parts", "triggers"):
        tree.directory(f"var/lib/dpkg/{name}")
    tree.file("var/lib/dpkg/info/format", "1\n")
    for item in ordered:
        prefix = f"var/lib/dpkg/info/{item.key}"
        tree.file(f"{prefix}.list", _lines("/." if name == "/" else name for name in item.names))
        for name, content in sorted(item.control.items()):
            if name != "control":
                script = name in ("preinst", "postinst", "prerm", "postrm", "config")
                tree.file(f"{prefix}.{name}", content, mode=0o755 if script else 0o644)
    _triggers(tree, ordered)
    excluded = "".join(f"path-exclude=/{prefix}*\n" for prefix in EXCLUDED)
    tree.file("etc/dpkg/dpkg.cfg.d/kestrel-slim", excluded + "path-include=/usr/share/doc/*/copyright\n")


def _status(tree: Tree, item: Installed) -> str:
    text = item.control["control"].decode("utf-8", "replace").strip("\n")
    first, _, rest = text.partition("\n")
    conffiles = ""
    for line in item.control.get("conffiles", b"").decode().splitlines():
        path = line.rpartition(" ")[2]
        content = tree.read(normal(path)) if path.startswith("/") else None
        if content is not None:
            # By this sum dpkg sees whether a person changed the file; it guards nothing.
            conffiles += f"\n {path} {hashlib.md5(content, usedforsecurity=False).hexdigest()}"
    status = f"{first}\nStatus: install ok installed\n{rest}\n"
    return status + (f"Conffiles:{conffiles}\n" if conffiles else "")


def _triggers(tree: Tree, installed: Sequence[Installed]) -> None:
    """Who wants to hear of which paths (`man 5 deb-triggers`), so that later installs run ldconfig and the like."""
    interested: dict[str, list[str]] = {}
    for item in installed:
        for line in item.control.get("triggers", b"").decode("utf-8", "replace").splitlines():
            words = line.split("#")[0].split()
            if len(words) == 2 and words[0].startswith("interest"):
                quiet = "/noawait" if words[0].endswith("-noawait") else ""
                if words[1].startswith("/"):
                    interested.setdefault("File", []).append(f"{words[1]} {item.key}{quiet}")
                else:
                    interested.setdefault(words[1], []).append(f"{item.key}{quiet}")
    for name, lines in sorted(interested.items()):
        tree.file(f"var/lib/dpkg/triggers/{name}", _lines(lines))
