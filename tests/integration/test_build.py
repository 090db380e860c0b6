"""Real builds: real files, real overlay mounts, and commands that really run in the step's root."""

import asyncio
import io
import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from kestrel.base.errors import KestrelError, NotFound
from kestrel.build import BuildRequest, RunFailed
from kestrel.build.events import Warned
from kestrel.dockerfile import DockerfileError
from kestrel.linux import mounts
from kestrel.oci.digest import Digest
from kestrel.testing.builds import World

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@pytest.fixture
async def world(tmp_path: Path) -> Any:
    made = World(tmp_path)
    await made.busybox()
    yield made
    assert made.snapshots.keys() == []  # whatever happened, no writable root is left
    assert os.listdir(tmp_path / "run") == []
    assert os.listdir(tmp_path / "builder" / "scratch") == []
    made.database.close()


async def test_a_build_runs_commands_and_copies_files(world: World) -> None:
    world.write(app_dot_py="print('hello')\n")
    result = await world.build(
        "FROM busybox\nWORKDIR /app\nCOPY app.py .\nRUN cat app.py > copy && echo done\n"
        'ENV MODE=test\nEXPOSE 80\nCMD ["cat", "copy"]\n',
        tags=("app:1",),
    )
    files = world.unpacked(result)
    assert (files / "app/copy").read_text() == "print('hello')\n"
    assert world.log() == ["done"]
    config = world.config(result)
    assert config.config.cmd == ("cat", "copy")
    assert config.config.env == ("PATH=/bin", "BASE=busybox", "MODE=test")
    assert config.config.working_dir == "/app"
    assert (await world.images.resolve("app:1")).id == result.image_id
    assert len(config.rootfs.diff_ids) == sum(not line.empty_layer for line in config.history)


async def test_what_a_build_tells_and_returns_can_be_sent_as_it_is(world: World) -> None:
    world.write(a="1")
    result = await world.build("FROM busybox\nCOPY a /a\nRUN echo hi\n", tags=("x",))
    sent = [msgspec.json.decode(msgspec.json.encode(msgspec.to_builtins(value))) for value in (*world.events, result)]
    assert [value.get("event") for value in sent] == [
        *["resolved", "planned", "started", "done", "started", "log", "done", "exported", None]
    ]
    assert sent[-1]["steps"][0]["cached"] is False


async def test_what_a_killed_daemon_left_is_removed_at_the_next_start(world: World) -> None:
    world.snapshots.prepare("build-0123456789ab", ())
    world.snapshots.prepare("container", ())
    (world.root / "builder/scratch/step-x/secrets").mkdir(parents=True)
    world.make_builder()
    assert world.snapshots.keys() == ["container"]
    assert os.listdir(world.root / "builder/scratch") == []
    world.snapshots.remove("container")


async def test_a_second_build_reuses_everything_and_gives_the_same_digest(world: World) -> None:
    world.write(a="1")
    first = await world.build("FROM busybox\nCOPY a /a\nRUN cat a > b\n")
    os.utime(world.context / "a", (1, 1))
    second = await world.build("FROM busybox\nCOPY a /a\nRUN cat a > b\n")
    assert world.ran() == []
    assert second.digest == first.digest
    assert all(step.cached for step in second.steps)
    assert world.executor.count == 1


async def test_a_changed_file_reruns_only_what_follows_it_and_says_which(world: World) -> None:
    world.write(requirements="x", app="1", other="o")
    text = (
        "FROM busybox\nCOPY requirements /r\nRUN echo installing\nCOPY . /app\nRUN cat /app/app\n"
        "RUN echo independent of nothing\n"
    )
    await world.build(text)
    world.file("app", "2")
    await world.build(text)
    assert world.log() == ["2", "independent of nothing"]
    reasons = list(world.reasons().values())
    assert reasons[0] == "1 file changed (app)"
    assert reasons[1] == "the step before it changed"


async def test_a_command_whose_result_is_the_same_does_not_rerun_what_follows(world: World) -> None:
    world.write(a="1")
    text = "FROM busybox\nCOPY a /tmp/a\nRUN rm /tmp/a && echo same > /same\nRUN echo after\n"
    await world.build(text.replace("COPY a /tmp/a\n", "").replace("rm /tmp/a", "true"))
    await world.build("FROM busybox\nRUN true && true && echo same > /same\nRUN echo after\n")
    assert world.log() == []  # the rewritten command leaves the same layer, so `echo after` is known


