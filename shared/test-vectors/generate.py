#!/usr/bin/env python3
"""Writes the test vectors beside this file. It shares no code with Passerby: it is a second,
independent writer of the wire format (docs/wire-format.md).

    pip install msgpack && python3 generate.py
"""

import datetime
import hashlib
import json
import pathlib
import struct
import uuid

import msgpack

HERE = pathlib.Path(__file__).parent
STREAM, ENTRY_ID = "passerby:stream:{0}", "1792000000000-7"
KEY = uuid.UUID("019c0f2e-5a00-7cde-8f01-23456789abcd")
T = 1_790_000_000_123_456  # 2026-09-21T14:13:20.123456Z
GENDER_CODES = {"unknown": 0, "male": 1, "female": 2, None: None}


# --- MessagePack, with the choice of float32, float64 or integer in the writer's hand


class F32(float):
    """A float that is written in 32 bits; a plain float takes 64."""


class Raw(bytes):
    """Bytes that are already MessagePack."""


def pack(value):
    packer = msgpack.Packer(use_single_float=isinstance(value, F32))
    if isinstance(value, Raw):
        return bytes(value)
    if isinstance(value, (list, tuple)):
        return packer.pack_array_header(len(value)) + b"".join(map(pack, value))
    if isinstance(value, dict):
        items = b"".join(pack(k) + pack(v) for k, v in value.items())
        return packer.pack_map_header(len(value)) + items
    return packer.pack(value)


def f32(x):
    """The nearest float32, as the number that it is."""
    return None if x is None else struct.unpack(">f", struct.pack(">f", x))[0]


def short(x):
    """A number as the compact form has it: an integer where it is a whole number of 16 bits."""
    if x is None:
        return None
    whole = x == int(x) and -0x8000 <= x <= 0xFFFF and not (x == 0 and str(x)[0] == "-")
    return int(x) if whole else F32(x)


def wrap(x):
    """A signed 64-bit integer, modulo 2^64."""
    return (x + (1 << 63)) % (1 << 64) - (1 << 63)


# --- Rows as columns, and their compact form


def detection(**columns):
    row = {
        "timestamp": T, "session_id": "s1", "camera_id": "cam-1", "channel_id": 0,
        "detection_id": 0, "track_id": None, "confidence": None, "bbox_x": 0.0, "bbox_y": 0.0,
        "bbox_width": 0.0, "bbox_height": 0.0, "gender": None, "gender_confidence": None,
        "frame_number": 0, "degraded": False,
    }
    assert columns.keys() <= row.keys()
    row.update(columns)
    for name in ("confidence", "bbox_x", "bbox_y", "bbox_width", "bbox_height", "gender_confidence"):
        row[name] = f32(row[name])
    return row


def track(**columns):
    row = {
        "session_id": "s1", "camera_id": "cam-1", "track_id": 1, "start_time": T, "end_time": T,
        "detection_count": 0, "avg_confidence": None, "trajectory": [], "gender": None,
        "gender_confidence": None, "degraded": False,
    }
    assert columns.keys() <= row.keys()
    row.update(columns)
    for name in ("avg_confidence", "gender_confidence"):
        row[name] = f32(row[name])
    row["trajectory"] = [[ms, f32(x), f32(y)] for ms, x, y in row["trajectory"]]
    return row


def session(**columns):
    row = {"session_id": "s1", "started_at": None, "ended_at": None, "source": None}
    assert columns.keys() <= row.keys()
    return row | columns


def grouped(rows, *names):
    groups = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in names), []).append(row)
    return groups.items()


def compact_detections(rows):
    groups = []
    for head, members in grouped(rows, "session_id", "camera_id", "channel_id"):
        timestamp = detection_id = frame_number = 0
        out = []
        for r in members:
            fields = [
                wrap(r["timestamp"] - timestamp), wrap(r["detection_id"] - detection_id),
                r["track_id"], short(r["confidence"]), short(r["bbox_x"]), short(r["bbox_y"]),
                short(r["bbox_width"]), short(r["bbox_height"]), GENDER_CODES[r["gender"]],
                short(r["gender_confidence"]), wrap(r["frame_number"] - frame_number),
            ]
            out.append(fields + [True] if r["degraded"] else fields)
            timestamp, detection_id = r["timestamp"], r["detection_id"]
            frame_number = r["frame_number"]
        groups.append([*head, out])
    return groups


