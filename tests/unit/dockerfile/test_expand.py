"""Variables and quotes, as the Dockerfile reference and POSIX describe them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kestrel.dockerfile import DockerfileError, Expander

ENV = {"HOME": "/home", "V": "1.2.3", "FILE": "/a/b/archive.tar.gz", "EMPTY": "", "P": "x y", "N": "12"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("$HOME", "/home"),
        ("${HOME}s", "/homes"),
        ("$HOMEs", ""),
        ("a$", "a$"),
        ("$ a", "$ a"),
        ("'$HOME'", "$HOME"),
        ('"$HOME x"', "/home x"),
        ('"a\'b"', "a'b"),
        (r"\$HOME", "$HOME"),
        (r'"\$HOME \n \\"', r"$HOME \n " + "\\"),
        (r"a\ b", "a b"),
        ("$1", ""),
        ("${UNSET}", ""),
        ("${UNSET:-d}", "d"),
        ("${UNSET-d}", "d"),
        ("${EMPTY:-d}", "d"),
        ("${EMPTY-d}", ""),
        ("${V:-d}", "1.2.3"),
        ("${UNSET:-${V}}", "1.2.3"),
        ("${UNSET:-${ALSO:-deep}}", "deep"),
        ("${UNSET:-'a b'}", "a b"),
        ("${V:+set}", "set"),
        ("${V+set}", "set"),
        ("${EMPTY:+set}", ""),
        ("${EMPTY+set}", "set"),
        ("${UNSET+set}", ""),
        ("${V?needed}", "1.2.3"),
        ("${FILE#*/}", "a/b/archive.tar.gz"),
        ("${FILE##*/}", "archive.tar.gz"),
        ("${FILE%.*}", "/a/b/archive.tar"),
        ("${FILE%%.*}", "/a/b/archive"),
        ("${FILE#nomatch}", "/a/b/archive.tar.gz"),
        ("${V#?}", ".2.3"),
        ("${V/./-}", "1-2.3"),
        ("${V//./-}", "1-2-3"),
        ("${FILE//\\//:}", ":a:b:archive.tar.gz"),
        ("${V/1*/x}", "x"),
        ("${V//?/z}", "zzzzz"),
        ("${P}", "x y"),
        ("한${V}글", "한1.2.3글"),
    ],
)
def test_words_expand(text: str, expected: str) -> None:
    assert Expander().word(text, ENV) == expected


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("${V", "missing `}`"),
        ("${", "missing `}`"),
        ("${}", "bad substitution"),
        ("${V:=x}", "unsupported modifier `:=`"),
        ("${V^^}", "unsupported modifier `^`"),
        ("'open", "single quote"),
        ('"open', "double quote"),
        ("${UNSET?}", "`UNSET` is not set"),
        ("${UNSET:?say $V}", "`UNSET` is not set: say 1.2.3"),
        ("${EMPTY:?}", "`EMPTY` is empty"),
        ("${V/a", "missing `/`"),
        ("${V/a/b", "missing `}`"),
    ],
)
def test_what_cannot_be_expanded_says_why(text: str, part: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        Expander().word(text, ENV)
    assert part in caught.value.sentence


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a b", ["a", "b"]),
        ("$P", ["x", "y"]),
        ('"$P"', ["x y"]),
        ("a'b c'd", ["ab cd"]),
        (r"a\ b c", ["a b", "c"]),
        ("  ", []),
        ("${UNSET:-8080 9090}/tcp", ["8080", "9090/tcp"]),
    ],
)
def test_values_are_split_unless_quoted(text: str, expected: list[str]) -> None:
    assert Expander().words(text, ENV) == expected


def test_the_escape_character_can_be_a_backtick() -> None:
    expander = Expander(escape="`")
    assert expander.word(r"C:\dir`$V", ENV) == r"C:\dir$V"


def test_it_tells_which_variables_were_met() -> None:
    met = Expander().expand("$V ${UNSET} ${OTHER:-x}", ENV)
    assert met.used == {"V"}
    assert met.unset == {"UNSET"}  # a default was given for OTHER: that is no oversight


def test_a_hostile_pattern_does_not_take_forever() -> None:
    env = {"A": "a" * 3000}
    assert Expander().word("${A##*a*a*a*a*a*a*a*a*a*a*b}", env) == env["A"]


def test_deep_nesting_and_growth_are_refused() -> None:
    with pytest.raises(DockerfileError, match="nested too deeply"):
        Expander().word("${A:-" * 200 + "}" * 200, {})
    grown = "".join(f"${{V//?/{'x' * 2000}}}" for _ in range(400))
    with pytest.raises(DockerfileError, match="longer than"):
        Expander().word(grown, {"V": "a" * 500})


@given(st.text(alphabet="ab$ {}:-+?#%/'\"\\*=\n", max_size=60))
def test_any_text_expands_or_is_refused(text: str) -> None:
    try:
        word = Expander().word(text, {"a": "value", "b": ""})
    except DockerfileError:
        return
    assert isinstance(word, str)


@given(st.text(alphabet=st.characters(exclude_characters="$'\"\\"), max_size=40))
def test_text_without_special_characters_stays_as_it_is(text: str) -> None:
    assert Expander().word(text, {}) == text


def test_a_replacement_keeps_its_escapes() -> None:
    assert Expander().word(r"${P//\//\/}", {"P": "/a/b"}) == r"\/a\/b"


def test_variables_with_a_default_are_told_apart_from_forgotten_ones() -> None:
    met = Expander().expand("${A:-x} $B ${C+y}", {})
    assert (met.unset, met.defaulted) == ({"B"}, {"A", "C"})


def test_quotes_in_the_body_of_a_here_document_are_just_characters() -> None:
    text = "\"$V\" it's '$V' \\$V\n"
    assert Expander(plain_quotes=True).word(text, {"V": "x"}) == "\"x\" it's 'x' $V\n"
