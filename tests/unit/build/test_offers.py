"""What `--outline` and `--targets` say of a Dockerfile."""

from kestrel.build.offers import BuildOutline, build_outline, targets
from kestrel.dockerfile import decode, parse

TEXT = """\
ARG used=box
ARG unused=no
# name is what is built on
ARG name="busy${used}"

# first makes things
FROM ${name} AS first
ARG FOO=1
ARG FOO=${FOO}2
RUN --mount=type=secret,id=key --mount=type=ssh true

FROM scratch AS other
ARG unused
RUN --mount=type=secret,id=${unused} true

FROM first
ARG used
RUN --mount=type=secret,id=key,required --mount=type=cache,target=/c true
"""


def outline_of(text: str, target: str = "", **args: str) -> BuildOutline:
    document = parse(text)
    return build_outline(document.source, document.escape, decode(document), target, args)


def test_an_outline_lists_what_the_needed_stages_take_with_the_values_they_will_have() -> None:
    found = outline_of(TEXT)
    assert [(a.name, a.value, a.line) for a in found.arguments] == [
        ("used", "box", 1),
        ("name", "busybox", 4),
        ("FOO", "12", 9),
    ]
    assert found.arguments[1].description == "is what is built on"
    assert [(s.name, s.required, s.line) for s in found.secrets] == [("key", True, 10)]
    assert [(s.name, s.required) for s in found.ssh] == [("default", False)]
    assert [c.name for c in found.caches] == ["/c"]


def test_a_given_argument_is_shown_and_what_is_made_of_it() -> None:
    found = outline_of(TEXT, "first", used="lazy")
    assert {a.name: a.value for a in found.arguments}["name"] == "busylazy"
    assert (found.target, found.description) == ("first", "makes things")


def test_a_mount_of_another_stage_is_not_in_the_outline_and_variables_in_names_are_put_in() -> None:
    assert [s.name for s in outline_of("FROM scratch\nARG A=1\nRUN --mount=type=secret,id=k$A x\n").secrets] == ["k1"]
    assert [s.name for s in outline_of(TEXT, "other", unused="u").secrets] == ["u"]


def test_every_stage_is_a_target_and_the_last_is_the_default() -> None:
    found = targets(decode(parse(TEXT)))
    assert [(t.name, t.base, t.default) for t in found] == [
        ("first", "${name}", False),
        ("other", "scratch", False),
        ("2", "first", True),
    ]