def compact_tracks(rows):
    groups = []
    for head, members in grouped(rows, "session_id", "camera_id"):
        out = []
        for r in members:
            fields = [
                r["track_id"], r["start_time"], r["end_time"] - r["start_time"],
                r["detection_count"], short(r["avg_confidence"]), GENDER_CODES[r["gender"]],
                short(r["gender_confidence"]),
                [n for ms, x, y in r["trajectory"] for n in (ms, short(x), short(y))],
            ]
            out.append(fields + [True] if r["degraded"] else fields)
        groups.append([*head, out])
    return groups


def compact_sessions(rows):
    return [[r["session_id"], r["started_at"], r["ended_at"], r["source"]] for r in rows]


COMPACT = {"d": compact_detections, "t": compact_tracks, "s": compact_sessions}


# --- Vectors


def derived_key(stream, entry_id):
    name = b"".join(
        part + struct.pack(">Q", len(part))
        for part in (b"entry", stream.encode(), entry_id.encode())
    )
    namespace = uuid.uuid5(uuid.NAMESPACE_OID, "passerby")
    return uuid.UUID(bytes=hashlib.sha1(namespace.bytes + name).digest()[:16], version=5)


def vector(name, description, fields, **expected):
    return {
        "name": name,
        "description": description,
        "canonical": expected.pop("canonical", False),
        "stream": STREAM,
        "entry_id": ENTRY_ID,
        "fields": [[name, bytes(value).hex()] for name, value in fields],
        "expected": expected,
    }


def bad_row(row_idx, field, problem):
    return {"row_idx": row_idx, "field": field, "problem": problem}


def at(row_idx, row):
    return {"row_idx": row_idx, **row}


def entry(kind, payload):
    """The fields as Passerby's own producer sends them."""
    return [("v", b"1"), ("k", kind.encode()), ("i", KEY.bytes), ("p", pack(payload))]


def canonical(name, description, kind, rows):
    return vector(
        name, description, entry(kind, COMPACT[kind](rows)), canonical=True,
        kind=kind, key=str(KEY), rows=[at(i, r) for i, r in enumerate(rows)], bad_rows=[],
    )


def payload(name, description, kind, payload, rows=(), bad_rows=()):
    """Any other payload, with the fields of Passerby's own producer."""
    return vector(
        name, description, entry(kind, payload),
        kind=kind, key=str(KEY), rows=list(rows), bad_rows=list(bad_rows),
    )


def broken(name, description, fields, error):
    return vector(name, description, fields, error=error)


