//! The committed test vectors, written by an independent encoder (`test-vectors/generate.py`), decode
//! to what they say; where they are canonical, our encoder writes the same bytes.

#![expect(clippy::unwrap_used, reason = "a test panics where it fails")]

use std::{num::NonZeroU16, path::Path};

use chrono::DateTime;
use passerby_shared::{
    Detection, DetectionRef, EntryId, Gender, IdempotencyKey, Session, StreamKey, Track,
    TrajectoryPoint, shard_of,
    wire::{
        self, BadRow, EntryFields, Kind, Undecodable, decode_detections, decode_sessions,
        decode_tracks,
    },
};
use serde_json::{Value, json};

#[test]
fn detections_decode_as_the_vectors_say() {
    check_file("detections.json", 18);
}

#[test]
fn tracks_decode_as_the_vectors_say() {
    check_file("tracks.json", 5);
}

#[test]
fn sessions_decode_as_the_vectors_say() {
    check_file("sessions.json", 2);
}

#[test]
fn the_plain_form_of_strangers_decodes_as_the_vectors_say() {
    check_file("plain.json", 8);
}

#[test]
fn entries_are_read_or_refused_as_the_vectors_say() {
    check_file("entries.json", 9);
}

#[test]
fn cameras_have_the_shards_that_the_vectors_say() {
    for vector in read("shards.json") {
        let id = text(&vector["id"]);
        for (shards, shard) in vector["shards"].as_object().unwrap() {
            let shards: NonZeroU16 = shards.parse().unwrap();
            assert_eq!(json!(shard_of(id, shards)), *shard, "{id} of {shards}");
        }
    }
}

#[test]
fn keys_are_derived_as_the_vectors_say() {
    for vector in read("keys.json") {
        let stream = StreamKey::from_name(text(&vector["stream"]));
        let entry_id: EntryId = text(&vector["entry_id"]).parse().unwrap();
        assert_eq!(
            IdempotencyKey::derived_from_entry(&stream, entry_id).to_string(),
            text(&vector["key"])
        );
    }
}

fn check_file(name: &str, n_vectors: usize) {
    let vectors = read(name);
    assert_eq!(vectors.len(), n_vectors, "vectors in {name}");
    for vector in vectors {
        let fields: Vec<(&[u8], Vec<u8>)> = list(&vector["fields"])
            .iter()
            .map(|field| (text(&field[0]).as_bytes(), unhex(text(&field[1]))))
            .collect();
        let fields: Vec<(&[u8], &[u8])> = fields.iter().map(|(n, v)| (*n, &v[..])).collect();
        let name = text(&vector["name"]);
        let expected = &vector["expected"];
        match decode(&vector, &fields) {
            Ok(decoded) => assert_eq!(pretty(decoded), pretty(expected.clone()), "{name}"),
            Err(error) => assert_eq!(json!({ "error": error.to_string() }), *expected, "{name}"),
        }
        if vector["canonical"] == true {
            let entry = EntryFields::parse(fields).unwrap();
            let encoded = encode(entry.kind, list(&expected["rows"]));
            assert_eq!(hex(&encoded), hex(entry.payload), "{name}, encoded again");
        }
    }
}

/// What an entry decodes to, in the form of the vectors' `expected`.
fn decode(vector: &Value, fields: &[(&[u8], &[u8])]) -> Result<Value, Undecodable> {
    let entry = EntryFields::parse(fields.iter().copied())?;
    let stream = StreamKey::from_name(text(&vector["stream"]));
    let entry_id = text(&vector["entry_id"]).parse().unwrap();
    let (mut rows, mut bad_rows) = (Vec::new(), Vec::new());
    let mut add = |row_idx: usize, row: Result<Value, BadRow>| match row {
        Ok(mut row) => {
            row["row_idx"] = json!(row_idx);
            rows.push(row);
        }
        Err(BadRow { invalid, .. }) => bad_rows.push(json!({
            "row_idx": row_idx,
            "field": invalid.field(),
            "problem": invalid.problem(),
        })),
    };
    let n_rows = match entry.kind {
        Kind::Detections => decode_detections(entry.payload, |row_idx, row| {
            add(row_idx, row.map(|row| detection_to_json(&row)));
        }),
        Kind::Tracks => decode_tracks(entry.payload, |row_idx, row| {
            add(row_idx, row.map(|row| track_to_json(&row)));
        }),
        Kind::Sessions => decode_sessions(entry.payload, |row_idx, row| {
            add(row_idx, row.map(|row| session_to_json(&row)));
        }),
    }?;
    assert_eq!(n_rows, rows.len() + bad_rows.len());
    Ok(json!({
        "kind": entry.kind.as_str(),
        "key": entry.key_or_derived(&stream, entry_id).to_string(),
        "rows": rows,
        "bad_rows": bad_rows,
    }))
}

fn encode(kind: Kind, rows: &[Value]) -> Vec<u8> {
    let mut out = Vec::new();
    match kind {
        Kind::Detections => {
            let rows: Vec<Detection> = rows.iter().map(detection_from_json).collect();
            wire::encode_detections(&rows, &mut out);
        }
        Kind::Tracks => {
            let rows: Vec<Track> = rows.iter().map(track_from_json).collect();
            wire::encode_tracks(&rows, &mut out);
        }
        Kind::Sessions => {
            let rows: Vec<Session> = rows.iter().map(session_from_json).collect();
            wire::encode_sessions(&rows, &mut out);
        }
    }
    out
}

