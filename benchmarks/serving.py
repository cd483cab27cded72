"""``lamina serve`` on this machine: start, latency, throughput beside the predictor in one process, memory under load.

The server is started as a person starts it, on a free port. Latency is that of one client that sends an image of the
model's size after the other on one connection. Throughput is that of 32 such clients at once, in a process of their
own; beside it, images by ``Predictor.predict`` in one process with its default threads, which on two cores are two:
the server's worker has one less, as the server needs a core too. The load lasts ``--seconds``; memory is what server
and worker have resident, at its end against after a tenth of it. With ``--batch 1`` the server computes each image
by itself.

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
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import tyro
from PIL import Image

CLIENTS = 32


def main(
    run: tyro.conf.Positional[Path],
    seconds: float = 60.0,
    images: int = 2000,
    starts: int = 3,
    batch: int | None = None,
    json: Path | None = None,
) -> None:
    """Measure a server of one run, and print the figures.

    Args:
        run: the run's folder.
        seconds: of load by 32 clients.
        images: for the latency, and for the predictor in one process.
        starts: of the server, each of which is timed.
        batch: upper limit of the images that the server computes at once; by default its own.
        json: file to write the figures to.
    """
    row: dict[str, object] = {"run": str(run), "clients": CLIENTS, "seconds": seconds, "batch": batch}
    begun = []
    for _ in range(starts):
        with serving(run, batch) as (_, _, started):
            begun.append(started)
    row["start_seconds"] = begun
    print(f"ready after {min(begun):.2f} to {max(begun):.2f} s ({starts} starts)")
    with serving(run, batch) as (process, port, _):
        side_px = describe(port)["height_px"]
        encoded = [encode(seed, side_px) for seed in range(100)]
        latency_ms = np.array(asyncio.run(follow(port, encoded, images))[images // 10 :]) * 1000
        row["latency_ms"] = {str(share): float(np.percentile(latency_ms, share)) for share in (50, 90, 99)}
        print("latency of one image: " + ", ".join(f"p{share} {ms:.2f} ms" for share, ms in row["latency_ms"].items()))
        with get_context("spawn").Pool(1) as pool:
            loading = pool.apply_async(load, (port, encoded, seconds))
            time.sleep(seconds / 10)
            early_bytes = resident_bytes(process)
            answered, failed, lasted = loading.get()
        row["growth_bytes"] = resident_bytes(process) - early_bytes
        row["predicted"], row["failed"], row["images_per_second"] = answered, failed, answered / lasted
    row["predictor_images_per_second"] = predict(run, encoded, images)
    speed, alone = row["images_per_second"], row["predictor_images_per_second"]
    print(f"{CLIENTS} clients: {speed:,.0f} images/s, {100 * speed / alone:.0f} % of the predictor's {alone:,.0f}")
    print(f"{failed:,} of {answered + failed:,} failed; memory grew by {row['growth_bytes'] / 2**20:.1f} MiB")
    if json is not None:
        json.write_text(json_format.dumps(row) + "\n", encoding="utf-8")


@contextlib.contextmanager
def serving(run: Path, batch: int | None = None):
    """A server: its process, its port and how long it took to be ready."""
    began = time.perf_counter()
    start = "import sys; from lamina.cli import main; from lamina.deploy.serve import worker; "
    start += "" if batch is None else f"worker.BATCH_IMAGES = {batch}; "
    command = [sys.executable, "-c", f"{start}sys.exit(main(sys.argv[1:]))"]
    command += ["serve", str(run), "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            event = json_format.loads(process.stdout.readline())
            yield process, int(event["url"].rstrip("/").rpartition(":")[2]), time.perf_counter() - began
        finally:
            process.terminate()


def describe(port: int) -> dict[str, int]:
    import urllib.request

    with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/model") as predicted:
        return json_format.load(predicted)["models"][0]


def encode(seed: int, side_px: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side_px, side_px, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


async def follow(port: int, encoded: list[bytes], count: int | None, until: float = float("inf")) -> list[float]:
    """Seconds of each request of one client; NaN for those that failed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    taken: list[float] = []
    while (count is None or len(taken) < count) and time.perf_counter() < until:
        image = encoded[len(taken) % len(encoded)]
        began = time.perf_counter()
        head = f"POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: {len(image)}\r\n\r\n"
        writer.write(head.encode() + image)
        predicted = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in predicted.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(int(length.partition(b":")[2]))
        taken.append(time.perf_counter() - began if predicted.split()[1] == b"200" else float("nan"))
    writer.close()
    return taken


def load(port: int, encoded: list[bytes], seconds: float) -> tuple[int, int, float]:
    """How many requests of all clients were answered and how many failed, and how long they took."""

    async def run_all() -> list[list[float]]:
        until = time.perf_counter() + seconds
        return await asyncio.gather(*(follow(port, encoded, None, until) for _ in range(CLIENTS)))

    began = time.perf_counter()
    taken = np.concatenate([np.array(one) for one in asyncio.run(run_all())])
    failed = int(np.isnan(taken).sum())
    return len(taken) - failed, failed, time.perf_counter() - began


def resident_bytes(process: subprocess.Popen[str]) -> int:
    """Of the server and its worker; Linux."""
    number = process.pid
    children = Path(f"/proc/{number}/task/{number}/children").read_text().split()
    pages = [int(Path(f"/proc/{one}/statm").read_text().split()[1]) for one in (number, *children)]
    return sum(pages) * os.sysconf("SC_PAGE_SIZE")


def predict(run: Path, encoded: list[bytes], count: int) -> float:
    """Images a second by the predictor in this process."""
    from lamina import load_run

    predictor = load_run(run).predictor()
    many = [encoded[place % len(encoded)] for place in range(count)]
    predictor.predict(many[:256])
    began = time.perf_counter()
    predictor.predict(many)
    return count / (time.perf_counter() - began)


if __name__ == "__main__":
    tyro.cli(main)
