"""Named volumes on disk."""

import pytest

from kestrel.base.db import Database
from kestrel.base.errors import AlreadyExists, Conflict, InvalidArgument, NotFound
from kestrel.volumes import VolumeService


@pytest.fixture
def database(tmp_path):
    database = Database(tmp_path / "db")
    yield database
    database.close()


@pytest.fixture
def volumes(tmp_path, database):
    return VolumeService(tmp_path / "volumes", database)


def test_a_created_volume_is_an_empty_directory_with_its_labels(volumes):
    volume = volumes.create("data", size=5, labels={"a": "b"})
    assert list(volumes.path("data").iterdir()) == []
    assert volumes.get("data") == volume
    assert volume.labels == {"a": "b"}


def test_a_taken_name_is_refused(volumes):
    volumes.create("data")
    with pytest.raises(AlreadyExists, match="data exists already"):
        volumes.create("data")
    assert volumes.ensure("data").name == "data"


@pytest.mark.parametrize("name", ["", "a", "../x", "a/b", "-x", ".hidden"])
def test_a_name_that_could_leave_the_root_is_refused(volumes, name):
    with pytest.raises(InvalidArgument, match="invalid volume name"):
        volumes.create(name)


def test_an_unknown_volume_names_the_nearest(volumes):
    volumes.create("database")
    with pytest.raises(NotFound) as caught:
        volumes.get("databse")
    assert caught.value.hint == "did you mean database?"


def test_a_used_volume_cannot_be_removed(volumes):
    volumes.create("data")
    volumes.hold("data", "c" * 64)
    with pytest.raises(Conflict, match="data is in use by cccccccccccc"):
        volumes.remove("data")
    assert volumes.prune() == []
    volumes.release("data", "c" * 64)
    volumes.remove("data")
    assert volumes.all() == []


def test_volumes_and_their_data_outlive_the_service(tmp_path, database, volumes):
    volumes.create("data")
    (volumes.path("data") / "file").write_text("kept")
    again = VolumeService(tmp_path / "volumes", database)
    assert (again.path("data") / "file").read_text() == "kept"
    assert again.usage("data") >= 4096


def test_an_unfinished_creation_is_taken_up_and_an_unfinished_removal_cleared(tmp_path, database, volumes):
    (tmp_path / "volumes" / "half" / "data").mkdir(parents=True)
    (tmp_path / "volumes" / ".gone-x-1" / "data").mkdir(parents=True)
    again = VolumeService(tmp_path / "volumes", database)
    assert again.create("half").name == "half"
    assert not (tmp_path / "volumes" / ".gone-x-1").exists()


def test_data_that_the_database_forgot_is_never_overwritten(tmp_path, volumes):
    (tmp_path / "volumes" / "old" / "data" / "precious").mkdir(parents=True)
    with pytest.raises(Conflict, match="the database does not know"):
        volumes.create("old")


def test_prune_removes_what_nobody_uses(volumes):
    volumes.create("one1")
    volumes.create("two2")
    volumes.hold("two2", "x")
    assert [volume.name for volume in volumes.prune()] == ["one1"]
    assert [volume.name for volume in volumes.all()] == ["two2"]