fn detection_to_json(d: &DetectionRef<'_>) -> Value {
    json!({
        "timestamp": d.timestamp_us,
        "session_id": d.session_id,
        "camera_id": d.camera_id,
        "channel_id": d.channel_id,
        "detection_id": d.detection_id,
        "track_id": d.track_id,
        "confidence": d.confidence.map(f64::from),
        "bbox_x": f64::from(d.bbox[0]),
        "bbox_y": f64::from(d.bbox[1]),
        "bbox_width": f64::from(d.bbox[2]),
        "bbox_height": f64::from(d.bbox[3]),
        "gender": d.gender.map(Gender::as_str),
        "gender_confidence": d.gender_confidence.map(f64::from),
        "frame_number": d.frame_number,
        "degraded": d.degraded,
    })
}

fn detection_from_json(row: &Value) -> Detection {
    Detection {
        timestamp: DateTime::from_timestamp_micros(row["timestamp"].as_i64().unwrap()).unwrap(),
        session_id: text(&row["session_id"]).to_owned(),
        camera_id: text(&row["camera_id"]).to_owned(),
        channel_id: row["channel_id"].as_i64().unwrap().try_into().unwrap(),
        detection_id: row["detection_id"].as_i64().unwrap(),
        track_id: row["track_id"].as_i64(),
        confidence: float(&row["confidence"]),
        bbox_x: float(&row["bbox_x"]).unwrap(),
        bbox_y: float(&row["bbox_y"]).unwrap(),
        bbox_width: float(&row["bbox_width"]).unwrap(),
        bbox_height: float(&row["bbox_height"]).unwrap(),
        gender: row["gender"].as_str().map(|g| g.parse().unwrap()),
        gender_confidence: float(&row["gender_confidence"]),
        frame_number: row["frame_number"].as_i64().unwrap(),
        degraded: row["degraded"].as_bool().unwrap(),
    }
}

fn track_to_json(t: &Track) -> Value {
    let points: Vec<Value> = t
        .trajectory
        .iter()
        .map(|p| json!([p.offset_ms, f64::from(p.x), f64::from(p.y)]))
        .collect();
    json!({
        "session_id": t.session_id,
        "camera_id": t.camera_id,
        "track_id": t.track_id,
        "start_time": t.start_time.timestamp_micros(),
        "end_time": t.end_time.timestamp_micros(),
        "detection_count": t.detection_count,
        "avg_confidence": t.avg_confidence.map(f64::from),
        "trajectory": points,
        "gender": t.gender.map(Gender::as_str),
        "gender_confidence": t.gender_confidence.map(f64::from),
        "degraded": t.degraded,
    })
}

fn track_from_json(row: &Value) -> Track {
    let time = |name: &str| DateTime::from_timestamp_micros(row[name].as_i64().unwrap()).unwrap();
    Track {
        session_id: text(&row["session_id"]).to_owned(),
        camera_id: text(&row["camera_id"]).to_owned(),
        track_id: row["track_id"].as_i64().unwrap(),
        start_time: time("start_time"),
        end_time: time("end_time"),
        detection_count: row["detection_count"].as_i64().unwrap(),
        avg_confidence: float(&row["avg_confidence"]),
        trajectory: list(&row["trajectory"])
            .iter()
            .map(|point| TrajectoryPoint {
                offset_ms: point[0].as_u64().unwrap().try_into().unwrap(),
                x: float(&point[1]).unwrap(),
                y: float(&point[2]).unwrap(),
            })
            .collect(),
        gender: row["gender"].as_str().map(|g| g.parse().unwrap()),
        gender_confidence: float(&row["gender_confidence"]),
        degraded: row["degraded"].as_bool().unwrap(),
    }
}

fn session_to_json(s: &Session) -> Value {
    json!({
        "session_id": s.session_id,
        "started_at": s.started_at.map(|t| t.timestamp_micros()),
        "ended_at": s.ended_at.map(|t| t.timestamp_micros()),
        "source": s.source,
    })
}

fn session_from_json(row: &Value) -> Session {
    let time = |name: &str| row[name].as_i64().and_then(DateTime::from_timestamp_micros);
    Session {
        session_id: text(&row["session_id"]).to_owned(),
        started_at: time("started_at"),
        ended_at: time("ended_at"),
        source: row["source"].as_str().map(str::to_owned),
    }
}

fn read(name: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("test-vectors")
        .join(name);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the vectors hold exact 32-bit floats"
)]
fn float(value: &Value) -> Option<f32> {
    value.as_f64().map(|value| value as f32)
}

/// The value as text, with floats as the 32-bit floats they are: `serde_json` reads some of them one
/// bit too small or too great in 64 bits.
fn pretty(mut value: Value) -> String {
    fn narrow(value: &mut Value) {
        match value {
            Value::Number(number) if number.is_f64() => *value = json!(float(value)),
            Value::Array(elements) => elements.iter_mut().for_each(narrow),
            Value::Object(members) => members.values_mut().for_each(narrow),
            _ => {}
        }
    }
    narrow(&mut value);
    serde_json::to_string_pretty(&value).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(hex: &str) -> Vec<u8> {
    let (pairs, rest) = hex.as_bytes().as_chunks::<2>();
    assert!(rest.is_empty());
    pairs
        .iter()
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}
