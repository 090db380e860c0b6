"""build, images, pull, push, tag, rmi, prune, image bootstrap through the command line."""

import json
import re
import urllib.request
from pathlib import Path

import pytest

from kestrel.testing.instance import Instance

pytestmark = pytest.mark.root


def test_build_prints_the_id_on_stdout_and_the_steps_as_plain_lines(platform: Instance, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM box\nRUN echo from-the-step\n")
    answer = platform("build", "--no-cache", "-t", "built", str(tmp_path))
    assert re.fullmatch(r"sha256:[0-9a-f]{64}\n", answer.out)
    assert "RUN echo from-the-step" in answer.err
    assert "from-the-step" in answer.err
    assert "\x1b" not in answer.err
    assert platform("run", "--rm", "built", "echo", "x").out == "x\n"


def test_a_second_build_reuses_every_step(platform: Instance, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM box\nCOPY f /f\nRUN cat /f > /g\n")
    (tmp_path / "f").write_text("1")
    first = platform("build", "--json", str(tmp_path)).json()
    second = platform("build", "--json", str(tmp_path)).json()
    assert first["image_id"] == second["image_id"]
    assert all(step["cached"] for step in second["steps"])
    (tmp_path / "f").write_text("2")
    third = platform("build", "--json", str(tmp_path)).json()
    assert third["image_id"] != first["image_id"]


def test_build_arguments_target_file_and_quiet(platform: Instance, tmp_path: Path) -> None:
    text = "FROM box AS one\nARG WHO=nobody\nENV WHO=$WHO\nCMD echo $WHO\nFROM box AS two\nCMD echo two\n"
    (tmp_path / "Other").write_text(text)
    flags = ("-q", "-f", str(tmp_path / "Other"), "--target", "one")
    identity = platform("build", *flags, "--build-arg", "WHO=me", str(tmp_path))
    assert identity.err == ""
    assert platform("run", "--rm", identity.out.strip()).out == "me\n"
    handed = platform("build", *flags, "--build-arg", "WHO", str(tmp_path), env={"WHO": "you"}).out.strip()
    assert platform("run", "--rm", handed).out == "you\n"


def test_images_lists_names_ids_and_sizes(platform: Instance) -> None:
    lines = platform("images").out.splitlines()
    assert lines[0].split() == ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE"]
    assert any(re.match(r"box +latest +[0-9a-f]{12} ", line) for line in lines)
    found = platform("images", "--json", "box").json()[0]
    assert found["id"].startswith("sha256:")
    assert found["id"][7:19] in platform("images", "-q").out.split()


def test_tag_and_rmi_say_what_they_did(platform: Instance) -> None:
    platform("tag", "box", "other:1")
    assert platform("run", "--rm", "other:1", "echo", "x").out == "x\n"
    assert "Untagged: " in platform("rmi", "other:1").out
    assert platform("run", "--rm", "box", "echo", "still").out == "still\n"


def test_rmi_of_what_a_container_uses_is_refused_and_force_does_it(platform: Instance) -> None:
    platform.build("mine", "FROM box\nLABEL a=b\n")
    platform("run", "--name", "user", "mine", "true")
    assert "user" in platform("rmi", "mine", code=1).err
    platform("rmi", "-f", "mine")
    platform("rm", "user")


def test_push_is_a_link_and_pull_gets_it_back(platform: Instance) -> None:
    name = f"{platform.registry}/team/box:1"
    platform("tag", "box", name)
    pushed = platform("push", "--json", name).json()
    with urllib.request.urlopen(f"http://{platform.registry}/v2/team/box/tags/list", timeout=10) as answer:
        assert json.load(answer) == {"name": "team/box", "tags": ["1"]}
    platform("rmi", name)
    pulled = platform("pull", "-q", name)
    assert pulled.out.strip() == pushed["digest"]
    assert platform("run", "--rm", name, "echo", "x").out == "x\n"
    platform("rmi", name)


def test_an_image_that_is_not_here_is_pulled_by_run(platform: Instance) -> None:
    name = f"{platform.registry}/team/late:1"
    platform("tag", "box", name)
    platform("push", "-q", name)
    platform("rmi", name)
    answer = platform("run", "--rm", name, "echo", "x")
    assert answer.out == "x\n"
    assert "pulling" in answer.err
    platform("rmi", name)


def test_pull_from_another_kestrel(platform: Instance) -> None:
    name = f"{platform.registry}/shared:1"
    platform("tag", "box", name)
    platform("push", "-q", name)
    with Instance.make() as other:
        assert "sha256:" in other("pull", name).out
        assert other("run", "--rm", name, "echo", "there").out == "there\n"
        other("down", "--all")
    platform("rmi", name)


def test_prune_removes_ended_containers_and_unnamed_images_and_keeps_the_rest(own_platform: Instance) -> None:
    kestrel = own_platform
    kestrel("run", "--name", "ended", "box", "true")
    kestrel("run", "-d", "--name", "runs", "box", "sleep", "60")
    kestrel.build("again", "FROM box\nLABEL n=1\n")
    kestrel.build("again", "FROM box\nLABEL n=2\n")
    answer = kestrel("prune", "--json").json()
    assert "container ended" in answer["removed"]
    assert kestrel("ps", "-a", "--json").json()[0]["name"] == "runs"
    assert kestrel("run", "--rm", "again", "echo", "x").out == "x\n"
    kestrel("prune", "-a")
    kestrel("images", "again", code=1)
    kestrel("rm", "-f", "runs")
    assert kestrel("prune", "-a").err.startswith("freed ")
    assert kestrel("images", "-q").out == ""
    assert list((kestrel.root / "blobs" / "sha256").iterdir()) == []


@pytest.mark.timeout(200)
def test_bootstrap_makes_a_base_image_of_debian_packages(platform: Instance) -> None:
    answer = platform("image", "bootstrap", "--json", "--variant", "minimal", "debian:own", code=None, timeout=180)
    if answer.code and "reach" in answer.err:
        pytest.skip(f"needs a Debian mirror: {answer.err}")
    assert answer.code == 0, answer.err
    assert answer.json()["names"] == ["debian:own"]
    assert platform("run", "--rm", "debian:own", "cat", "/etc/debian_version").out
    platform("rmi", "debian:own")


def test_a_build_s_commands_have_a_hostname_limits_and_shared_memory(platform: Instance, tmp_path: Path) -> None:
    script = "hostname; echo $HOSTNAME; ulimit -Sn; ulimit -Hn; df -k /dev/shm | awk 'END {print $2}'"
    (tmp_path / "Dockerfile").write_text(f"FROM box\nRUN ({script}) >/seen\n")
    build = ("build", "-q", "-t", "seen", "--ulimit", "nofile=100:200", "--shm-size", "1m")

    def seen(*flags: str) -> list[str]:
        platform(*build, *flags, str(tmp_path))
        return platform("run", "--rm", "seen", "cat", "/seen").out.split()

    assert seen() == ["buildkitsandbox", "buildkitsandbox", "100", "200", "1024"]
    assert seen("--hostname", "maker")[:2] == ["maker", "maker"]
    argument = ("--build-arg", "BUILDKIT_SANDBOX_HOSTNAME=other")
    assert seen("--hostname", "maker", *argument)[:2] == ["other", "other"]
    again = platform("build", "--json", "--ulimit", "nofile=50", *argument, str(tmp_path)).json()
    assert [step["cached"] for step in again["steps"]] == [True]  # limits are no part of what is built
    assert "unknown limit" in platform(*build, "--ulimit", "files=1", str(tmp_path), code=2).err


def test_a_build_s_commands_find_hosts_and_have_limits(platform: Instance, tmp_path: Path) -> None:
    limit = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null >/limit"
    (tmp_path / "Dockerfile").write_text(f"FROM box\nRUN grep db.test /etc/hosts >/hosts; {limit}; true\n")
    build = ("build", "-q", "-t", "limited", "--add-host", "db.test:10.9.8.7")
    platform(*build, "--memory", "64m", "--cpus", "0.5", str(tmp_path))
    found = platform("run", "--rm", "limited", "cat", "/hosts", "/limit").out
    assert "10.9.8.7" in found
    assert str(64 << 20) in found
    again = platform("build", "--json", "--add-host", "db.test:10.9.8.7", str(tmp_path)).json()
    assert [step["cached"] for step in again["steps"]] == [True]
    other = platform("build", "--json", "--add-host", "db.test:10.9.8.6", str(tmp_path)).json()
    assert [step["cached"] for step in other["steps"]] == [False]
    assert "invalid host" in platform(*build[:-1], "db.test:nowhere", str(tmp_path), code=2).err


def test_secrets_come_from_files_and_variables_as_with_docker(platform: Instance, tmp_path: Path) -> None:
    mounts = "".join(f"RUN --mount=type=secret,id={name} cat /run/secrets/{name} && echo\n" for name in "abcd")
    (tmp_path / "Dockerfile").write_text(f"FROM box\n{mounts}")
    for name in "ad":
        (tmp_path / name).write_text(f"the file {name}")
    given = ["id=a,src=a", "id=b,env=OTHER", "type=env,id=c", "id=d"]
    answer = platform(
        *("build", "--no-cache", str(tmp_path)),
        *(word for text in given for word in ("--secret", text)),
        cwd=tmp_path,
        env={"OTHER": "the variable OTHER", "c": "the variable c"},
    )
    said = [line.partition("]   ")[2] for line in answer.err.splitlines()]
    assert [line for line in said if line] == ["the file a", "the variable OTHER", "the variable c", "the file d"]
    for text, sentence in (
        ("id=x,env=NONE", "there is no variable NONE for the secret x"),
        ("idd=x", "invalid secret 'idd=x'"),
        ("id=x", f"cannot read the secret `x` from {tmp_path}/x: no such file or directory"),
    ):
        assert sentence in platform("build", "--secret", text, str(tmp_path), cwd=tmp_path, code=None).err


def test_the_time_that_is_set_for_everything_is_a_build_s_too(platform: Instance, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM box\n")
    for arguments, year in (((), "2001"), (("--build-arg", "SOURCE_DATE_EPOCH=1100000000"), "2004")):
        platform("build", "-t", "then", *arguments, str(tmp_path), env={"SOURCE_DATE_EPOCH": "1000000000"})
        assert platform.inspect("then")["created"].startswith(year)


def test_a_check_mends_what_is_certain_and_shows_what_is_left(platform: Instance, tmp_path: Path) -> None:
    path = tmp_path / "Dockerfile"
    path.write_text("FROM box as Base\nMAINTAINER me\nRUN cd /x && ls | cat\n")
    answer = platform("build", "--check", "--fix", str(tmp_path), code=1)
    assert path.read_text() == 'FROM box AS base\nLABEL org.opencontainers.image.authors="me"\nRUN cd /x && ls | cat\n'
    assert answer.out.splitlines()[:3] == [
        "fixed Dockerfile:1: FromAsCasing: 'as' and 'FROM' keywords' casing do not match",
        "fixed Dockerfile:2: MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label",
        "fixed Dockerfile:1: StageNameCasing: Stage name 'Base' should be lowercase",
    ]
    assert "Dockerfile:3: PipeWithoutPipefail" in answer.out
    answer = platform("build", "--check", "--trusted-registry", "ghcr.io", str(tmp_path), code=1)
    assert "box is from docker.io\n    allowed are ghcr.io\n" in answer.out
    assert "--fix goes with --check" in platform("build", "--fix", str(tmp_path), code=2).err


def test_progress_can_be_had_as_events(platform: Instance, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM box\nRUN echo hello\n")
    answer = platform("build", "--no-cache", "--progress", "rawjson", str(tmp_path))
    events = [json.loads(line) for line in answer.err.splitlines()]
    assert [event["event"] for event in events] == ["resolved", "planned", "started", "log", "done", "exported"]
    assert events[3]["line"] == "hello"
    assert platform("build", "--progress", "quiet", str(tmp_path)).err == ""
    assert "did you mean plain?" in platform("build", "--progress", "plian", str(tmp_path), code=2).err


def test_explain_tells_what_was_never_built_from_what_was_forgotten(own_platform: Instance, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM box\nRUN echo hello\n")
    assert "first build of this step" in own_platform("build", "--explain", str(tmp_path)).err
    own_platform("builder", "prune", "-a")
    assert "its record was removed" in own_platform("build", "--explain", str(tmp_path)).err
    own_platform("builder", "prune", "-a")
    (tmp_path / "Dockerfile").write_text("FROM box\nRUN echo other\n")
    answer = own_platform("build", "--explain", str(tmp_path))
    assert "it changed, and the record of what it was is gone" in answer.err


def test_a_dockerfile_can_come_from_the_input(platform: Instance, tmp_path: Path) -> None:
    (tmp_path / ".dockerignore").write_text("hidden\n")
    for name in ("hidden", "seen"):
        (tmp_path / name).write_text(name)
    text = "FROM box\nCOPY . /d\nRUN ls -A /d\n"
    answer = platform("build", "--no-cache", "-f", "-", str(tmp_path), stdin=text)
    assert [line.split()[-1] for line in answer.err.splitlines() if "]   " in line] == [".dockerignore", "seen"]
    assert "Dockerfile:1:1" in platform("build", "-f", "-", str(tmp_path), stdin="FORM box", code=2).err
    assert "`-f - .` reads a Dockerfile" in platform("build", "-", code=2).err
