"""BuildKit's client, its `buildctl` and its gateway, as its tests use them: what they ask of BuildKit, Kestrel does."""

import json
import os
import shlex
import socket
import stat
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from builder_judges.go.library.network import Server
from builder_judges.go.suite import Suite
from builder_judges.go.values import Error, Native, Struct, Unsupported
from builder_judges.kestrel_builds import Kestrel, Order, manifest_of, unpack

IGNORED = {"contextkey", "dockerfilekey", "local-sessionid:basedir", "frontend.caps", "image-resolve-mode"}

OPTIONS = {
    "hostname": "--hostname",
    "memory": "--memory",
    "no-cache": "--no-cache-filter",
    "shm-size": "--shm-size",
    "ulimit": "--ulimit",
}
"""What BuildKit's frontend takes as attributes, in `kestrel build`'s words; several are separated by commas."""


class Builder(Native):
    """The `frontend` and the client of a case: what is asked of BuildKit is asked of Kestrel."""

    def __init__(self, kestrel: Kestrel, suite: Suite, scratch: Path) -> None:
        self._kestrel = kestrel
        self._suite = suite
        self._scratch = scratch
        self._asked: Struct | None = None
        self.images: dict[str, Path] = {}
        self.last: Path | None = None

    # Frontend

    def Solve(self, _: Any, __: Any, options: Any, statuses: Any = None, *more: Any) -> tuple[Any, Any]:
        if isinstance(__, Struct) and __.type == "gateway":
            return self.SolveGateway(_, __, options)
        if more:
            raise Unsupported("a build that is no Dockerfile")
        if statuses is not None:
            raise Unsupported("the stream of a build's progress")
        return self._solve(options)

    def RequiresBuildctl(self, _: Any) -> None:
        return None

    def DFCmdArgs(self, context: str, dockerfile: str) -> tuple[str, str]:
        trace = str(self._scratch / "trace")
        return f"build --local context={context} --local dockerfile={dockerfile} --trace={trace}", trace

    def Close(self) -> None:
        return None

    def Build(self, _: Any, options: Struct, __: str, function: Any, *rest: Any) -> tuple[Any, Any]:
        """Run a frontend of the test's own: what it asks for goes on to us."""
        result = self._suite.apply(function, None, _Gateway(self, options))
        return Struct("SolveResponse"), result[1]

    def SolveGateway(self, _: Any, gateway: Any, request: Struct) -> tuple[Any, Any]:
        return gateway.Solve(None, request)

    def Prune(self, *_: Any) -> None:
        self._kestrel.instance("builder", "prune", "--all")

    def DiskUsage(self, *_: Any) -> tuple[list[Any], None]:
        """What the builder holds is what it would let go of, or say why not."""
        return self._kestrel.instance("builder", "prune", "--all", "--dry-run", "--json").json()["judged"], None

    def _solve(self, options: Struct) -> tuple[Any, Any]:
        fields = options.fields
        for name in ("CacheImports", "CacheExports", "FrontendInputs", "SourcePolicy"):
            if fields.get(name):
                raise Unsupported(f"SolveOpt.{name}")
        order, finish = self._order(fields)
        answer = self._kestrel.build(order)
        if answer.code:
            written = Path(order.dockerfile or f"{order.context}/Dockerfile")
            return None, Error(answer.err.strip(), written.read_bytes() if written.is_file() else None)
        finish()
        return Struct("SolveResponse", {"ExporterResponse": self._response(json.loads(answer.out))}), None

    @staticmethod
    def _response(result: Mapping[str, Any]) -> dict[str, str]:
        return {"containerimage.digest": result["digest"], "containerimage.config.digest": result["image_id"]}

    def order(self, fields: Mapping[str, Any]) -> Order:
        return self._order(fields)[0]

    def _order(self, fields: Mapping[str, Any]) -> tuple[Order, Callable[[], None]]:
        attributes: dict[str, str] = dict(fields.get("FrontendAttrs") or {})
        given = {name: getattr(d, "Name", d) for name, d in (fields.get("LocalMounts") or {}).items()}
        context = given.get(attributes.pop("contextkey", "context"), "")
        dockerfiles = given.get(attributes.pop("dockerfilekey", "dockerfile"), "")
        filename = attributes.pop("filename", "")
        words: dict[str, list[str]] = {"args": [], "labels": [], "contexts": []}
        network, no_cache = "", False
        extra = [word for each in fields.get("AllowedEntitlements") or [] for word in ("--allow", each)]
        for name, value in attributes.items():
            kind, _, rest = name.partition(":")
            if kind == "build-arg":
                words["args"].append(f"{rest}={value}")
            elif kind == "label":
                words["labels"].append(f"{rest}={value}")
            elif kind == "context" and rest:
                words["contexts"].append(f"{rest}={self._named(value, given, fields.get('OCIStores') or {})}")
            elif name == "context":
                context = value
            elif name in OPTIONS and value:
                extra += [word for part in value.split(",") for word in (OPTIONS[name], part)]
            elif name == "no-cache":
                no_cache = True
            elif name == "force-network-mode":
                network = value
            elif name == "platform" and value != "linux/amd64":
                raise Unsupported(f"a build for {value}")
            elif name not in IGNORED and name not in ("target", "platform"):
                raise Unsupported(f"the option {name}")
        exports, names, finish = self._exports(fields.get("Exports") or [])
        secrets, agents = self._session(fields.get("Session") or [])
        order = Order(
            context=context or tempfile.mkdtemp(dir=self._scratch),
            dockerfile=_dockerfile(context, dockerfiles, filename),
            args=tuple(words["args"]),
            labels=tuple(words["labels"]),
            contexts=tuple(words["contexts"]),
            target=attributes.get("target", ""),
            no_cache=no_cache,
            network=network,
            names=names,
            secrets=secrets,
            ssh=agents,
            outputs=exports,
            extra=tuple(extra),
        )
        return order, finish

    @staticmethod
    def _named(value: str, given: Mapping[str, str], stores: Mapping[str, str]) -> str:
        kind, _, rest = value.partition(":")
        if kind == "local":
            return given[rest]
        if kind == "oci-layout":
            store, _, digest = rest.lstrip("/").partition("@")
            return f"oci-layout://{stores[store]}@{digest}"
        if kind == "input":
            raise Unsupported("a named context that another frontend made")
        return value

    def _exports(self, entries: list[Struct]) -> tuple[tuple[str, ...], tuple[str, ...], Callable[[], None]]:
        outputs: list[str] = []
        names: list[str] = []
        after: list[Callable[[], None]] = []
        for number, entry in enumerate(entries):
            kind, attributes = entry.fields["Type"], dict(entry.fields.get("Attrs") or {})
            names += [n for n in attributes.pop("name", "").split(",") if n]
            pressed = attributes.pop("compression", "gzip" if kind == "image" else "")
            for ignored in (
                "push",
                "oci-mediatypes",
                "rewrite-timestamp",
                "store",
                "unpack",
                "force-compression",
                "tar",
            ):
                attributes.pop(ignored, None)
            if attributes.get("source-date-epoch") == "":
                del attributes["source-date-epoch"]  # no time of the output's own: ours has none
            if attributes:
                raise Unsupported(f"the output option {next(iter(attributes))}")
            place = Path(tempfile.mkdtemp(dir=self._scratch)) / f"{number}.tar"
            if kind == "local":
                fresh = place.with_suffix("")
                outputs.append(f"type=local,dest={fresh}")
                after.append(lambda e=entry, f=fresh: _merge(f, e.fields["OutputDir"]))
            elif kind == "image":
                outputs.append(f"type=oci,dest={place}" + (f",compression={pressed}" if pressed == "zstd" else ""))
                self.images.update((name, place) for name in names)
            else:
                outputs.append(f"type={kind},dest={place}")
                if entry.fields.get("Output") is not None:
                    after.append(lambda e=entry, p=place: _hand_over(e.fields["Output"], p))
                else:
                    after.append(lambda e=entry, p=place: _lay_out(p, e.fields["OutputDir"]))
        return tuple(outputs), tuple(n for n in names if "/" in n or ":" in n), lambda: [a() for a in after] and None

    def _session(self, attached: list[Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        secrets: list[str] = []
        agents: list[str] = []
        for each in attached:
            kind, value = each if isinstance(each, tuple) else ("", each)
            if kind == "secrets":
                for name, data in value.items():
                    path = Path(tempfile.mkdtemp(dir=self._scratch)) / "secret"
                    path.write_bytes(data or b"")
                    secrets.append(f"id={name},src={path}")
            elif kind == "ssh":
                agents += [f"{c.fields.get('ID') or 'default'}={self._agent(c.fields['Paths'][0])}" for c in value]
            elif not isinstance(each, Uploads):
                raise Unsupported("something else in the session")
        return tuple(secrets), tuple(agents)

    def _agent(self, path: str) -> str:
        """Return the socket of an agent: ours are given by socket, so a key stands for an agent that nobody asks."""
        if stat.S_ISSOCK(os.stat(path).st_mode):
            return path
        place = f"{tempfile.mkdtemp(dir=self._scratch)}/agent"
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(place)
        return place

    # What was built

    def provider(self, name: str) -> tuple[Any, Any, Any]:
        if name not in self.images:
            raise Unsupported(f"the image {name}, which no build of the test named")
        where = Path(tempfile.mkdtemp(dir=self._scratch)) / "layout"
        unpack(self.images[name], where)
        self.last = where
        descriptor, _ = manifest_of(where)
        return {name: descriptor[name] for name in ("mediaType", "digest", "size")}, where, None

    def named(self, name: str) -> Any:
        return self._suite.package.names.get(name)

    def command(self, line: str) -> "Buildctl":
        return Buildctl(self, line)


class Uploads(Native):
    """What a client sends as a context without a file: here a page that can be fetched."""

    def Add(self, source: Any) -> str:
        server = Server({"/context": Struct("Response", {"Content": source.Bytes()})})
        return f"{server.URL}/context"


class Buildctl(Native):
    """A `buildctl build` command."""

    def __init__(self, builder: Builder, line: str) -> None:
        self._builder = builder
        self._words = shlex.split(line)[1:]
        self.Dir = ""
        self.Stdout: Any = None
        self.Stderr: Any = None

    def Run(self) -> Any:
        fields: dict[str, Any] = {"FrontendAttrs": {}, "LocalMounts": {}, "Exports": []}
        words = list(self._words)
        while words:
            flag, equals, value = words.pop(0).partition("=")
            value = value if equals else words.pop(0)
            if flag == "--local":
                name, _, path = value.partition("=")
                fields["LocalMounts"][name] = os.path.normpath(os.path.join(self.Dir, path))
            elif flag == "--trace":
                Path(value).touch()
            elif flag == "--opt":
                name, _, text = value.partition("=")
                fields["FrontendAttrs"][name] = text
            elif flag == "--output":
                parts = dict(part.partition("=")[::2] for part in value.split(","))
                kind, place = parts.pop("type"), parts.pop("dest", "")
                fields["Exports"].append(Struct("ExportEntry", {"Type": kind, "OutputDir": place, "Attrs": parts}))
            elif flag not in ("--progress", "--frontend"):
                raise Unsupported(f"buildctl {flag}")
        error = self._builder._solve(Struct("SolveOpt", fields))[1]
        if error is not None and self.Stderr is not None:
            self.Stderr.said = True
        return error


class _Gateway(Native):
    """What a frontend of the test's own gets to ask with."""

    def __init__(self, builder: Builder, options: Struct) -> None:
        self._builder = builder
        self._options = options

    def Solve(self, _: Any, request: Struct) -> tuple[Any, Any]:
        attributes = dict(request.fields.get("FrontendOpt") or {})
        kind = attributes.pop("requestid", "")
        merged = {**(self._options.fields.get("FrontendAttrs") or {}), **attributes}
        order = self._builder.order({**self._options.fields, "FrontendAttrs": merged, "Exports": []})
        if kind in ("frontend.outline", "frontend.targets"):
            answer = self._builder._kestrel.ask(kind.removeprefix("frontend."), order)
            if answer.code:
                return None, Error(answer.err)
            shape = _as_outline if kind == "frontend.outline" else _as_targets
            shown = {
                **shape(json.loads(answer.out)),
                "sources": [Path(order.dockerfile or f"{order.context}/Dockerfile").read_bytes()],
            }
            return Struct("Result", {"Metadata": {"result.json": shown}}), None
        raise Unsupported(kind or "a build inside of a frontend of the test's own")


def _dockerfile(context: str, directory: str, name: str) -> str:
    """Return where the Dockerfile is, empty for the usual place."""
    return f"{directory}/{name or 'Dockerfile'}" if directory and (name or directory != context) else name


def _location(line: int) -> dict[str, Any]:
    return {"sourceIndex": 0, "ranges": [{"start": {"line": line}}]}


def _as_outline(answer: dict[str, Any]) -> dict[str, Any]:
    """Our outline in the words of theirs."""
    arguments = [
        {"name": a["name"], "description": a["description"], "value": a["value"], "location": _location(a["line"])}
        for a in answer["arguments"]
    ]
    mounted = {
        kind: [{**each, "location": _location(each["line"])} for each in answer[kind]] for kind in ("secrets", "ssh")
    }
    return {"name": answer["target"], "description": answer["description"], "args": arguments, **mounted}


def _as_targets(answer: list[dict[str, Any]]) -> dict[str, Any]:
    found = [
        {**each, "name": "" if each["name"].isdecimal() else each["name"], "location": _location(each["line"])}
        for each in answer
    ]
    return {"targets": found}


def _merge(source: Path, place: str) -> None:
    """Put what was written beside what is there; links between files stay, which Python's own copy would undo."""
    subprocess.run(["cp", "-a", f"{source}/.", place], check=True)


def _hand_over(sink: Any, path: Path) -> None:
    while isinstance(sink, Struct):
        sink = sink.fields.get("Writer")
    sink.Write(path.read_bytes())


def _lay_out(path: Path, place: str) -> None:
    if path.exists():
        with tarfile.open(path) as packed:
            packed.extractall(place)
