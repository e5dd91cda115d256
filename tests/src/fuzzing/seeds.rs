//! Inputs that a hostile or careless writer would send, for fuzzing to start from.
//!
//! They are made here and not committed as files: some are long, and what each is about can be read.

use serde_json::Value;

use super::{Target, entry::framed, spool};

/// A name, and the bytes.
pub type Seed = (String, Vec<u8>);

pub(super) fn of(target: Target) -> Vec<Seed> {
    match target {
        Target::Payload => payloads(),
        Target::Entry => entries(),
        Target::Mot => texts(MOT, "1,2,3,4,5,6,0.5,-1,-1,-1"),
        Target::Ndjson => texts(NDJSON, BOX),
        Target::Spool => spools(),
    }
}

const VECTORS: [&str; 5] = [
    include_str!("../../../shared/test-vectors/detections.json"),
    include_str!("../../../shared/test-vectors/tracks.json"),
    include_str!("../../../shared/test-vectors/sessions.json"),
    include_str!("../../../shared/test-vectors/plain.json"),
    include_str!("../../../shared/test-vectors/entries.json"),
];

type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// The entries of the test vectors.
fn vectors() -> Vec<(String, Fields)> {
    let mut vectors = Vec::new();
    for file in VECTORS {
        let entries: Vec<Value> = serde_json::from_str(file).unwrap();
        for entry in entries {
            let field = |field: &Value| {
                let name = field[0].as_str().unwrap();
                (name.into(), unhex(field[1].as_str().unwrap()))
            };
            let fields = entry["fields"].as_array().unwrap().iter().map(field);
            let name = entry["name"].as_str().unwrap();
            vectors.push((format!("vector-{name}"), fields.collect()));
        }
    }
    vectors
}

fn unhex(text: &str) -> Vec<u8> {
    text.as_bytes()
        .chunks(2)
        .map(|digits| u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap())
        .collect()
}

