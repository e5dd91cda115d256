//! The trace that an entry belongs to, as W3C Trace Context writes it.

use std::{fmt, str::FromStr};

/// A W3C `traceparent`: which trace, and which span of it, an entry came from.
///
/// ```
/// use passerby_shared::Traceparent;
///
/// let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
/// let traceparent: Traceparent = text.parse()?;
/// assert!(traceparent.is_sampled());
/// assert_eq!(traceparent.to_string(), text);
/// # Ok::<(), passerby_shared::InvalidTraceparent>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Traceparent {
    trace_id: [u8; 16],
    span_id: [u8; 8],
    flags: u8,
}

/// A text that is no `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "no traceparent: expected 00-<32 hex digits>-<16 hex digits>-<2 hex digits>, in lower case and not all \
     zero"
)]
pub struct InvalidTraceparent;

/// Bytes of a `traceparent` of version 00.
const LEN: usize = 55;
const SAMPLED: u8 = 1;

impl Traceparent {
    /// A span of a trace; `None` where an ID is all zero, which stands for none.
    pub fn new(trace_id: [u8; 16], span_id: [u8; 8], is_sampled: bool) -> Option<Self> {
        let flags = if is_sampled { SAMPLED } else { 0 };
        (trace_id != [0; 16] && span_id != [0; 8]).then_some(Self {
            trace_id,
            span_id,
            flags,
        })
    }

    /// Reads a field of an entry.
    ///
    /// # Errors
    ///
    /// [`InvalidTraceparent`], of which nothing more is to be said: a trace is never worth an entry.
    pub fn from_field(field: &[u8]) -> Result<Self, InvalidTraceparent> {
        let version = field.get(..2).ok_or(InvalidTraceparent)?;
        // A later version begins in the same way, and may go on.
        let ends = match version {
            b"00" => field.len() == LEN,
            b"ff" => false,
            _ => field.len() == LEN || field.get(LEN) == Some(&b'-'),
        };
        let dashes = [2, 35, 52].iter().all(|&at| field.get(at) == Some(&b'-'));
        if !ends || !dashes || hex::<1>(version).is_none() {
            return Err(InvalidTraceparent);
        }
        let (Some(trace_id), Some(span_id), Some([flags])) = (
            hex(&field[3..35]),
            hex(&field[36..52]),
            hex::<1>(&field[53..LEN]),
        ) else {
            return Err(InvalidTraceparent);
        };
        Self::new(trace_id, span_id, flags & SAMPLED != 0).ok_or(InvalidTraceparent)
    }

    /// The trace.
    pub fn trace_id(&self) -> [u8; 16] {
        self.trace_id
    }

    /// The span.
    pub fn span_id(&self) -> [u8; 8] {
        self.span_id
    }

    /// Whether somebody keeps the trace.
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }
}

fn hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    if digits.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

impl FromStr for Traceparent {
    type Err = InvalidTraceparent;

    fn from_str(s: &str) -> Result<Self, InvalidTraceparent> {
        Self::from_field(s.as_bytes())
    }
}

impl fmt::Display for Traceparent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("00-")?;
        for byte in self.trace_id {
            write!(f, "{byte:02x}")?;
        }
        f.write_str("-")?;
        for byte in self.span_id {
            write!(f, "{byte:02x}")?;
        }
        write!(f, "-{:02x}", self.flags)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<&str>) {
        let read = Traceparent::from_field(text.as_bytes()).ok();
        let read = read.map(|traceparent| traceparent.to_string());
        assert_eq!(read.as_deref(), expected, "{text}");
    }

    #[test]
    fn what_is_no_traceparent_is_refused_and_later_versions_are_read() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        check(good, Some(good));
        check(&good.replacen("00", "cc", 1), Some(good));
        check(
            &format!("{}-what follows", good.replacen("00", "cc", 1)),
            Some(good),
        );
        check(&format!("{good}-what follows"), None);
        check(&good.replacen("00", "ff", 1), None);
        check(&good.to_uppercase(), None);
        check(&good[..54], None);
        check("", None);
        check(
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            None,
        );
        check(
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            None,
        );
        check(
            "00-4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7-01",
            None,
        );
        check(
            "é0-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            None,
        );
    }
}
