"""Publishes detections at a steady rate, as a good Python pipeline would.

The pipeline's thread appends a dict to a list for each detection. Every 15 ms a second thread takes out what is in
it, packs it with msgpack as an array of maps and adds that to a stream as one entry, by redis-py with hiredis. Its
list has no bound, no entry is sent again, and the stream is not trimmed: the way of a detection on a good day,
alone. An event loop in place of the two threads took a third more processor time, by hand.

    produce.py REDIS_URL ROWS_PER_SECOND SECONDS

Prints one JSON object, with what `producer_cost.rs` says of a producer of ours: µs a row of processor time, and
the most memory that it had. `record_us` may be below zero: the loop without a producer frees its rows itself, while
those of the producer are freed by its thread.
"""

import datetime as dt
import json
import random
import sys
import threading
import time
from dataclasses import dataclass

import msgpack
import redis

STREAM = "produce"
MAX_DELAY = 0.015
TICKS_PER_SECOND = 1_000
WARM_UP = 1

TODAY = dt.datetime.now(dt.timezone.utc).replace(hour=0, minute=0, second=0, microsecond=0)
MIDNIGHT = int(TODAY.timestamp()) * 1_000_000
CAMERAS = [(f"{TODAY:%Y-%m-%d}T08:00-camera-{n:02}", f"camera-{n:02}") for n in range(16)]


def detection(session_id: str, camera_id: str, id: int, noise=random.Random(1).random) -> dict:
    """A row like those of `realistic_detection`; its names are those of its camera, which are made once."""
    frame = id // 4
    return {
        "timestamp": MIDNIGHT + 33_333 * (frame % 2_500_000),
        "session_id": session_id,
        "camera_id": camera_id,
        "channel_id": 1,
        "detection_id": id,
        "track_id": frame // 100 + id % 4,
        "confidence": noise(),
        "bbox_x": noise() * 1_920.0,
        "bbox_y": noise() * 1_080.0,
        "bbox_width": 40.0 + noise() * 80.0,
        "bbox_height": 90.0 + noise() * 200.0,
        "gender": "female" if id % 4 > 1 else "male",
        "gender_confidence": noise(),
        "frame_number": frame,
        "degraded": False,
    }


class Producer:
    """Rows in a list, and a thread that publishes them."""

    def __init__(self, redis_url: str) -> None:
        # Replies in the older protocol's shape, whatever the default is.
        self.redis = redis.Redis.from_url(redis_url, protocol=2)
        self.rows = []
        self.n_published = 0
        self.closed = False
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self) -> None:
        while not self.closed:
            time.sleep(MAX_DELAY)
            self.flush()

    def flush(self) -> None:
        # Without a lock, as each of these is done at once: what is appended meanwhile stays.
        rows = self.rows[:]
        del self.rows[: len(rows)]
        if rows:
            self.redis.xadd(STREAM, {"p": msgpack.packb(rows)})
            self.n_published += len(rows)

    def close(self) -> None:
        self.closed = True
        self.thread.join()
        self.flush()


@dataclass
class Loop:
    """Processor time of a paced loop, of this thread in `take` alone; in seconds."""

    this_thread: float
    other_threads: float
    elapsed: float
    n_rows: int

    @classmethod
    def run(cls, rate: int, seconds: int, take) -> "Loop":
        per_tick = rate // TICKS_PER_SECOND
        n_ticks = seconds * TICKS_PER_SECOND
        this_thread = 0.0
        cpu_before, began = cpu_of_other_threads(), time.perf_counter()
        for tick in range(n_ticks):
            left = began + tick / TICKS_PER_SECOND - time.perf_counter()
            if left > 0:
                time.sleep(left)
            camera = CAMERAS[tick % len(CAMERAS)]
            rows = [detection(*camera, id) for id in range(tick * per_tick, (tick + 1) * per_tick)]
            before = time.thread_time()
            take(rows)
            this_thread += time.thread_time() - before
        other_threads, elapsed = cpu_of_other_threads() - cpu_before, time.perf_counter() - began
        return cls(this_thread, other_threads, elapsed, n_ticks * per_tick)

    @classmethod
    def moving_rows(cls, rate: int, seconds: int) -> "Loop":
        """The loop alone: rows go into a list, and those before them are freed."""
        taken = []

        def take(rows: list) -> None:
            taken.clear()
            for row in rows:
                taken.append(row)

        return cls.run(rate, seconds, take)

    def us_per_row(self, seconds: float) -> float:
        return seconds * 1e6 / self.n_rows


def cpu_of_other_threads() -> float:
    this_thread = time.thread_time()
    return time.process_time() - this_thread


def peak_kib() -> int:
    # Not getrusage's, which is at least what the process had that started this one.
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))


def main(redis_url: str, rate: int, seconds: int) -> None:
    empty = Loop.moving_rows(rate, seconds)
    kib_before = peak_kib()
    producer = Producer(redis_url)

    def record(rows: list) -> None:
        for row in rows:
            producer.rows.append(row)

    warm_up = Loop.run(rate, WARM_UP, record)
    published_before = producer.n_published
    full = Loop.run(rate, seconds, record)
    n_published = producer.n_published - published_before
    peak = peak_kib()
    producer.close()
    if producer.n_published != warm_up.n_rows + full.n_rows:
        sys.exit(f"{producer.n_published} rows of {warm_up.n_rows + full.n_rows} were published")
    # It is six times as long as one of ours, and others are measured on the same Redis.
    producer.redis.unlink(STREAM)
    told = {
        "loop_us": empty.us_per_row(empty.this_thread),
        "record_us": full.us_per_row(full.this_thread - empty.this_thread),
        "threads_us": full.us_per_row(full.other_threads),
        "kib_before": kib_before,
        "peak_kib": peak,
        "rows_per_s": n_published / full.elapsed,
    }
    print(json.dumps(told))


main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
