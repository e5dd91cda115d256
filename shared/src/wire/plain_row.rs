//! Reads a row of the plain form in one go, where its keys come in an order in which they came before.
//!
//! Whoever writes maps writes the same keys again and again, mostly in the same order: which field a place holds is known
//! from the row before, and compared instead of looked up. Whatever is unusual about a value makes this reader give up
//! without having read anything, as that of the compact form does: the careful reader then says what it is.

use super::{
    cursor::Token,
    plain::{DEFAULT_SESSION, Field},
    quick::{NIL, Reader},
    value,
};
use crate::{DetectionRef, validate};

/// Keys that are remembered. More are looked up.
const MAX_KEYS: usize = 32;

/// What the rows of a payload have shown so far.
#[derive(Debug, Default)]
pub(super) struct Known<'a> {
    /// Keys as they stand in the payload, with the byte that says their length, in the order they came in.
    keys: Vec<(&'a [u8], Option<Field>)>,
    session_id: &'a str,
    camera_id: &'a str,
}

impl<'a> Known<'a> {
    /// Reads a key and tells which field it is of; `place` is that of the key in the order.
    #[inline]
    fn field(&mut self, reader: &mut Reader<'a>, place: &mut usize) -> Option<Option<Field>> {
        if let Some((key, field)) = self.keys.get(*place)
            && reader.pass(key)
        {
            *place += 1;
            return Some(*field);
        }
        self.look_up(reader, place)
    }

    /// Some key was left out before this one, or it was never met.
    #[cold]
    fn look_up(&mut self, reader: &mut Reader<'a>, place: &mut usize) -> Option<Option<Field>> {
        let before = reader.rest();
        let Token::Str(name) = reader.slowly(|cursor| cursor.token())? else {
            return None;
        };
        let key = &before[..before.len() - reader.rest().len()];
        let field = Field::named(name);
        if let Some(found) = self.keys.iter().position(|(known, _)| *known == key) {
            *place = found + 1;
        } else if self.keys.len() < MAX_KEYS {
            let at = (*place).min(self.keys.len());
            self.keys.insert(at, (key, field));
            *place = at + 1;
        }
        Some(field)
    }
}

/// Reads a text that may be an id. It is that of the row before in most rows, and checked only where it is not.
#[inline]
fn id<'a>(reader: &mut Reader<'a>, name: &'static str, last: &mut &'a str) -> Option<&'a str> {
    let Token::Str(bytes) = reader.slowly(|cursor| cursor.token())? else {
        return None;
    };
    if bytes != last.as_bytes() || bytes.is_empty() {
        let text = std::str::from_utf8(bytes).ok()?;
        validate::id(name, text).ok()?;
        *last = text;
    }
    Some(*last)
}

