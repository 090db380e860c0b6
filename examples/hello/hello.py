"""Say where this runs, in a small table, and end. With --serve, say it over HTTP until stopped."""

import os
import platform
import socket
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

from tabulate import tabulate


def facts() -> list[tuple[str, str]]:
    """What a process can see of the machine it believes it is on."""
    return [
        ("host name", socket.gethostname()),
        ("process", f"{os.getpid()} of user {os.getuid()}"),
        ("python", platform.python_version()),
        ("kernel", platform.release()),
        ("directory", os.getcwd()),
        ("files in it", ", ".join(sorted(os.listdir()))),
    ]


def page() -> str:
    """The greeting and the facts."""
    return f"{os.environ.get('GREETING', 'Hello')}\n\n{tabulate(facts())}\n"


class Handler(BaseHTTPRequestHandler):
    """Answers every GET with the page."""

    def do_GET(self) -> None:
        """Answer one request."""
        body = page().encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main(arguments: list[str]) -> None:
    """Print the page and count to three; or only the page; or serve it."""
    if "--serve" in arguments:
        HTTPServer(("", 8000), Handler).serve_forever()
    print(page())
    if "--page" in arguments:
        return
    for number in range(1, 4):
        print(f"working: {number} of 3", flush=True)
        time.sleep(0.3)
    print("done")


if __name__ == "__main__":
    main(sys.argv[1:])