async def test_explanations_name_modes_additions_and_removals(world: World) -> None:
    world.write(d__a="1", d__b="2")
    await world.build("FROM busybox\nCOPY d /d\n")
    world.file("d/a", "1", mode=0o755)
    world.file("d/c", "3")
    (world.context / "d/b").unlink()
    await world.build("FROM busybox\nCOPY d /d\n")
    [reason] = world.reasons().values()
    assert reason == "1 file with another mode or owner (a), 1 file added (c), 1 file removed (b)"


async def test_changing_an_argument_reruns_where_it_is_used(world: World) -> None:
    text = "FROM busybox\nRUN echo before\nARG VERSION=1\nRUN echo v$VERSION\n"
    await world.build(text)
    await world.build(text, build_args={"VERSION": "2"})
    assert world.log() == ["v2"]
    assert list(world.reasons().values()) == ["VERSION: 1 -> 2"]


async def test_proxy_arguments_reach_the_command_but_not_the_key(world: World) -> None:
    text = "FROM busybox\nRUN echo proxy=$HTTP_PROXY\n"
    first = await world.build(text, build_args={"HTTP_PROXY": "http://one"})
    assert world.log() == ["proxy=http://one"]
    second = await world.build(text, build_args={"HTTP_PROXY": "http://two"})
    assert world.ran() == []
    assert "one" not in world.config(second).history[-1].created_by
    assert first.digest == second.digest


async def test_an_argument_that_nothing_takes_is_warned_about(world: World) -> None:
    await world.build("FROM busybox\nRUN true\n", build_args={"VERSOIN": "2"})
    assert [e.text for e in world.events if type(e).__name__ == "Warned"] == [
        "--build-arg VERSOIN was given, but no ARG of the needed stages takes it"
    ]


async def test_a_stage_can_take_only_the_artifact_of_another(world: World) -> None:
    world.write(main_dot_c="code")
    result = await world.build(
        "FROM busybox AS build\nWORKDIR /src\nCOPY main.c .\nRUN cp main.c program && chmod 750 program\n"
        'FROM scratch\nCOPY --from=build /src/program /bin/\nENTRYPOINT ["/bin/program"]\n'
    )
    files = world.unpacked(result)
    assert sorted(p.name for p in files.rglob("*")) == ["bin", "program"]
    assert (files / "bin/program").stat().st_mode & 0o7777 == 0o750
    assert len(world.config(result).rootfs.diff_ids) == 1


async def test_a_comment_changed_in_a_source_does_not_rebuild_the_final_stage(world: World) -> None:
    world.write(src="1", notes="n")
    text = "FROM busybox AS b\nCOPY . /s\nRUN cp /s/src /out\nFROM scratch\nCOPY --from=b /out /out\n"
    await world.build(text)
    world.file("notes", "changed")
    result = await world.build(text)
    assert [step.cached for step in result.steps] == [False, False, True]


async def test_stages_that_the_target_does_not_need_never_run(world: World) -> None:
    await world.build("FROM nowhere/absent AS unused\nRUN echo unused\nFROM busybox AS used\nRUN echo used\n")
    assert world.log() == ["used"]
    await world.build(
        "FROM busybox AS one\nRUN echo 1\nFROM one AS two\nRUN echo 2\nFROM two\nRUN echo 3\n", target="two"
    )
    assert world.log() == ["1", "2"]


async def test_independent_stages_run_at_the_same_time(world: World) -> None:
    # Each waits for a file that only the other makes, so one after the other would never end.
    shared = "--mount=type=cache,id=meet,target=/meet"
    wait = "for i in $(seq 200); do [ -e /meet/{0} ] && exit 0; sleep 0.05; done; exit 1"
    await asyncio.wait_for(
        world.build(
            f"FROM busybox AS a\nRUN {shared} touch /meet/a; {wait.format('b')}\n"
            f"FROM busybox AS b\nRUN {shared} touch /meet/b; {wait.format('a')}\n"
            "FROM scratch\nCOPY --from=a /bin/sh /a\nCOPY --from=b /bin/sh /b\n"
        ),
        30,
    )


async def test_builds_at_the_same_time_share_a_step(world: World) -> None:
    text = "FROM busybox\nRUN sleep 0.3; echo once > /f\n"
    world.file("Dockerfile", text)
    request = BuildRequest(context=world.context)
    first, second = await asyncio.gather(world.builder.build(request), world.builder.build(request))
    assert first.digest == second.digest
    assert world.executor.count == 1


