"""The API describes what it predicts, and says what is wrong with a request."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from lamina import load_data, load_run
from lamina.deploy.serve.app import OPEN_PATHS, REQUEST_IMAGES
from support.images import encode
from support.servers import (
    FORM,
    HOSTILE_FILES,
    MARKUP,
    PATIENCE_SECONDS,
    Server,
    fits,
    noise_png,
    pack_form,
    read_all,
    serving,
    wait_for,
)

FAULTY = "faulty%5Cudce9"


def as_dict(predicted: dict[str, object]) -> dict[str, float]:
    return {row["class"]: row["probability"] for row in predicted["predictions"]}


def test_several_images_get_a_list_in_their_order(server):
    image_set = [noise_png(seed) for seed in range(5)]
    alone = [server.ask("/v1/predict", image).values for image in image_set]
    predicted = server.ask_list([*image_set[:2], b"no image", *image_set[2:]])
    together = predicted.values
    assert predicted.status == 200
    assert together.pop(2) == {"model": "shapes", "problem": "not an image"}
    for one, other in zip(alone, together, strict=True):
        assert one["predicted"] == other["predicted"]
        assert as_dict(one) == pytest.approx(as_dict(other), abs=1e-5)


def test_an_image_that_cannot_be_computed_fails_alone(server):
    bright = encode(np.full((6, 6, 3), 255, np.uint8))
    alone = server.ask(f"/v1/predict?model={FAULTY}", bright)
    reason = (
        "The model's logits are NaN or infinite: training diverged. Train again with a lower lr, or"
        " with gradient_clip=1."
    )
    assert (alone.status, alone.values) == (500, {"error": reason})
    predicted = server.ask_list(
        [*map(noise_png, range(20)), bright, noise_png(20)], f"/v1/predict?model={FAULTY}"
    )
    rows = predicted.values
    assert predicted.status == 200
    assert rows.pop(20) == {"model": r"faulty\udce9", "problem": reason}
    assert all(row["predicted"] in MARKUP for row in rows)
    assert len(rows) == 21


def test_the_models_are_described(server, served_runs):
    first, second, third = server.ask("/v1/model").values["models"]
    report = load_run(served_runs["shapes"]).report
    assert (first["model"], first["kind"], first["data"]) == ("shapes", "single-label", "shapes")
    assert first["score"] == f"test {report.score}"
    assert first["classes"] == list(load_data("shapes").train.target_names)
    assert (second["model"], second["net"], second["score"]) == ("hostile", "<b>tiny</b>", None)
    assert (second["classes"], third["model"]) == (list(MARKUP), r"faulty\udce9")
    assert (second["width_px"], second["height_px"], second["channels"]) == (6, 6, 3)


def test_an_explanation_says_what_was_measured(server):
    image = encode(load_data("shapes").test.pixels[0])
    given = server.ask("/v1/explain", image).values
    assert given["target"] == server.ask("/v1/predict", image).values["predicted"]
    measured = given["faithfulness"]
    shares = {
        row["class"]: row["probability"]
        for row in server.ask("/v1/predict", image).values["predictions"]
    }
    assert measured["before"] == pytest.approx(shares[given["target"]], abs=1e-5)
    assert 0 <= measured["by_random_map"] <= 1
    for name in ("image", "map"):
        assert base64.b64decode(given[name]).startswith(b"\x89PNG")


def test_a_training_image_is_most_like_itself(server):
    train = load_data("shapes").train
    given = server.ask("/v1/similar", encode(train.pixels[-1])).values
    assert given["searched"] == len(train)
    nearest = given["images"][0]
    assert nearest["id"] == len(train) - 1
    assert nearest["target"] == train.target_names[train.targets[-1]]
    assert nearest["similarity"] == pytest.approx(1, abs=1e-4)
    shares = [image["similarity"] for image in given["images"]]
    assert shares == sorted(shares, reverse=True)
    before = server.find_worker()
    for name in ("hostile", FAULTY):
        missing = server.ask(f"/v1/similar?model={name}", noise_png())
        assert missing.status == 404
        assert missing.values == {
            "error": (
                "The training images are not in the server's cache, or have changed. Load them"
                " there with lamina similar RUN IMAGE."
            )
        }
    assert server.find_worker() == before


def test_damaged_images_are_rejected_with_a_reason(server):
    for body in HOSTILE_FILES.values():
        for task in ("predict", "explain"):
            predicted = server.ask(f"/v1/{task}", body)
            assert predicted.status == 422
            assert predicted.values["problem"]


def test_a_form_with_one_file_is_predicted_as_the_file(server):
    alone = server.ask("/v1/predict", noise_png(0)).values
    assert server.ask_list([noise_png(0)]).values == alone
    refused = server.ask_list([b"x"] * (REQUEST_IMAGES + 1))
    assert (refused.status, refused.values["error"]) == (
        400,
        "Too many files. Maximum number of files is 64.",
    )
    large = noise_png(0, side_px=700)  # more than a form keeps in memory
    assert server.ask_list([large, large]).values[1]["predicted"]


def test_each_answer_names_the_weights(server, served_runs):
    digest = hashlib.sha256((served_runs["shapes"] / "model.safetensors").read_bytes()).hexdigest()[
        :16
    ]
    assert server.ask("/v1/predict", noise_png()).values["weights"] == digest
    assert all(
        row["weights"] == digest for row in server.ask_list([noise_png(), noise_png(1)]).values
    )
    for task in ("explain", "similar"):
        assert server.ask(f"/v1/{task}", noise_png()).values["weights"] == digest
    assert server.ask("/v1/model").values["models"][0]["weights"] == digest


def test_wrong_requests_say_what_was_expected(server):
    cases = {
        ("/v1/predict?model=shape", noise_png(), "image/png"): (
            404,
            "This server has no model 'shape'. Did you mean shapes?",
        ),
        ("/v1/predict", b"[]", "application/json"): (415, "Send an image as the body, or a form"),
        ("/v1/predict", pack_form([]), FORM): (400, "curl -F image=@cat.jpg"),
        ("/v1/predict", b"no form", FORM): (400, ""),
        ("/v1/explain", pack_form([b"", b""]), FORM): (400, "Maximum number of files is 1."),
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
        ("/v1/predict", [noise_png(), b""], 200),
        ("/v1/predict", b"", 422),
        ("/v1/explain", noise_png(), 200),
        ("/v1/similar", noise_png(), 200),
        ("/v1/similar?model=hostile", noise_png(), 404),
        ("/v1/model", None, 200),
    ):
        predicted = server.ask_list(body) if isinstance(body, list) else server.ask(path, body)
        assert predicted.status == status
        route = document["paths"][path.partition("?")[0]]["get" if body is None else "post"]
        response = route["responses"].get(str(status), route["responses"]["default"])
        schema = response["content"]["application/json"]["schema"]
        assert fits(predicted.values, schema, document), (path, predicted.values)
        assert not fits({"model": 1}, schema, document)
    tasks = {"/v1/model", "/v1/predict", "/v1/explain", "/v1/similar"}
    assert set(document["paths"]) == tasks | {"/healthz", "/readyz"}
    assert {"/healthz", "/readyz", "/openapi.json", "/"} < OPEN_PATHS
    assert all(fits(model, schemas["Model"], document) for model in find_models(server))


def find_models(server: Server) -> list[dict]:
    return server.ask("/v1/model").values["models"]


def test_explanations_block_no_predictions_and_few_may_wait(server):
    image = encode(load_data("shapes").test.pixels[0])
    assert server.ask("/v1/explain", image).status == 200
    predicting = server.find_worker()
    (explaining,) = set(server.find_workers()) - {predicting}
    os.kill(explaining, signal.SIGSTOP)
    try:
        first = server.begin("/v1/explain", image)  # which the process computes
        with ThreadPoolExecutor(11) as threads, contextlib.closing(first):
            waiting = [threads.submit(server.ask, "/v1/explain", image) for _ in range(11)]
            wait_for(lambda: sum(asked.done() for asked in waiting) == 3)
            assert server.ask("/v1/predict", image).status == 200
            os.kill(explaining, signal.SIGCONT)
            assert first.getresponse().status == 200
            statuses = sorted(asked.result().status for asked in waiting)
    finally:
        os.kill(explaining, signal.SIGCONT)
    assert statuses == [200] * 8 + [503] * 3


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