/// Reads the row that `bytes` begins with and returns it with its length; `None` for the careful reader.
pub(super) fn read<'a>(
    bytes: &'a [u8],
    row_idx: usize,
    known: &mut Known<'a>,
) -> Option<(DetectionRef<'a>, usize)> {
    let mut reader = Reader::new(bytes);
    let Token::Map(n_fields) = reader.slowly(|cursor| cursor.token())? else {
        return None;
    };
    let mut timestamp_us = None;
    let mut camera_id = None;
    let mut bbox = [None; 4];
    let mut d = DetectionRef {
        timestamp_us: 0,
        session_id: DEFAULT_SESSION,
        camera_id: "",
        channel_id: 0,
        detection_id: i64::try_from(row_idx).ok()?,
        track_id: None,
        confidence: None,
        bbox: [0.0; 4],
        gender: None,
        gender_confidence: None,
        frame_number: 0,
        degraded: false,
    };
    let mut place = 0;
    for _ in 0..n_fields {
        let field = known.field(&mut reader, &mut place)?;
        // What is nil counts as left out.
        if reader.pass(&[NIL]) {
            continue;
        }
        match field {
            Some(Field::Timestamp) => {
                let token = reader.slowly(|cursor| cursor.token())?;
                timestamp_us = Some(value::time("timestamp", token).ok()?);
            }
            Some(Field::SessionId) => {
                d.session_id = id(&mut reader, "session_id", &mut known.session_id)?;
            }
            Some(Field::CameraId) => {
                camera_id = Some(id(&mut reader, "camera_id", &mut known.camera_id)?);
            }
            Some(Field::ChannelId) => d.channel_id = reader.int()?.try_into().ok()?,
            Some(Field::DetectionId) => d.detection_id = reader.int()?,
            Some(Field::TrackId) => d.track_id = Some(reader.int()?),
            Some(Field::Confidence) => d.confidence = Some(reader.float()?),
            Some(Field::Bbox(nth)) => bbox[nth] = Some(reader.float()?),
            Some(Field::Gender) => {
                let token = reader.slowly(|cursor| cursor.token())?;
                d.gender = Some(value::gender("gender", token).ok()?);
            }
            Some(Field::GenderConfidence) => d.gender_confidence = Some(reader.float()?),
            Some(Field::FrameNumber) => d.frame_number = reader.int()?,
            Some(Field::Degraded) => {
                d.degraded = match reader.byte()? {
                    0xc2 => false,
                    0xc3 => true,
                    _ => return None,
                };
            }
            None => reader.slowly(|cursor| cursor.skip())?,
        }
    }
    d.timestamp_us = timestamp_us?;
    d.camera_id = camera_id?;
    for (value, read) in d.bbox.iter_mut().zip(bbox) {
        *value = read?;
    }
    d.validate_row().ok()?;
    Some((d, bytes.len() - reader.rest().len()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        Detection,
        wire::{cursor::Cursor, encode, plain},
    };

    /// What both readers make of the rows of a payload, without its head; how many this one read.
    fn agree(payload: &[u8], n_rows: usize) -> usize {
        let mut known = Known::default();
        let mut n_read = 0;
        let mut rest = payload;
        for row_idx in 0..n_rows {
            let mut cursor = Cursor::new(rest);
            let mut careful = None;
            let to_detection = |d: DetectionRef<'_>| d.to_detection().unwrap();
            let read_carefully = plain::detection(&mut cursor, row_idx, |d| {
                careful = Some(to_detection(d));
            });
            if let Some((detection, len)) = read(rest, row_idx, &mut known) {
                assert_eq!(read_carefully, Ok(Ok(())));
                assert_eq!(Some(to_detection(detection)), careful);
                assert_eq!(len, cursor.offset());
                n_read += 1;
            } else if read_carefully.is_err() {
                return n_read;
            }
            rest = cursor.rest();
        }
        n_read
    }

    const NAMES: [&str; 17] = [
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
        "class",
        "",
    ];

    fn value() -> impl Strategy<Value = Vec<u8>> {
        let written = |write: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = Vec::new();
            write(&mut bytes);
            bytes
        };
        prop_oneof![
            1 => Just(vec![NIL]),
            1 => prop_oneof![Just(vec![0xc2]), Just(vec![0xc3])],
            4 => (0.0..1.0_f32).prop_map(move |f| written(&|out| encode::float(out, f))),
            2 => any::<f64>().prop_map(|f| [&[0xcb], &f.to_be_bytes()[..]].concat()),
            2 => (0.0..1.0_f64).prop_map(|f| [&[0xcb], &f.to_be_bytes()[..]].concat()),
            2 => any::<i64>().prop_map(move |n| written(&|out| encode::int(out, n))),
            4 => (946_684_800_000_000..4_102_444_800_000_000_i64)
                .prop_map(move |n| written(&|out| encode::int(out, n))),
            4 => (0..3_i64).prop_map(move |n| written(&|out| encode::int(out, n))),
            2 => "male|F|unknown|gate-[12]|.{0,70}".prop_map(move |s| written(&|out| encode::string(out, &s))),
            1 => Just(b"\x82\xa1a\x91\xa1b\xa1c\x01".to_vec()),
            1 => prop::collection::vec(any::<u8>(), 0..6),
        ]
    }

    /// A value that the field may well have.
    fn likely(name: usize) -> BoxedStrategy<Vec<u8>> {
        let int = |n: i64| {
            let mut bytes = Vec::new();
            encode::int(&mut bytes, n);
            bytes
        };
        let text = |s: String| {
            let mut bytes = Vec::new();
            encode::string(&mut bytes, &s);
            bytes
        };
        match name {
            0 => (1_790_000_000_000_000..1_790_000_100_000_000_i64)
                .prop_map(int)
                .boxed(),
            1 | 2 => "gate-[12]".prop_map(text).boxed(),
            3 | 4 | 5 | 13 => (-70_000..70_000_i64).prop_map(int).boxed(),
            11 => "male|F|unknown".prop_map(text).boxed(),
            14 => prop_oneof![Just(vec![0xc2]), Just(vec![0xc3])].boxed(),
            _ => (0.0..1.0_f64)
                .prop_map(|f| [&[0xcb], &f.to_be_bytes()[..]].concat())
                .boxed(),
        }
    }

    fn field() -> impl Strategy<Value = (usize, Vec<u8>)> {
        (0..NAMES.len()).prop_flat_map(|name| {
            prop_oneof![20 => likely(name), 1 => value()].prop_map(move |value| (name, value))
        })
    }

    fn row(fields: &[(usize, Vec<u8>)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode::map(&mut bytes, u32::try_from(fields.len()).unwrap());
        for (name, value) in fields {
            encode::string(&mut bytes, NAMES[*name]);
            bytes.extend_from_slice(value);
        }
        bytes
    }

    proptest! {
        /// Rows of all fields in some order, of which some are left out, come twice or have strange values.
        #[test]
        fn what_it_reads_the_careful_reader_reads_alike(
            all in (0..15_usize).map(likely).collect::<Vec<_>>(),
            order in Just((0..15).collect::<Vec<usize>>()).prop_shuffle(),
            changes in prop::collection::vec(
                prop::collection::vec((0..15_usize, prop::option::of(field())), 0..3),
                1..6,
            ),
        ) {
            let rows: Vec<_> = changes
                .iter()
                .map(|changes| {
                    let mut fields: Vec<_> = order.iter().map(|name| (*name, all[*name].clone())).collect();
                    for (at, change) in changes {
                        let at = at % fields.len();
                        match change {
                            None => drop(fields.remove(at)),
                            Some(field) => fields.insert(at, field.clone()),
                        }
                    }
                    row(&fields)
                })
                .collect();
            agree(&rows.concat(), rows.len());
        }
    }

    fn rows(n: i64) -> Vec<u8> {
        let detection = |id: i64| Detection {
            timestamp: chrono::DateTime::from_timestamp(1_790_000_000, 0).unwrap(),
            session_id: "s".into(),
            camera_id: format!("gate-{}", id % 3),
            channel_id: 1,
            detection_id: id,
            track_id: (id % 2 > 0).then_some(7),
            confidence: Some(0.5),
            bbox_x: -1.5,
            bbox_y: 2.0,
            bbox_width: 3.0,
            bbox_height: 4.0,
            gender: Some(crate::Gender::Female),
            gender_confidence: None,
            frame_number: id,
            degraded: id % 5 == 0,
        };
        let mut payload = Vec::new();
        let detections: Vec<_> = (0..n).map(detection).collect();
        plain::encode_plain_detections(&detections, &mut payload);
        // The head: an array of up to 15 rows.
        payload.split_off(1)
    }

    #[test]
    fn usual_rows_are_read_here() {
        assert_eq!(agree(&rows(10), 10), 10);
        // Other keys, in another order, with other values, and the first again.
        let least = [9, 10, 7, 8, 2, 15, 0].map(|name| {
            let value: &[u8] = match name {
                0 => b"\xb92026-11-28T08:00:00+01:00",
                2 => b"\xa1c",
                15 => b"\x91\x01",
                _ => b"\x05",
            };
            (name, value.to_vec())
        });
        let mixed = [rows(2), row(&least), row(&least[..6]), rows(2), row(&least)].concat();
        assert_eq!(agree(&mixed, 7), 6, "one has no time");
    }

    #[test]
    fn no_more_keys_are_remembered_than_there_is_room_for() {
        let mut bytes = b"\xde\x01\x00".to_vec();
        for n in 0..256 {
            encode::string(&mut bytes, &format!("key {n}"));
            bytes.push(NIL);
        }
        let mut known = Known::default();
        assert_eq!(read(&bytes, 0, &mut known), None, "it has no time");
        assert_eq!(known.keys.len(), MAX_KEYS);
    }
}