async def test_cancelling_one_of_two_builds_leaves_the_other_its_step(world: World) -> None:
    world.file("Dockerfile", "FROM busybox\nRUN sleep 0.5; echo done > /f\n")
    request = BuildRequest(context=world.context)
    first = asyncio.create_task(world.builder.build(request))
    second = asyncio.create_task(world.builder.build(request))
    await asyncio.sleep(0.2)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    result = await second
    assert (world.unpacked(result) / "f").read_text() == "done\n"
    assert world.executor.count == 1


async def test_a_cancelled_build_leaves_no_process_and_no_root(world: World) -> None:
    task = asyncio.create_task(world.build("FROM busybox\nRUN echo $$; sleep 6173\n"))
    await asyncio.wait_for(world.said_something.wait(), 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not any("sleep\0" + "6173" in _cmdline(pid) for pid in os.listdir("/proc") if pid.isdigit())


def _cmdline(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


async def test_a_failed_command_names_its_place_and_its_last_words(world: World) -> None:
    with pytest.raises(RunFailed) as caught:
        await world.build("FROM busybox\nRUN true\nRUN echo compiling; echo 'no such header'; exit 3\n")
    message = str(caught.value)
    assert "failed with exit code 3" in message
    assert "Dockerfile:3" in message
    assert ">>> RUN echo compiling" in message
    assert "no such header" in message
    assert caught.value.context["exit_code"] == 3


async def test_a_command_that_is_not_there_gets_a_hint(world: World) -> None:
    with pytest.raises(RunFailed) as caught:
        await world.build("FROM busybox\nRUN nosuchcommand\n")
    assert caught.value.context["exit_code"] == 127
    assert "not in the image" in str(caught.value.hint)


async def test_what_succeeded_before_a_failure_is_kept(world: World) -> None:
    with pytest.raises(RunFailed):
        await world.build("FROM busybox\nRUN echo first\nRUN false\n")
    await world.build("FROM busybox\nRUN echo first\nRUN true\n")
    assert world.log() == []


async def test_copying_something_absent_names_it_its_place_and_the_nearest_name(world: World) -> None:
    world.write(requirements_dot_txt="x")
    with pytest.raises(DockerfileError) as caught:
        await world.build("FROM busybox\nCOPY requirement.txt .\n")
    assert caught.value.sentence == f"`requirement.txt` is not in the build context ({world.context})"
    assert caught.value.hint == "did you mean `requirements.txt`?"
    assert "Dockerfile:2" in str(caught.value)


async def test_copying_something_ignored_says_which_line_hides_it(world: World) -> None:
    world.write(secret_dot_env="x")
    world.file(".dockerignore", "# private\n*.env\n")
    with pytest.raises(DockerfileError, match=r"excluded from the build context by `\*\.env` \(\.dockerignore:2\)"):
        await world.build("FROM busybox\nCOPY secret.env .\n")


async def test_ignored_files_are_neither_copied_nor_counted(world: World) -> None:
    world.write(a_dot_py="1", b_dot_log="2", keep_dot_log="3", sub__c_dot_log="4", node_modules__x__y="5")
    world.file(".dockerignore", "**/*.log\n!keep.log\nnode_modules\nDockerfile\n.dockerignore\n")
    result = await world.build("FROM scratch\nCOPY . /\n")
    files = world.unpacked(result)
    assert sorted(str(p.relative_to(files)) for p in files.rglob("*")) == ["a.py", "keep.log", "sub"]
    world.file("node_modules/x/y", "changed")
    await world.build("FROM scratch\nCOPY . /\n")
    assert world.ran() == []


async def test_the_dockerfile_s_own_ignore_file_wins(world: World) -> None:
    world.write(a="1", b="2")
    world.file(".dockerignore", "a\n")
    world.file("Dockerfile.dockerignore", "b\nDocker*\n.docker*\n")
    result = await world.build("FROM scratch\nCOPY . /\n")
    assert os.listdir(world.unpacked(result)) == ["a"]


async def test_a_link_out_of_the_context_leads_nowhere(world: World) -> None:
    (world.root / "outside").write_text("secret")
    (world.context / "link").symlink_to("../outside")
    (world.context / "absolute").symlink_to(world.root / "outside")
    for name in ("link", "absolute"):
        with pytest.raises(DockerfileError, match=f"`{name}` is a link, and leads to `.*outside`, which is not in"):
            await world.build(f"FROM busybox\nCOPY {name} /x\n")
    result = await world.build("FROM scratch\nCOPY . /\n")
    assert os.readlink(world.unpacked(result) / "link") == "../outside"  # inside a tree it is copied as a link


@pytest.mark.parametrize(
    "line",
    ["COPY .wh.passwd /etc/", "COPY . /etc", "RUN mkdir -p /etc && touch /etc/.wh.x", "WORKDIR /etc/.wh..wh..opq"],
)
async def test_a_name_that_would_hide_another_file_is_refused(world: World, line: str) -> None:
    world.file(".wh.passwd", "not a whiteout")
    with pytest.raises(DockerfileError, match=r"cannot be in a layer: there a name that begins with \.wh\. says"):
        await world.build(f"FROM busybox\n{line}\n")


async def test_names_that_were_mistyped_are_told_from_stages_and_images_that_are_here(world: World) -> None:
    with pytest.raises(DockerfileError) as caught:
        await world.build("FROM busybox AS builder\nFROM scratch\nCOPY --from=bulider /bin /bin\n")
    assert caught.value.hint == "did you mean the stage `builder`?"
    with pytest.raises(DockerfileError) as caught:
        await world.build("FROM busyobx\nRUN true\n")
    assert caught.value.hint == "did you mean `busybox`, which is here?"


async def test_a_path_above_the_context_is_refused(world: World) -> None:
    (world.root / "outside").write_text("secret")
    with pytest.raises(DockerfileError) as caught:
        await world.build("FROM busybox\nCOPY ../outside /x\n")
    assert "outside of the build context" in caught.value.sentence


async def test_a_base_image_that_cannot_be_had_names_what_was_tried(world: World) -> None:
    with pytest.raises(DockerfileError) as caught:
        await world.build("FROM python:3.12\nRUN true\n")
    assert "not on this host" in caught.value.sentence
    assert "cannot be reached" in caught.value.sentence
    assert "bootstrap" in str(caught.value.hint)
    assert "Dockerfile:1" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "line", "hint"),
    [
        ("FROM busybox\nCOPPY a b\n", 2, "did you mean `COPY`?"),
        ("FROM busybox\n\nCOPY --form=x a b\n", 3, "did you mean `--from`?"),
        ("FROM busybox AS base\nFROM scratch\nRUN --mount=type=chace,target=/x true\n", 3, "did you mean `cache`?"),
        ("FROM busybox\nEXPOSE 80/tpc\n", 2, "did you mean `tcp`?"),
        ("FROM busybox\nSTOPSIGNAL SIGTREM\n", 2, "did you mean `SIGTERM`?"),
        ("FROM busybox\nCOPY --chown=rot a b\n", 2, "did you mean `root`?"),
        ("FROM busybox\nCOPY --chown=: a b\n", 2, "write USER or USER:GROUP, names or numbers"),
        ("FROM busybox\nCOPY --chown=4294967295 a b\n", 2, "they end with 4294967294"),
        ("FROM busybox\nCOPY --link --chown=4294967296 a b\n", 2, "they end with 4294967294"),
    ],
)
async def test_mistakes_point_at_their_line_and_the_nearest_word(world: World, text: str, line: int, hint: str) -> None:
    world.write(a="1")
    with pytest.raises(DockerfileError) as caught:
        await world.build(text)
    assert f"Dockerfile:{line}" in str(caught.value)
    assert caught.value.hint == hint


