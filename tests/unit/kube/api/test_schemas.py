import subprocess
import sys
from pathlib import Path

from kestrel.kube.api import schemas, scheme

ROOT = Path(__file__).parents[4]

POD = scheme.by_kind("", "v1", "Pod")
SCHEMAS = schemas.load()


def test_every_served_kind_has_a_schema():
    for row in scheme.RESOURCES:
        assert SCHEMAS.of(row).kind == schemas.OBJECT, row.kind
        assert "metadata" in SCHEMAS.of(row).fields


def test_every_reference_leads_to_a_definition():
    for name in SCHEMAS.names():
        for field in SCHEMAS.definition(name).fields.values():
            assert field.kind
            assert field.item.kind


def test_lists_know_how_they_merge():
    ports = SCHEMAS.at(POD, "spec.containers.ports")
    assert ports.is_list_map
    assert ports.keys == ("containerPort", "protocol")
    assert ports.merge_key == "containerPort"
    assert SCHEMAS.at(POD, "spec.volumes").strategies == ("merge", "retainKeys")
    assert SCHEMAS.at(POD, "spec.tolerations").is_atomic
    assert SCHEMAS.at(POD, "metadata.finalizers").is_set
    assert SCHEMAS.at(POD, "spec.containers.env.valueFrom.secretKeyRef").is_atomic


def test_special_types_are_told_from_plain_ones():
    assert SCHEMAS.at(POD, "metadata.creationTimestamp").format == "date-time"
    assert SCHEMAS.at(POD, "spec.containers.resources.limits").item.kind == schemas.QUANTITY
    assert SCHEMAS.at(POD, "spec.containers.livenessProbe.httpGet.port").format == "int-or-string"
    assert SCHEMAS.at(POD, "spec.nonsense") is None


def test_descriptions_are_there_for_explain():
    texts = schemas.descriptions()
    assert texts["io.k8s.api.core.v1.Pod"][""]
    assert texts["io.k8s.api.core.v1.PodSpec"]["containers"]


def test_the_data_files_are_what_the_table_of_resources_asks_for():
    found = subprocess.run(
        [sys.executable, ROOT / "tools/generate_schemas.py", "--check"], capture_output=True, text=True
    )
    assert found.returncode == 0, found.stderr
