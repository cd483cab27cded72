"""The API describes what it predicts, and says what is wrong with a request."""

from __future__ import annotations

import hashlib
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from lamina import load_data, load_run
from lamina.deploy.serve.app import OPEN_PATHS
from support.images import encode
from support.servers import (
    HOSTILE_FILES,
    MARKUP,
    PATIENCE_SECONDS,
    Server,
    fits,
    noise_png,
    read_all,
    serving,
)

FAULTY = "faulty%5Cudce9"


def test_an_image_that_cannot_be_computed_fails_alone(server):
    bright = encode(np.full((6, 6, 3), 255, np.uint8))
    alone = server.ask(f"/v1/predict?model={FAULTY}", bright)
    reason = (
        "The model's logits are NaN or infinite: training diverged. Train again with a lower lr, or"
        " with gradient_clip=1."
    )
    assert (alone.status, alone.values) == (500, {"error": reason})
    images = [*map(noise_png, range(20)), bright, noise_png(20)]
    with ThreadPoolExecutor(len(images)) as threads:  # some wait together
        asked = threads.map(lambda image: server.ask(f"/v1/predict?model={FAULTY}", image), images)
        replies = list(asked)
    failed = replies.pop(20)
    assert (failed.status, failed.values) == (500, {"error": reason})
    assert all(reply.values["predicted"] in MARKUP for reply in replies)


def test_the_models_are_described(server, served_runs):
    first, second, third = server.ask("/v1/model").values["models"]
    report = load_run(served_runs["shapes"]).report
    assert (first["model"], first["kind"], first["data"]) == ("shapes", "single-label", "shapes")
    assert first["score"] == f"test {report.score}"
    assert first["classes"] == list(load_data("shapes").train.target_names)
    assert (second["model"], second["net"], second["score"]) == ("hostile", "<b>tiny</b>", None)
    assert (second["classes"], third["model"]) == (list(MARKUP), r"faulty\udce9")
    assert (second["width_px"], second["height_px"], second["channels"]) == (6, 6, 3)


def test_damaged_images_are_rejected_with_a_reason(server):
    for body in HOSTILE_FILES.values():
        predicted = server.ask("/v1/predict", body)
        assert predicted.status == 422
        assert predicted.values["problem"]


def test_each_answer_names_the_weights(server, served_runs):
    digest = hashlib.sha256((served_runs["shapes"] / "model.safetensors").read_bytes()).hexdigest()[
        :16
    ]
    assert server.ask("/v1/predict", noise_png()).values["weights"] == digest
    assert server.ask("/v1/model").values["models"][0]["weights"] == digest


def test_wrong_requests_say_what_was_expected(server):
    cases = {
        ("/v1/predict?model=shape", noise_png(), "image/png"): (
            404,
            "This server has no model 'shape'. Did you mean shapes?",
        ),
        ("/v1/predict", b"[]", "application/json"): (415, "curl --data-binary @cat.jpg"),
        ("/v1/predict", b"--x", "multipart/form-data; boundary=x"): (415, "as the body"),
        ("/v1/predict", bytes(10_000_001), "image/png"): (413, "The body exceeds 10 MB."),
        ("/v1/nothing", b"", "image/png"): (404, "Not Found"),
        ("/v1/model", b"", "image/png"): (405, "Method Not Allowed"),
    }
    for (path, body, kind), (status, reason) in cases.items():
        predicted = server.ask(path, body, Content_Type=kind)
        assert predicted.status == status
        assert reason in predicted.values["error"]
    assert server.ask("/v1/predict").status == 405


def test_the_api_document_describes_routes_and_responses(server):
    document = server.ask("/openapi.json").values
    schemas = document["components"]["schemas"]
    for path, body, status in (
        ("/v1/predict", noise_png(), 200),
        ("/v1/predict", b"", 422),
        ("/v1/predict?model=none", noise_png(), 404),
        ("/v1/model", None, 200),
    ):
        predicted = server.ask(path, body)
        assert predicted.status == status
        route = document["paths"][path.partition("?")[0]]["get" if body is None else "post"]
        response = route["responses"].get(str(status), route["responses"]["default"])
        schema = response["content"]["application/json"]["schema"]
        assert fits(predicted.values, schema, document), (path, predicted.values)
        assert not fits({"model": 1}, schema, document)
    assert set(document["paths"]) == {"/v1/model", "/v1/predict", "/healthz", "/readyz"}
    assert {"/healthz", "/readyz", "/openapi.json", "/"} < OPEN_PATHS
    assert all(fits(model, schemas["Model"], document) for model in find_models(server))


def find_models(server: Server) -> list[dict]:
    return server.ask("/v1/model").values["models"]


@pytest.mark.parametrize(
    ("number", "status", "said"),
    [(signal.SIGINT, 130, "lamina: interrupted\n"), (signal.SIGTERM, 143, "")],
)
def test_ctrl_c_and_sigterm_end_both_processes_and_tell_clients(served_runs, number, status, said):
    limits = "from lamina.deploy.web import server\nserver.END_SECONDS = 0.2"
    with serving(served_runs["hostile"], limits=limits, keeps_stderr=True) as server:
        worker = server.find_worker()
        os.kill(worker, signal.SIGSTOP)
        # A client that stays does not keep it from ending.
        with server.connect(), server.connect() as waiting, server.connect() as sending:
            head = f"POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nContent-Length: "
            waiting.sendall(f"{head}{len(noise_png())}\r\n\r\n".encode() + noise_png())
            sending.sendall(f"{head}9\r\n\r\nabc".encode())
            server.wait_for_arrivals()
            server.process.send_signal(number)
            for client in (waiting, sending):
                predicted = read_all(client)
                assert predicted.startswith(b"HTTP/1.1 503 ")
                assert predicted.endswith(
                    b'{"error": "The server is shutting down. Try again later."}'
                )
            assert server.process.wait(PATIENCE_SECONDS) == status
        printed = server.process.stderr.read()
        assert printed.endswith(said)
        assert "Traceback" not in printed
        assert "Cancel" not in printed
        assert not Path(f"/proc/{worker}").exists()
