"""The command line's grammar."""

import pytest

from kestrel.base.errors import InvalidArgument
from kestrel.cli.commands import COMMANDS
from kestrel.cli.main import run
from kestrel.cli.options import Command, Option, help_text, parse

RUN = next(c for c in COMMANDS if c.name == "run")
SIMPLE = Command(
    "thing",
    "does a thing",
    "x:y",
    words="NAME [MORE]",
    options=(Option("-a --all", "all"), Option("-n --number", "n", kind="number")),
)


def test_everything_after_the_image_belongs_to_the_container():
    parsed = parse(RUN, ["--rm", "-e", "A=1", "busybox", "sh", "-c", "--rm -it"])
    assert parsed.words == ["busybox", "sh", "-c", "--rm -it"]
    assert parsed.rm is True
    assert parsed.env == ["A=1"]


def test_short_flags_can_be_written_together_and_values_stuck_to_them():
    parsed = parse(RUN, ["-itp8080:80", "-v=/a:/b", "image"])
    assert (parsed.interactive, parsed.tty, parsed.publish, parsed.volume) == (True, True, ["8080:80"], ["/a:/b"])


def test_options_may_follow_words_where_nothing_is_handed_on():
    parsed = parse(SIMPLE, ["name", "--all", "--number=3"])
    assert (parsed.words, parsed.all, parsed.number) == (["name"], True, 3.0)


def test_two_dashes_end_the_options():
    assert parse(SIMPLE, ["--", "-a", "--all"]).words == ["-a", "--all"]


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["--al", "x"], "unknown flag --al", "did you mean --all?"),
        ([], "needs NAME", "usage: kestrel thing"),
        (["a", "b", "c"], "unexpected argument 'c'", "usage"),
        (["a", "-n"], "-n needs a value", ""),
        (["a", "-n", "three"], "takes a number", ""),
        (["a", "--all=maybe"], "takes no value", ""),
    ],
)
def test_a_mistake_is_named_with_its_remedy(arguments, message, hint):
    with pytest.raises(InvalidArgument) as caught:
        parse(SIMPLE, arguments)
    assert message in caught.value.message
    assert hint in (caught.value.hint or "")


def test_every_command_has_a_help_page_and_a_function_that_exists(capsys):
    for command in COMMANDS:
        assert command.summary in help_text(command)
        module, function = command.function.split(":")
        assert callable(getattr(__import__(f"kestrel.cli.{module}", fromlist=[function]), function))
    assert run(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(command.name in shown for command in COMMANDS)


def test_an_unknown_command_suggests_the_nearest(capsys):
    assert run(["inspetc"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "error: unknown command 'inspetc'\nhint: did you mean `kestrel inspect`?\n"