def detections():
    box = {"bbox_x": 412, "bbox_y": 96, "bbox_width": 61, "bbox_height": 180}
    full = {"track_id": 17, "confidence": 0.9, "gender": "female", "gender_confidence": 0.75}
    good = compact_detections([detection(detection_id=i, **box) for i in range(3)])

    def changed(row_idx, *changes):
        rows = [list(row) for row in good[0][3]]
        for position, value in changes:
            rows[row_idx][position] = value
        return [[*good[0][:3], rows]]

    def kept(*indices):
        return [at(i, detection(detection_id=i, **box)) for i in indices]

    yield canonical("one-row", "One row, every field given.", "d",
                    [detection(detection_id=5, frame_number=900, channel_id=2, **box, **full)])
    yield canonical("nothing-but-the-box", "What was not measured is nil.", "d", [detection(**box)])
    yield canonical(
        "several-groups",
        "Rows of three sources. Differences begin anew in each group, and are negative where the "
        "order in the buffer is not that of time.", "d",
        [
            detection(detection_id=100, frame_number=10, **box, **full),
            detection(detection_id=99, frame_number=9, timestamp=T - 40_000, **box, **full),
            detection(detection_id=101, frame_number=12, timestamp=T + 80_000, **box, **full),
            detection(camera_id="cam-2", detection_id=1, frame_number=10, **box),
            detection(camera_id="cam-2", channel_id=-1, detection_id=2, track_id=-3, **box),
            detection(session_id="s2", detection_id=70_000, frame_number=1 << 33, **box),
        ])
    yield canonical(
        "float32-and-whole-pixels",
        "Whole numbers from -32768 to 65535 are integers; everything else, -0.0 too, is float32.",
        "d",
        [
            detection(bbox_x=-32_768, bbox_y=65_535, bbox_width=412.5, bbox_height=0.1),
            detection(bbox_x=-32_769, bbox_y=65_536, bbox_width=3.4e38, bbox_height=1e-40),
            detection(bbox_x=-0.0, bbox_y=-3, confidence=1, gender_confidence=0, gender="male"),
        ])
    yield canonical("genders", "0 unknown, 1 male, 2 female, nil not classified.", "d",
                    [detection(gender=g, **box) for g in ("unknown", "male", "female", None)])
    yield canonical("degraded", "A twelfth element, only where it is true.", "d",
                    [detection(degraded=i == 1, detection_id=i, **box) for i in range(3)])
    yield canonical(
        "wrapping-differences",
        "Differences wrap modulo 2^64, so that any two 64-bit ids may follow one another.", "d",
        [detection(detection_id=d, frame_number=f, track_id=t, **box)
         for d, f, t in [((1 << 63) - 1, -(1 << 63), 0), (-(1 << 63), (1 << 63) - 1, -(1 << 63)),
                         (0, 0, (1 << 63) - 1)]])
    yield canonical("limits", "The first and the last microsecond; ids of 64 bytes; 32-bit channels.",
                    "d", [
        detection(timestamp=946_684_800_000_000, session_id="s" * 64, channel_id=-(1 << 31), **box),
        detection(timestamp=4_102_444_799_999_999, camera_id="\u00e9" * 32,
                  channel_id=(1 << 31) - 1, **box),
    ])
    yield canonical("no-rows", "An empty array is an entry without rows.", "d", [])

    [session_id, camera_id, channel_id, rows] = good[0]
    yield payload("unknown-trailing-elements",
                  "Elements after the known ones, in rows and in groups, are passed over.", "d",
                  [[session_id, camera_id, channel_id,
                    [row + [False, "later", [1, {"x": None}]] for row in rows], {"later": [1.5]}, 7]],
                  kept(0, 1, 2))
    yield payload("other-widths",
                  "Wider integers and floats than needed mean the same.", "d",
                  [[session_id, 1, Raw(b"\xd3" + bytes(8)), [
                      [Raw(b"\xcf" + struct.pack(">Q", T)), 0.0, None, 0.5, 412.0, F32(96), 61, 180,
                       "F", None, Raw(b"\xd1\x00\x05"), False]]]],
                  [at(0, detection(camera_id="1", confidence=0.5, gender="female", frame_number=5,
                                   **box))])
    yield payload("bad-row-among-good",
                  "The second row has a negative width; the third still counts from it.", "d",
                  changed(1, (6, -4)), kept(0, 2), [bad_row(1, "bbox_width", "-4 is negative")])
    yield payload("bad-rows-of-every-sort", "A wrong type costs its row alone.", "d",
                  [[session_id, camera_id, channel_id, [
                      changed(0, (3, 1.5))[0][3][0],
                      changed(1, (9, "high"))[0][3][1],
                      changed(1, (4, F32("inf")))[0][3][1],
                      changed(1, (5, None))[0][3][1],
                      changed(1, (8, 9))[0][3][1],
                      changed(1, (2, [1, 2]))[0][3][1],
                      rows[1],
                  ]]],
                  kept(6),
                  [bad_row(0, "confidence", "1.5 is outside 0…1"),
                   bad_row(1, "gender_confidence", "is a string, expected a number"),
                   bad_row(2, "bbox_x", "inf is not a finite number"),
                   bad_row(3, "bbox_y", "is missing"),
                   bad_row(4, "gender", "9 is none of 0 unknown, 1 male, 2 female"),
                   bad_row(5, "track_id", "is an array, expected an integer")])
    yield payload("bad-source", "Every row of a group whose camera cannot be stored; others can.", "d",
                  [[session_id, "c" * 65, 0, rows[:2]], [session_id, camera_id, 0, rows[:1]]],
                  [at(2, detection(**box))],
                  [bad_row(i, "camera_id", "is 65 bytes long, at most 64 are allowed")
                   for i in range(2)])
    yield broken("difference-of-a-wrong-type",
                 "Later rows count from it, so that the entry cannot be read.",
                 entry("d", changed(1, (0, "now"))),
                 "the payload at byte 37 is not as documented: timestamp: is a string, expected an "
                 "integer")
    yield broken("row-too-short", "A row has at least eleven elements.",
                 entry("d", [[session_id, camera_id, channel_id, [rows[0][:10]]]]),
                 "the payload at byte 13 is not as documented: a row of 10 elements, expected 11")
    yield broken("bytes-after-the-end", "Nothing follows the array.",
                 entry("d", Raw(pack(good) + b"\xc0")),
                 f"the payload at byte {len(pack(good))} is not as documented: bytes follow after "
                 "the last row")
    yield broken("cut-off", "A payload that ends within a value.",
                 entry("d", Raw(pack(good)[:-1])),
                 f"malformed MessagePack at byte {len(pack(good)) - 1}: ends within a value")


