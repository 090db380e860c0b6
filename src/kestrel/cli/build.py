"""build: send the request, show the steps, print the image."""

import os
import sys
from binascii import b2a_base64

from kestrel.base.errors import InvalidArgument, KestrelError, nearest
from kestrel.cli import bare
from kestrel.cli.console import print_json, say
from kestrel.cli.remote import call

_INSTEAD = ("check", "outline", "targets", "context_report")
_PROGRESS = ("auto", "plain", "tty", "rawjson", "quiet")
_LARGEST = 4 << 20
_SECRET = {"id": "id", "src": "src", "source": "src", "env": "env", "type": "type"}

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from kestrel.build.progress import Live, Plain, Raw
    from kestrel.cli.options import Parsed


def build(parsed: "Parsed") -> int:
    """`kestrel build`."""
    ask = _instead(parsed)
    context = _place(parsed.words[0])
    if not _is_elsewhere(context) and not os.path.isdir(context):
        hint = "`-f - .` reads a Dockerfile from here" if parsed.words[0] == "-" else "usually it is `.`, or give a URL"
        raise InvalidArgument(f"the context {context} is not a directory", hint=hint)
    request = {
        "context": context,
        **_dockerfile(parsed.file or "", context),
        "tags": parsed.tag,
        "build_args": [*_epoch(), *(_argument(text) for text in parsed.build_arg)],
        "target": parsed.target or "",
        "no_cache": parsed.no_cache,
        "no_cache_stages": parsed.no_cache_filter,
        "pull": parsed.pull,
        "network": parsed.network or "",
        "allow": parsed.allow,
        "hosts": parsed.add_host,
        "hostname": parsed.hostname or "",
        "userns": parsed.userns or "",
        "memory": parsed.memory or "",
        "cpus": parsed.cpus or 0,
        "shm_size": parsed.shm_size or "",
        "ulimits": parsed.ulimit,
        **_secrets(parsed.secret),
        "ssh": [_agent(text) for text in parsed.ssh],
        "contexts": [_directory(text) for text in parsed.build_context],
        "labels": parsed.label,
        "outputs": [_output(text) for text in parsed.output],
        "verify": parsed.verify,
    }
    if ask:
        from kestrel.cli import check

        wanted = "fix" if parsed.fix else ask
        request.update(ask=wanted, registries=parsed.trusted_registry)
        return check.show(call("build-check", request), wanted, parsed)
    if parsed.on_error and parsed.on_error != "shell":
        raise InvalidArgument(f"unknown --on-error {parsed.on_error!r}", hint="there is shell")
    if parsed.progress not in (None, *_PROGRESS):
        close = nearest(parsed.progress, _PROGRESS)
        hint = f"did you mean {close}?" if close else f"there are {', '.join(_PROGRESS)}"
        raise InvalidArgument(f"unknown --progress {parsed.progress!r}", hint=hint)
    result = _built(request, parsed)
    if parsed.json:
        print_json(result)
    else:
        if parsed.explain:
            _explain(result)
        print(result["image_id"])
    return _verified(result) if parsed.verify else 0


def _instead(parsed: "Parsed") -> str:
    """Return what is asked for in the place of a build, empty for a build. Raises InvalidArgument.

    Options that would change nothing are refused: whoever writes them expects something.
    """
    asked = [ask for ask in _INSTEAD if getattr(parsed, ask)]
    useless = [option for option in (*asked[1:], "verify", "explain") if asked and getattr(parsed, option)]
    if useless:
        first, second = _flag(asked[0]), _flag(useless[0])
        hint = "ask one after the other"
        raise InvalidArgument(f"{second} does not go with {first}, which builds nothing", hint=hint)
    for option, example in (("fix", "--fix"), ("trusted_registry", "--trusted-registry docker.io")):
        if getattr(parsed, option) and asked != ["check"]:
            raise InvalidArgument(f"{_flag(option)} goes with --check", hint=f"kestrel build --check {example} .")
    return asked[0] if asked else ""


def _flag(option: str) -> str:
    return f"--{option.replace('_', '-')}"


def _built(request: "dict[str, Any]", parsed: "Parsed") -> "Any":
    terminal, kind = sys.stdin.isatty() and sys.stderr.isatty(), parsed.progress or "auto"
    try:
        if parsed.on_error and terminal and not parsed.verify:
            from kestrel.cli.enter import build_and_enter

            return build_and_enter(request, printer(kind))
        silent = (parsed.quiet or parsed.json) and not parsed.progress
        return call("build", request) if silent or kind == "quiet" else show_steps(request, kind)
    except KestrelError as error:
        if "exit_code" in error.context and not terminal:
            again = "run this again on a terminal" if parsed.on_error else "build on a terminal with --on-error=shell"
            say(f"to look around where it failed, {again}")
        raise


def _explain(result: "dict[str, Any]") -> None:
    for step in result["steps"]:
        say(f"{'reused' if step['cached'] else 'ran   '}  {step['id']}  {step['title']}\n        {step['reason']}")


def _verified(result: "dict[str, Any]") -> int:
    found = result["difference"]
    if found is None:
        say("built twice, and both times the same")
        return 0
    say(f"not repeatable: {found['step']} {found['title']}\n  {found['file']} {found['what']}")
    return 1


def show_steps(request: "dict[str, Any]", kind: str = "auto") -> "Any":
    """Build and show the steps on stderr as they go."""
    shown = printer(kind)
    try:
        return call("build", request, shown.feed, shown.tick)
    finally:
        shown.close()


