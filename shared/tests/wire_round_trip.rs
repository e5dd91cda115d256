//! What holds for any rows and any bytes: rows come back as they went in, garbage never panics, and
//! a bad row never costs its neighbours.

#![expect(clippy::unwrap_used, reason = "a test panics where it fails")]

use chrono::{DateTime, Utc};
use passerby_shared::{
    Detection, EntryId, Gender, IdempotencyKey, Session, StreamKey, Track, TrajectoryPoint,
    wire::{
        BadRow, EntryFields, Kind, Undecodable, decode_detections, decode_sessions, decode_tracks,
        encode_detections, encode_plain_detections, encode_sessions, encode_tracks, key_of,
    },
};
use proptest::{
    collection, option,
    prelude::*,
    sample::{Index, select},
};

proptest! {
    #[test]
    fn detections_come_back_as_they_went_in(detections in collection::vec(detection(), 0..40)) {
        let payload = encoded(encode_detections, &detections);
        let expected = grouped(detections, |d| {
            (d.session_id.clone(), d.camera_id.clone(), d.channel_id)
        });
        prop_assert_eq!(good(Kind::Detections, &payload), rows(expected, Row::Detection));
    }

    #[test]
    fn plain_detections_come_back_as_they_went_in(detections in collection::vec(detection(), 0..20)) {
        let payload = encoded(encode_plain_detections, &detections);
        prop_assert_eq!(good(Kind::Detections, &payload), rows(detections, Row::Detection));
    }

    #[test]
    fn tracks_come_back_as_they_went_in(tracks in collection::vec(track(), 0..20)) {
        let payload = encoded(encode_tracks, &tracks);
        let expected = grouped(tracks, |t| (t.session_id.clone(), t.camera_id.clone()));
        prop_assert_eq!(good(Kind::Tracks, &payload), rows(expected, Row::Track));
    }

    #[test]
    fn sessions_come_back_as_they_went_in(sessions in collection::vec(session(), 0..20)) {
        let payload = encoded(encode_sessions, &sessions);
        prop_assert_eq!(good(Kind::Sessions, &payload), rows(sessions, Row::Session));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in collection::vec(any::<u8>(), 0..300)) {
        for kind in KINDS {
            if let Ok(decoded) = decode(kind, &bytes) {
                check_bad_rows(kind, &decoded)?;
            }
        }
    }

    /// Bytes that are mostly the beginning of something: small arrays, maps and numbers.
    #[test]
    fn arbitrary_messagepack_never_panics(tokens in collection::vec(token(), 0..60)) {
        let bytes = tokens.concat();
        for kind in KINDS {
            if let Ok(decoded) = decode(kind, &bytes) {
                check_bad_rows(kind, &decoded)?;
            }
        }
    }

    #[test]
    fn a_damaged_payload_never_panics(
        (kind, mut payload) in payload(),
        damages in collection::vec((any::<Index>(), any::<u8>()), 1..4),
        cut in option::weighted(0.2, any::<Index>()),
    ) {
        for (at, byte) in damages {
            let at = at.index(payload.len());
            payload[at] = byte;
        }
        if let Some(cut) = cut {
            payload.truncate(cut.index(payload.len()));
        }
        if let Ok(decoded) = decode(kind, &payload) {
            check_bad_rows(kind, &decoded)?;
        }
    }

    #[test]
    fn arbitrary_fields_never_panic(
        fields in collection::vec((
            select(vec!["v", "k", "i", "p", "tp", "x"]),
            collection::vec(any::<u8>(), 0..40),
        ), 0..8),
    ) {
        let fields = fields.iter().map(|(name, value)| (name.as_bytes(), &value[..]));
        let found = key_of(fields.clone());
        if let Ok(entry) = EntryFields::parse(fields) {
            prop_assert_eq!(entry.key, found);
            let stream = StreamKey::from_name("s");
            let derived = IdempotencyKey::derived_from_entry(&stream, EntryId::MIN);
            let key = entry.key_or_derived(&stream, EntryId::MIN);
            prop_assert_eq!(key, found.unwrap_or(derived));
        }
    }

    #[test]
    fn a_bad_detection_leaves_its_neighbours_as_they_are(
        mut detections in collection::vec(detection(), 1..20),
        bad in collection::vec((any::<Index>(), 0..N_DETECTION_FAULTS), 1..5),
    ) {
        for encode in [encode_detections, encode_plain_detections] {
            let unspoilt = decode(Kind::Detections, &encoded(encode, &by_source(&detections)))?;
            let mut spoilt = by_source(&detections);
            let mut faults = vec![None; spoilt.len()];
            for (at, fault) in &bad {
                let at = at.index(spoilt.len());
                if faults[at].is_none() {
                    faults[at] = Some(spoil_detection(&mut spoilt[at], *fault));
                }
            }
            let payload = encoded(encode, &spoilt);
            check_neighbours(Kind::Detections, &payload, &unspoilt, &faults)?;
        }
        // A source that cannot be stored spoils the rows of its group, and no other.
        detections[0].camera_id = "c".repeat(65);
        let decoded = decode(Kind::Detections, &encoded(encode_detections, &detections))?;
        check_bad_rows(Kind::Detections, &decoded)?;
        prop_assert_eq!(decoded.iter().filter(|row| row.is_err()).count(), 1);
    }

    #[test]
    fn a_bad_track_leaves_its_neighbours_as_they_are(
        tracks in collection::vec(track(), 1..20),
        bad in collection::vec((any::<Index>(), 0..N_TRACK_FAULTS), 1..5),
    ) {
        let mut tracks = grouped(tracks, |t| (t.session_id.clone(), t.camera_id.clone()));
        let unspoilt = decode(Kind::Tracks, &encoded(encode_tracks, &tracks))?;
        let mut faults = vec![None; tracks.len()];
        for (at, fault) in &bad {
            let at = at.index(tracks.len());
            if faults[at].is_none() {
                faults[at] = Some(spoil_track(&mut tracks[at], *fault));
            }
        }
        let payload = encoded(encode_tracks, &tracks);
        check_neighbours(Kind::Tracks, &payload, &unspoilt, &faults)?;
    }

    /// Values of any type in any place of a compact row: the row is good or bad, its neighbours stay.
    #[test]
    fn a_value_of_a_wrong_type_costs_its_row_alone(
        detections in collection::vec(detection(), 3),
        position in 2_usize..10,
        wrong in token_alone(),
    ) {
        let mut detections = detections;
        for d in &mut detections {
            (d.session_id, d.camera_id, d.channel_id) = ("s".into(), "c".into(), 0);
            d.degraded = false;
        }
        let unspoilt = decode(Kind::Detections, &encoded(encode_detections, &detections))?;
        let payload = with_field(&encoded(encode_detections, &detections), 1, position, &wrong);
        let decoded = decode(Kind::Detections, &payload)?;
        prop_assert_eq!(decoded.len(), 3);
        prop_assert_eq!(&decoded[0], &unspoilt[0]);
        prop_assert_eq!(&decoded[2], &unspoilt[2]);
        check_bad_rows(Kind::Detections, &decoded)?;
    }
}

