"""``lamina serve`` on this machine: start, latency, throughput and memory under load.

For comparison, predictions without the server are timed, too.

The server starts as on the command line, on a free port. One, 8 and 32 clients in another process
send images of the model's size, each one after the other on one connection, for ``--seconds`` in
all. Throughput is compared with ``Predictor.predict`` in one process with its default number of
threads; the server's predictor has one thread less, because the server needs a core too. Memory
growth is the resident memory of the server at the end, minus that before the last load. With
``--batch 1``, the server computes each image separately.

    python benchmarks/serving.py runs/first --seconds 600 --json serving.json
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json as json_format
import os
import subprocess
import sys
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import tyro
from PIL import Image

CLIENTS = (1, 8, 32)
COUNTS = (1, 100, 1000)  # images
TURNS = 5


def main(
    run: tyro.conf.Positional[Path],
    seconds: float = 60.0,
    starts: int = 3,
    batch: int | None = None,
    json: Path | None = None,
) -> None:
    """Measure a server of one run, and print the results.

    Args:
        run: folder of the run.
        seconds: duration of the load by all numbers of clients.
        starts: number of timed starts of the server.
        batch: most images that the server computes at once; by default the server's limit.
        json: file for the results.
    """
    row: dict[str, object] = {"run": str(run), "seconds": seconds, "batch": batch}
    begun = []
    for _ in range(starts):
        with serving(run, batch) as (_, _, started):
            begun.append(started)
    row["start_seconds"] = begun
    print(f"ready after {min(begun):.2f} to {max(begun):.2f} s ({starts} starts)")
    with serving(run, batch) as (process, port, _):
        side_px = describe(port)["height_px"]
        encoded = [encode(seed, side_px) for seed in range(100)]
        loads = {}
        with get_context("spawn").Pool(1) as pool:
            for clients in CLIENTS:
                early_bytes = resident_bytes(process)
                words = (port, encoded, clients, seconds / len(CLIENTS))
                loads[clients] = pool.apply(load, words)
                print(f"{clients} clients: " + json_format.dumps(loads[clients]))
        row["loads"] = loads
        row["growth_bytes"] = resident_bytes(process) - early_bytes
        row["resident_bytes"] = resident_bytes(process)
    row["predictor_images_per_second"] = {count: predict(run, encoded, count) for count in COUNTS}
    row["process_seconds"] = {count: predict_in_process(run, encoded, count) for count in COUNTS}
    for count in COUNTS:
        print(
            f"{count:,} images: Predictor {row['predictor_images_per_second'][count]:,.0f}"
            f" images/s, lamina predict {row['process_seconds'][count]:.2f} s"
        )
    print(
        f"memory: {row['resident_bytes'] / 1e6:,.0f} MB; it grew by"
        f" {row['growth_bytes'] / 2**20:.1f} MiB"
    )
    if json is not None:
        json.write_text(json_format.dumps(row) + "\n", encoding="utf-8")


@contextlib.contextmanager
def serving(run: Path, batch: int | None = None):
    """Start a server; yield its process, its port and the seconds until it was ready."""
    began = time.perf_counter()
    start = "import sys; from lamina.cli import main; from lamina.deploy.serve import worker; "
    start += "" if batch is None else f"worker.BATCH_IMAGES = {batch}; "
    command = [sys.executable, "-c", f"{start}sys.exit(main(sys.argv[1:]))"]
    command += ["serve", str(run), "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            event = json_format.loads(process.stdout.readline())
            yield (
                process,
                int(event["url"].rstrip("/").rpartition(":")[2]),
                time.perf_counter() - began,
            )
        finally:
            process.terminate()


def describe(port: int) -> dict[str, int]:
    import urllib.request

    with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/model") as response:
        return json_format.load(response)["models"][0]


def encode(seed: int, side_px: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(
        np.random.default_rng(seed).integers(0, 256, (side_px, side_px, 3), np.uint8)
    ).save(file, "PNG")
    return file.getvalue()


async def follow(port: int, encoded: list[bytes], until: float) -> list[float]:
    """Send requests as one client; return the seconds of each, NaN if it failed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    taken: list[float] = []
    while time.perf_counter() < until:
        image = encoded[len(taken) % len(encoded)]
        began = time.perf_counter()
        head = (
            f"POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length:"
            f" {len(image)}\r\n\r\n"
        )
        writer.write(head.encode() + image)
        response = await reader.readuntil(b"\r\n\r\n")
        length = next(
            line for line in response.lower().split(b"\r\n") if line.startswith(b"content-length:")
        )
        await reader.readexactly(int(length.partition(b":")[2]))
        taken.append(time.perf_counter() - began if response.split()[1] == b"200" else float("nan"))
    writer.close()
    return taken


def load(port: int, encoded: list[bytes], clients: int, seconds: float) -> dict[str, float]:
    """Latency and throughput of clients that send images at once, and how many requests failed."""

    async def run_all() -> list[list[float]]:
        until = time.perf_counter() + seconds
        return await asyncio.gather(*(follow(port, encoded, until) for _ in range(clients)))

    began = time.perf_counter()
    taken = np.concatenate([np.array(one) for one in asyncio.run(run_all())])
    lasted = time.perf_counter() - began
    succeeded = taken[~np.isnan(taken)]
    return {
        "p50_ms": round(1000 * float(np.percentile(succeeded, 50)), 2),
        "p99_ms": round(1000 * float(np.percentile(succeeded, 99)), 2),
        "images_per_second": round(len(succeeded) / lasted),
        "failed": len(taken) - len(succeeded),
    }


def resident_bytes(process: subprocess.Popen[str]) -> int:
    """Resident memory of the server and its processes, on Linux."""
    number = process.pid
    children = Path(f"/proc/{number}/task/{number}/children").read_text().split()
    pages = [int(Path(f"/proc/{one}/statm").read_text().split()[1]) for one in (number, *children)]
    return sum(pages) * os.sysconf("SC_PAGE_SIZE")


def predict(run: Path, encoded: list[bytes], count: int) -> float:
    """Images per second of the predictor in this process, the median of five calls."""
    from lamina import load_run

    predictor = load_run(run).predictor()
    many = [encoded[place % len(encoded)] for place in range(count)]
    predictor.predict(encoded)
    taken = []
    for _ in range(TURNS):
        began = time.perf_counter()
        for _ in range(max(1, 100 // count)):
            predictor.predict(many)
        taken.append((time.perf_counter() - began) / max(1, 100 // count))
    return count / float(np.median(taken))


def predict_in_process(run: Path, encoded: list[bytes], count: int) -> float:
    """Seconds of ``lamina predict`` from its start to its end, the median of five turns."""
    with tempfile.TemporaryDirectory() as folder:
        for place in range(count):
            Path(folder, f"{place}.png").write_bytes(encoded[place % len(encoded)])
        command = [sys.executable, "-m", "lamina", "predict", str(run.resolve()), folder, "--json"]
        taken = []
        for _ in range(TURNS):
            began = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            taken.append(time.perf_counter() - began)
    return float(np.median(taken))


if __name__ == "__main__":
    tyro.cli(main)