def tracks():
    full = {"start_time": T, "end_time": T + 2_000_000, "detection_count": 50,
            "avg_confidence": 0.8, "gender": "male", "gender_confidence": 0.9}
    yield canonical("one-track", "Offsets are milliseconds since the track's start.", "t", [
        track(track_id=17, **full, trajectory=[[0, 412, 96.5], [40, 413.25, 96], [4294967295, -1, 0]]),
    ])
    yield canonical("several-groups", "Groups by session and camera.", "t", [
        track(track_id=1, **full), track(track_id=-2, degraded=True),
        track(track_id=1, camera_id="cam-2"), track(track_id=(1 << 63) - 1, session_id="s2"),
    ])
    yield payload("nil-trajectory-and-later-elements",
                  "No trajectory may be nil; elements after the known ones are passed over.", "t",
                  [["s1", "cam-1", [[1, T, 0, 0, None, None, None, None, False, "later"]], "later"]],
                  [at(0, track())])
    yield payload("bad-rows-among-good", "Nothing in a track depends on the one before.", "t",
                  [["s1", "cam-1", [
                      [1, T, 0, 0, None, None, None, []],
                      [2, T, -1, 0, None, None, None, []],
                      [3, 12, 0, 0, None, None, None, []],
                      [4, T, 0, -5, None, None, None, []],
                      [5, T, 0, 0, None, None, None, [0, 1]],
                      [6, T, 0, 0, None, None, None, [-1, 0, 0]],
                      ["7", T, 0, 0, None, None, None, []],
                      [8, T, 0, 0, None, 2, None, []],
                  ]]],
                  [at(0, track()), at(7, track(track_id=8, gender="female"))],
                  [bad_row(1, "end_time", "is before start_time"),
                   bad_row(2, "start_time",
                           "1970-01-01T00:00:00Z is outside 2000…2100 (a number means microseconds "
                           "since 1970)"),
                   bad_row(3, "detection_count", "-5 is negative"),
                   bad_row(4, "trajectory",
                           "its length is no multiple of 3: expected [offset ms, x, y, …]"),
                   bad_row(5, "trajectory", "has an offset outside 0…2³² ms"),
                   bad_row(6, "track_id", "is a string, expected an integer")])
    yield payload("plain", "Tracks as maps; what is left out is empty.", "t",
                  [{"camera_id": 7, "track_id": 1, "start_time": "2026-09-21T14:13:20.123456Z",
                    "end_time": T + 1.0, "trajectory": [0, 1.5, 2], "gender": "F", "later": 1},
                   {"camera_id": 7, "track_id": 2, "start_time": T}],
                  [at(0, track(session_id="default", camera_id="7", end_time=T + 1, gender="female",
                               trajectory=[[0, 1.5, 2]]))],
                  [bad_row(1, "end_time", "is missing")])


def sessions():
    yield canonical("sessions", "An announcement, an end, and one that says next to nothing.", "s", [
        session(started_at=T, source="rtsp://camera-1/stream"), session(ended_at=T + 1),
        session(session_id="s2"),
    ])
    yield payload("plain-and-compact", "Each row tells its form; times as in the plain form.", "s",
                  [{"session_id": 5, "started_at": "2026-09-21T14:13:20.123456Z", "later": []},
                   ["s1", None, T, None, "later"],
                   {"source": "lobby"},
                   17,
                   ["s1", None, None, "a\0b"],
                   {"session_id": "s1", "source": "x" * 1025}],
                  [at(0, session(session_id="5", started_at=T)), at(1, session(ended_at=T))],
                  [bad_row(2, "session_id", "is missing"),
                   bad_row(3, "row", "is an integer, expected a map"),
                   bad_row(4, "source", "contains a NUL character, which Postgres cannot store"),
                   bad_row(5, "source", "is 1025 bytes long, at most 1024")])


