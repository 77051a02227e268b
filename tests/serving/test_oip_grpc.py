"""The Open Inference Protocol over gRPC: both forms of tensors, health, tokens, TLS and limits."""

from __future__ import annotations

import asyncio
import struct
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

import centra
from centra.formats.decision import Decision
from centra.releases.folder_writing import write_folder
from centra.serving import Batcher
from centra.serving.http.call import Serving
from centra.serving.metrics import Metrics
from centra.serving.oip.grpc import start_grpc
from centra.serving.tokens import Tokens, add_token
from tests import support
from tests.serving.servers import self_signed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from centra.formats.task_module import TaskModule
    from centra.store import LocalStore
    from tests.serving.servers import Server

INVALID = grpc.StatusCode.INVALID_ARGUMENT
RAW = struct.pack("<I", 2) + b"hi"


@pytest.fixture(scope="module")
def channel(server: Server) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.grpc) as channel:
        yield channel


@pytest.fixture
def stub(channel: grpc.Channel) -> Any:
    return service_pb2_grpc.GRPCInferenceServiceStub(channel)


def request(*, typed: bytes | None = None, raw: list[bytes] | None = None) -> Any:
    asked = service_pb2.ModelInferRequest(model_name="intent", raw_input_contents=raw)
    tensor = asked.inputs.add(name="text", datatype="BYTES", shape=[1])
    if typed is not None:
        tensor.contents.bytes_contents.append(typed)
    return asked


def test_typed_contents_are_answered_by_typed_contents(stub: Any) -> None:
    typed, raw = stub.ModelInfer(request(typed=b"hi")), stub.ModelInfer(request(raw=[RAW]))
    assert not typed.raw_output_contents
    label, score = typed.outputs
    (text,) = label.contents.bytes_contents
    assert raw.raw_output_contents[0] == struct.pack("<I", len(text)) + text
    assert struct.unpack("<f", raw.raw_output_contents[1]) == pytest.approx(
        score.contents.fp32_contents
    )
    assert not raw.outputs[0].HasField("contents")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (request(), "has 0 elements"),
        (request(typed=b"\xff"), "not valid UTF-8"),
        (request(typed=b"hi", raw=[RAW]), "both raw_input_contents and contents"),
        (request(raw=[RAW, RAW]), "2 items for 1 inputs"),
        (request(raw=[RAW[:-1]]), "2 bytes; 1 are left"),
    ],
)
def test_contents_that_are_wrong_are_refused(stub: Any, wrong: Any, words: str) -> None:
    with pytest.raises(grpc.RpcError, match=words) as caught:
        stub.ModelInfer(wrong)
    assert caught.value.code() == INVALID


def test_a_message_that_is_no_message_is_refused_and_the_next_is_answered(
    channel: grpc.Channel, stub: Any
) -> None:
    call = channel.unary_unary(
        "/inference.GRPCInferenceService/ModelInfer",
        request_serializer=bytes,
        response_deserializer=bytes,
    )
    with pytest.raises(grpc.RpcError):
        call(b"\xff\xff\xff")
    assert stub.ModelInfer(request(typed=b"hi")).outputs


def test_a_message_beyond_the_limit_is_refused(stub: Any) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(request(typed=b"a" * 2**24))
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_client_that_waits_no_longer_is_told_so(stub: Any) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(request(typed=b"hi"), timeout=1e-6)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED


def test_orchestrators_find_the_health_service(channel: grpc.Channel) -> None:
    check = channel.unary_unary(
        "/grpc.health.v1.Health/Check", request_serializer=bytes, response_deserializer=bytes
    )
    assert check(b"") == b"\x08\x01"
    with pytest.raises(grpc.RpcError) as caught:
        check(b"\x0a\x01x")
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


def test_calls_that_there_are_not_are_unimplemented(stub: Any) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.RepositoryModelLoad(service_pb2.RepositoryModelLoadRequest(model_name="intent"))
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


# In this process


@pytest.fixture
def release(
    tmp_path: Path,
    tiny_backbone: support.Backbone,
    backbone_store: LocalStore,
    make_module: Callable[..., TaskModule],
) -> Iterator[centra.Release]:
    """Of a folder, with two tasks, one of which is never sure enough."""
    picky = make_module(decision=Decision(rejection=1.0))
    modules = {"intent": make_module(), "picky": picky}
    manifest = support.put_release(modules, [tiny_backbone.spec], backbone_store)
    write_folder(manifest, backbone_store, tmp_path / "release")
    with centra.load_release(tmp_path / "release", engine="onnx") as loaded:
        yield loaded