async def test_an_unknown_target_lists_the_stages(world: World) -> None:
    with pytest.raises(DockerfileError) as caught:
        await world.build("FROM busybox AS build\nFROM busybox AS final\n", target="fnal")
    assert caught.value.hint == "did you mean `final`?"


async def test_a_missing_dockerfile_names_the_nearest_file(world: World) -> None:
    world.write(Dockerfil="FROM scratch")
    with pytest.raises(NotFound) as caught:
        await world.builder.build(BuildRequest(context=world.context))
    assert caught.value.hint == "did you mean `Dockerfil`?"


async def test_mounts_of_a_run(world: World) -> None:
    world.write(src__a="from context", token="s3cret\n")
    result = await world.build(
        "FROM busybox AS tools\nRUN echo tool > /tool\n"
        "FROM busybox\n"
        "RUN --mount=type=bind,source=src,target=/in,rw cat /in/a > /a && echo x > /in/written\n"
        "RUN --mount=from=tools,source=/tool,target=/opt/tool cat /opt/tool > /t\n"
        "RUN --mount=type=tmpfs,target=/scratch echo x > /scratch/y\n"
        "RUN --mount=type=cache,target=/cache echo kept >> /cache/log && cat /cache/log\n"
        "RUN --mount=type=secret,id=token cat /run/secrets/token > /dev/null && ls -l /run/secrets/token\n"
        "RUN --mount=type=secret,id=token,env=TOKEN echo env $TOKEN\n",
        secrets={"token": world.context / "token"},
    )
    files = world.unpacked(result)
    assert (files / "a").read_text() == "from context"
    assert (files / "t").read_text() == "tool\n"
    assert not (world.context / "src/written").exists()
    for name in ("in", "scratch", "cache", "run", "opt"):
        assert not (files / name).exists(), name  # places for mounts are no part of the layer
    assert "env s3cret" in world.log()
    config = world.content.read(Digest.parse(result.image_id))
    assert b"s3cret" not in config
    world.file("token", "another\n")
    again = await world.build((world.context / "Dockerfile").read_text(), secrets={"token": world.context / "token"})
    assert again.digest == result.digest
    assert world.ran() == []


