"""Floods, slow clients, bombs and a worker that dies or hangs: right answers throughout, in bounded memory."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from served import Answer, encode, noise, read_all, serving

MEBIBYTE = 2**20
LIMITS = """
from lamina.deploy.serve import bodies, server, worker
server.HEAD_SECONDS, server.IDLE_SECONDS, bodies.BODY_SECONDS, worker.SECONDS["predict"] = 1.0, 1, 1.5, 3.0
"""


@pytest.fixture(scope="module")
def hasty(runs):
    """A server whose limits of time are so short that a test can wait for them."""
    with serving(runs["hostile"], limits=LIMITS) as started:
        yield started


async def post(port: int, picture: bytes) -> tuple[int, bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: {len(picture)}\r\nConnection: close"
    try:
        writer.write(f"{head}\r\n\r\n".encode() + picture)
        given = await reader.read()
    except ConnectionError:
        return 503, b""  # turned away before all was sent
    finally:
        writer.close()
    return int(given.split()[1]) if given else 503, given.partition(b"\r\n\r\n")[2]


def test_a_flood_of_requests_gets_right_answers_or_is_turned_away(server):
    pictures = [noise(seed) for seed in range(10)]
    expected = [server.ask("/v1/predict", picture).values["answer"] for picture in pictures]
    before = server.memory_bytes()

    async def flood() -> list[tuple[int, bytes]]:
        return await asyncio.gather(*(post(server.port, pictures[number % 10]) for number in range(500)))

    answers = asyncio.run(flood())
    statuses = [status for status, _ in answers]
    assert set(statuses) <= {200, 503}
    assert statuses.count(200) >= 100
    for number, (status, body) in enumerate(answers):
        if status == 200:
            assert json.loads(body)["answer"] == expected[number % 10]
    assert server.memory_bytes() - before < 50 * MEBIBYTE
    assert server.ask("/v1/predict", pictures[0]).values["answer"] == expected[0]


def chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


def make_bomb(side_px: int) -> bytes:
    """A PNG of a few kilobytes with that many rows and columns of zeros."""
    head = side_px.to_bytes(4, "big") * 2 + bytes([1, 0, 0, 0, 0])  # one bit a pixel
    rows = zlib.compress(bytes((side_px // 8 + 1) * side_px), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_bombs_and_truncated_pictures_are_rejected_and_the_rest_is_answered(server):
    whole = encode(np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8), "JPEG")
    expected = server.ask("/v1/predict", noise()).values["answer"]
    before = server.memory_bytes()
    bomb = make_bomb(20_000)
    assert len(bomb) < 100_000
    for picture, problem in (
        (bomb, "more than 50 megapixels"),
        (whole[: len(whole) // 2], "truncated"),
        (b"", "empty"),
        (b"\x89PNG\r\n\x1a\n" + bytes(1000), None),
    ):
        answer = server.ask("/v1/predict", picture)
        assert answer.status == 422
        assert problem is None or answer.values["problem"] == problem
        assert server.ask("/v1/predict", noise()).values["answer"] == expected
    assert server.memory_bytes() - before < 50 * MEBIBYTE


def test_bodies_of_any_declared_length_are_bounded(server):
    before = server.memory_bytes()
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
    assert server.memory_bytes() - before < 50 * MEBIBYTE
    assert server.ask("/healthz").status == 200


def test_slow_clients_are_cut_off_while_others_are_answered(hasty):
    host = f"Host: 127.0.0.1:{hasty.port}\r\n".encode()
    beginnings = {
        b"": b"",
        b"POST /v1/predict HTTP/1.1\r\n" + host: b"",
        b"GET /healthz HTTP/1.1\r\n" + host + b"\r\nGET /healthz HTTP/1.1\r\n": b"HTTP/1.1 200 ",
        b"POST /v1/predict HTTP/1.1\r\n" + host + b"Content-Length: 100\r\n\r\nabc": b"HTTP/1.1 408 ",
    }
    connections = [hasty.connect() for _ in beginnings for _ in range(10)]
    began = time.monotonic()
    for connection, beginning in zip(connections, list(beginnings) * 10, strict=True):
        connection.sendall(beginning)
    answers = [hasty.ask("/v1/predict", noise(seed)).status for seed in range(20)]
    assert answers == [200] * 20
    for connection, expected in zip(connections, list(beginnings.values()) * 10, strict=True):
        connection.settimeout(30)
        with connection:
            assert read_all(connection).startswith(expected)
    assert time.monotonic() - began < 20


def test_more_connections_than_the_limit_are_closed_at_once(hasty):
    connections = [hasty.connect() for _ in range(300)]
    try:
        refused = connections[-1]
        refused.settimeout(10)
        assert read_all(refused).startswith(b"HTTP/1.1 503 ")
    finally:
        for connection in connections:
            connection.close()
    assert hasty.ask("/healthz").status in (200, 503)
    time.sleep(0.2)
    assert hasty.ask("/healthz").status == 200


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_worker_that_dies_or_hangs_is_replaced(hasty, number):
    expected = [hasty.ask("/v1/predict", noise(seed)).values["answer"] for seed in range(4)]
    worker = hasty.find_worker()
    os.kill(worker, number)
    found: dict[int, tuple[int, str | None]] = {}

    def ask(seed: int) -> None:
        answer = hasty.ask("/v1/predict", noise(seed))
        found[seed] = answer.status, answer.values.get("answer")

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # The picture that it had alone gets no answer; those that waited do.
    assert sorted(status for status, _ in found.values())[:3] == [200, 200, 200]
    for seed, (status, answer) in found.items():
        assert (status, answer) in ((200, expected[seed]), (500, None))
    assert hasty.find_worker() != worker
    assert hasty.ask("/readyz").status == 200


@pytest.mark.slow
def test_pictures_lost_with_others_are_tried_again_and_the_queue_is_bounded(hasty):
    texts = [base64.b64encode(noise(seed)).decode() for seed in range(64)]
    body = json.dumps({"pictures": texts}).encode()

    def ask() -> Answer:
        return hasty.ask("/v1/predict", body, Content_Type="application/json")

    expected = [one["answer"] for one in ask().values]
    os.kill(hasty.find_worker(), signal.SIGSTOP)
    with ThreadPoolExecutor(3) as threads:
        answers = [one.result() for one in [threads.submit(ask) for _ in range(3)]]
    assert sorted(answer.status for answer in answers) == [200, 200, 503]
    for answer in answers:
        if answer.status == 503:
            assert answer.headers["retry-after"] == "1"
        else:
            assert [one["answer"] for one in answer.values] == expected
