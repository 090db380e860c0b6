"""Manifests, indexes, configurations and platforms: kept whole, and never taken for one another."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kestrel.base.errors import InvalidArgument, KestrelError, NotFound
from kestrel.oci import manifest as manifests
from kestrel.oci import media_types
from kestrel.oci.config import ContainerDefaults, ImageConfig, parse_time
from kestrel.oci.descriptor import Descriptor
from kestrel.oci.manifest import Index, Manifest
from kestrel.oci.platform import Platform

CONFIG = Descriptor.of(media_types.OCI_CONFIG, b"{}")
LAYER = Descriptor.of(media_types.OCI_LAYER_GZIP, b"layer")


def document(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


def test_a_manifest_is_written_as_it_was_read() -> None:
    made = Manifest.of(CONFIG, [LAYER], annotations={"a": "b"})
    again = Manifest.decode(made.encode(), media_types.OCI_MANIFEST)
    assert again == made
    assert again.encode() == made.encode()
    assert again.is_image


def test_a_manifest_without_layers_says_so() -> None:
    assert json.loads(Manifest.of(CONFIG, []).encode())["layers"] == []
    assert json.loads(Index.of([]).encode())["manifests"] == []


def test_unknown_fields_come_back_at_every_depth() -> None:
    raw = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "config": {**CONFIG.to_json(), "x-config": [1, {"y": None}]},
        "layers": [{**LAYER.to_json(), "platform": {"os": "linux", "architecture": "amd64", "x-cpu": 5}}],
        "x-top": {"deep": {"er": True}},
    }
    assert json.loads(Manifest.decode(json.dumps(raw).encode()).encode()) == raw


@pytest.mark.parametrize(
    ("fields", "media_type", "word"),
    [
        ({"config": CONFIG.to_json(), "layers": [], "manifests": []}, "", "another kind"),
        ({"manifests": [], "layers": []}, "", "another kind"),
        ({"manifests": [], "config": {}}, media_types.OCI_INDEX, "another kind"),
        ({"manifests": [], "fsLayers": []}, media_types.OCI_INDEX, "another kind"),
        ({"manifests": []}, media_types.OCI_MANIFEST, "another kind"),
        ({"config": CONFIG.to_json(), "layers": []}, media_types.OCI_INDEX, "another kind"),
        ({"mediaType": media_types.OCI_INDEX, "config": CONFIG.to_json()}, media_types.OCI_MANIFEST, "calls itself"),
        ({"mediaType": media_types.OCI_MANIFEST, "manifests": []}, media_types.OCI_INDEX, "calls itself"),
        ({"mediaType": "text/html", "config": CONFIG.to_json()}, "", "not the media type"),
        ({"config": CONFIG.to_json(), "Layers": []}, "", "only in case"),
        ({"config": CONFIG.to_json(), "Manifests": []}, "", "only in case"),
        ({"config": CONFIG.to_json()}, media_types.DOCKER_SCHEMA1_SIGNED, "schema 1"),
        ({"layers": []}, media_types.OCI_MANIFEST, "required field 'config'"),
        ({"config": {**CONFIG.to_json(), "size": -1}}, "", "config.size"),
        ({"config": {**CONFIG.to_json(), "size": 2**63}}, "", "config.size"),
        ({"config": {**CONFIG.to_json(), "size": "2"}}, "", "config.size"),
        (
            {"config": CONFIG.to_json(), "layers": [{**LAYER.to_json(), "digest": "sha256:../../etc"}]},
            "",
            r"layers\[0\].digest",
        ),
        ({"config": CONFIG.to_json(), "layers": {}}, "", "layers"),
        ({"config": CONFIG.to_json(), "annotations": {"a": 1}}, "", "annotations"),
    ],
)
def test_a_document_of_two_minds_is_refused(fields: dict[str, Any], media_type: str, word: str) -> None:
    with pytest.raises(InvalidArgument, match=word):
        manifests.decode(document(schemaVersion=2, **fields), media_type)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"NaN", b"\xff", b"[" * 100_000, b'{"a":' * 50_000])
def test_what_is_no_document_is_refused(data: bytes) -> None:
    for decode in (Manifest.decode, Index.decode, ImageConfig.decode):
        with pytest.raises(InvalidArgument):
            decode(data)


@pytest.mark.parametrize("version", [None, 1, 3, "2"])
def test_only_schema_version_2_is_known(version: object) -> None:
    with pytest.raises(InvalidArgument, match="schemaVersion"):
        Manifest.decode(document(schemaVersion=version, config=CONFIG.to_json()))


def test_a_manifest_beyond_four_megabytes_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="more than the"):
        Manifest.decode(Manifest.of(CONFIG, [], annotations={"a": "x" * manifests.LIMIT}).encode())


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "schemaVersion",
                        "config",
                        "layers",
                        "mediaType",
                        "digest",
                        "size",
                        "rootfs",
                        "diff_ids",
                        "manifests",
                        "z",
                    ]
                ),
                inner,
                max_size=5,
            )
        ),
        max_leaves=12,
    )
)
def test_any_json_is_a_document_or_an_error(value: object) -> None:
    data = json.dumps(value).encode()
    for decode in (manifests.decode, ImageConfig.decode):
        try:
            read = decode(data)
        except KestrelError:
            continue
        assert decode(read.encode()) == read


def entry(platform: str, digest: bytes = b"") -> Descriptor:
    return Descriptor(
        media_type=media_types.OCI_MANIFEST,
        digest=Descriptor.of("", platform.encode() + digest).digest,
        size=1,
        platform=Platform.parse(platform) if platform else None,
    )


@pytest.mark.parametrize(
    ("host", "offered", "chosen"),
    [
        ("linux/amd64", ["linux/arm64", "linux/amd64"], "linux/amd64"),
        ("linux/arm/v7", ["linux/arm/v5", "linux/arm/v6", "linux/arm64"], "linux/arm/v6"),
        ("linux/arm64", ["linux/arm/v7", "linux/arm64/v8"], "linux/arm64"),
        ("linux/amd64/v3", ["linux/amd64", "linux/amd64/v2", "linux/amd64/v4"], "linux/amd64/v2"),
        ("linux/amd64", ["", "linux/amd64"], "linux/amd64"),
        ("linux/amd64", ["", "linux/arm64"], ""),
    ],
)
def test_an_index_gives_the_entry_that_suits_best(host: str, offered: list[str], chosen: str) -> None:
    found = Index.of([entry(each) for each in offered]).select(Platform.parse(host))
    assert found.platform == (Platform.parse(chosen) if chosen else None)


def test_an_index_without_a_suitable_entry_lists_what_it_has() -> None:
    with pytest.raises(NotFound) as caught:
        Index.of([entry("linux/arm64"), entry("windows/amd64")]).select(Platform.parse("linux/amd64"))
    assert caught.value.hint == "it offers linux/arm64, windows/amd64"


def test_a_configuration_of_dockers_comes_back_whole() -> None:
    raw = {
        "architecture": "amd64",
        "os": "linux",
        "os.version": "10",
        "created": "2024-05-06T07:08:09.123456789Z",
        "config": {
            "Env": ["A=1", "B", "A=2"],
            "Cmd": ["sh"],
            "Hostname": "abc",
            "ExposedPorts": {"80/tcp": {}},
            "Healthcheck": {"Test": ["CMD", "true"], "StartPeriod": 5, "Odd": 1},
            "Labels": {"a": "b"},
        },
        "rootfs": {"type": "layers", "diff_ids": [LAYER.digest]},
        "history": [{"created_by": "x", "empty_layer": True, "extra": []}],
        "container_config": {"Cmd": None},
    }
    image = ImageConfig.decode(json.dumps(raw).encode())
    assert json.loads(image.encode()) == raw
    assert image.config.environment() == {"A": "2", "B": ""}
    assert image.created_at is not None
    assert image.created_at.isoformat() == "2024-05-06T07:08:09.123456+00:00"


def test_nulls_of_go_are_absent_fields() -> None:
    image = ImageConfig.decode(document(rootfs={"type": "layers", "diff_ids": None}, config={"Cmd": None, "Env": None}))
    assert image.config == ContainerDefaults()
    assert json.loads(image.encode())["rootfs"] == {"type": "layers", "diff_ids": []}


@pytest.mark.parametrize(
    ("text", "iso"),
    [
        ("", None),
        ("soon", None),
        ("2024-01-01T00:00:00Z", "2024-01-01T00:00:00+00:00"),
        ("2024-01-01T02:00:00.5+02:00", "2024-01-01T00:00:00.500000+00:00"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00+00:00"),
    ],
)
def test_times_are_read_as_go_writes_them(text: str, iso: "str | None") -> None:
    moment = parse_time(text)
    assert (moment.isoformat() if moment else None) == iso


@pytest.mark.parametrize("text", ["", "a/b/c/d", "linux/", "/amd64"])
def test_what_is_no_platform_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        Platform.parse(text)


def test_platforms_are_spelled_one_way() -> None:
    assert str(Platform.parse("linux/x86_64")) == "linux/amd64"
    assert str(Platform.parse("linux/arm64/8")) == "linux/arm64"
    assert str(Platform.parse("linux/armhf")) == "linux/arm/v7"
    assert Platform.host().matches(Platform.host())
