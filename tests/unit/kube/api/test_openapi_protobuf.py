import asyncio
import json
import shutil
from pathlib import Path

import pytest
from aiohttp import web

from kestrel.kube.api import openapi, openapi_protobuf, protobuf, scheme


def fields(data):
    found = {}
    for number, _, value in protobuf._records(memoryview(data)):
        found.setdefault(number, []).append(value)
    return found


def named(entries):
    return {bytes(fields(entry)[1][0]).decode(): fields(entry)[2][0] for entry in entries}


def test_the_document_has_every_definition_and_path():
    document = fields(openapi_protobuf.v2())
    assert bytes(document[1][0]) == b"2.0"
    whole = json.loads(openapi.v2())
    assert set(named(fields(document[9][0])[1])) == set(whole["definitions"])
    assert set(named(fields(document[8][0])[2])) == set(whole["paths"])


def test_a_definition_carries_its_kind_as_an_extension():
    definitions = named(fields(fields(openapi_protobuf.v2())[9][0])[1])
    pod = fields(definitions["io.k8s.api.core.v1.Pod"])
    extensions = named(pod[31])
    kinds = json.loads(bytes(fields(extensions["x-kubernetes-group-version-kind"])[2][0]))
    assert kinds == [{"group": "", "kind": "Pod", "version": "v1"}]
    assert bytes(pod[22][0]) == b"\x0a\x06object"
    assert {"spec", "status", "metadata"} <= set(named(fields(pod[25][0])[1]))


def kubectls():
    found = shutil.which("kubectl")
    if found is None:
        return [None]
    real = Path(found).resolve()
    return sorted({real, *real.parent.glob("kubectl.1.*")}, key=str)


def resource_list(group, version):
    rows = scheme.BUILTIN.of_group_version(group, version)
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": scheme.api_version(group, version),
        "resources": [
            {"name": r.plural, "singularName": r.singular, "kind": r.kind, "namespaced": r.namespaced,
             "verbs": list(r.verbs), "shortNames": list(r.short_names)}
            for r in rows
        ],
    }  # fmt: skip


class Documents:
    """As little of an API server as `explain` and `apply` need before they send anything."""

    def __init__(self):
        self.written = []

    async def answer(self, request):
        match request.path.strip("/").split("/"):
            case ["openapi", "v2"] if openapi_protobuf.ASKED in request.headers.get("Accept", ""):
                return web.Response(body=openapi_protobuf.v2(), headers={"Content-Type": openapi_protobuf.MEDIA_TYPE})
            case ["openapi", "v2"]:
                return web.Response(body=openapi.v2(), content_type="application/json")
            case ["openapi", "v3"]:
                return web.Response(body=openapi.v3_index(), content_type="application/json")
            case ["openapi", "v3", "api", version]:
                return web.Response(body=openapi.v3_document("", version), content_type="application/json")
            case ["api"]:
                return web.json_response({"kind": "APIVersions", "versions": ["v1"]})
            case ["apis"]:
                return web.json_response({"kind": "APIGroupList", "apiVersion": "v1", "groups": []})
            case ["api", version]:
                return web.json_response(resource_list("", version))
        if request.method == "POST":
            self.written.append((request.query_string, await request.read()))
        body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}
        return web.json_response(body | {"message": "not here"}, status=404)


@pytest.mark.clients
@pytest.mark.parametrize("kubectl", kubectls(), ids=lambda path: path.name if path else "none")
async def test_kubectl_explains_and_applies_with_our_documents(kubectl, tmp_path):
    if kubectl is None:
        pytest.skip("kubectl is not on PATH")
    documents = Documents()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", documents.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]
    manifest = tmp_path / "pod.yaml"
    manifest.write_text("apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: c, image: i}]}\n")

    async def run(*words):
        argv = [str(kubectl), f"--server=http://127.0.0.1:{port}", "--kubeconfig=/dev/null", f"--cache-dir={tmp_path}"]
        process = await asyncio.create_subprocess_exec(
            *argv, *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        return (await process.communicate())[0].decode()

    try:
        explained = await run("explain", "pod.spec.containers.ports")
        assert "containerPort" in explained, explained
        assert "-required-" in explained
        assert "topologyKey" in await run("explain", "pod", "--recursive")
        applied = await run("apply", "-f", str(manifest))
        assert "not here" in applied, applied
        assert "fieldValidation=Strict" in documents.written[0][0]
    finally:
        await runner.cleanup()