async def test_a_required_secret_that_is_not_given_is_named(world: World) -> None:
    with pytest.raises(DockerfileError, match="the secret `npm` was not given"):
        await world.build("FROM busybox\nRUN --mount=type=secret,id=npm,required true\n")


async def test_heredocs_run_and_become_files(world: World) -> None:
    result = await world.build(
        "FROM busybox\nARG WHO=you\n"
        "RUN <<EOF\necho one\necho two\nEOF\n"
        "RUN <<-'EOF'\n\t#!/bin/sh\n\techo script $0\n\tEOF\n"
        "RUN cat <<A - <<B > /both\na\nA\nb\nB\n"
        "COPY <<hello.txt <<'raw.txt' /files/\nhello $WHO\nhello.txt\nraw $WHO\nraw.txt\n"
    )
    assert world.log() == ["one", "two", "script /dev/pipes/EOF"]
    files = world.unpacked(result)
    assert (files / "files/hello.txt").read_text() == "hello you\n"
    assert (files / "files/raw.txt").read_text() == "raw $WHO\n"
    assert not (files / "dev/pipes").exists()


async def test_shell_forms_use_the_shell_in_force(world: World) -> None:
    result = await world.build('FROM busybox\nSHELL ["/bin/sh", "-ec"]\nRUN echo $-\nCMD run it\n')
    assert "e" in world.log()[0]
    assert world.config(result).config.cmd == ("/bin/sh", "-ec", "run it")
    assert world.config(result).config.shell == ("/bin/sh", "-ec")


async def test_onbuild_triggers_run_in_the_child(world: World) -> None:
    world.write(app="1")
    await world.build("FROM busybox\nONBUILD COPY app /app\nONBUILD RUN cat /app\n", tags=("base",))
    result = await world.build("FROM base\nRUN echo after\n")
    assert world.log() == ["1", "after"]
    assert world.config(result).config.on_build == ()
    assert (world.unpacked(result) / "app").read_text() == "1"


async def test_the_same_input_gives_the_same_digest_in_another_store(world: World, tmp_path: Path) -> None:
    text = "FROM busybox\nCOPY a /a\nRUN mkdir /d && touch /d/f\nWORKDIR /w\n"
    world.write(a="1")
    first = await world.build(text)
    other_root = tmp_path / "other"
    other_root.mkdir()
    other = World(other_root)
    await other.busybox()
    other.write(a="1")
    os.utime(other.context / "a", (5, 5))
    second = await other.build(text)
    other.database.close()
    assert first.digest == second.digest
    assert world.config(first).created == "2024-01-02T03:04:05Z"  # the base image's own time


async def test_source_date_epoch_sets_the_time_of_everything(world: World) -> None:
    world.write(a="1")
    result = await world.build("FROM scratch\nCOPY a /a\n", build_args={"SOURCE_DATE_EPOCH": "1000000000"})
    assert world.config(result).created == "2001-09-09T01:46:40Z"
    assert (world.unpacked(result) / "a").stat().st_mtime == 1000000000
    plain = await world.build("FROM scratch\nCOPY a /a\n")
    assert world.config(plain).created == "1980-01-01T00:00:00Z"