#[test]
fn an_entry_of_nothing_but_bad_rows_is_kept_whole() {
    // An array of empty maps, one byte each.
    let payload = |n: u32| {
        let mut payload = vec![0xdd];
        payload.extend(n.to_be_bytes());
        payload.extend(std::iter::repeat_n(0x80, n as usize));
        payload
    };
    for kind in KINDS {
        assert_eq!(decode(kind, &payload(10_000)).unwrap().len(), 10_000);
        let error = decode(kind, &payload(10_001)).unwrap_err().to_string();
        assert!(
            error.contains("more than 10000 rows cannot be stored, the last by"),
            "{error}"
        );
    }
}

#[test]
fn an_endless_id_is_not_copied_for_every_row() {
    let mut row = detection_of("s", &"c".repeat(256));
    let payload = encoded(encode_detections, &[row.clone()]);
    assert!(decode(Kind::Detections, &payload).unwrap()[0].is_err());
    row.camera_id.push('c');
    let payload = encoded(encode_detections, &[row]);
    assert_eq!(
        decode(Kind::Detections, &payload).unwrap_err().to_string(),
        "the payload at byte 4 is not as documented: camera_id: is 257 bytes long, at most 64 are \
         allowed"
    );
}

// --- Decoding

const KINDS: [Kind; 3] = [Kind::Detections, Kind::Tracks, Kind::Sessions];