def plain():
    box = {"bbox_x": 412.0, "bbox_y": 96.0, "bbox_width": 61.0, "bbox_height": 180.0}

    def minimal(name, description, rows, payload):
        return vector(name, description, [("p", pack(payload))], kind="d",
                      key=str(derived_key(STREAM, ENTRY_ID)), rows=rows, bad_rows=[])

    def row(row_idx=0, **columns):
        return at(row_idx, detection(**{"session_id": "default", "detection_id": row_idx,
                                        "camera_id": "lobby", **box, **columns}))

    yield minimal("minimal", "The least a stranger may send: one field, four box columns, a time, a "
                  "camera.", [row(0), row(1, timestamp=T + 40_000)],
                  [{"timestamp": T, "camera_id": "lobby", **box},
                   {"timestamp": T + 40_000, "camera_id": "lobby", **box}])
    yield minimal("python", "Python: float64, integers for floats, a number as camera, M and F.",
                  [row(camera_id="3", confidence=0.87, track_id=9, gender="male",
                       gender_confidence=1.0, bbox_x=412.3),
                   row(1, camera_id="3", gender="female")],
                  [{"timestamp": T, "camera_id": 3, "confidence": 0.87, "track_id": 9, "gender": "M",
                    "gender_confidence": 1, **box, "bbox_x": 412.3},
                   {"timestamp": T, "camera_id": 3, "gender": "F", **box,
                    "bbox_width": 61, "bbox_height": 180}])
    yield minimal("javascript", "JavaScript: whole numbers as integers, large ones as float64.",
                  [row(channel_id=2, detection_id=1 << 40, frame_number=7)],
                  [{"timestamp": float(T), "camera_id": "lobby", "channel_id": 2.0,
                    "detection_id": float(1 << 40), "frame_number": 7.0,
                    "bbox_x": 412, "bbox_y": 96, "bbox_width": 61, "bbox_height": 180}])
    utc = datetime.timezone.utc
    moment = datetime.datetime(2026, 9, 21, 14, 13, 20, 123_456, utc)
    extension = [
        Raw(b"\xd6\xff" + struct.pack(">I", T // 1_000_000)),
        Raw(msgpack.packb(msgpack.Timestamp.from_datetime(moment))),
        Raw(b"\xc7\x0c\xff" + struct.pack(">Iq", 123_456_789, T // 1_000_000)),
    ]
    times = [
        (T, T), (T + 0.25, T), ("2026-09-21T14:13:20.123456Z", T),
        ("2026-09-21T16:13:20.123456+02:00", T), (moment.isoformat(), T),
        (b"2026-09-21T14:13:20.123456Z", T), ("2026-09-21T14:13:20.123456999Z", T),
        (extension[0], T - 123_456), (extension[1], T), (extension[2], T),
    ]
    yield minimal("times", "Microseconds, RFC 3339, and MessagePack's timestamp in 32, 64 and 96 bits.",
                  [row(i, timestamp=us) for i, (_, us) in enumerate(times)],
                  [{"timestamp": written, "camera_id": "lobby", **box} for written, _ in times])
    genders = ["male", "FEMALE", "Unknown", "m", "f", "U", 0, 1, 2, b"M"]
    read = ["male", "female", "unknown"]
    yield minimal("genders", "Names and initials in any case, and the numbers of the compact form.",
                  [row(i, gender=read["mfu".index(g)]) for i, g in enumerate("mfumfuumfm")],
                  [{"timestamp": T, "camera_id": "lobby", "gender": g, **box} for g in genders])
    yield minimal("unknown-and-nil", "Unknown keys are passed over; what is nil counts as left out.",
                  [row(degraded=True)],
                  [{"timestamp": T, "camera_id": "lobby", "session_id": None, "channel_id": None,
                    "detection_id": None, "track_id": None, "confidence": None, "gender": None,
                    "gender_confidence": None, "frame_number": None, "degraded": True, **box,
                    "class": "person", "keypoints": [[1.5, 2], {"x": None}], 7: 8}])
    good = {"timestamp": T, "camera_id": "lobby", **box}
    bad = [
        ({**good, "camera_id": None}, "camera_id", "is missing"),
        ({k: v for k, v in good.items() if k != "bbox_width"}, "bbox_width", "is missing"),
        ({**good, "timestamp": 1_790_000_000}, "timestamp",
         "1970-01-01T00:29:50Z is outside 2000…2100 (a number means microseconds since 1970)"),
        ({**good, "confidence": float("nan")}, "confidence", "NaN is not a finite number"),
        ({**good, "camera_id": ""}, "camera_id", "is empty"),
        ({**good, "session_id": "a\0b"}, "session_id",
         "contains a NUL character, which Postgres cannot store"),
        ({**good, "channel_id": 1 << 31}, "channel_id", "2147483648 does not fit into 32 bits"),
        ({**good, "track_id": (1 << 64) - 1}, "track_id",
         "18446744073709551615 does not fit into 64 bits with a sign"),
        ({**good, "track_id": 0.5}, "track_id", "0.5 is not a whole number"),
        ({**good, "frame_number": F32(1 << 25)}, "frame_number",
         "33554432.0 is too large to be exact as a float: send an integer"),
        ({**good, "bbox_x": 1e300}, "bbox_x", "1e300 does not fit into a 32-bit float"),
        ({**good, "gender": "person"}, "gender", "`person` is none of male, female, unknown, M, F"),
        ({**good, "camera_id": b"\xff"}, "camera_id", "is not UTF-8"),
        ({**good, "degraded": 1}, "degraded", "is an integer, expected a boolean"),
        (None, "row", "is nil, expected a map"),
        ("row", "row", "is a string, expected a map"),
    ]
    rows = [r for row, _, _ in bad for r in (row, good)]
    yield payload("bad-rows-among-good", "Every second row is bad, the others are stored.", "d", rows,
                  [row(i) for i in range(1, len(rows), 2)],
                  [bad_row(2 * i, field, problem) for i, (_, field, problem) in enumerate(bad)])
    yield broken("a-map-alone", "Also a single row stands in an array.", [("p", pack(good))],
                 "the payload at byte 0 is not as documented: a map, expected an array of rows")


def entries():
    good = [("p", pack(compact_detections([detection()])))]
    expected = {"kind": "d", "rows": [at(0, detection())], "bad_rows": []}
    yield vector("nothing-but-a-payload", "Detections, with a derived key.", good,
                 key=str(derived_key(STREAM, ENTRY_ID)), **expected)
    yield vector("key-as-text", "A UUID as text is the same key; unknown fields are passed over.",
                 [("i", str(KEY).encode()), *good, ("later", b"x"),
                  ("tp", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")],
                 key=str(KEY), **expected)
    yield broken("version-too-new", "Also where the kind and the key make no sense yet.",
                 [("k", b"x"), ("i", b"y"), ("v", b"3")],
                 "wire version 3 is newer than this worker, which reads up to 1")
    yield broken("no-version", "A version is a number from 1.", [("v", b"one"), *good],
                 "`one` is no wire version")
    yield broken("unknown-kind", "A kind is one of three letters.", [("k", b"x"), *good],
                 "kind `x` is none of d, t, s")
    yield broken("bad-key", "A key is never guessed at.", [("i", b"12345"), *good],
                 "the idempotency key has 5 bytes: expected 16 bytes, or a UUID as text")
    yield broken("no-payload", "The payload is the one field that must be there.", [("v", b"1")],
                 "the entry has no payload: field `p` is missing")
    yield broken("not-messagepack", "JSON by mistake: `[` is the integer 91.", [("p", b"[{}]")],
                 "the payload at byte 0 is not as documented: an integer, expected an array of rows")
    yield broken("lengths-are-not-believed", "An array of 2^32 - 1 rows in five bytes.",
                 [("p", b"\xdd\xff\xff\xff\xff")],
                 "malformed MessagePack at byte 5: announces more elements than the payload has bytes")


def shards():
    for camera_id in ("", "a", "cam-1", "lobby", "3", "\u00e9tage"):
        digest = 0xCBF29CE484222325
        for byte in camera_id.encode():
            digest = (digest ^ byte) * 0x100000001B3 % (1 << 64)
        yield {"id": camera_id, "fnv1a_64": f"{digest:016x}",
               "shards": {str(n): digest % n for n in (1, 2, 4, 7, 65535)}}


def keys():
    for stream, entry_id in [(STREAM, ENTRY_ID), ("passerby:stream:{0}", "1792000000000-0"),
                             ("site-b:stream:{12}", "0-1"), ("x", "18446744073709551615-0")]:
        yield {"stream": stream, "entry_id": entry_id, "key": str(derived_key(stream, entry_id))}


for make in (detections, tracks, sessions, plain, entries, shards, keys):
    path = HERE / f"{make.__name__}.json"
    path.write_text(json.dumps(list(make()), indent=1, ensure_ascii=False) + "\n")