async def test_no_cache_runs_every_step_again(world: World) -> None:
    first = await world.build("FROM busybox\nRUN echo hi\n")
    second = await world.build("FROM busybox\nRUN echo hi\n", no_cache=True)
    assert world.log() == ["hi"]
    assert set(world.reasons().values()) == {"the cache is off"}
    assert first.digest == second.digest


async def test_no_cache_of_one_stage_leaves_the_others_alone(world: World) -> None:
    """What the stage makes anew is what later builds reuse, and cache mounts of the stage begin anew."""
    mount = "--mount=type=cache,target=/c"
    text = (
        "FROM busybox AS one\nRUN echo one\n"
        f"FROM busybox AS two\nRUN {mount} ls /c; touch /c/seen; echo $$ >/id\n"
        "FROM scratch\nCOPY --from=one /etc/group /\nCOPY --from=two /id /\n"
    )
    first = await world.build(text)
    assert (await world.build(text + "LABEL again=1\n")).image_id != first.image_id
    assert world.ran() == []
    second = await world.build(text, no_cache_stages=frozenset({"TWO"}))
    assert second.digest != first.digest
    assert world.reasons()["two/1"] == "the cache is off for its stage"
    assert set(world.reasons()) == {"two/1", "stage-2/2"}
    assert world.log() == []  # the cache mount began anew
    assert (await world.build(text)).digest == second.digest
    await world.build(text, no_cache_stages=frozenset({"tow"}))
    assert world.ran() == []
    assert [event.text for event in world.events if isinstance(event, Warned)] == [
        "no stage is called `tow`, which was to be built without cache; did you mean `two`?"
    ]


async def test_a_layer_that_was_removed_comes_back_from_its_blob_or_is_built_again(world: World) -> None:
    text = "FROM busybox\nRUN echo hi > /f\nRUN cat /f\n"
    layer = world.config(await world.build(text)).rootfs.diff_ids[-1]
    world.snapshots.remove_layer(layer)
    await world.build(text)
    assert world.ran() == []
    assert world.snapshots.has_layer(layer)
    world.snapshots.remove_layer(layer)
    world.content.delete(layer)
    await world.build(text)
    assert list(world.reasons().values()) == ["its layer was removed"]


async def test_a_command_that_changes_nothing_leaves_no_layer(world: World) -> None:
    result = await world.build("FROM busybox\nRUN true\nWORKDIR /tmp\n")
    config = world.config(result)
    assert len(config.rootfs.diff_ids) == 1
    assert config.history[-2].empty_layer


async def test_a_file_that_is_rewritten_in_the_same_moment_is_noticed(world: World) -> None:
    path = world.file("a", "1111")
    await world.build("FROM scratch\nCOPY a /a\n")
    status = path.stat()
    path.write_text("2222")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    result = await world.build("FROM scratch\nCOPY a /a\n")
    assert (world.unpacked(result) / "a").read_text() == "2222"


async def test_errors_of_the_kind_unimplemented_say_where(world: World) -> None:
    with pytest.raises(KestrelError) as caught:
        await world.build("FROM busybox\nRUN --security=insecure true\n")
    assert caught.value.kind == "unimplemented"
    assert "Dockerfile:2" in str(caught.value)


