"""Dockerfiles to plans, without a kernel: stages, scopes, configuration and history."""

from typing import Any

import pytest

from kestrel.base.errors import Unimplemented
from kestrel.build.graph import BaseImage, CopyFiles, Execute, Origin, Plan
from kestrel.build.lower_from import outline, with_triggers
from kestrel.build.plan import DEFAULT_EPOCH, Planner
from kestrel.build.scope import Scope, platform_args
from kestrel.build.work import run_failed
from kestrel.dockerfile import DockerfileError, decode, parse
from kestrel.oci.config import ContainerDefaults, Healthcheck, ImageConfig, RootFS
from kestrel.oci.digest import Digest
from kestrel.oci.platform import Platform

LAYER = Digest.of(b"layer")


def base(name: str, **config: Any) -> BaseImage:
    image = ImageConfig(
        created="2024-01-02T03:04:05Z", config=ContainerDefaults(**config), rootfs=RootFS(diff_ids=(LAYER,))
    )
    return BaseImage(name=name, image=image)


def plan(
    text: str,
    *,
    target: str = "",
    args: dict[str, str] | None = None,
    host_network: bool = False,
    **images: dict[str, Any],
) -> Plan:
    document = parse(text)
    predefined = platform_args(Platform(os="linux", architecture="amd64"))
    scope = Scope(args or {}, predefined, escape=document.escape)
    first = outline(decode(document), document.source, scope, target)
    wanted = {"base", *images}
    bases = {name: base(name, **images.get(name, {})) for name in wanted}
    first = with_triggers(first, {name: each.config.on_build for name, each in bases.items()})
    missing = set(first.images()) - wanted
    assert not missing, missing
    planner = Planner(
        outline=first,
        source=document.source,
        escape=document.escape,
        bases=bases,
        given=args or {},
        predefined=predefined,
        host_network=host_network,
    )
    return planner.plan()


def env_of(found: Plan, number: int = -1) -> dict[str, str]:
    operation = found.steps[number].operation
    assert isinstance(operation, Execute)
    return dict(operation.env)


def test_global_arguments_feed_from_and_bare_declarations() -> None:
    found = plan("ARG NAME=ba\nARG TAIL=se\nFROM ${NAME}${TAIL}\nARG NAME\nRUN a\n")
    assert env_of(found)["NAME"] == "ba"
    assert "TAIL" not in env_of(found)


def test_what_is_predefined_is_there_for_global_arguments() -> None:
    found = plan("ARG P=$BUILDPLATFORM\nARG Q=pre-${TARGETARCH}\nFROM --platform=$P base\nARG Q\nARG P\nRUN a\n")
    assert (env_of(found)["Q"], env_of(found)["P"]) == ("pre-amd64", "linux/amd64")
    assert "TARGETARCH" not in env_of(found)


def test_only_what_is_needed_has_to_be_of_this_machine() -> None:
    text = "FROM --platform=linux/s390x base AS other\nRUN a\nFROM base AS ours\nRUN b\n"
    assert [step.title for step in plan(text).steps] == ["RUN b"]
    with pytest.raises(Unimplemented, match="`--platform=linux/s390x` is not this machine's platform"):
        plan(text, target="other")


def test_a_build_argument_wins_over_defaults_but_not_over_env() -> None:
    found = plan("FROM base\nARG A=1\nARG B=1\nENV B=env\nRUN a\n", args={"A": "2", "B": "2"})
    assert env_of(found)["A"] == "2"
    assert env_of(found)["B"] == "env"
    assert found.target.history[-1].created_by == "RUN |1 A=2 /bin/sh -c a"


def test_the_history_names_arguments_in_the_order_of_their_lines() -> None:
    found = plan("FROM base\nARG foo=1\nARG bar=2\nARG foo=3\nRUN a\n")
    assert found.target.history[-1].created_by == "RUN |2 foo=3 bar=2 /bin/sh -c a"


