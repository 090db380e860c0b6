"""What can be seen before anything runs: a build should not fail at its end for what stood in the request."""

import os
from collections.abc import Iterator

from kestrel.base.errors import InvalidArgument, nearest
from kestrel.build.executor import NETWORKS
from kestrel.build.graph import Plan
from kestrel.build.leaks import Needle, SecretLeaked, leaked, masked, search
from kestrel.build.outputs import Output, check_words
from kestrel.build.request import LATEST, SECONDS, BuildRequest
from kestrel.dockerfile.nodes import Source
from kestrel.oci.reference import Reference


def check_request(request: BuildRequest) -> None:
    """Look at names, time, network and outputs. Raises InvalidArgument."""
    if _is_text(request.tags):
        raise InvalidArgument(f"the names are the text `{request.tags}`", hint=f"write ({request.tags!r},)")
    moment = request.source_date_epoch
    if moment is not None and not 0 <= moment <= LATEST:
        raise InvalidArgument(f"the time of a build cannot be {moment:.6g}", hint=SECONDS)
    for tag in request.tags:
        if Reference.parse(tag).digest:
            raise InvalidArgument(f"the name {tag} has a digest, which is computed", hint="take it out")
    if request.network not in NETWORKS:
        close = nearest(request.network, NETWORKS)
        known = f"there are {', '.join(NETWORKS)}"
        raise InvalidArgument(f"unknown network `{request.network}`", hint=f"did you mean {close}?" if close else known)
    for output in request.outputs:
        check_words(output)
        if output.type != "image":
            _check_output(output)


def _is_text(value: object) -> bool:
    """Tell a text where a program without types gives one for a tuple of texts."""
    return isinstance(value, str)


def _check_output(output: Output) -> None:
    place = output.destination.absolute()
    above = next(parent for parent in place.parents if parent.exists())
    if not os.access(above, os.W_OK) or not above.is_dir():
        raise InvalidArgument(f"the output {place} cannot be written: {above} is not a directory to write into")
    if output.type == "local" and place.exists() and not place.is_dir():
        raise InvalidArgument(f"the output {place} is a file, and has to be a directory", hint="choose another name")
    if output.type != "local" and place.is_dir():
        raise InvalidArgument(f"the output {place} is a directory", hint=f"name a file, such as {place / 'image.tar'}")
    if output.type != "local" and os.path.lexists(place) and not place.is_file():
        raise InvalidArgument(f"the output {place} is no file that can be replaced", hint="name one of your own")


def check_configuration(plan: Plan, source: Source, wanted: tuple[Needle, ...]) -> None:
    """Refuse a plan that would write a secret's value into the image's configuration. Raises SecretLeaked."""
    for where, text in _configuration(plan):
        found = search(text.encode("utf-8", "surrogateescape"), wanted)
        if found is not None:
            error = leaked(found, f"{where} ({masked(text, found)})")
            lines = (line.encode("utf-8", "surrogateescape") for line in source.lines)
            number = next((number for number, line in enumerate(lines, 1) if found.data in line), 0)
            if not number:
                raise error
            message = f"{error.message}\n  {source.name}:{number}"  # and not the line, which holds it
            raise SecretLeaked(message, hint=error.hint, file=source.name, line=number)


def _configuration(plan: Plan) -> Iterator[tuple[str, str]]:
    config = plan.target.config
    yield from (("the environment", text) for text in config.env)
    yield from (("a label", f"{name}={value}") for name, value in config.labels.items())
    yield from (("the history", record.created_by) for record in plan.target.history)