#[derive(Debug, Clone, PartialEq)]
enum Row {
    Detection(Detection),
    Track(Track),
    Session(Session),
}

type Decoded = Vec<Result<Row, BadRow>>;

fn decode(kind: Kind, payload: &[u8]) -> Result<Decoded, Undecodable> {
    let mut out: Decoded = Vec::new();
    let mut add = |row_idx: usize, row| {
        assert_eq!(row_idx, out.len(), "rows come in order, none left out");
        out.push(row);
    };
    let n_rows = match kind {
        Kind::Detections => decode_detections(payload, |row_idx, row| {
            add(
                row_idx,
                row.map(|d| Row::Detection(d.to_detection().unwrap())),
            );
        }),
        Kind::Tracks => decode_tracks(payload, |row_idx, row| add(row_idx, row.map(Row::Track))),
        Kind::Sessions => {
            decode_sessions(payload, |row_idx, row| add(row_idx, row.map(Row::Session)))
        }
    }?;
    assert_eq!(n_rows, out.len());
    for row in out.iter().flatten() {
        match row {
            Row::Detection(d) => d.validate(),
            Row::Track(t) => t.validate(),
            Row::Session(s) => s.validate(),
        }
        .expect("a row that is handed out can be stored");
    }
    Ok(out)
}

fn good(kind: Kind, payload: &[u8]) -> Vec<Row> {
    let decoded = decode(kind, payload).unwrap();
    decoded.into_iter().map(Result::unwrap).collect()
}

fn encoded<T>(encode: fn(&[T], &mut Vec<u8>), rows: &[T]) -> Vec<u8> {
    let mut payload = Vec::new();
    encode(rows, &mut payload);
    payload
}

fn rows<T>(values: Vec<T>, row: fn(T) -> Row) -> Vec<Row> {
    values.into_iter().map(row).collect()
}

/// The order in which the compact form brings rows: groups as they first appear.
fn grouped<T, K: PartialEq>(values: Vec<T>, key: impl Fn(&T) -> K) -> Vec<T> {
    let mut groups: Vec<(K, Vec<T>)> = Vec::new();
    for value in values {
        let key = key(&value);
        match groups.iter_mut().find(|(k, _)| *k == key) {
            Some((_, group)) => group.push(value),
            None => groups.push((key, vec![value])),
        }
    }
    groups.into_iter().flat_map(|(_, group)| group).collect()
}

fn by_source(detections: &[Detection]) -> Vec<Detection> {
    grouped(detections.to_vec(), |d| {
        (d.session_id.clone(), d.camera_id.clone(), d.channel_id)
    })
}

/// A bad row's own payload is one row, bad for the same reason.
fn check_bad_rows(kind: Kind, decoded: &Decoded) -> Result<(), TestCaseError> {
    for bad in decoded.iter().filter_map(|row| row.as_ref().err()) {
        // Among maps an array is a bad row; alone it would be a group.
        if bad.invalid.field() == "row" && bad.invalid.problem().starts_with("is an array") {
            continue;
        }
        let alone = decode(kind, &bad.payload)?;
        prop_assert_eq!(alone.len(), 1);
        let again = alone[0].as_ref().expect_err("still bad");
        prop_assert_eq!(&again.invalid, &bad.invalid);
    }
    Ok(())
}

fn check_neighbours(
    kind: Kind,
    payload: &[u8],
    unspoilt: &Decoded,
    faults: &[Option<&'static str>],
) -> Result<(), TestCaseError> {
    let decoded = decode(kind, payload)?;
    prop_assert_eq!(decoded.len(), unspoilt.len());
    for ((row, before), fault) in decoded.iter().zip(unspoilt).zip(faults) {
        match fault {
            None => prop_assert_eq!(row, before),
            Some(field) => {
                let bad = row.as_ref().expect_err("spoilt");
                prop_assert_eq!(bad.invalid.field(), *field);
            }
        }
    }
    check_bad_rows(kind, &decoded)
}

const N_DETECTION_FAULTS: u8 = 6;

fn spoil_detection(d: &mut Detection, fault: u8) -> &'static str {
    match fault {
        0 => d.timestamp = DateTime::UNIX_EPOCH,
        1 => d.confidence = Some(1.5),
        2 => d.bbox_x = f32::NAN,
        3 => d.bbox_width = -1.0,
        4 => d.bbox_height = f32::INFINITY,
        _ => d.gender_confidence = Some(-0.5),
    }
    [
        "timestamp",
        "confidence",
        "bbox_x",
        "bbox_width",
        "bbox_height",
        "gender_confidence",
    ][usize::from(fault)]
}