def test_a_declared_proxy_is_an_argument_like_any_other() -> None:
    found = plan("FROM base\nARG HTTP_PROXY\nRUN a\n", args={"HTTP_PROXY": "p", "no_proxy": "n"})
    operation = found.steps[-1].operation
    assert isinstance(operation, Execute)
    assert env_of(found)["HTTP_PROXY"] == "p"
    assert operation.unkeyed == {"http_proxy", "NO_PROXY", "no_proxy"}
    assert found.target.history[-1].created_by == "RUN |1 HTTP_PROXY=p /bin/sh -c a"


def test_platform_arguments_are_there_once_declared() -> None:
    names = [f"{side}{what}" for side in ("BUILD", "TARGET") for what in "PLATFORM OS OSVERSION ARCH VARIANT".split()]
    found = plan(f"FROM base\nARG {' '.join(names)} TARGETSTAGE\nRUN a\n")
    assert {name: env_of(found)[name] for name in names} == {
        name: {"M": "linux/amd64", "S": "linux", "H": "amd64"}.get(name[-1], "") for name in names
    }
    assert env_of(found)["TARGETSTAGE"] == "default"


def test_caches_can_be_kept_apart_by_an_argument() -> None:
    text = "FROM base\nRUN --mount=type=cache,target=/c --mount=type=cache,id=x,target=/d a\n"
    for args, ids in (({}, ["/c", "x"]), ({"BUILDKIT_CACHE_MOUNT_NS": "mine"}, ["mine//c", "mine/x"])):
        operation = plan(text, args=args).steps[-1].operation
        assert isinstance(operation, Execute)
        assert [each.mount.id for each in operation.mounts] == ids


