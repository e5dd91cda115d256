"""Drains a stream into Postgres, as a good Python program would.

redis-py with hiredis reads entries, msgpack decodes them, asyncpg writes them by binary COPY (or by
executemany), and entries are acknowledged after the commit. It has neither ledger nor dead letters, and nobody
takes over what it leaves: the way of an entry on a good day, alone.

    drain.py REDIS_URL POSTGRES_URL STREAM TABLE ROWS ENTRIES_PER_READ copy|executemany

Prints one JSON object: seconds and processor seconds from the first read to the last acknowledgement, and the
most memory that it had.
"""

import asyncio
import datetime as dt
import json
import sys
import time

import asyncpg
import msgpack
import redis.asyncio as redis

GROUP, CONSUMER = "peers", "peer"
COLUMNS = [
    "timestamp",
    "session_id",
    "camera_id",
    "channel_id",
    "detection_id",
    "track_id",
    "confidence",
    "bbox_x",
    "bbox_y",
    "bbox_width",
    "bbox_height",
    "gender",
    "gender_confidence",
    "frame_number",
    "degraded",
]


def records(payload: bytes) -> list[tuple]:
    """The rows of an entry, an array of maps."""
    fromtimestamp, utc = dt.datetime.fromtimestamp, dt.timezone.utc
    return [
        (
            fromtimestamp(d["timestamp"] / 1e6, utc),
            d["session_id"],
            d["camera_id"],
            d["channel_id"],
            d["detection_id"],
            d["track_id"],
            d["confidence"],
            d["bbox_x"],
            d["bbox_y"],
            d["bbox_width"],
            d["bbox_height"],
            d["gender"],
            d["gender_confidence"],
            d["frame_number"],
            d["degraded"],
        )
        for d in msgpack.unpackb(payload)
    ]


async def drain(r, pg, stream: str, table: str, n_rows: int, per_read: int, mode: str) -> None:
    marks = ", ".join(f"${n}" for n in range(1, len(COLUMNS) + 1))
    insert = f"INSERT INTO {table} ({', '.join(COLUMNS)}) VALUES ({marks})"
    done = 0
    while done < n_rows:
        reply = await r.xreadgroup(GROUP, CONSUMER, {stream: ">"}, count=per_read, block=1000)
        if not reply:
            sys.exit(f"{done} rows of {n_rows} were in the stream")
        ids, rows = [], []
        for entry_id, fields in reply[0][1]:
            ids.append(entry_id)
            rows.extend(records(fields[b"p"]))
        if mode == "copy":
            await pg.copy_records_to_table(table, records=rows, columns=COLUMNS)
        else:
            await pg.executemany(insert, rows)
        await r.xack(stream, GROUP, *ids)
        done += len(rows)


def peak_kib() -> int:
    # Not getrusage's, which is at least what the process had that started this one.
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))


async def main(redis_url, postgres_url, stream, table, n_rows, per_read, mode) -> None:
    # Replies in the older protocol's shape, whatever the default is.
    r = redis.Redis.from_url(redis_url, protocol=2)
    pg = await asyncpg.connect(postgres_url)
    try:
        await r.xgroup_destroy(stream, GROUP)
        await r.xgroup_create(stream, GROUP, id="0")
        started, cpu_before = time.perf_counter(), time.process_time()
        await drain(r, pg, stream, table, int(n_rows), int(per_read), mode)
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_before
        told = {"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_kib": peak_kib()}
        print(json.dumps(told))
    finally:
        await pg.close()
        await r.aclose()


asyncio.run(main(*sys.argv[1:]))
