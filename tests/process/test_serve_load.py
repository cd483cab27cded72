"""Floods, slow clients, bombs, failing workers: predictions stay correct, memory stays bounded."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import resource
import signal
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from support.images import encode
from support.servers import PATIENCE_SECONDS, noise_png, read_all, serving, wait_for

LIMITS = """
from lamina.deploy.serve import predicting
from lamina.deploy.web import bodies, server
server.CONNECTIONS = 12
bodies.BODY_SECONDS, predicting.PREDICT_SECONDS = 1.5, 1.0
"""
LOST = {"error": "The process for predictions was lost. It starts again; send the image again."}


@pytest.fixture(scope="module")
def hasty_server(served_runs):
    """A server with low limits, so that tests reach them fast."""
    with serving(served_runs["hostile"], limits=LIMITS) as started:
        yield started


async def post(port: int, image: bytes) -> tuple[int, bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = (
        f"POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length:"
        f" {len(image)}\r\nConnection: close"
    )
    try:
        writer.write(f"{head}\r\n\r\n".encode() + image)
        given = await reader.read()
    except ConnectionError:
        return 503, b""  # turned away before all was sent
    finally:
        writer.close()
    return int(given.split()[1]) if given else 503, given.partition(b"\r\n\r\n")[2]


def test_a_flood_of_requests_gets_predictions_or_is_refused(server):
    image_set = [noise_png(seed) for seed in range(10)]
    expected = [server.ask("/v1/predict", image).values["predicted"] for image in image_set]

    async def flood() -> list[tuple[int, bytes]]:
        return await asyncio.gather(
            *(post(server.port, image_set[number % 10]) for number in range(200))
        )

    with server.bounded():
        outputs = asyncio.run(flood())
    statuses = [status for status, _ in outputs]
    assert set(statuses) <= {200, 503}
    assert statuses.count(200) >= 100
    for number, (status, body) in enumerate(outputs):
        if status == 200:
            assert json.loads(body)["predicted"] == expected[number % 10]
    assert server.ask("/v1/predict", image_set[0]).values["predicted"] == expected[0]


def chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


def make_bomb(side_px: int) -> bytes:
    """A PNG of a few kilobytes with that many rows and columns of zeros."""
    head = side_px.to_bytes(4, "big") * 2 + bytes([1, 0, 0, 0, 0])  # one bit a pixel
    rows = zlib.compress(bytes((side_px // 8 + 1) * side_px), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_bombs_and_cut_images_are_rejected_and_others_predicted(server):
    whole = encode(np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8), "JPEG")
    expected = server.ask("/v1/predict", noise_png()).values["predicted"]
    bomb = make_bomb(20_000)
    assert len(bomb) < 100_000
    with server.bounded():
        for image, problem in (
            (bomb, "more than 67 megapixels"),
            (whole[: len(whole) // 2], "truncated"),
            (b"", "empty"),
            (b"\x89PNG\r\n\x1a\n" + bytes(1000), None),
        ):
            predicted = server.ask("/v1/predict", image)
            assert predicted.status == 422
            assert problem is None or predicted.values["problem"] == problem
            assert server.ask("/v1/predict", noise_png()).values["predicted"] == expected


def test_bodies_of_any_declared_length_are_bounded(server):
    with server.bounded():
        host = f"Host: 127.0.0.1:{server.port}\r\n"
        head = f"POST /v1/predict HTTP/1.1\r\n{host}"
        for length in ("99999999999999999999", "-1", "1e3", "1\r\nContent-Length: 2"):
            with server.connect() as connection:
                connection.sendall(f"{head}Content-Length: {length}\r\n\r\n".encode() + bytes(1000))
                if length[0] != "9":
                    assert read_all(connection).startswith(b"HTTP/1.1 400 ")
        with server.connect() as connection:
            connection.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
            part = b"100000\r\n" + bytes(0x100000) + b"\r\n"
            sent = 0
            try:
                for _ in range(200):
                    connection.sendall(part)
                    sent += 1
            except ConnectionError:
                pass
    assert sent < 100
    assert server.ask("/healthz").status == 200


def test_the_largest_request_can_be_set(served_runs):
    with serving(served_runs["shapes"], "--max-mb", "1") as small:
        assert small.ask("/v1/predict", bytes(1_000_000)).status == 422
        refused = small.ask("/v1/predict", bytes(1_000_001))
    assert refused.status == 413
    assert refused.values == {"error": "The body exceeds 1 MB. Send a smaller image."}


def test_requests_of_more_connections_than_the_limit_are_refused(hasty_server):
    connections = [hasty_server.connect() for _ in range(12)]
    try:
        wait_for(lambda: hasty_server.ask("/healthz").status == 503)
    finally:
        for connection in connections:
            connection.close()
    wait_for(lambda: hasty_server.ask("/healthz").status == 200)


def test_a_slow_body_is_cut_off(hasty_server):
    host = f"Host: 127.0.0.1:{hasty_server.port}\r\n".encode()
    slow = b"POST /v1/predict HTTP/1.1\r\n" + host + b"Content-Length: 100\r\n\r\nabc"
    with hasty_server.connect() as sending:
        sending.sendall(slow)
        predicted = [hasty_server.ask("/v1/predict", noise_png(seed)).status for seed in range(20)]
        assert predicted == [200] * 20
        assert read_all(sending).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_worker_that_dies_or_hangs_is_replaced(hasty_server, number):
    images = [noise_png(seed) for seed in range(4)]
    expected = [hasty_server.ask("/v1/predict", image).values["predicted"] for image in images]
    worker = hasty_server.find_worker()
    os.kill(worker, number)
    with ThreadPoolExecutor(4) as threads:
        outputs = list(threads.map(lambda image: hasty_server.ask("/v1/predict", image), images))
    assert number == signal.SIGKILL or any(reply.status == 503 for reply in outputs)
    for reply, predicted in zip(outputs, expected, strict=True):
        if reply.status == 503:
            assert (reply.values, reply.headers["retry-after"]) == (LOST, "1")
        else:
            assert reply.values["predicted"] == predicted
    for image, predicted in zip(images, expected, strict=True):
        assert hasty_server.ask("/v1/predict", image).values["predicted"] == predicted
    assert hasty_server.find_worker() != worker
    assert hasty_server.ask("/readyz").status == 200


def test_a_worker_that_cannot_be_started_is_tried_again(served_runs):
    with serving(served_runs["hostile"], limits=LIMITS, keeps_stderr=True) as server:
        expected = server.ask("/v1/predict", noise_png()).values["predicted"]
        limits = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
        kept = http.client.HTTPConnection(server.host, server.port, timeout=PATIENCE_SECONDS)
        kept.request("GET", "/healthz")
        kept.getresponse().read()
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (3, limits[1]))
        worker = server.find_worker()
        os.kill(worker, signal.SIGKILL)
        wait_for(lambda: worker not in server.find_workers())
        kept.request("POST", "/v1/predict", noise_png())
        refused = kept.getresponse()
        assert (refused.status, json.loads(refused.read())) == (503, LOST)
        kept.close()
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, limits)
        assert server.ask("/v1/predict", noise_png()).values["predicted"] == expected


def test_the_process_for_predictions_ends_when_the_server_is_killed(served_runs):
    with serving(served_runs["hostile"]) as server:
        worker = Path(f"/proc/{server.find_worker()}")
        server.process.kill()
        wait_for(lambda: not worker.exists())