const N_TRACK_FAULTS: u8 = 5;

fn spoil_track(t: &mut Track, fault: u8) -> &'static str {
    match fault {
        0 => t.start_time = DateTime::UNIX_EPOCH,
        1 => t.end_time = t.start_time - chrono::TimeDelta::microseconds(1),
        2 => t.detection_count = -1,
        3 => t.avg_confidence = Some(f32::NAN),
        _ => t.trajectory.push(TrajectoryPoint {
            offset_ms: 0,
            x: f32::NAN,
            y: 0.0,
        }),
    }
    [
        "start_time",
        "end_time",
        "detection_count",
        "avg_confidence",
        "trajectory",
    ][usize::from(fault)]
}

/// A payload of one group with a field of one row replaced. Rows hold nothing but scalars.
fn with_field(payload: &[u8], row: usize, position: usize, value: &[u8]) -> Vec<u8> {
    // [[ "s", "c", 0, [ row… and each row is an array of 11.
    let mut at = 1 + 1 + 2 + 2 + 1 + 1;
    for _ in 0..row {
        at += 1;
        for _ in 0..11 {
            at += scalar_len(&payload[at..]);
        }
    }
    at += 1;
    for _ in 0..position {
        at += scalar_len(&payload[at..]);
    }
    let end = at + scalar_len(&payload[at..]);
    [&payload[..at], value, &payload[end..]].concat()
}

fn scalar_len(bytes: &[u8]) -> usize {
    match bytes[0] {
        0x00..=0x7f | 0xe0..=0xff | 0xc0 => 1,
        0xcc | 0xd0 => 2,
        0xcd | 0xd1 => 3,
        0xca | 0xce | 0xd2 => 5,
        0xcf | 0xd3 => 9,
        other => panic!("{other:#x} begins no number"),
    }
}

// --- What there is to encode

prop_compose! {
    fn time()(us in 946_684_800_000_000_i64..4_102_444_800_000_000) -> DateTime<Utc> {
        DateTime::from_timestamp_micros(us).unwrap()
    }
}

/// Few enough that rows share them, and some at the limits.
fn id() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => "[ab]",
        1 => "[^\0]{1,16}",
        1 => Just("x".repeat(64)),
        1 => Just("é".repeat(32)),
    ]
}

fn fraction() -> impl Strategy<Value = Option<f32>> {
    option::of(prop_oneof![0.0_f32..=1.0, Just(0.0), Just(1.0)])
}

fn pixels() -> impl Strategy<Value = f32> {
    prop_oneof![
        -5000.0_f32..5000.0,
        (-70_000_i32..70_000).prop_map(|x| x as f32),
        any::<f32>().prop_filter("finite", |x| x.is_finite()),
        Just(-0.0),
    ]
}

fn gender() -> impl Strategy<Value = Option<Gender>> {
    option::of(prop_oneof![
        Just(Gender::Male),
        Just(Gender::Female),
        Just(Gender::Unknown)
    ])
}

/// Mostly near one another, sometimes anything.
fn number() -> impl Strategy<Value = i64> {
    prop_oneof![0_i64..1000, any::<i64>(), Just(i64::MIN), Just(i64::MAX)]
}

prop_compose! {
    fn detection()(
        timestamp in time(),
        (session_id, camera_id, channel_id) in
            (id(), id(), prop_oneof![4 => Just(0), 1 => any::<i32>()]),
        (detection_id, track_id, frame_number) in (number(), option::of(number()), number()),
        (bbox_x, bbox_y, width, height) in (pixels(), pixels(), pixels(), pixels()),
        (confidence, gender, gender_confidence) in (fraction(), gender(), fraction()),
        degraded in any::<bool>(),
    ) -> Detection {
        Detection {
            timestamp, session_id, camera_id, channel_id, detection_id, track_id, confidence,
            bbox_x, bbox_y, bbox_width: width.abs(), bbox_height: height.abs(),
            gender, gender_confidence, frame_number, degraded,
        }
    }
}

