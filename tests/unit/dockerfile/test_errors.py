"""What a person sees when a Dockerfile is wrong, and that no text at all makes the parser fall over."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kestrel.base.errors import InvalidArgument
from kestrel.build.lower_from import outline
from kestrel.build.scope import Scope
from kestrel.dockerfile import DockerfileError, decode, parse
from kestrel.dockerfile.instructions import Mount
from kestrel.dockerfile.mounts import parse_mount

HEAD = "FROM a\n"


@pytest.mark.parametrize(
    ("text", "line", "sentence", "hint"),
    [
        ("", 1, "the file has no instructions", "begin with `FROM <image>`"),
        ("# only a comment\n", 1, "the file has no instructions", None),
        ("FORM a\n", 1, "unknown instruction `FORM`", "did you mean `FROM`?"),
        (HEAD + "\n\nCOPPY . .\n", 4, "unknown instruction `COPPY`", "did you mean `COPY`?"),
        (HEAD + "XYZZY\n", 2, "unknown instruction `XYZZY`", None),
        ("RUN a\n", 1, "RUN before the first FROM", None),
        ("ARG A\n", 1, "the file has no FROM", None),
        ("FROM\n", 1, "FROM takes an image and, after AS, a name", None),
        ("FROM a b\n", 1, "FROM takes an image and, after AS, a name", None),
        ("FROM a AS 1b\n", 1, "invalid stage name `1b`", None),
        (HEAD + "COPY --form=b a b\n", 2, "unknown flag `--form` for COPY", "did you mean `--from`?"),
        (HEAD + "COPY --from a b\n", 2, "the flag `--from` needs a value", "write `--from=...`"),
        (HEAD + "COPY --from=$X a b\n", 2, "`--from=$X` does not take variables", None),
        (HEAD + "COPY --link=maybe a b\n", 2, "`--link` is true or false, not `maybe`", None),
        (HEAD + "COPY --chown=a --chown=b a b\n", 2, "the flag `--chown` is given twice", None),
        (HEAD + "CMD --x a\n", 2, "unknown flag `--x` for CMD", "it takes none"),
        (HEAD + "COPY a\n", 2, "COPY needs at least one source and a destination", None),
        (HEAD + "RUN\n", 2, "RUN needs a command", None),
        (HEAD + "RUN [1]\n", 2, "a JSON array of arguments holds strings only", None),
        (HEAD + "RUN --network=hots a\n", 2, "invalid value `hots` for `--network`", "did you mean `host`?"),
        (HEAD + "RUN --mount=type=chace,target=/x a\n", 2, "unknown mount type `chace`", "did you mean `cache`?"),
        (HEAD + "RUN --mount=type=bind,taget=/x a\n", 2, "a bind mount has no `taget`", "did you mean `target`?"),
        (HEAD + "RUN --mount=type=cache a\n", 2, "a cache mount needs a target", "add `target=/path`"),
        (HEAD + "RUN --mount=type=secret a\n", 2, "a secret mount needs an id", None),
        (HEAD + "RUN <<EOF\na\nEOT\n", 2, "the here-document `EOF` is not closed", None),
        (HEAD + "ENV A\n", 2, "ENV A has no value", "write `ENV A=...`"),
        (HEAD + "ENV A=1 B\n", 2, "`B` is not of the form name=value", None),
        (HEAD + "ENV =1\n", 2, "the name in ENV cannot be empty", None),
        (HEAD + "ENV\n", 2, "ENV needs at least one name=value", None),
        (HEAD + "ARG\n", 2, "ARG needs at least one name", None),
        (HEAD + "SHELL /bin/sh\n", 2, "SHELL needs a JSON array", None),
        (HEAD + "WORKDIR\n", 2, "WORKDIR needs an argument", None),
        (HEAD + "EXPOSE\n", 2, "EXPOSE needs at least one argument", None),
        (HEAD + 'VOLUME ["a", ""]\n', 2, "VOLUME needs at least one path, and none may be empty", None),
        (HEAD + "HEALTHCHECK CDM a\n", 2, "unknown type `CDM` of HEALTHCHECK", "did you mean `CMD`?"),
        (HEAD + "HEALTHCHECK --interval=5 CMD a\n", 2, "invalid duration `5` for `--interval`", None),
        (HEAD + "HEALTHCHECK --retries=x CMD a\n", 2, "invalid number `x` for `--retries`", None),
        (HEAD + "HEALTHCHECK NONE a\n", 2, "HEALTHCHECK NONE takes nothing else", None),
        (HEAD + "ONBUILD ONBUILD RUN a\n", 2, "ONBUILD cannot hold ONBUILD", None),
        (HEAD + "ONBUILD\n", 2, "ONBUILD needs an instruction", None),
        (HEAD + "ONBUILD CPOY a b\n", 2, "unknown instruction `CPOY` after ONBUILD", "did you mean `COPY`?"),
        ("# escape=x\nFROM a\n", 1, "invalid escape character `x`", None),
        ("# escape=`\n# ESCAPE=`\nFROM a\n", 2, "the directive `escape` is given twice", None),
    ],
)
def test_errors_name_the_line_and_the_nearest_word(text: str, line: int, sentence: str, hint: str | None) -> None:
    with pytest.raises(DockerfileError) as caught:
        decode(parse(text))
    assert caught.value.sentence == sentence
    assert f"Dockerfile:{line}:" in str(caught.value)
    assert caught.value.context["line"] == line
    if hint is not None:
        assert caught.value.hint == hint
    assert isinstance(caught.value, InvalidArgument)


def test_the_excerpt_shows_the_line_with_its_neighbours() -> None:
    with pytest.raises(DockerfileError) as caught:
        parse("FROM a\nWORKDIR /app\nCOPPY . .\nRUN b\n", "docker/Dockerfile.dev")
    assert str(caught.value) == (
        "unknown instruction `COPPY`\n"
        "  docker/Dockerfile.dev:3:1\n"
        "   2 |     WORKDIR /app\n"
        "   3 | >>> COPPY . .\n"
        "   4 |     RUN b"
    )


def test_an_error_inside_a_continued_line_has_its_own_line_and_column() -> None:
    with pytest.raises(DockerfileError) as caught:
        decode(parse("FROM a\nENV A=1 \\\n    B=2 \\\n    C\n"))
    assert "Dockerfile:4:5" in str(caught.value)


def test_control_characters_of_the_file_do_not_reach_the_terminal() -> None:
    with pytest.raises(DockerfileError) as caught:
        parse("FROM a\nCOPPY \x1b[2J\n")
    assert "\x1b" not in str(caught.value)


def test_bytes_that_are_no_text_are_kept() -> None:
    document = parse(b"FROM a\nLABEL x=\xff\n")
    assert "\udcff" in document.nodes[1].arguments


def test_mount_values_expand_except_from() -> None:
    mount = parse_mount("type=cache,id=$ID,target=/c,from=base", lambda text: text.replace("$ID", "x"))
    assert (mount.id, mount.from_) == ("x", "base")
    with pytest.raises(DockerfileError, match="does not take variables"):
        parse_mount("type=bind,from=$X,target=/c")


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("type=Bind,target=/x", Mount(type="bind", target="/x", read_only=True)),
        ("type=secret,src=x", Mount(type="secret", id="x", target="/run/secrets/x")),
        ("type=secret,id=a/b", Mount(type="secret", id="a/b", target="/run/secrets/b")),
        ("type=secret,id=x,env=", Mount(type="secret", id="x", env="x")),
        ("type=secret,id=x,ro", Mount(type="secret", id="x", target="/run/secrets/x", read_only=True)),
        ("type=tmpfs,target=/x,ro", Mount(type="tmpfs", target="/x", read_only=True)),
        ("type=ssh,rw", Mount(type="ssh")),
    ],
)
def test_mounts_mean_what_they_mean_to_docker(written: str, expected: Mount) -> None:
    assert parse_mount(written, str) == expected


@pytest.mark.parametrize(
    ("written", "sentence", "hint"),
    [
        ("type=ssh,src=/x", "an ssh mount has no `src`", "it is one of type, id, target, required, mode, uid, gid"),
        ("type=secret,id=x,src=y", "`source` of a secret mount is its id, which is given twice", "take one out"),
        ("type=secret,id=x,uid=4294967295", "invalid uid `4294967295` of a mount", "write a user's number"),
        ("type=secret,id=x,gid=99999999999", "invalid gid `99999999999` of a mount", "write a group's number"),
        ("type=cache,target=/x,mode=999", "invalid mode `999` of a mount", "write it in octal, as 0640"),
    ],
)
def test_errors_in_mounts_say_what_is_written_and_what_may_be(written: str, sentence: str, hint: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        parse_mount(written, str)
    assert caught.value.sentence == sentence
    assert str(caught.value.hint).startswith(hint)


@pytest.mark.parametrize(
    ("line", "column"),
    [
        ("ENV X=${V:=x}", 10),
        ("ENV X=ab${V", 9),
        ("ENV X=${A:-${V}", 7),
        ("ENV X=${}", 7),
        ("WORKDIR 'a", 9),
        ("RUN --mount=type=tmpfs,target=/x,ID=a true", 34),
    ],
)
def test_errors_point_at_the_word_they_quote(line: str, column: int) -> None:
    document = parse(f"FROM a\n{line}\n")
    with pytest.raises(DockerfileError) as caught:
        decode(document).stages[0].instructions[0].expanded(Scope({}, {}))
    error = caught.value.within(document.source, document.nodes[1])
    assert (error.line, error.column) == (2, column)


WORDS = st.sampled_from(
    [
        *"FROM RUN COPY ADD ENV ARG LABEL ONBUILD HEALTHCHECK CMD SHELL VOLUME # escape=` <<EOF <<-E EOF E".split(),
        *["\\\n", "\n", " ", "\t", '["a"]', "[", '"', "'", "$A", "${A:-b}", "--from=x", "--mount=type=bind", "--"],
        *["a=b", "a", "\r\n", "`\n", "AS", "\x00", "\ufeff", ",", "=", "/"],
    ]
)


@settings(max_examples=400, deadline=2000)
@given(st.lists(WORDS, max_size=30).map("".join))
def test_any_text_is_decoded_or_refused_with_a_place(text: str) -> None:
    refused: DockerfileError | None = None
    try:
        decode(parse(text))
    except DockerfileError as error:
        refused = error
    if refused is not None:
        assert refused.range is not None
        assert 1 <= refused.range.first <= text.count("\n") + 1


@settings(max_examples=200, deadline=2000)
@given(st.binary(max_size=200))
def test_any_bytes_are_decoded_or_refused(data: bytes) -> None:
    try:
        decode(parse(b"FROM a\n" + data))
    except DockerfileError:
        pass


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("FORM a\n", (1, 1)),
        (HEAD + "  COPPY a b\n", (2, 3)),
        (HEAD + "COPY --link=maybe a b\n", (2, 6)),
        (HEAD + "RUN --mount=type=chace,target=/x a\n", (2, 18)),
        (HEAD + "ENV A=1 \\\n    B\n", (3, 5)),
        (HEAD + "\tWORKDIR\n", (2, 2)),
    ],
)
def test_errors_point_at_the_word_they_quote_or_at_the_instruction(text: str, place: tuple[int, int]) -> None:
    with pytest.raises(DockerfileError) as caught:
        decode(parse(text))
    assert (caught.value.line, caught.value.column) == place


KEYWORDS = "FROM RUN COPY ADD ENV ARG LABEL CMD WORKDIR USER EXPOSE VOLUME ONBUILD SHELL HEALTHCHECK STOPSIGNAL".split()
OTHERS = ["a", "b AS c", "--from=c", "--mount=type=cache,target=/x", "--chmod=u+x", "--exclude=*", "$A", "${A:-b}"]
MARKS = ["${A%%*}", '"', "'", "\\", "`", "<<EOF", "EOF", "#", "# escape=`", "[", '["a"]', "=", "A=1", "\t", "\x00"]
PIECES = st.sampled_from([*KEYWORDS, *OTHERS, *MARKS])


def refused(text: str, args: dict[str, str]) -> InvalidArgument | None:
    """Read, decode and outline a text: it is taken (None), or refused."""
    try:
        document = parse(text)
        program = decode(document)
        outline(program, document.source, Scope(args, {}, escape=document.escape), "")
    except InvalidArgument as error:
        return error
    return None


@settings(deadline=None, max_examples=300)
@given(st.lists(st.lists(PIECES, max_size=6).map(" ".join), max_size=8).map("\n".join))
def test_any_mixture_of_what_dockerfiles_are_made_of_is_taken_or_refused_with_a_place(text: str) -> None:
    for whole, args in ((text, {"A": "x"}), (HEAD + text, {})):
        error = refused(whole, args)
        if isinstance(error, DockerfileError) and error.source is not None:
            assert 1 <= error.line <= len(error.source.lines)
            assert 1 <= error.column <= len(error.source.lines[error.line - 1]) + 1
