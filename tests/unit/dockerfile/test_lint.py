"""Rules about Dockerfiles: found where they hold, silent where they do not or were told to be, and fixed in place."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kestrel.build.check import examine, mend
from kestrel.build.scope import Scope
from kestrel.dockerfile import DockerfileError, decode, parse
from kestrel.dockerfile.instructions import Env
from kestrel.dockerfile.lint import Base


def names(text: str, **settings: object) -> list[str]:
    return sorted({f.rule.name for f in examine(text, **settings).findings})  # type: ignore[arg-type]  # as given


HEAD = "FROM debian:12.5\n"


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("FROM debian\n", "UntaggedBaseImage"),
        ("FROM debian:latest\n", "LatestBaseImage"),
        (HEAD + "USER app\nUSER root\n", "LastUserIsRoot"),
        (HEAD + "RUN apt-get update && apt-get install -y curl && rm -rf /var/lib/apt/lists/*\n", "UnpinnedPackage"),
        (HEAD + "RUN apt-get update && apt-get install -y curl=1\n", "PackageCacheLeft"),
        (HEAD + "RUN apt-get install -y curl=1\n", "RecommendedPackages"),
        (HEAD + "RUN apt-get install curl=1\n", "AptGetWithoutYes"),
        (HEAD + "RUN apt install -y curl=1\n", "AptForPeople"),
        (HEAD + "RUN apt-get update\nRUN apt-get install -y a=1\n", "UpdateWithoutInstall"),
        (HEAD + "RUN pip install flask\n", "UnpinnedPackage"),
        (HEAD + "RUN python3 -m pip install flask==1\n", "PackageCacheLeft"),
        (HEAD + "RUN npm install left-pad\n", "UnpinnedPackage"),
        (HEAD + "RUN apk add curl=1\n", "PackageCacheLeft"),
        (HEAD + "RUN dnf install -y a\n", "PackageCacheLeft"),
        (HEAD + "ADD app.py /app/\n", "AddForLocalFiles"),
        (HEAD + "COPY a b\n", "RelativeCopyDestination"),
        (HEAD + "RUN useradd -u 1234567 x\n", "UserWithHighId"),
        (HEAD + "RUN a\nRUN b\n", "ConsecutiveRuns"),
        (HEAD + "FROM debian:12\nCOPY --from=0 / /\n", "CopiesWholeStage"),
        (HEAD + "RUN curl x | tar x\n", "PipeWithoutPipefail"),
        (HEAD + "RUN cd /x; make\n", "CdUnchecked"),
        (HEAD + "RUN sudo a\n", "SudoInRun"),
        (HEAD + "RUN rm $FILE\n", "UnquotedVariable"),
        (HEAD + "RUN rm $(cat list)\n", "UnquotedSubstitution"),
        (HEAD + "RUN export A=$(false) && b\n", "DeclarationHidesFailure"),
    ],
)
def test_each_practice_is_noticed(text: str, rule: str) -> None:
    assert rule in names(text)


@pytest.mark.parametrize(
    "body",
    [
        "RUN apt-get update && apt-get install -y --no-install-recommends curl=7.1 && rm -rf /var/lib/apt/lists/*",
        "RUN --mount=type=cache,target=/root/.cache/pip pip install -r requirements.txt flask==3.0",
        "ADD app.tar.gz /app/",
        "ADD https://example.com/x /x",
        "WORKDIR /app\nCOPY a b",
        "RUN set -o pipefail && curl x | tar x",
        "RUN set -e; cd /x; make",
        'SHELL ["/bin/bash", "-o", "pipefail", "-c"]\nRUN a | b',
        "RUN echo 'sudo | apt-get install x'",
        "RUN apk add --no-cache curl=8.1",
        "RUN npm ci && npm install @scope/pkg@1.2",
        "RUN <<EOF\n#!/usr/bin/env python3\nprint('a | b')\nEOF",
    ],
)
def test_good_practice_is_left_alone(body: str) -> None:
    assert names(HEAD + body + "\n") == []


def test_rules_are_skipped_for_the_file_or_for_one_instruction() -> None:
    text = "FROM debian:12\n# check=skip=SudoInRun // needed\nRUN sudo a\nWORKDIR /\nRUN sudo b\n"
    assert [f.line for f in examine(text).findings] == [5]
    assert names("# check=skip=all\n" + text) == []
    assert names("# check=skip=all\n" + text, args={"BUILDKIT_DOCKERFILE_CHECK": "skip=X"}) == ["SudoInRun"]


@pytest.mark.parametrize("option", ["bogus", "error=maybe"])
def test_an_option_that_cannot_be_read_is_pointed_at(option: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        examine(f"#!/bin/sh\n# syntax=x\n# Check = {option}\n{HEAD}")
    assert (caught.value.line, caught.value.hint is not None) == (3, True)
    with pytest.raises(DockerfileError, match="in the build argument BUILDKIT_DOCKERFILE_CHECK"):
        examine(HEAD, args={"BUILDKIT_DOCKERFILE_CHECK": option})


def test_violations_can_be_made_errors() -> None:
    assert examine("# check=error=true\nFROM scratch as x\n").error == "lint violation found for rules: FromAsCasing"
    assert examine("FROM scratch as x\n").error == ""


def test_an_image_of_another_platform_is_named() -> None:
    base = Base(platform="linux/arm64", expected="linux/amd64")
    found = examine("FROM img:1\n", bases={"img:1": base}).language
    assert [f.detail for f in found] == [
        'Base image img:1 was pulled with platform "linux/arm64", expected "linux/amd64" for current build'
    ]


def test_a_registry_that_is_not_allowed_is_named() -> None:
    assert names("FROM evil.example/x:1\n", registries=("docker.io",)) == ["RegistryNotAllowed"]
    assert names("FROM x:1\n", registries=("docker.io",)) == []


def test_certain_fixes_can_be_applied_and_leave_nothing_to_find() -> None:
    text = (
        "FROM debian:12 as Base\n"
        "MAINTAINER me\n"
        "ENV a b c\n"
        "EXPOSE 80/TCP\n"
        "run true\n"
        "COPY app.py /app/\n"
        "CMD python app.py\n"
    )
    mended = mend(text, examine)
    assert mended.left.findings == ()
    assert mended.text == (
        "FROM debian:12 AS base\n"
        'LABEL org.opencontainers.image.authors="me"\n'
        'ENV a="b c"\n'
        "EXPOSE 80/tcp\n"
        "RUN true\n"
        "COPY app.py /app/\n"
        'CMD ["python", "app.py"]\n'
    )


@pytest.mark.parametrize(
    ("line", "mended"),
    [
        ("FROM Base:1 AS Base", "FROM Base:1 AS base"),
        ("FROM as as x", "FROM as AS x"),
        ("FROM --platform=$TARGETPLATFORM a:1", "FROM a:1"),
        ('FROM --platform="${TARGETPLATFORM:-a b}" a:1', "FROM a:1"),
        ("EXPOSE 18080:80 8080:80", "EXPOSE 80 80"),
        ("EXPOSE 180/TCP 80/TCP", "EXPOSE 180/tcp 80/tcp"),
        ("EXPOSE ${PORT:-80} $PORT/$PROTOCOL", ""),
        ('EXPOSE "1:80" 2: 3', ""),
        ("EXPOSE 80/TCP \\\n # a remark\n 81", ""),
    ],
)
def test_a_fix_changes_what_it_speaks_of_and_nothing_else(line: str, mended: str) -> None:
    head = "" if line.startswith("FROM") else HEAD
    assert mend(head + line, examine).text == head + (mended or line)


def test_a_platform_that_the_file_sets_is_not_the_default() -> None:
    text = "ARG TARGETPLATFORM=linux/s390x\nFROM --platform=$TARGETPLATFORM a:1\n"
    assert mend(text, examine).text == text


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        ("FROM a:1\nENV NAME=x\nUSER $NAMME\n", "Usage of undefined variable '$NAMME' (did you mean $NAME?)"),
        ("FROM a:1\nARG Z=$V\n", "Usage of undefined variable '$V'"),
        ('FROM a:1\nENV K a\\ b "c" $X\n', "Usage of undefined variable '$X'"),
        ("ARG NAME=x\nFROM $NAMME\n", "FROM argument 'NAMME' is not declared (did you mean NAME?)"),
    ],
)
def test_a_near_name_is_advice_and_no_fix(text: str, detail: str) -> None:
    found = {f.detail: f.fix for f in examine(text).findings}
    assert found[detail] == ""


@pytest.mark.parametrize(
    ("line", "mended"),
    [
        ("ENV K a", "ENV K=a"),
        ("ENV K a  b", 'ENV K="a  b"'),
        ("ENV K 'a $b'", "ENV K='a $b'"),
        ('ENV K x "a b" y', 'ENV K="x a b y"'),
        ("LABEL K it is a \"x y\" 'z$A'", 'LABEL K="it is a x y z\\$A"'),
        ("ENV K ${A:-x y} $B", 'ENV K="${A:-x y} $B"'),
        ('ENV K a\\ b "c" $X', 'ENV K="a b c $X"'),
        ("ENV K b=c \\\\ \\d", 'ENV K="b=c \\\\ d"'),
        ('ENV K $A"b" c', ""),
        ('ENV K" x" v', ""),
        ("ENV K it's", ""),
        ("ENV K v1 \\\n  v2", ""),
        ('MAINTAINER a"b c', 'LABEL org.opencontainers.image.authors="a\\"b c"'),
        ('MAINTAINER "Me" <x@y> $X \\', 'LABEL org.opencontainers.image.authors="\\"Me\\" <x@y> \\$X"'),
        ("MAINTAINER a\nLABEL org.opencontainers.image.authors=b", ""),
    ],
)
def test_a_value_in_its_new_form_means_the_same(line: str, mended: str) -> None:
    assert mend(HEAD + line, examine).text == HEAD + (mended or line)


@given(st.text(alphabet="a ${}:-\"'\\`#/=", min_size=1, max_size=12), st.sampled_from("\\`"))
def test_a_value_in_its_new_form_is_never_another(value: str, escape: str) -> None:
    head = f"# escape={escape}\nFROM a:1\n"

    def values(text: str) -> list[str]:
        scope = Scope({}, {}, escape=escape, env={"a": "1 2", "aa": "3"})
        stage = decode(parse(text)).stages[0]
        return [
            value for each in stage.instructions if isinstance(each, Env) for _, value in each.expanded(scope).pairs
        ]

    try:
        before = values(f"{head}ENV K {value}")
    except DockerfileError:
        return
    assert values(mend(f"{head}ENV K {value}", examine).text) == before


@pytest.mark.parametrize(
    "line",
    [
        *("CMD exec foo", "CMD cd /x", "CMD exit 1", "CMD umask 022", "CMD . /etc/profile", "CMD FOO=1 prog"),
        *("CMD time x", "CMD : x", "CMD if x", "CMD true", "CMD -x", "CMD a | b", "ENTRYPOINT exec top -b"),
        *("ENTRYPOINT top -b", "CMD a \\\n # a remark\n b"),
        'ENTRYPOINT ["echo"]\nCMD hello',
    ],
)
def test_what_is_no_program_of_its_own_stays_a_shell_line(line: str) -> None:
    assert mend(HEAD + line, examine).text == HEAD + line
    assert [f.rule.name for f in examine(HEAD + line).findings] == ["JSONArgsRecommended"]


@pytest.mark.parametrize(
    "line",
    [
        "ADD app.py /app/",
        "RUN apt-get install -y curl=1",
        "RUN apt list",
        "ENV K v1 \\\n  v2",
        "RUN apt-get update && apt-get install -y --no-install-recommends a=1",
        "RUN apk add curl=1",
        "RUN pip install a==1 && pip cache purge",
    ],
)
def test_what_may_be_meant_gets_advice_and_no_fix(line: str) -> None:
    assert {(f.advice != "", f.fix) for f in examine(HEAD + line).findings} == {(True, "")}


@pytest.mark.parametrize(
    ("line", "mended"),
    [
        ("apt-get install -y a=1 && apt-get install b=1", "apt-get install -y a=1 && apt-get install -y b=1"),
        ("echo 'apt-get install' && apt-get install a=1", "echo 'apt-get install' && apt-get install -y a=1"),
        (
            "pip install --no-cache-dir a==1 && pip3 install b==1",
            "pip install --no-cache-dir a==1 && pip3 install --no-cache-dir b==1",
        ),
        ("useradd a && /sbin/useradd -u 123456 b", "useradd a && /sbin/useradd -l -u 123456 b"),
        ("apt-get $(echo install) install a=1", ""),
        ("apt-get inst'all' a=1", ""),
    ],
)
def test_an_option_goes_to_the_command_that_wants_it(line: str, mended: str) -> None:
    assert mend(f"{HEAD}RUN --network=none {line}", examine).text == f"{HEAD}RUN --network=none {mended or line}"


def test_mended_lines_end_as_they_did_and_what_was_mended_is_told() -> None:
    mended = mend("FROM debian:12 as Base\r\nRUN true\r\nUSER me\r\n", examine)
    assert mended.text == "FROM debian:12 AS base\r\nRUN true\r\nUSER me\r\n"
    assert [found.rule.name for found in mended.fixes] == ["FromAsCasing", "StageNameCasing"]


def test_what_can_be_read_of_a_broken_file_is_still_checked() -> None:
    checked = examine("FROM scratch AS Upper\nBADCMD\n")
    assert [f.rule.name for f in checked.findings] == ["StageNameCasing"]
    assert "unknown instruction `BADCMD`" in checked.error


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("FROM img:1\nENV A=${V\n", "`${V` is not complete"),
        ("FROM img:1 AS unused\nCOPY --chmod=u+z a /\nFROM img:1\n", "invalid mode `u+z`"),
        ("FROM img:1\nRUN --mount=type=${T},target=/x a\n", "unknown mount type"),
        ("FROM img:1\nCOPY --from=next a /\nFROM img:1 AS next\n", "the stage `next` is not there yet"),
        ("FROM --platform=${V img:1\n", "`${V` is not complete"),
        ("FROM here:1\nUSER ${MISSING:?}\n", "`MISSING` is not set"),
    ],
)
def test_what_a_build_would_refuse_is_an_error_of_the_check(text: str, error: str) -> None:
    checked = examine(text, planned=True, bases={"here:1": Base()})
    assert checked.error.startswith(error)
    assert "Dockerfile:" in checked.error


def test_what_only_the_base_image_knows_is_no_error_of_the_check() -> None:
    text = "FROM img:1\nUSER ${MISSING:?}\nRUN --network=host a\nCOPY --from=other:1 /a /a\n"
    assert examine(text, planned=True).error == ""


def test_a_chain_of_stages_may_be_long() -> None:
    chain = "".join(f"FROM s{i} AS s{i + 1}\nWORKDIR b\nCMD a | b\n" for i in range(1500))
    first = 'SHELL ["/bin/bash", "-c"]\nWORKDIR /a\n'
    assert names(f"FROM scratch AS s0\n{first}{chain}", planned=True) == []
    rules = [f.rule.name for f in examine(f"FROM scratch AS s0\n{chain}", target="s1", target_only=True).findings]
    assert rules == ["WorkdirRelativePath", "JSONArgsRecommended"]
