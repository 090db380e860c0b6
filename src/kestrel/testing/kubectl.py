"""An unmodified kubectl before a whole Kestrel, for tests.

    kube = Kubectl.of(instance, namespace="one")
    kube.apply(pod("web", command=["sleep", "1000"]))
    kube.running("web")
    assert kube("exec", "web", "--", "hostname").out == "web\\n"

What a test is about goes through kubectl. What it only waits for is read from the API directly: a process for every
look would be most of what a test does.
"""

import fcntl
import json
import os
import pty
import select
import shutil
import ssl
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any, Self

from kestrel.testing.instance import Answer, Instance, wait_until

PROGRAM = shutil.which("kubectl")
BUILDS = Path(os.path.realpath(PROGRAM or "/")).parent
MINORS = tuple(minor for minor in range(27, 34) if (BUILDS / f"kubectl.1.{minor}").exists())
IMAGE = "box:1"
"""The image of tests under a tag that Kubernetes does not pull anew each time, as it does `latest`."""
TIMEOUT = 30.0  # seconds a command may take unless a test says otherwise

JSONObject = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kubectl:
    """One kubectl, talking to one namespace of one instance; calling it runs a command and returns the `Answer`."""

    instance: Instance
    api: "Api"
    program: str = "kubectl"
    namespace: str = "default"

    @classmethod
    def of(cls, instance: Instance, *, minor: "int | None" = None, namespace: str = "default") -> Self:
        """Return the kubectl of a minor version, the ordinary one when none is named."""
        program = PROGRAM if minor is None else str(BUILDS / f"kubectl.1.{minor}")
        assert program is not None
        return cls(instance=instance, api=Api.of(instance), program=program, namespace=namespace)

    def within(self, namespace: str) -> Self:
        """Return the same for another namespace."""
        return replace(self, namespace=namespace)

    def command(self, *arguments: str) -> list[str]:
        """Return the words that run it. The namespace comes first: what follows `--` is not ours to add to."""
        return [self.program, "--namespace", self.namespace, *arguments]

    def __call__(
        self,
        *arguments: str,
        code: "int | None" = 0,
        stdin: "bytes | str" = b"",
        timeout: float = TIMEOUT,
        env: "Mapping[str, str] | None" = None,
        cwd: "Path | None" = None,
    ) -> Answer:
        """Run a command to its end. Fails when the exit code is not `code` (None: any will do), or it hangs."""
        data = stdin.encode() if isinstance(stdin, str) else stdin
        with self.start(*arguments, env=env, cwd=cwd) as process:
            try:
                out, err = process.communicate(data, timeout=timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                out, err = process.communicate()
                raise AssertionError(f"kubectl {arguments} hangs; it said {out!r} and {err!r}") from None
        answer = Answer(process.returncode, out.decode(errors="replace"), err.decode(errors="replace"))
        if code is not None and answer.code != code:
            said = f"{answer.out}{answer.err}"
            raise AssertionError(f"kubectl {' '.join(arguments)} ended with {answer.code}, not {code}:\n{said}")
        return answer

    def fails(self, *arguments: str, **options: Any) -> str:
        """Run a command that has to fail; returns all it said."""
        answer = self(*arguments, code=None, **options)
        assert answer.code, f"kubectl {' '.join(arguments)} succeeded:\n{answer.out}"
        return answer.err + answer.out

    def start(
        self, *arguments: str, env: "Mapping[str, str] | None" = None, cwd: "Path | None" = None, **streams: Any
    ) -> "subprocess.Popen[bytes]":
        """Start a command and return its process, its three streams piped unless told otherwise."""
        pipe = subprocess.PIPE
        return subprocess.Popen(
            self.command(*arguments),
            env={**self.instance.environment, **(env or {})},
            cwd=cwd or self.instance.base,
            **{"stdin": pipe, "stdout": pipe, "stderr": pipe, **streams},
        )

    @contextmanager
    def background(self, *arguments: str, **options: Any) -> "Iterator[subprocess.Popen[bytes]]":
        """Run a command beside the test, and end it with the block."""
        with self.start(*arguments, **options) as process:
            try:
                yield process
            finally:
                process.kill()
                process.communicate()

    @contextmanager
    def terminal(self, *arguments: str) -> "Iterator[Terminal]":
        """Run a command on a terminal of its own."""
        master, slave = pty.openpty()
        try:
            with self.start(*arguments, stdin=slave, stdout=slave, stderr=slave, start_new_session=True) as process:
                os.close(slave)
                slave = -1
                try:
                    yield Terminal(master, process)
                finally:
                    process.kill()
        finally:
            for fd in (master, slave):
                if fd >= 0:
                    os.close(fd)

    def json(self, *arguments: str) -> Any:
        """Return what a command prints with `-o json`."""
        return json.loads(self(*arguments, "-o", "json").out)

    def apply(self, *manifests: JSONObject, options: Sequence[str] = ()) -> str:
        """Apply manifests; returns what kubectl said of each."""
        listed = {"apiVersion": "v1", "kind": "List", "items": list(manifests)}
        return self("apply", "-f", "-", *options, stdin=json.dumps(listed)).out

    # Looking, without kubectl

    def get(self, resource: str, name: str) -> "JSONObject | None":
        """Return an object of the namespace, None when there is none."""
        return self.api.get(f"/api/v1/namespaces/{self.namespace}/{resource}/{name}")

    def objects(self, resource: str, query: str = "") -> list[JSONObject]:
        """Return the objects of a kind in the namespace."""
        found = self.api.get(f"/api/v1/namespaces/{self.namespace}/{resource}{query}")
        assert found is not None
        return list(found["items"])

    def until(
        self, name: str, what: "Callable[[JSONObject], Any]", *, resource: str = "pods", timeout: float = 20
    ) -> JSONObject:
        """Return an object as soon as something is true of it."""
        last: JSONObject | None = None

        def look() -> "JSONObject | None":
            nonlocal last
            last = self.get(resource, name)
            return last if last is not None and what(last) else None

        try:
            found: JSONObject = wait_until(look, timeout)
        except AssertionError:
            events = "\n".join(f"{e['reason']}: {e['message']}" for e in self.events(name))
            raise AssertionError(f"not so within {timeout:g} s: {json.dumps(last, indent=1)}\n{events}") from None
        return found

    def running(self, name: str) -> JSONObject:
        """Return a pod once all its containers are ready."""
        return self.until(name, lambda pod: condition(pod, "Ready") == "True")

    def phase(self, name: str, wanted: str) -> JSONObject:
        """Return a pod once it is in a phase."""
        return self.until(name, lambda pod: pod["status"]["phase"] == wanted)

    def waiting(self, name: str, reason: str, container: str = "") -> JSONObject:
        """Return the waiting state of a container once it has this reason."""

        def state(pod: JSONObject) -> JSONObject:
            return dict(status_of(pod, container).get("state", {}).get("waiting") or {})

        return state(self.until(name, lambda pod: state(pod).get("reason") == reason))

    def events(self, name: str) -> list[JSONObject]:
        """Return the events about an object."""
        return self.objects("events", f"?fieldSelector=involvedObject.name={name}")

    def event(self, name: str, reason: str, containing: str = "") -> str:
        """Return the message of an event once there is one of this reason."""

        def look() -> str:
            found = [e["message"] for e in self.events(name) if e["reason"] == reason]
            return next((str(message) for message in found if containing in message), "")

        try:
            return str(wait_until(look))
        except AssertionError:
            said = "\n".join(f"{e['reason']}: {e['message']}" for e in self.events(name))
            raise AssertionError(f"no event {reason} of {name} with {containing!r}; there are:\n{said}") from None

    def gone(self, resource: str, name: str, timeout: float = 20) -> None:
        """Return when an object is no more."""
        wait_until(lambda: self.get(resource, name) is None, timeout)


@dataclass(slots=True)
class Terminal:
    """The person's side of a terminal that a command runs on."""

    fd: int
    process: "subprocess.Popen[bytes]"
    seen: str = ""

    def write(self, text: str) -> None:
        """Type."""
        os.write(self.fd, text.encode())

    def read_until(self, text: str, timeout: float = 15) -> str:
        """Return all that was shown up to the first `text` not asked for before."""
        end = time.monotonic() + timeout
        while text not in self.seen:
            ready, _, _ = select.select([self.fd], [], [], max(end - time.monotonic(), 0))
            if not ready:
                raise AssertionError(f"{text!r} was not shown; what was: {self.seen!r}")
            try:
                self.seen += os.read(self.fd, 65536).decode(errors="replace")
            except OSError:  # EIO: the command has closed its side
                raise AssertionError(f"{text!r} was not shown before the end; what was: {self.seen!r}") from None
        before, _, self.seen = self.seen.partition(text)
        return before + text

    def resize(self, rows: int, columns: int) -> None:
        """Change the window's size, which the command is told by SIGWINCH."""
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.process.send_signal(28)  # SIGWINCH; the terminal is not the controlling one of its session

    def wait(self, timeout: float = 15) -> int:
        """Return the exit code; what is still shown is read, or the command could not end."""
        end = time.monotonic() + timeout
        while self.process.poll() is None:
            if time.monotonic() > end:
                raise AssertionError(f"the command does not end; it showed {self.seen!r}")
            ready, _, _ = select.select([self.fd], [], [], 0.05)
            if ready:
                try:
                    self.seen += os.read(self.fd, 65536).decode(errors="replace")
                except OSError:
                    self.process.wait(timeout)
        return int(self.process.returncode)


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """The administrator's way to the API without kubectl."""

    port: int
    context: ssl.SSLContext

    @classmethod
    def of(cls, instance: Instance) -> Self:
        """Read the administrator's certificate of an instance that runs."""
        directory = instance.root / "kubernetes"
        context = ssl.create_default_context(cafile=str(directory / "ca.crt"))
        context.load_cert_chain(directory / "admin.crt", directory / "admin.key")
        return cls(port=instance.kubernetes_port, context=context)

    def get(self, path: str) -> "JSONObject | None":
        """Return what is at a path, None when nothing is (404)."""
        code, body = self.call("GET", path)
        if code == 404:
            return None
        assert code == 200, f"GET {path}: {code} {body}"
        return body

    def call(self, method: str, path: str, body: "JSONObject | None" = None) -> tuple[int, JSONObject]:
        """Return status and body of one request."""
        connection = HTTPSConnection("127.0.0.1", self.port, context=self.context, timeout=TIMEOUT)
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()


def pod(name: str, *containers: JSONObject, labels: "Mapping[str, str] | None" = None, **spec: Any) -> JSONObject:
    """Return a pod that ends at once when it is asked to; without containers it has one that sleeps."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": dict(labels or {})},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": list(containers) or [container()], **spec},
    }


def container(name: str = "main", *command: str, **fields: Any) -> JSONObject:
    """Return a container of the image of tests."""
    command = command or ("sleep", "1000")
    return {"name": name, "image": IMAGE, "command": list(command), **fields}


def shell(script: str, name: str = "main", **fields: Any) -> JSONObject:
    """Return a container of the image of tests that runs a script."""
    return container(name, "sh", "-c", script, **fields)


def thing(kind: str, name: str, **fields: Any) -> JSONObject:
    """Return an object of the core group."""
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, **fields}


def condition(pod: JSONObject, kind: str) -> str:
    """Return the status of a condition, empty when it is not there."""
    found = (pod.get("status") or {}).get("conditions") or ()
    return next((str(c["status"]) for c in found if c["type"] == kind), "")


def status_of(pod: JSONObject, container: str = "") -> JSONObject:
    """Return the status of a container, of the first when none is named."""
    status = pod.get("status") or {}
    keys = ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")
    found = [entry for key in keys for entry in status.get(key) or ()]
    return next((entry for entry in found if container in ("", entry["name"])), {})
