import pytest
from hypothesis import given
from hypothesis import strategies as st

from kestrel.linux import abi
from kestrel.runtime.options import Options, describe, parse


def test_attributes_data_and_propagation_are_told_apart() -> None:
    parsed = parse(["rbind", "ro", "nosuid", "rslave", "size=64m", "mode=1777"])
    assert parsed.bind
    assert parsed.recursive
    assert parsed.add == abi.MOUNT_ATTR_RDONLY | abi.MOUNT_ATTR_NOSUID
    assert (parsed.propagation, parsed.propagation_recursive) == (abi.MS_SLAVE, True)
    assert parsed.data == (("size", "64m"), ("mode", "1777"))


@pytest.mark.parametrize(("words", "read_only"), [(["ro", "rw"], False), (["rw", "ro"], True), ([], False)])
def test_the_later_word_wins(words: list[str], read_only: bool) -> None:
    assert bool(parse(words).add & abi.MOUNT_ATTR_RDONLY) is read_only


def test_recursive_attributes_are_kept_apart() -> None:
    parsed = parse(["rro", "rnosuid"])
    assert parsed.add == 0
    assert parsed.add_recursive == abi.MOUNT_ATTR_RDONLY | abi.MOUNT_ATTR_NOSUID


def test_relatime_and_rw_are_not_taken_for_recursive_words() -> None:
    assert parse(["relatime", "rw"]).add_recursive == 0
    assert parse(["relatime", "rw"]).data == ()


def test_flags_of_the_filesystem_go_to_it_by_name() -> None:
    assert parse(["sync", "newinstance"]).data == (("sync", None), ("newinstance", None))


def test_words_without_effect_leave_nothing() -> None:
    assert parse(["defaults", "async", "silent", "loud", "iversion", "noiversion", ""]) == Options()


def test_a_description_names_what_is_set() -> None:
    assert describe(parse(["nosuid", "noexec", "ro", "size=1k"])) == "ro,nosuid,noexec,size=1k"


@given(st.lists(st.text(max_size=8), max_size=8))
def test_any_words_parse(words: list[str]) -> None:
    parse(words)
