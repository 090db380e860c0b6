"""Which expansions a shell splits: those outside of quotes, in arguments."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kestrel.dockerfile.lint_shell import expansions


@pytest.mark.parametrize(
    ("line", "variables", "commands"),
    [
        ("rm $A ${B} \"$C\" '$D' \\$E", ["$A", "${B}"], []),
        ("rm a$A/b", ["$A"], []),
        ("A=$B C=$(c) d", [], []),
        ("A=$B; rm $A", ["$A"], []),
        ("export A=$B; make A=$B", ["$B"], []),
        ('cp $(ls $DIR) "$(cat $F)" `x`', ["$DIR", "$F"], ["$(ls $DIR)", "`x`"]),
        ("for x in $LIST; do rm $x; done", ["$x"], []),
        ("case $x in a) rm $y;; esac", ["$y"], []),
        ("[[ $x = y ]] && exit $?", [], []),
        ("echo $((1 + $N)) ${#N} $# $$", [], []),
        ("if true; then rm $x; fi", ["$x"], []),
        ('rm "a $A" \\\n  $B', ["$B"], []),
        ("cat <<x\n$A\nx", [], []),
        ('echo "unclosed $A', [], []),
        ("echo '$A", [], []),
    ],
)
def test_what_is_split(line: str, variables: list[str], commands: list[str]) -> None:
    found = expansions(line)
    assert (found.variables, found.commands) == (variables, commands)


def test_declarations_that_hide_a_failure() -> None:
    assert expansions("export A=$(a) B=1; local c=`d`; A=$(a); export A").hidden == ["export A=$(a)", "local c=`d`"]


@given(st.text(alphabet="$`\"'\\(){}<;| \nab=#", max_size=60))
def test_any_line_is_read_to_its_end(line: str) -> None:
    expansions(line)


def test_commands_in_commands_may_be_deep() -> None:
    assert expansions("a " + "$(b " * 2000 + ")" * 2000).commands