@pytest.mark.parametrize(
    ("text", "sentence", "place"),
    [
        (
            "FROM base AS a\nCOPY --from=b x y\nFROM base AS b\nCOPY --from=a x y\n",
            "the stage `b` is not there yet",
            "2:13",
        ),
        ("ARG A=${B\nFROM base\n", "`${B` is not complete: missing `}`", "1:7"),
        ("FROM base\nCOPY --from=1 x y\n", "there is no stage `1` before this one", "2:13"),
        ("FROM base AS a\nRUN --mount=from=a,target=/x y\n", "the stage `a` is not there yet", "2:18"),
        ("FROM base\nENV A=\udcff\n", "ENV holds the byte 0xff, which is not UTF-8", "2:7"),
        ("FROM base\nRUN <<E\n\udce4\nE\n", "RUN holds the byte 0xe4, which is not UTF-8", "2:1"),
    ],
)
def test_what_cannot_be_meant_is_said_with_its_place(text: str, sentence: str, place: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        plan(text)
    assert caught.value.sentence == sentence
    assert f"Dockerfile:{place}" in str(caught.value)


def test_another_platform_is_refused_with_its_place() -> None:
    with pytest.raises(
        Unimplemented, match=r"`--platform=linux/s390x` is not this machine's platform\n  Dockerfile:1:6"
    ):
        plan("FROM --platform=linux/s390x base\n")


def test_bytes_that_are_no_text_may_stand_in_comments_and_copied_here_documents() -> None:
    found = plan("FROM base\n# J\udcfcrgen\nCOPY <<E /x\n\udcff\nE\n")
    assert isinstance(found.steps[-1].operation, CopyFiles)


def test_a_proxy_is_there_in_both_cases_and_never_counts() -> None:
    found = plan("FROM base\nRUN a\n", args={"http_proxy": "p"})
    assert {name: env_of(found)[name] for name in ("http_proxy", "HTTP_PROXY")} == {
        "http_proxy": "p",
        "HTTP_PROXY": "p",
    }
    operation = found.steps[-1].operation
    assert isinstance(operation, Execute)
    assert {"http_proxy", "HTTP_PROXY"} <= operation.unkeyed


def test_targetstage_is_the_stage_that_was_asked_for_in_every_stage() -> None:
    text = "FROM base AS one\nARG TARGETSTAGE\nRUN a\nFROM one AS two\nRUN b\n"
    assert env_of(plan(text), 0)["TARGETSTAGE"] == "two"
    assert env_of(plan(text, target="one"))["TARGETSTAGE"] == "one"
    assert env_of(plan("FROM base\nARG TARGETSTAGE\nRUN a\n"))["TARGETSTAGE"] == "default"


def test_a_stage_leaves_its_onbuild_to_the_next_one_and_to_no_more() -> None:
    text = "FROM base AS one\nONBUILD RUN trigger\nFROM one AS two\nRUN a\nFROM two\nRUN b\n"
    found = plan(text)
    assert [step.title for step in found.steps] == ["RUN trigger", "RUN a", "RUN b"]
    assert found.target.config.on_build == ()
    assert plan(text, target="one").target.config.on_build == ("RUN trigger",)


def test_a_trigger_of_a_stage_makes_the_stages_it_copies_from_needed() -> None:
    text = "FROM base AS src\nRUN make\nFROM base AS one\nONBUILD COPY --from=src /a /b\nFROM one\n"
    assert [step.title for step in plan(text).steps] == ["RUN make", "COPY --from=src /a /b"]


def test_an_image_built_on_nothing_starts_in_the_root() -> None:
    assert plan("FROM scratch\nENV a=b\n").target.config.working_dir == "/"


def test_a_line_sees_the_values_from_before_it() -> None:
    found = plan("FROM base\nENV A=1\nENV A=2 B=$A\nRUN a\n")
    assert (env_of(found)["A"], env_of(found)["B"]) == ("2", "1")


def test_platform_arguments_have_to_be_named_in_a_stage() -> None:
    assert "TARGETARCH" not in env_of(plan("FROM base\nRUN a\n"))
    assert env_of(plan("FROM base\nARG TARGETARCH\nRUN a\n"))["TARGETARCH"] == "amd64"


def test_stages_inherit_configuration_arguments_and_history() -> None:
    found = plan("FROM base AS one\nARG A=1\nENV E=e\nWORKDIR /w\nFROM one\nRUN a\n")
    assert env_of(found)["A"] == "1"
    assert found.target.config.working_dir == "/w"
    assert [r.created_by for r in found.target.history] == [
        *["ARG A=1", "ENV E=e", "WORKDIR /w", "RUN |1 A=1 /bin/sh -c a"]
    ]


def test_only_what_the_target_needs_is_planned() -> None:
    text = "FROM base AS a\nRUN one\nFROM base AS b\nRUN two\nFROM base AS c\nCOPY --from=a /x /x\nRUN three\n"
    assert [step.title for step in plan(text).steps] == ["RUN one", "COPY --from=a /x /x", "RUN three"]
    assert [step.title for step in plan(text, target="b").steps] == ["RUN two"]
    assert [step.title for step in plan(text, target="1").steps] == ["RUN two"]


def test_a_stage_name_means_the_stage_before_and_not_an_image() -> None:
    found = plan("FROM base AS base\nRUN a\nFROM base\nRUN b\n")
    assert [step.title for step in found.steps] == ["RUN a", "RUN b"]


def test_scratch_starts_from_nothing_and_clamps_to_a_fixed_time() -> None:
    found = plan("FROM scratch\nCOPY a /a\n")
    assert found.steps[0].parent == Origin(name="scratch")
    assert found.steps[0].epoch == DEFAULT_EPOCH
    assert found.target.config.env[0].startswith("PATH=")


def test_files_are_clamped_to_the_time_of_the_base_image() -> None:
    assert plan("FROM base\nRUN a\n").steps[0].epoch == 1704164645
    assert env_of(plan("FROM base\nRUN a\n"))["SOURCE_DATE_EPOCH"] == "1704164645"


def test_entrypoint_forgets_a_cmd_of_the_base_but_not_its_own() -> None:
    assert plan('FROM base\nENTRYPOINT ["e"]\n', base={"cmd": ("inherited",)}).target.config.cmd is None
    assert plan('FROM base\nCMD ["c"]\nENTRYPOINT ["e"]\n').target.config.cmd == ("c",)


def test_configuration_of_every_kind() -> None:
    config = plan(
        "FROM base\nLABEL a=1 b=2\nLABEL a=3\nUSER app\nVOLUME /v\nEXPOSE 80 90-91/udp\nSTOPSIGNAL SIGINT\n"
        'HEALTHCHECK --interval=2s --retries=3 CMD ["x"]\nCMD run\n'
    ).target.config
    assert config.labels == {"a": "3", "b": "2"}
    assert (config.user, config.stop_signal, config.volumes) == ("app", "SIGINT", {"/v": {}})
    assert sorted(config.exposed_ports) == ["80/tcp", "90/udp", "91/udp"]
    assert config.healthcheck == Healthcheck(test=("CMD", "x"), interval=2_000_000_000, retries=3)
    assert config.cmd == ("/bin/sh", "-c", "run")


def test_ports_of_the_host_are_left_out() -> None:
    config = plan("FROM base\nEXPOSE 80:90 127.0.0.1:81:91/udp [::1]:82:92 127.0.0.1::93 0\n").target.config
    assert sorted(config.exposed_ports) == ["0/tcp", "90/tcp", "91/udp", "92/tcp", "93/tcp"]
    with pytest.raises(DockerfileError, match="invalid port `name:80`"):
        plan("FROM base\nEXPOSE name:80\n")


def test_a_command_that_lacks_the_host_s_rights_is_told_how_to_have_them() -> None:
    step = plan("FROM base\nRUN mknod /x c 1 3\n").steps[0]
    said = ["mknod: /x: Operation not permitted"]
    assert "build with --userns host" in str(run_failed(step, 1, said, own_users=True).hint)
    assert run_failed(step, 1, said).hint is None


def test_copy_takes_no_urls() -> None:
    with pytest.raises(DockerfileError, match="COPY takes files, and `http://host/x` is a URL"):
        plan("FROM base\nCOPY http://host/x /y\n")


def test_onbuild_is_kept_and_carried_out_by_children() -> None:
    assert plan("FROM base\nONBUILD RUN later\n").target.config.on_build == ("RUN later",)
    found = plan("FROM parent\nRUN own\n", parent={"on_build": ("RUN later",)})
    assert [step.title for step in found.steps] == ["RUN later", "RUN own"]


def test_a_trigger_can_need_another_stage() -> None:
    found = plan("FROM base AS tools\nRUN t\nFROM parent\n", parent={"on_build": ("COPY --from=tools /t /t",)})
    assert [step.title for step in found.steps] == ["RUN t", "COPY --from=tools /t /t"]


def test_destinations_are_joined_to_the_working_directory() -> None:
    found = plan("FROM base\nWORKDIR /a\nWORKDIR b\nCOPY x .\nCOPY x y\nCOPY x ../z/\n")
    places = [s.operation.destination for s in found.steps if isinstance(s.operation, CopyFiles)]
    assert places == ["/a/b", "/a/b/y", "/a/z"]


def test_an_expanded_destination_is_checked_too() -> None:
    with pytest.raises(DockerfileError, match="must be a directory: `file`"):
        plan("FROM base\nARG D=file\nCOPY a b $D\n")


def test_an_empty_image_name_says_which_variable_to_set() -> None:
    with pytest.raises(DockerfileError) as caught:
        plan("FROM $BASE\n")
    assert "`$BASE` is empty" in caught.value.sentence


def test_a_required_variable_that_is_missing_points_at_its_line() -> None:
    with pytest.raises(DockerfileError) as caught:
        plan("FROM base\nARG V\nWORKDIR /opt/${V:?give --build-arg V}\n")
    assert "give --build-arg V" in caught.value.sentence
    assert "Dockerfile:3" in str(caught.value)


def test_several_sources_need_a_directory_to_go_to() -> None:
    with pytest.raises(DockerfileError, match="with more than one source the destination must be a directory: `c`"):
        plan("FROM base\nCOPY a b c\n")


def test_only_who_asks_for_a_build_gives_it_the_hosts_network() -> None:
    text = "FROM base\nRUN --network=host a\nRUN b\n"
    with pytest.raises(DockerfileError, match="not granted"):
        plan(text)
    operations = [step.operation for step in plan(text, host_network=True).steps]
    assert [o.network for o in operations if isinstance(o, Execute)] == ["host", "default"]