async def test_add_fetches_a_url_once_and_checks_it(world: World) -> None:
    asked: list[dict[str, str]] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(dict(request.headers))
        if request.headers.get("If-None-Match") == '"1"':
            return web.Response(status=304)
        return web.Response(body=b"remote", headers={"ETag": '"1"'})

    application = web.Application()
    application.router.add_get("/dir/file.txt", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        port = runner.addresses[0][1]
        text = f"FROM scratch\nADD http://127.0.0.1:{port}/dir/file.txt /in/\n"
        first = await world.build(text)
        assert (world.unpacked(first) / "in/file.txt").read_text() == "remote"
        assert (world.unpacked(first) / "in/file.txt").stat().st_mode & 0o777 == 0o600
        await world.build(text)
        assert world.ran() == []
        with pytest.raises(KestrelError, match="has the digest sha256:"):
            await world.build(text.replace("ADD ", f"ADD --checksum=sha256:{'0' * 64} "))
        with pytest.raises(DockerfileError, match="does not exist"):
            await world.build(text.replace("file.txt", "absent.txt"))
    finally:
        await runner.cleanup()


async def test_add_unpacks_local_archives_and_copy_does_not(world: World) -> None:
    for kind in ("", "gz"):
        with tarfile.open(world.context / f"a.tar.{kind}".rstrip("."), f"w:{kind}") as tar:
            tar.add(world.file("inner/f", "x"), "inner/f")
    world.write(plain_dot_gz="not an archive")
    result = await world.build(
        "FROM scratch\nADD a.tar /one/\nADD a.tar.gz /two\nCOPY a.tar /three/\nADD plain.gz /four/\n"
        "ADD --unpack=false a.tar /five/\n"
    )
    files = world.unpacked(result)
    assert sorted(str(p.relative_to(files)) for p in files.rglob("*") if p.is_file()) == [
        *["five/a.tar", "four/plain.gz", "one/inner/f", "three/a.tar", "two/inner/f"]
    ]


async def test_an_archive_cannot_write_outside_of_its_destination(world: World) -> None:
    with tarfile.open(world.context / "evil.tar", "w") as tar:
        link = tarfile.TarInfo("out")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc"
        tar.addfile(link)
        inside = tarfile.TarInfo("out/passwd")
        inside.size = 4
        tar.addfile(inside, io.BytesIO(b"evil"))
    with pytest.raises(DockerfileError, match="archive entry 'out/passwd' cannot be unpacked"):
        await world.build("FROM busybox\nADD evil.tar /dest/\n")
    # With the directory there, the link leads to it and no further.
    result = await world.build("FROM busybox\nWORKDIR /dest/etc\nADD evil.tar /dest/\n")
    assert "root:x" in (world.unpacked(result) / "etc/passwd").read_text()
    assert (world.unpacked(result) / "dest/etc/passwd").read_text() == "evil"


async def test_a_dot_at_the_end_of_the_destination_makes_it_a_directory(world: World) -> None:
    world.write(a="1")
    result = await world.build("FROM scratch\nCOPY a /new/.\n")
    assert (world.unpacked(result) / "new/a").read_text() == "1"


async def test_a_linked_copy_does_not_depend_on_what_is_below(world: World) -> None:
    world.write(a="1")
    text = "FROM busybox\nRUN echo {} > /f\nCOPY --link a /x/\n"
    await world.build(text.format("one"))
    result = await world.build(text.format("two"))
    assert [step.cached for step in result.steps] == [False, True]


async def test_metadata_that_does_not_reach_the_layer_does_not_count(world: World) -> None:
    path = world.file("a", "1", mode=0o644)
    await world.build("FROM scratch\nCOPY --chmod=755 a /a\n")
    path.chmod(0o600)
    await world.build("FROM scratch\nCOPY --chmod=755 a /a\n")
    assert world.ran() == []
    await world.build("FROM scratch\nCOPY --chmod=u+x a /a\n")
    assert len(world.ran()) == 1


async def test_chown_and_chmod(world: World) -> None:
    world.write(d__a="1", b="2")
    result = await world.build(
        "FROM busybox\nCOPY --chown=app:staff --chmod=u=rwX,go=rX d /d/\nCOPY --chown=app b /b\nCOPY --chown=7 b /c\n"
    )
    files = world.unpacked(result)

    def owner(path: str) -> tuple[int, int, str]:
        # copytree does not keep owners: look into the image
        with mounts.opened(mounts.open_rootfs(world.snapshots.view(world.config(result).rootfs.diff_ids))) as root:
            status = os.stat(path, dir_fd=root, follow_symlinks=False)
        return status.st_uid, status.st_gid, f"{status.st_mode & 0o777:o}"

    assert files.joinpath("d/a").exists()
    assert owner("d/a") == (1000, 50, "644")
    assert owner("d") == (1000, 50, "755")
    assert owner("b") == (1000, 1001, "644")
    assert owner("c") == (7, 7, "644")


def _tree(root: Path) -> dict[str, tuple[str, int, int, int]]:
    """Describe every file below a directory: kind and content, mode, owner."""
    found = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        if path.is_symlink():
            content = f"link {os.readlink(path)}"
        else:
            content = "directory" if path.is_dir() else f"file {path.read_bytes()!r}"
        mode = 0 if path.is_symlink() else status.st_mode & 0o7777
        found[str(path.relative_to(root))] = (content, mode, status.st_uid, status.st_gid)
    return found


COPIES = {
    "file to a new name": "COPY a.txt /new/name",
    "file into a directory by slash": "COPY a.txt /new/",
    "file into an existing directory": "RUN_MKDIR\nCOPY a.txt /exists",
    "directory contents": "COPY dir /to",
    "directory contents with slashes": "COPY dir/ /to/",
    "several": "COPY a.txt dir b.txt /to/",
    "wildcard": "COPY *.txt /to/",
    "wildcard over directories": "COPY d* /to/",
    "nested wildcard": "COPY d*/su?/*.txt /to/",
    "whole context": "COPY . /all",
    "workdir": "WORKDIR /w/x\nCOPY a.txt .\nCOPY a.txt sub/\nCOPY dir ./d2",
    "into the root": "COPY dir /",
    "merged": "COPY dir /to\nCOPY other /to",
    "replaced": "COPY a.txt /f\nCOPY b.txt /f",
    "link followed as a source": "COPY link.txt /x",
    "links kept in a tree": "COPY links /x",
    "modes": "COPY modes /m",
    "chmod": "COPY --chmod=755 dir /m",
    "chown": "COPY --chown=5:6 dir /o/p/q",
    "stage": "COPY dir /from\nSTAGE\nCOPY --from=0 /from/sub /to",
    "stage keeps owners": "COPY --chown=5:6 dir /from\nSTAGE\nCOPY --from=0 /from /to",
}


def _sample(context: Path) -> None:
    files = "a.txt b.txt dir/one.txt dir/sub/two.txt dir/sub/deep/three other/one.txt other/sub/four"
    for name in (files + " modes/run modes/secret/k links/f").split():
        path = context / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"this is {name}")
    (context / "link.txt").symlink_to("a.txt")
    (context / "links/to").symlink_to("f")
    (context / "links/dangling").symlink_to("/nowhere")
    (context / "modes/run").chmod(0o755)
    (context / "modes/secret").chmod(0o700)
    (context / "dir/sub").chmod(0o750)
    (context / "dir/empty").mkdir()


