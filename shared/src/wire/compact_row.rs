//! Reads a row of the compact form the way this library writes it, in one go.
//!
//! Nearly all rows of a busy stream are such rows, and a worker's time goes into reading them. Whatever
//! is unusual about a row — another type, a missing value, a value that cannot be stored — makes this
//! reader give up without having read anything: the careful reader then says what it is.

use super::{
    decode::Previous,
    quick::{NIL, Reader},
};
use crate::{DetectionRef, Gender};

/// Reads the row that `bytes` begins with and returns it with its length; `None` for the careful reader.
#[inline]
pub(super) fn read<'g>(
    bytes: &[u8],
    template: &DetectionRef<'g>,
    previous: &mut Previous,
) -> Option<(DetectionRef<'g>, usize)> {
    let mut reader = Reader::new(bytes);
    let has_degraded = match reader.byte()? {
        0x9b => false,
        0x9c => true,
        _ => return None,
    };
    let timestamp_us = previous.timestamp_us.wrapping_add(reader.int()?);
    let detection_id = previous.detection_id.wrapping_add(reader.int()?);
    let track_id = match reader.byte()? {
        NIL => None,
        byte => Some(reader.int_from(byte)?),
    };
    let confidence = reader.optional_float()?;
    let bbox = [
        reader.float()?,
        reader.float()?,
        reader.float()?,
        reader.float()?,
    ];
    let gender = match reader.byte()? {
        NIL => None,
        code => Some(Gender::from_code(i64::from(code))?),
    };
    let gender_confidence = reader.optional_float()?;
    let frame_number = previous.frame_number.wrapping_add(reader.int()?);
    let degraded = has_degraded
        && match reader.byte()? {
            0xc2 => false,
            0xc3 => true,
            _ => return None,
        };
    let detection = DetectionRef {
        timestamp_us,
        detection_id,
        track_id,
        confidence,
        bbox,
        gender,
        gender_confidence,
        frame_number,
        degraded,
        ..*template
    };
    if detection.validate_row().is_err() {
        return None;
    }
    *previous = Previous {
        timestamp_us,
        detection_id,
        frame_number,
    };
    Some((detection, bytes.len() - reader.rest().len()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::{cursor::Cursor, decode::detection_row};

    const TEMPLATE: DetectionRef<'static> = DetectionRef {
        timestamp_us: 0,
        session_id: "s",
        camera_id: "c",
        channel_id: 7,
        detection_id: 0,
        track_id: None,
        confidence: None,
        bbox: [0.0; 4],
        gender: None,
        gender_confidence: None,
        frame_number: 0,
        degraded: false,
    };

    /// What both readers make of a row; whether this one read it.
    fn agree(bytes: &[u8], previous: Previous) -> bool {
        let (mut quick, mut careful) = (previous, previous);
        let Some((detection, len)) = read(bytes, &TEMPLATE, &mut quick) else {
            assert_eq!(quick, previous);
            return false;
        };
        let mut cursor = Cursor::new(bytes);
        let expected = detection_row(&mut cursor, &TEMPLATE, &mut careful);
        assert_eq!(Ok(Ok(detection)), expected);
        assert_eq!(detection.validate_row(), Ok(()));
        assert_eq!((len, quick), (cursor.offset(), careful));
        true
    }

    fn number() -> impl Strategy<Value = Vec<u8>> {
        let any_bytes = |tag: u8, n: usize| {
            prop::collection::vec(any::<u8>(), n).prop_map(move |mut bytes| {
                bytes.insert(0, tag);
                bytes
            })
        };
        prop_oneof![
            4 => any::<f32>().prop_map(|f| [&[0xca], &f.to_be_bytes()[..]].concat()),
            4 => (0.0..1.0_f32).prop_map(|f| [&[0xca], &f.to_be_bytes()[..]].concat()),
            4 => any::<u8>().prop_map(|byte| vec![byte]),
            1 => any_bytes(0xcc, 1),
            1 => any_bytes(0xcd, 2),
            1 => any_bytes(0xce, 4),
            1 => any_bytes(0xcf, 8),
            1 => any_bytes(0xd0, 1),
            1 => any_bytes(0xd1, 2),
            1 => any_bytes(0xd2, 4),
            1 => any_bytes(0xd3, 8),
            1 => any_bytes(0xcb, 8),
        ]
    }

    proptest! {
        #[test]
        fn what_it_reads_the_careful_reader_reads_alike(
            head in prop_oneof![8 => Just(0x9b_u8), 4 => Just(0x9c), 1 => any::<u8>()],
            values in prop::collection::vec(number(), 12),
            n_cut in 0_usize..8,
            timestamp_us in 946_684_800_000_000..4_102_444_800_000_000_i64,
        ) {
            let mut bytes = vec![head];
            bytes.extend(values.concat());
            bytes.truncate(bytes.len() - n_cut);
            let previous = Previous { timestamp_us, ..Previous::default() };
            agree(&bytes, previous);
        }
    }

    #[test]
    fn the_rows_that_this_library_writes_are_read_here() {
        let previous = Previous {
            timestamp_us: 1_790_000_000_000_000,
            ..Previous::default()
        };
        for row in [
            // 40 ms later; every number as short as it can be, then as long.
            &b"\x9b\xcd\x9c\x40\x01\x07\x01\x05\x06\x07\x08\x02\x00\x01"[..],
            b"\x9c\xd0\xd8\xff\xcd\x30\x39\xca\x3f\0\0\0\xca\x43\xce\x26\x66\xd1\xff\0\xcc\xff\xcd\x01\x90\
              \x01\xca\x3f\0\0\0\xce\0\x01\0\0\xc3",
            b"\x9b\x00\x01\xc0\xc0\x05\x06\x07\x08\xc0\xc0\x01",
        ] {
            assert!(agree(row, previous), "{row:x?}");
            for n_bytes in 0..row.len() {
                assert!(!agree(&row[..n_bytes], previous));
            }
        }
        // Beyond 1, no number, no gender, before 2000.
        for row in [
            &b"\x9b\x00\x01\x07\x02\x05\x06\x07\x08\x02\x00\x01"[..],
            b"\x9b\x00\x01\x07\x01\x05\xc0\x07\x08\x02\x00\x01",
            b"\x9b\x00\x01\x07\x01\x05\x06\x07\x08\x03\x00\x01",
            b"\x9b\xd3\x80\0\0\0\0\0\0\0\x01\x07\x01\x05\x06\x07\x08\x02\x00\x01",
        ] {
            assert!(!agree(row, previous), "{row:x?}");
        }
    }
}
