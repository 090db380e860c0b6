"""Processes, and servers on the loopback address."""

import http.server
import os as python_os
import socketserver
import subprocess
import threading
from collections.abc import Callable
from typing import Any

from builder_judges.go.values import Error, Native, Package, Struct, dereferenced


class Command(Native):
    """exec.Cmd."""

    def __init__(self, *words: str) -> None:
        self._words = words
        self.Dir = ""
        self.Env: list[str] | None = None
        self.Stdout: Any = None
        self.Stderr: Any = None

    def _run(self) -> "subprocess.CompletedProcess[bytes]":
        env = dict(e.partition("=")[::2] for e in self.Env) if self.Env else None
        return subprocess.run(self._words, cwd=self.Dir or None, env=env, capture_output=True, check=False)

    def Run(self) -> "Error | None":
        done = self._run()
        for sink, data in ((self.Stdout, done.stdout), (self.Stderr, done.stderr)):
            if sink is not None:
                sink.Write(data)
        return Error(done.stderr.decode(errors="replace")) if done.returncode else None

    def Output(self) -> tuple[bytes, "Error | None"]:
        done = self._run()
        return done.stdout, Error(done.stderr.decode(errors="replace")) if done.returncode else None

    def CombinedOutput(self) -> tuple[bytes, "Error | None"]:
        done = self._run()
        return done.stdout + done.stderr, Error(f"exit {done.returncode}") if done.returncode else None

    def Environ(self) -> list[str]:
        return [f"{name}={value}" for name, value in python_os.environ.items()]


exec_ = Package("exec", {"Command": Command, "CommandContext": lambda _, *words: Command(*words)})


class Headers(Native):
    """http.Header."""

    def __init__(self, values: Any) -> None:
        self._values = values

    def Get(self, name: str) -> str:
        return self._values.get(name) or ""


class Server(Native):
    """A web server on the loopback address: fixed answers by path, or the files of a directory."""

    def __init__(self, routes: "dict[str, Struct] | None" = None, *, directory: str = "") -> None:
        self.routes = dict(routes or {})
        self._stats: dict[str, Struct] = {}
        outer = self

        class Handler(http.server.SimpleHTTPRequestHandler):
            def __init__(self, *arguments: Any) -> None:
                super().__init__(*arguments, directory=directory or None)

            def log_message(self, *_: Any) -> None:
                pass

            def do_GET(self) -> None:
                if directory:
                    super().do_GET()
                else:
                    outer.answer(self)

            def do_HEAD(self) -> None:
                outer.answer(self, body=False)

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.URL = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def answer(self, request: http.server.BaseHTTPRequestHandler, *, body: bool = True) -> None:
        path = request.path.partition("?")[0]
        response = self.routes.get(path)
        if response is None:
            request.send_error(404)
            return
        stats = self._stats.setdefault(path, Struct("Stat", {"AllRequests": 0, "CachedRequests": 0, "Requests": []}))
        stats.fields["AllRequests"] += 1
        seen = Struct("Request", {"Method": request.command, "Header": Headers(request.headers)})
        stats.fields["Requests"] = [*stats.fields["Requests"], seen]
        fields = response.fields
        tag = fields.get("Etag") or ""
        cached = bool(tag) and request.headers.get("If-None-Match") == tag
        stats.fields["CachedRequests"] += cached
        request.send_response(304 if cached else 200)
        if fields.get("LastModified") is not None:
            last = dereferenced(fields["LastModified"])
            request.send_header("Last-Modified", last.moment.strftime("%a, %d %b %Y %H:%M:%S GMT"))
        for name, header in (
            ("Etag", "ETag"),
            ("ContentEncoding", "Content-Encoding"),
            ("ContentDisposition", "Content-Disposition"),
        ):
            if fields.get(name):
                request.send_header(header, fields[name])
        content = b"" if cached else fields.get("Content") or b""
        if not cached:
            request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        if body:
            request.wfile.write(content)

    def Stats(self, path: str) -> Any:
        return self._stats.get(path)

    def SetRoute(self, path: str, response: Struct) -> None:
        self.routes[path] = response

    def Close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Echo(Native):
    """A server that says one thing to whoever connects."""

    def __init__(self, answer: str) -> None:
        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                self.request.sendall(answer.encode())

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def Addr(self) -> "Echo":
        return self

    def String(self) -> str:
        return f"127.0.0.1:{self._server.server_address[1]}"

    def Close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Group(Native):
    """errgroup.Group: what it is given runs at once, as it would there."""

    def __init__(self, apply: Callable[..., Any]) -> None:
        self._apply = apply
        self._errors: list[Any] = []
        self._threads: list[threading.Thread] = []

    def Go(self, function: Any) -> None:
        thread = threading.Thread(target=self._run, args=(function,))
        self._threads.append(thread)
        thread.start()

    def _run(self, function: Any) -> None:
        try:
            self._errors.append(self._apply(function))
        except Exception as error:  # noqa: BLE001 - handed to whoever waits
            self._errors.append(Error(str(error)))

    def Wait(self) -> Any:
        for thread in self._threads:
            thread.join()
        return next((error for error in self._errors if error is not None), None)
