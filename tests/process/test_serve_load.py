"""Floods, slow clients, bombs, failing workers: predictions stay correct, memory stays bounded."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import resource
import shutil
import signal
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from lamina.training.loop import Training
from support.images import encode
from support.runs import DATA, NET, RECIPE, begin_run
from support.servers import (
    FORM,
    PATIENCE_SECONDS,
    noise_png,
    pack_form,
    read_all,
    serving,
    wait_for,
)

LIMITS = """
from lamina.deploy.serve import worker
from lamina.deploy.web import bodies, server, torch_process
server.CONNECTIONS, server.IDLE_SECONDS = 12, 1
bodies.BODY_SECONDS, worker.PREDICT_SECONDS, worker.RETRY_SECONDS = 1.5, 1.0, 0.1
torch_process.RESULT_BYTES = 300_000
"""


WORDY = tuple(f"{name} " * 10_000 for name in "abc")


@pytest.fixture(scope="module")
def hasty_server(served_runs, tmp_path_factory):
    """A server with low limits, so that tests reach them fast, with a run with long names."""
    train = replace(DATA.train, target_names=WORDY)
    wordy = begin_run(
        NET,
        replace(DATA, train=train, test=None),
        RECIPE,
        net_name="tiny",
        name="wordy",
        runs_dir=tmp_path_factory.mktemp("wordy"),
    )
    wordy.folder.save_model(Training(NET, train, RECIPE).model)
    with serving(served_runs["hostile"], wordy.path, limits=LIMITS) as started:
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
        parts = b"--x\r\nContent-Disposition: form-data; name=a\r\n\r\n\r\n" * 100_000
        assert server.ask("/v1/predict", parts, Content_Type=FORM).status == 400


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
    assert refused.values == {"error": "The body exceeds 1 MB. Send smaller or fewer images."}


def test_images_that_take_long_are_computed_in_smaller_batches(hasty_server):
    # sixteen of them take longer than a batch may
    large = encode(np.zeros((3000, 3000, 3), np.uint8))
    before = hasty_server.find_worker()
    assert [hasty_server.ask_list([large] * count).status for count in (2, 17)] == [200, 200]
    assert hasty_server.find_worker() == before


def test_a_worker_whose_response_is_too_long_is_replaced(hasty_server):
    before = hasty_server.find_worker()
    rows = hasty_server.ask_list(
        [noise_png(seed) for seed in range(16)], "/v1/predict?model=wordy"
    ).values
    assert all(row["predicted"] in WORDY for row in rows)
    assert hasty_server.find_worker() != before


def test_slow_bodies_and_idle_connections_are_cut_off(hasty_server):
    host = f"Host: 127.0.0.1:{hasty_server.port}\r\n".encode()
    slow = b"POST /v1/predict HTTP/1.1\r\n" + host + b"Content-Length: 100\r\n\r\nabc"
    idle = b"GET /healthz HTTP/1.1\r\n" + host + b"\r\n"
    with (
        hasty_server.connect() as silent,
        hasty_server.connect() as sending,
        hasty_server.connect() as resting,
        hasty_server.connect() as begun,
    ):
        sending.sendall(slow)
        resting.sendall(idle)
        begun.sendall(idle)
        assert hasty_server.ask("/healthz").status == 200
        begun.sendall(b"G")  # and nothing more of a second request
        predicted = [hasty_server.ask("/v1/predict", noise_png(seed)).status for seed in range(20)]
        assert predicted == [200] * 20
        assert read_all(sending).startswith(b"HTTP/1.1 408 ")
        assert read_all(resting).endswith(b"ok\n")
        assert read_all(begun).endswith(b"ok\n")
        assert read_all(silent) == b""


def test_requests_of_more_connections_than_the_limit_are_refused(hasty_server):
    connections = [hasty_server.connect() for _ in range(12)]
    try:
        wait_for(lambda: hasty_server.ask("/healthz").status == 503)
    finally:
        for connection in connections:
            connection.close()
    wait_for(lambda: hasty_server.ask("/healthz").status == 200)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_worker_that_dies_or_hangs_is_replaced(hasty_server, number):
    expected = [
        hasty_server.ask("/v1/predict", noise_png(seed)).values["predicted"] for seed in range(4)
    ]
    worker = hasty_server.find_worker()
    os.kill(worker, number)
    with ThreadPoolExecutor(4) as threads:
        outputs = list(
            threads.map(lambda seed: hasty_server.ask("/v1/predict", noise_png(seed)), range(4))
        )
    # The image that it had alone gets no prediction; those that waited do.
    why = "ended" if number == signal.SIGKILL else "took longer than 1 seconds"
    lost = {"error": f"The worker process {why} on this image."}
    assert sorted(predicted.status for predicted in outputs)[:3] == [200] * 3
    for predicted, choice in zip(outputs, expected, strict=True):
        if predicted.status == 503:
            assert predicted.values == lost
        else:
            assert predicted.values["predicted"] == choice
    assert hasty_server.find_worker() != worker
    assert hasty_server.ask("/readyz").status == 200


def test_for_a_worker_killed_at_rest_no_image_is_blamed(hasty_server):
    worker = hasty_server.find_worker()
    os.kill(worker, signal.SIGKILL)
    wait_for(lambda: worker not in hasty_server.find_workers())
    wait_for(lambda: hasty_server.ask("/readyz").status == 200)
    assert hasty_server.ask("/v1/predict", noise_png()).status == 200
    worker = hasty_server.find_worker()
    os.kill(worker, signal.SIGKILL)
    wait_for(lambda: worker not in hasty_server.find_workers())
    assert hasty_server.ask("/v1/predict", noise_png()).status == 200


def test_a_run_that_has_moved_is_an_error_in_json(served_runs, tmp_path):
    run = shutil.copytree(served_runs["shapes"], tmp_path / "run")
    with serving(run) as server:
        run.rename(tmp_path / "moved")
        reply = server.ask("/v1/explain", noise_png())
        assert reply.status == 500 and "run" in reply.values["error"]
        assert server.ask("/v1/predict", noise_png()).status == 200


def test_an_image_whose_worker_was_killed_may_be_sent_again(hasty_server):
    os.kill(hasty_server.find_worker(), signal.SIGSTOP)
    lost = hasty_server.ask("/v1/predict", noise_png())
    assert lost.status == 503
    assert int(lost.headers["retry-after"]) >= 1
    assert lost.values == {"error": "The worker process took longer than 1 seconds on this image."}
    assert hasty_server.ask("/v1/predict", noise_png()).status == 200


def test_a_worker_that_cannot_be_started_is_tried_again(served_runs):
    with serving(served_runs["hostile"], limits=LIMITS, keeps_stderr=True) as server:
        expected = server.ask("/v1/predict", noise_png()).values["predicted"]
        limits = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
        kept = http.client.HTTPConnection(server.host, server.port, timeout=PATIENCE_SECONDS)
        kept.request("GET", "/healthz")
        kept.getresponse().read()
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (3, limits[1]))
        os.kill(server.find_worker(), signal.SIGKILL)
        # Of two images, so that the response leaves the connection open.
        images = pack_form([noise_png(), noise_png()])
        kept.request("POST", "/v1/predict", images, {"Content-Type": FORM})
        for _ in range(3):
            next(line for line in server.process.stderr if "could not be started" in line)
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, limits)
        rows = json.loads(kept.getresponse().read())
        kept.close()
        problems = {row.get("problem") for row in rows}
        assert problems <= {None, "The worker process ended on this image."}
        assert server.ask("/v1/predict", noise_png()).values["predicted"] == expected


def test_images_of_clients_that_left_are_forgotten(hasty_server):
    worker = hasty_server.find_worker()
    os.kill(worker, signal.SIGSTOP)
    images = pack_form([noise_png(seed) for seed in range(64)])
    try:
        for _ in range(4):  # more than the queue takes
            hasty_server.begin("/v1/predict", images, Content_Type=FORM).close()
            hasty_server.wait_for_arrivals()
    finally:
        os.kill(worker, signal.SIGCONT)
    assert hasty_server.ask("/v1/predict", noise_png()).status == 200
    assert hasty_server.find_worker() == worker


def test_images_lost_with_others_are_tried_again(hasty_server):
    image_set = [noise_png(seed) for seed in range(64)]
    expected = [value["predicted"] for value in hasty_server.ask_list(image_set).values]
    os.kill(hasty_server.find_worker(), signal.SIGSTOP)
    with ThreadPoolExecutor(3) as threads:
        outputs = list(threads.map(lambda _: hasty_server.ask_list(image_set), range(3)))
    assert sorted(predicted.status for predicted in outputs) == [200, 200, 503]
    for predicted in outputs:
        if predicted.status == 503:
            assert predicted.headers["retry-after"] == "1"
        else:
            assert [value["predicted"] for value in predicted.values] == expected