def _with_buildah(root: Path, context: Path, file: Path) -> dict[str, tuple[str, int, int, int]]:
    """Build with buildah and describe the files of what it made."""
    store = ["--root", str(root / "s"), "--runroot", str(root / "r"), "--storage-driver", "vfs"]
    buildah = ["buildah", *store]
    build = [*buildah, "bud", "--isolation", "chroot", "-q", "-f", str(file), str(context)]
    image = subprocess.run(build, check=True, capture_output=True, text=True).stdout.strip()
    container = subprocess.run([*buildah, "from", image], check=True, capture_output=True, text=True).stdout.strip()
    try:
        mount = [*buildah, "mount", container]
        return _tree(Path(subprocess.run(mount, check=True, capture_output=True, text=True).stdout.strip()))
    finally:
        subprocess.run([*buildah, "umount", container], check=True, capture_output=True)
        subprocess.run([*buildah, "rm", container], check=True, capture_output=True)


@pytest.mark.clients
@pytest.mark.skipif(shutil.which("buildah") is None, reason="needs buildah to compare with")
async def test_copy_means_what_buildah_takes_it_to_mean(world: World, tmp_path: Path) -> None:
    _sample(world.context)
    (world.context / ".dockerignore").write_text("Dockerfile*\n.dockerignore\n")
    differences = {}
    for case, text in COPIES.items():
        made = text.replace("RUN_MKDIR", "WORKDIR /exists\nWORKDIR /").replace("STAGE", "FROM scratch")
        dockerfile = f"FROM scratch\n{made}\n"
        result = await world.build(dockerfile)
        view = mounts.open_rootfs(world.snapshots.view(world.config(result).rootfs.diff_ids))
        try:
            mine = _tree(Path(f"/proc/self/fd/{view}/."))
        finally:
            os.close(view)
        file = tmp_path / "Dockerfile.theirs"
        file.write_text(dockerfile)
        theirs = await asyncio.to_thread(_with_buildah, tmp_path / "buildah", world.context, file)
        if mine != theirs:
            differing = {p for p in {*mine, *theirs} if mine.get(p) != theirs.get(p)}
            differences[case] = {path: (mine.get(path), theirs.get(path)) for path in sorted(differing)}
    assert differences == {}