fn detection_of(session_id: &str, camera_id: &str) -> Detection {
    Detection {
        timestamp: DateTime::from_timestamp(1_790_000_000, 0).unwrap(),
        session_id: session_id.into(),
        camera_id: camera_id.into(),
        channel_id: 0,
        detection_id: 0,
        track_id: None,
        confidence: None,
        bbox_x: 0.0,
        bbox_y: 0.0,
        bbox_width: 1.0,
        bbox_height: 1.0,
        gender: None,
        gender_confidence: None,
        frame_number: 0,
        degraded: false,
    }
}

prop_compose! {
    fn point()(offset_ms in any::<u32>(), x in pixels(), y in pixels()) -> TrajectoryPoint {
        TrajectoryPoint { offset_ms, x, y }
    }
}

prop_compose! {
    fn track()(
        (session_id, camera_id, track_id) in (id(), id(), number()),
        (one, other) in (time(), time()),
        detection_count in 0..=i64::MAX,
        trajectory in collection::vec(point(), 0..10),
        (avg_confidence, gender, gender_confidence) in (fraction(), gender(), fraction()),
        degraded in any::<bool>(),
    ) -> Track {
        Track {
            session_id, camera_id, track_id, start_time: one.min(other), end_time: one.max(other),
            detection_count, avg_confidence, trajectory, gender, gender_confidence, degraded,
        }
    }
}

prop_compose! {
    fn session()(
        session_id in id(),
        started_at in option::of(time()),
        ended_at in option::of(time()),
        source in option::of("[^\0]{0,40}"),
    ) -> Session {
        Session { session_id, started_at, ended_at, source }
    }
}

fn payload() -> impl Strategy<Value = (Kind, Vec<u8>)> {
    prop_oneof![
        collection::vec(detection(), 1..6)
            .prop_map(|d| (Kind::Detections, encoded(encode_detections, &d))),
        collection::vec(detection(), 1..4)
            .prop_map(|d| (Kind::Detections, encoded(encode_plain_detections, &d))),
        collection::vec(track(), 1..6).prop_map(|t| (Kind::Tracks, encoded(encode_tracks, &t))),
        collection::vec(session(), 1..6)
            .prop_map(|s| (Kind::Sessions, encoded(encode_sessions, &s))),
    ]
}

fn token() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => (0x90_u8..0x9d).prop_map(|b| vec![b]),
        2 => (0x80_u8..0x84).prop_map(|b| vec![b]),
        4 => any::<u8>().prop_map(|b| vec![b]),
        2 => prop_oneof![
            Just("timestamp"), Just("camera_id"), Just("bbox_x"), Just("bbox_y"),
            Just("bbox_width"), Just("bbox_height"), Just("track_id"), Just("start_time"),
            Just("end_time"), Just("trajectory"), Just("session_id"),
        ].prop_map(text),
        4 => token_alone(),
    ]
}

/// One whole value of any type.
fn token_alone() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(vec![0xc0]),
        any::<bool>().prop_map(|b| vec![if b { 0xc3 } else { 0xc2 }]),
        any::<i8>().prop_map(|i| vec![0xd0, i.to_be_bytes()[0]]),
        any::<u64>().prop_map(|i| [&[0xcf][..], &i.to_be_bytes()].concat()),
        Just([&[0xcf][..], &1_790_000_000_000_000_u64.to_be_bytes()].concat()),
        any::<f32>().prop_map(|x| [&[0xca][..], &x.to_be_bytes()].concat()),
        any::<f64>().prop_map(|x| [&[0xcb][..], &x.to_be_bytes()].concat()),
        "[a-zA-Z]{0,6}".prop_map(|s| text(&s)),
        Just(vec![0x92, 0xc0, 0x91, 0x01]),
        Just(vec![0x81, 0xa1, b'x', 0x05]),
        Just(vec![0xd6, 0xff, 0x6a, 0xb0, 0, 0]),
    ]
}

fn text(s: &str) -> Vec<u8> {
    let len = u8::try_from(s.len()).unwrap();
    [&[0xd9, len][..], s.as_bytes()].concat()
}