/// Values with a length or a depth that is not to be believed, or that no column can hold.
fn values() -> Vec<Seed> {
    let mut values: Vec<Seed> = [
        ("array16", &b"\xdc\xff\xff"[..]),
        ("array32", b"\xdd\xff\xff\xff\xff"),
        ("map16", b"\xde\xff\xff"),
        ("map32", b"\xdf\xff\xff\xff\xff"),
        ("str32", b"\xdb\xff\xff\xff\xff"),
        ("bin32", b"\xc6\xff\xff\xff\xff"),
        ("ext32", b"\xc9\xff\xff\xff\xff\xff"),
        ("array32-of-256-mi", b"\xdd\x10\x00\x00\x00\xc0\xc0"),
        ("reserved", b"\xc1"),
        ("not-utf8", b"\xa3a\xff\xfe"),
        ("surrogate", b"\xa3\xed\xa0\x80"),
        ("nul", b"\xa3a\x00b"),
        ("empty-text", b"\xa0"),
        ("nan32", b"\xca\x7f\xc0\x00\x00"),
        ("inf32", b"\xca\x7f\x80\x00\x00"),
        ("minus-inf64", b"\xcb\xff\xf0\x00\x00\x00\x00\x00\x00"),
        ("max64", b"\xcb\x7f\xef\xff\xff\xff\xff\xff\xff"),
        ("minus-zero", b"\xca\x80\x00\x00\x00"),
        ("u64-max", b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff"),
        ("i64-min", b"\xd3\x80\x00\x00\x00\x00\x00\x00\x00"),
        (
            "timestamp96",
            b"\xc7\x0c\xff\xff\xff\xff\xff\x7f\xff\xff\xff\xff\xff\xff\xff",
        ),
        ("time-text", b"\xb42026-09-21T12:00:60Z"),
    ]
    .map(|(name, bytes)| (name.to_owned(), bytes.to_vec()))
    .into();
    let deep = |open: &[u8]| [&open.repeat(10_000), &b"\xc0"[..]].concat();
    values.push(("deep-arrays".into(), deep(b"\x91")));
    values.push(("deep-maps".into(), deep(b"\x81\xa1k")));
    values.push(("deep-keys".into(), deep(b"\x81")));
    values.push(("deep-arrays32".into(), deep(b"\xdd\x00\x00\x00\x01")));
    values.push((
        "long-text".into(),
        [&b"\xdb\x00\x01\x00\x00"[..], &[b'x'; 65_536]].concat(),
    ));
    values
}

fn payloads() -> Vec<Seed> {
    let mut seeds = vec![("empty".to_owned(), Vec::new())];
    for (name, fields) in vectors() {
        for (field, value) in fields {
            if field == b"p" {
                seeds.push((name.clone(), value));
            }
        }
    }
    for (name, value) in values() {
        // Alone, as a row, as each part of a group and of a row, as each column of a map.
        let mut places: Vec<(String, Vec<u8>)> = vec![
            ("is".into(), Vec::new()),
            ("row".into(), b"\x91".to_vec()),
            ("session-of-group".into(), b"\x91\x94".to_vec()),
            ("camera-of-group".into(), b"\x91\x94\xa1s".to_vec()),
            ("channel-of-group".into(), b"\x91\x94\xa1s\xa1c".to_vec()),
            ("rows-of-group".into(), b"\x91\x94\xa1s\xa1c\x00".to_vec()),
            ("tracks-of-group".into(), b"\x91\x93\xa1s\xa1c".to_vec()),
            ("key-of-map".into(), b"\x91\x81".to_vec()),
            ("of-unknown-key".into(), b"\x91\x81\xa3hat".to_vec()),
        ];
        for n in 0..13 {
            let row = [b"\x91\x94\xa1s\xa1c\x00\x91\x9d", &b"\x01".repeat(n)[..]].concat();
            places.push((format!("detection-{n}"), row));
        }
        for n in 0..10 {
            let row = [b"\x91\x93\xa1s\xa1c\x91\x9a", &b"\x01".repeat(n)[..]].concat();
            places.push((format!("track-{n}"), row));
        }
        for n in 0..5 {
            let row = [&b"\x91\x95"[..], &b"\x01".repeat(n)].concat();
            places.push((format!("session-{n}"), row));
        }
        for column in COLUMNS {
            let mut map = b"\x91\x81\xd9".to_vec();
            map.push(u8::try_from(column.len()).unwrap());
            map.extend_from_slice(column.as_bytes());
            places.push((format!("of-{column}"), map));
        }
        for (place, mut bytes) in places {
            bytes.extend_from_slice(&value);
            // Enough behind it that the rest of a short row is there.
            bytes.extend_from_slice(&[0x01; 12]);
            seeds.push((format!("{place}-{name}"), bytes));
        }
    }
    // As many rows as there are bytes, all of them bad: one more than an entry may have is too many.
    for n_rows in [9_999_u32, 10_000, 10_001, 1_000_000] {
        let rows = b"\x80".repeat(n_rows as usize);
        let bytes = [&b"\xdd"[..], &n_rows.to_be_bytes(), &rows].concat();
        seeds.push((format!("{n_rows}-empty-maps"), bytes));
    }
    for n_numbers in [49_152_u32, 49_155, 300_000] {
        let mut bytes =
            b"\x91\x93\xa1s\xa1c\x91\x98\x01\xcf\x00\x06\x5b\xfe\xda\x27\xc2\x40".to_vec();
        bytes.extend_from_slice(b"\x00\x01\xc0\xc0\xc0\xdd");
        bytes.extend_from_slice(&n_numbers.to_be_bytes());
        bytes.extend_from_slice(&b"\x01".repeat(n_numbers as usize));
        seeds.push((format!("trajectory-of-{n_numbers}"), bytes));
    }
    seeds
}

const COLUMNS: [&str; 24] = [
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
    "start_time",
    "end_time",
    "detection_count",
    "avg_confidence",
    "trajectory",
    "started_at",
    "ended_at",
    "source",
    "no_column",
];

fn entries() -> Vec<Seed> {
    let mut seeds = vec![
        ("empty".to_owned(), Vec::new()),
        ("gone".to_owned(), vec![16, 8 | 16, 32]),
    ];
    let mut push = |name: String, entries: &[&Fields]| {
        let entries: Vec<Vec<(&[u8], &[u8])>> = entries
            .iter()
            .map(|fields| fields.iter().map(|(n, v)| (&n[..], &v[..])).collect())
            .collect();
        let entries: Vec<&[(&[u8], &[u8])]> = entries.iter().map(|fields| &fields[..]).collect();
        seeds.push((name, framed(&entries)));
    };
    let good: Fields = vectors().swap_remove(0).1;
    for (name, fields) in vectors() {
        push(name.clone(), &[&fields]);
        push(format!("{name}-twice"), &[&fields, &fields]);
        push(format!("{name}-between-good"), &[&good, &fields, &good]);
    }
    for (name, payload) in payloads() {
        for kind in ["d", "t", "s"] {
            let fields = vec![
                (b"k".to_vec(), kind.into()),
                (b"p".to_vec(), payload.clone()),
            ];
            push(format!("{kind}-{name}"), &[&fields]);
        }
    }
    let odd: [(&str, &[u8]); 12] = [
        ("v", b"2"),
        ("v", b"99999999999999999999"),
        ("v", b"-1"),
        ("v", b"\xff\x00"),
        ("v", b""),
        ("k", b"\x00"),
        ("k", b"\xff\xff"),
        ("k", &[b'd'; 5000]),
        ("i", b"fifteen bytes.."),
        ("i", b"019c0f2e-5a00-7cde-8f01-23456789abcd"),
        ("i", &[0xff; 16]),
        ("tp", &[0xff; 55]),
    ];
    for (nth, (name, value)) in odd.into_iter().enumerate() {
        let mut fields = good.clone();
        fields.insert(0, (name.into(), value.to_vec()));
        push(format!("first-{nth}-{name}"), &[&fields]);
        let mut fields: Fields = good
            .iter()
            .filter(|(n, _)| n != name.as_bytes())
            .cloned()
            .collect();
        fields.insert(0, (name.into(), value.to_vec()));
        push(format!("only-{nth}-{name}"), &[&fields, &good]);
    }
    let without_payload: Fields = good.iter().filter(|(n, _)| n != b"p").cloned().collect();
    push("no-payload".into(), &[&without_payload]);
    seeds
}

const BOX: &str = r#"{"frame_number":1,"bbox_x":1,"bbox_y":2,"bbox_width":3,"bbox_height":4}"#;

const MOT: &[&str] = &[
    "1,-1,1,2,3,4",
    "1,1,1,2,3,4,",
    "1,1,1,2,3,4,1,1,1,1,1,1",
    "1.0,2.0,-3.5e1,+4,.5,5.,1e-400",
    "1,1,nan,2,3,4\n1,1,inf,2,3,4\n1,1,-infinity,2,3,4",
    "1,1,1e39,2,3,4\n1,1,1,2,-3,4\n1,1,-0,2,-0.0,4",
    "9223372036854775807,1,1,2,3,4\n9223372036854775808,1,1,2,3,4",
    "0,1,1,2,3,4\n-9223372036854775808,1,1,2,3,4",
    "1,1,1,2,3,4,2.5\n1,1,1,2,3,4,-7\n1,1,1,2,3,4,-1",
    "1;1;1;2;3;4",
    "frame,id,left,top,width,height",
    "1\u{a0},1,1,2,3,4\n\u{661},1,1,2,3,4\n\u{202e}1,1,1,2,3,4",
    "\u{1b}[31m,1,1,2,3,4",
];

const NDJSON: &[&str] = &[
    r#"{"timestamp":"2026-09-21T12:00:00Z","session_id":"s","camera_id":7,"channel_id":1,"detection_id":2,"track_id":3,"confidence":0.5,"bbox_x":1,"bbox_y":2,"bbox_width":3,"bbox_height":4,"gender":"F","gender_confidence":1,"frame_number":12,"degraded":true}"#,
    r#"{"timestamp":1790000000123456.25,"camera_id":18446744073709551615,"bbox_x":1,"bbox_y":2,"bbox_width":3,"bbox_height":4}"#,
    r#"{"timestamp":1e308,"bbox_x":1e308,"bbox_y":1e999,"bbox_width":-0.0,"bbox_height":-1}"#,
    r#"{"timestamp":null,"frame_number":9223372036854775807,"bbox_x":1,"bbox_y":2,"bbox_width":3,"bbox_height":4}"#,
    r#"{"timestamp":"2026-09-21T12:00:60.999999999+23:59","bbox_x":1,"bbox_y":2,"bbox_width":3,"bbox_height":4}"#,
    r#"{"timestamp":"+262142-12-31T23:59:59Z"}"#,
    r#"{"frame_number":1,"bbox_x":1,"bbox_x":2}"#,
    r#"{"camera_id":"\u0000\ud800","session_id":"\ud83d\ude00"}"#,
    r#"{"camera_id":"\u202e\u001b[31m","frame_number":1,"bbox_x":1,"bbox_y":2,"bbox_width":3,"bbox_height":4}"#,
    r#"{"frame_number":1.5,"bbox_x":NaN}"#,
    r#"{"frame_number":[1,{"a":[{}]}],"hat":{"colour":["red"]}}"#,
    "[1,2,3]\n\"text\"\n17\nnull\ntrue",
    "{\n{}\n{\"\n{\"a\n{\"a\":\n}",
    "{}{}\n{} ,",
];

/// Files with such lines, and with ends and beginnings of all sorts around a good one.
fn texts(lines: &[&str], good: &str) -> Vec<Seed> {
    let mut seeds: Vec<Seed> = lines
        .iter()
        .enumerate()
        .map(|(nth, line)| (format!("line-{nth}"), line.as_bytes().to_vec()))
        .collect();
    let mut push = |name: &str, bytes: Vec<u8>| seeds.push((name.to_owned(), bytes));
    let good = good.as_bytes();
    push("empty", Vec::new());
    push("no-final-newline", good.to_vec());
    push("crlf", [good, b"\r\n", good, b"\r\n\r\n"].concat());
    push("cr", [good, b"\r", good].concat());
    push(
        "bom",
        [b"\xef\xbb\xbf", good, b"\n\xef\xbb\xbf", good].concat(),
    );
    push("utf16", good.iter().flat_map(|&byte| [byte, 0]).collect());
    push("nul", [b"\0", good, b"\0\n\0\n"].concat());
    push(
        "not-utf8",
        [good, b"\xff\xfe\n\xc0\x80\n\xed\xa0\x80"].concat(),
    );
    push("comments", [b"# c\n\n \t#\xff\n", good].concat());
    push("250-lines", [good, b"\n"].concat().repeat(250));
    push("100-bad-lines", b"\x01\n".repeat(100));
    push(
        "200-escapes",
        "\u{1b}\u{1b}\u{1b}\u{1b}\n".repeat(200).into_bytes(),
    );
    let mib = 1024 * 1024;
    push("1-mib-line", [&b"x".repeat(mib), &b"\n"[..], good].concat());
    push("16-mib-line", b"x".repeat(16 * mib));
    push(
        "longer-line",
        [&b"x".repeat(mib + 1), &b"\n"[..], good].concat(),
    );
    push(
        "1-mib-of-spaces",
        [&b" ".repeat(mib - good.len()), good].concat(),
    );
    push("1-mib-of-commas", b",".repeat(mib));
    push(
        "1-mib-of-digits",
        [&b"1,1,"[..], &b"9".repeat(mib - 4)].concat(),
    );
    push("1-mib-of-newlines", b"\n".repeat(mib));
    push(
        "deep-arrays",
        [&b"{\"hat\":"[..], &b"[".repeat(10_000)].concat(),
    );
    push(
        "deep-objects",
        [&b"{"[..], &b"\"a\":{".repeat(10_000)].concat(),
    );
    push(
        "long-number",
        [&b"{\"bbox_x\":"[..], &b"1".repeat(100_000), b"e9}"].concat(),
    );
    push(
        "long-text",
        [&b"{\"camera_id\":\""[..], &b"\\n".repeat(100_000), b"\"}"].concat(),
    );
    push(
        "long-key",
        [&b"{\""[..], &b"\\u0061".repeat(100_000), b"\":1}"].concat(),
    );
    push(
        "many-keys",
        [&b"{"[..], &b"\"a\":1,".repeat(10_000), b"\"b\":2}"].concat(),
    );
    seeds
}

fn spools() -> Vec<Seed> {
    let mut seeds = vec![("empty".to_owned(), Vec::new())];
    let mut push = |name: &str, bytes: Vec<u8>| seeds.push((name.to_owned(), bytes));
    let entry = spool::entry(b'd', 3, b"abc");
    let two = [entry.clone(), spool::entry(b't', 0, b"")].concat();
    let frame = spool::frame(1, [0, 9], 1, &entry);
    let later = spool::frame(1, [10, 11], 2, &two);
    let rows = [detection_row(), track_row(), session_row()];
    let whole = |row: &Vec<u8>| spool::record(u32::try_from(row.len()).unwrap(), row);
    let records: Vec<u8> = rows.iter().flat_map(whole).collect();
    for flags in 0..4 {
        let log = [&frame[..], &later].concat();
        push(
            &format!("line-sound-{flags}"),
            spool::framed(flags, &log, 0, &records),
        );
    }
    let mut log = |name: &str, log: &[u8]| push(name, spool::framed(0, log, 0, &records));
    log(
        "line-damage-between",
        &[&frame[..], &[0xff; 40], &later].concat(),
    );
    log("other-segment", &spool::frame(2, [0, 9], 1, &entry));
    log("numbers-backwards", &[&later[..], &frame].concat());
    log("last-number", &spool::frame(1, [0, u64::MAX], 1, &entry));
    log(
        "all-numbers",
        &spool::frame(1, [0, u64::MAX - 1], 1, &entry),
    );
    log(
        "more-entries-said",
        &spool::frame(1, [0, 9], u32::MAX, &entry),
    );
    log(
        "body-of-4-gib",
        &[b"pbFr\xff\xff\xff\xff", &frame[8..]].concat(),
    );
    log(
        "payload-of-4-gib",
        &spool::frame(1, [0, 9], 1, &spool::entry(b'd', u32::MAX, b"abc")),
    );
    log(
        "empty-entries",
        &spool::frame(1, [0, 9], 1000, &spool::entry(b's', 0, b"").repeat(1000)),
    );
    log("only-magic", &b"pbFr".repeat(1000));
    log("only-heads", &frame[..52].repeat(100));
    let mut ring = |name: &str, tail: u64, records: &[u8]| {
        push(name, spool::framed(0, &frame, tail, records));
    };
    ring("tail-outside", u64::MAX, &records);
    ring("tail-at-the-end", records.len() as u64, &records);
    ring("record-of-4-gib", 0, &spool::record(u32::MAX - 1, &rows[0]));
    ring("wrap-at-the-start", 0, &spool::record(u32::MAX, &rows[0]));
    ring("empty-records", 0, &spool::record(0, b"").repeat(100));
    ring(
        "wrapped",
        records.len() as u64,
        &[&records[..], &spool::record(u32::MAX, b"")].concat(),
    );
    for (nth, row) in rows.iter().enumerate() {
        ring(&format!("line-row-{nth}"), 0, &whole(row).repeat(20));
        // Of lengths that are not to be believed: each four bytes of a row in turn.
        for at in 0..row.len().saturating_sub(3) {
            let mut row = row.clone();
            row[at..at + 4].copy_from_slice(&[0xff; 4]);
            ring(&format!("row-{nth}-of-4-gib-at-{at}"), 0, &whole(&row));
        }
    }
    seeds
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&u32::try_from(text.len()).unwrap().to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

const TIME: [u8; 8] = 1_790_000_000_123_456_i64.to_le_bytes();

fn detection_row() -> Vec<u8> {
    let mut row = [
        &[1, 15, 2][..],
        &TIME,
        &[0; 4],
        &[1; 8],
        &[2; 8],
        &[0; 4],
        &[0; 16],
    ]
    .concat();
    row.extend_from_slice(&[0; 12]);
    text(&mut row, "session");
    text(&mut row, "camera");
    row
}

fn track_row() -> Vec<u8> {
    let mut row = [
        &[2, 7, 1][..],
        &[1; 8],
        &TIME,
        &TIME,
        &[2, 0, 0, 0, 0, 0, 0, 0],
    ]
    .concat();
    row.extend_from_slice(&[0; 8]);
    row.extend_from_slice(&2_u32.to_le_bytes());
    text(&mut row, "session");
    text(&mut row, "camera");
    row.extend_from_slice(&[0; 24]);
    row
}

fn session_row() -> Vec<u8> {
    let mut row = [&[3, 7][..], &TIME, &TIME].concat();
    text(&mut row, "session");
    text(&mut row, "rtsp://camera");
    row
}