def printer(kind: str = "auto") -> "Live | Plain | Raw":
    """Return what shows events: live on a terminal, as plain lines otherwise, or as `kind` says."""
    from kestrel.build import progress

    if kind == "rawjson":
        return progress.Raw(_write, bare.encode)
    if kind == "tty" or (kind == "auto" and sys.stderr.isatty() and "NO_COLOR" not in os.environ):
        try:
            size = os.get_terminal_size(2)
        except OSError:
            size = os.terminal_size((80, 24))
        return progress.Live(_write, columns=size.columns, rows=size.lines)
    return progress.Plain(_write)


def _write(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


def _absolute(text: str, *keys: str) -> str:
    """Name the file of a specification from the root: the daemon stands elsewhere."""
    fields = [part.partition("=") for part in text.split(",")]
    return ",".join(
        f"{key}={os.path.abspath(value)}" if key in keys else f"{key}{equals}{value}" for key, equals, value in fields
    )


def _dockerfile(file: str, context: str) -> "dict[str, str]":
    """Name the Dockerfile from the root, unless it is in a context that is elsewhere; `-` is our input."""
    if file == "-" or _is_ours(file):
        return {"dockerfile_text": _read(file)}
    return {"dockerfile": os.path.abspath(file) if file and not _is_elsewhere(context) else file}


def _is_ours(path: str) -> bool:
    """Tell a descriptor of this process, as of `-f <(command)`: under its name the daemon would find one of its own."""
    return path == "/dev/stdin" or path.startswith(("/dev/fd/", "/proc/self/fd/"))


def _read(path: str) -> str:
    """Return what is behind a descriptor of this process, `-` for its input, as the daemon takes it."""
    try:
        with open(0 if path == "-" else path, "rb", closefd=path != "-") as file:
            data = file.read(_LARGEST + 1)
    except OSError as error:
        reason = (error.strerror or "").lower()
        raise InvalidArgument(f"cannot read {_called(path)}: {reason}", hint="name a file") from None
    if len(data) > _LARGEST:
        raise InvalidArgument(f"{_called(path)} holds more than {_LARGEST >> 20} MiB", hint="is it what was meant?")
    return b2a_base64(data, newline=False).decode()


def _called(path: str) -> str:
    return "the input" if path == "-" else path


def _secrets(texts: "list[str]") -> "dict[str, dict[str, str]]":
    """Read `id=NAME[,src=FILE][,env=VARIABLE][,type=file|env]`: the id alone means a variable, or a file."""
    files, values = {}, {}
    for text in texts:
        fields = {_SECRET.get(key, key): value for key, _, value in (part.partition("=") for part in text.split(","))}
        name, kind = fields.get("id", ""), fields.get("type", "")
        if not name or kind not in ("", "file", "env") or not fields.keys() <= set(_SECRET.values()):
            raise InvalidArgument(f"invalid secret {text!r}", hint="write id=NAME,src=FILE or id=NAME,env=VARIABLE")
        alone = "src" not in fields and "env" not in fields
        variable = fields.get("env") or (fields.get("src", name) if kind == "env" else "")
        if alone and not kind and name in os.environ:
            variable = name
        if not variable and _is_ours(fields.get("src", name)):
            values[name] = _read(fields.get("src", name))
        elif not variable:
            files[name] = os.path.abspath(fields.get("src", name))
        elif variable in os.environ:
            values[name] = b2a_base64(os.fsencode(os.environ[variable]), newline=False).decode()
        else:
            raise InvalidArgument(f"there is no variable {variable} for the secret {name}", hint="export it first")
    return {"secrets": files, "secret_values": values}


def _epoch() -> "list[str]":
    """Hand on the time that whoever calls us has set for everything (https://reproducible-builds.org/specs)."""
    return [f"SOURCE_DATE_EPOCH={os.environ['SOURCE_DATE_EPOCH']}"] if os.environ.get("SOURCE_DATE_EPOCH") else []


def _output(text: str) -> str:
    if text == "-" or "dest=-" in text.split(","):
        raise InvalidArgument("a build cannot be written to our output", hint="write type=tar,dest=FILE")
    return _absolute(text, "dest", "destination") if "=" in text else os.path.abspath(text)


def _agent(text: str) -> str:
    name, equals, path = text.partition("=")
    if equals:
        return f"{name}={os.path.abspath(path)}"
    if "SSH_AUTH_SOCK" not in os.environ:
        raise InvalidArgument("no ssh agent runs here", hint="eval $(ssh-agent) && ssh-add, or give NAME=SOCKET")
    return f"{name or 'default'}={os.environ['SSH_AUTH_SOCK']}"


def _directory(text: str) -> str:
    name, equals, path = text.partition("=")
    return f"{name}={_place(path)}" if equals else text


def _place(text: str) -> str:
    """Name a directory from the root, and leave alone what is elsewhere."""
    place, layout = text, text.removeprefix("oci-layout://")
    if layout != text:
        return f"oci-layout://{os.path.abspath(layout)}"
    return place if _is_elsewhere(place) else os.path.abspath(place)


def _is_elsewhere(text: str) -> bool:
    """Tell what is no directory of this machine, as far as the command line has to know."""
    host, colon, _ = text.partition(":")
    return "://" in text or text.startswith(("docker-image:", "github.com/")) or ("@" in host and bool(colon))


def _argument(text: str) -> str:
    """Fill in `NAME` without a value from our own environment, as docker does."""
    if "=" in text:
        return text
    if text not in os.environ:
        raise InvalidArgument(f"build argument {text} has no value", hint=f"write {text}=VALUE, or set it here")
    return f"{text}={os.environ[text]}"