@asynccontextmanager
async def served(
    release: centra.Release, tokens: Tokens | None = None
) -> AsyncIterator[tuple[Serving, int, bytes]]:
    """A server in TLS; what it serves, its port and its certificate."""
    key, certificate = self_signed()
    async with Batcher(release) as batcher:
        serving = Serving(batcher=batcher, metrics=Metrics(), tokens=tokens)
        server, port = await start_grpc(
            serving, host="127.0.0.1", port=0, certificate=(key, certificate)
        )
        yield serving, port, certificate
        await server.stop(0)


def asked(task: str, *texts: bytes) -> Any:
    message = service_pb2.ModelInferRequest(model_name=task)
    tensor = message.inputs.add(name="text", datatype="BYTES", shape=[len(texts)])
    tensor.contents.bytes_contents.extend(texts)
    return message


async def code_of(call: Any) -> tuple[grpc.StatusCode, dict[str, Any]]:
    """How a call that is refused is refused, and what came behind it."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), dict(caught.value.trailing_metadata() or ())


def test_a_token_is_asked_for_and_says_which_tasks_and_how_many_inputs(
    release: centra.Release, tmp_path: Path
) -> None:
    token = add_token(tmp_path / "tokens", "bot", tasks=["intent"], rate=1)

    async def main() -> None:
        async with served(release, Tokens(tmp_path / "tokens")) as (_, port, certificate):
            credentials = grpc.ssl_channel_credentials(certificate)
            async with grpc.aio.secure_channel(f"localhost:{port}", credentials) as channel:
                stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
                with_token = {"metadata": (("authorization", f"Bearer {token}"),)}
                assert (await stub.ServerLive(service_pb2.ServerLiveRequest())).live
                code, _ = await code_of(stub.ModelInfer(asked("intent", b"hi")))
                assert code == grpc.StatusCode.UNAUTHENTICATED
                code, _ = await code_of(stub.ModelInfer(asked("picky", b"hi"), **with_token))
                assert code == grpc.StatusCode.PERMISSION_DENIED
                index = await stub.RepositoryIndex(
                    service_pb2.RepositoryIndexRequest(), **with_token
                )
                assert [model.name for model in index.models] == ["intent"]
                answer = await stub.ModelInfer(asked("intent", *[b"hi"] * 9), **with_token)
                assert answer.model_version == release.manifest.tasks["intent"].digest[:12]
                code, behind = await code_of(stub.ModelInfer(asked("intent", b"hi"), **with_token))
                assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
                assert int(behind["grpc-retry-pushback-ms"]) > 1000

    asyncio.run(main())


def test_a_rejected_label_is_the_empty_text_and_its_best_labels_are_told(
    release: centra.Release,
) -> None:
    assert release.predict("hi", "picky")["picky"]["label"] is None

    async def main() -> None:
        async with served(release) as (_, port, certificate):
            credentials = grpc.ssl_channel_credentials(certificate)
            async with grpc.aio.secure_channel(f"localhost:{port}", credentials) as channel:
                stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
                message = asked("picky", b"hi")
                message.parameters["top_k"].int64_param = 2
                label, score, labels, scores = (await stub.ModelInfer(message)).outputs
                assert [*label.contents.bytes_contents] == [b""]
                assert [*labels.shape] == [*scores.shape] == [1, 2]
                assert scores.contents.fp32_contents[0] == score.contents.fp32_contents[0]

    asyncio.run(main())


def test_a_server_that_ends_says_that_it_is_not_ready(release: centra.Release) -> None:
    async def main() -> None:
        async with served(release) as (serving, port, certificate):
            credentials = grpc.ssl_channel_credentials(certificate)
            async with grpc.aio.secure_channel(f"localhost:{port}", credentials) as channel:
                stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
                ready = service_pb2.ServerReadyRequest()
                assert (await stub.ServerReady(ready)).ready
                serving.draining = True
                assert not (await stub.ServerReady(ready)).ready
                assert (await stub.ModelInfer(asked("intent", b"hi"))).outputs

    asyncio.run(main())
