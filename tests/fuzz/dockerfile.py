"""Hours of odd Dockerfiles and ignore files: `./dev fuzz [SECONDS]`.

Coverage-guided (atheris): inputs that reach new code are kept and changed further, which finds what hypothesis' short
runs in the unit tests do not. Nothing but a refusal (InvalidArgument) may come out, in a second at most; what does is
written to a file by atheris, and belongs into the unit tests then.
"""

import sys

import atheris

with atheris.instrument_imports(include=["kestrel.dockerfile", "kestrel.build"]):
    from kestrel.base.errors import InvalidArgument
    from kestrel.build.lower_from import outline
    from kestrel.build.scope import Scope
    from kestrel.dockerfile import DockerfileError, decode, parse, parse_ignore
    from kestrel.dockerfile.lint import lint  # noqa: F401 - instrumented as well


def dockerfile(data: bytes) -> None:
    """Read, decode and outline."""
    try:
        document = parse(data)
        outline(decode(document), document.source, Scope({"A": "x"}, {}, escape=document.escape), "")
    except DockerfileError as error:
        if error.source is not None and not (1 <= error.line <= len(error.source.lines) and error.column >= 1):
            raise AssertionError(f"an error without a place: {error.sentence}") from error
    except InvalidArgument:
        pass


def ignore(data: bytes) -> None:
    """Read the first line as a path and the rest as patterns."""
    path, _, patterns = data.decode("utf-8", "surrogateescape").partition("\n")
    try:
        parse_ignore(patterns).ignores(path)
    except InvalidArgument:
        pass


def both(data: bytes) -> None:
    """The first byte chooses."""
    (ignore if data[:1] == b"i" else dockerfile)(data[1:])


if __name__ == "__main__":
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 600
    atheris.Setup([sys.argv[0], f"-max_total_time={seconds}", "-timeout=1", "-max_len=2000", *sys.argv[2:]], both)
    atheris.Fuzz()
