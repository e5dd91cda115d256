//! Replies of Redis in RESP 2, taken apart without being copied.
//!
//! The protocol: <https://redis.io/docs/latest/develop/reference/protocol-spec/>.

use bytes::Bytes;

/// A reply never nests deeper: that of `XINFO STREAM FULL` has seven levels.
const MAX_DEPTH: usize = 16;

/// A line has the text of an error at most, in bytes.
const MAX_LINE: usize = 64 << 10;

/// What a server replied. Its strings are parts of the memory into which it was received, which is kept for
/// as long as one of them is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// No string, or no array.
    Nil,
    /// A number.
    Int(i64),
    /// A short text, such as `OK`.
    Simple(Bytes),
    /// A refusal within an array.
    Error(Bytes),
    /// A string of bytes.
    Bulk(Bytes),
    /// Replies in a row.
    Array(Vec<Reply>),
}

/// A server says what the protocol does not know.
#[derive(Debug, thiserror::Error)]
#[error("not a reply of Redis: {0}")]
pub(super) struct NotReply(&'static str);

impl Reply {
    /// Takes a whole reply apart.
    pub(super) fn parse(whole: &Bytes) -> Result<Self, NotReply> {
        let mut at = 0;
        Self::parse_next(whole, &mut at, MAX_DEPTH)
    }

    fn parse_next(whole: &Bytes, at: &mut usize, depth: usize) -> Result<Self, NotReply> {
        let line = Line::at(whole, *at)?.ok_or(NotReply("it ends too early"))?;
        let text = || whole.slice(*at + 1..line.end);
        let header = &whole[*at + 1..line.end];
        let kind = line.kind;
        let reply = match kind {
            b'+' => Self::Simple(text()),
            b'-' => Self::Error(text()),
            b':' => Self::Int(number(header)?),
            b'$' => match length(header)? {
                None => Self::Nil,
                Some(len) => {
                    let begin = line.next();
                    if whole.get(begin + len..begin + len + 2) != Some(b"\r\n") {
                        return Err(NotReply("a string does not end where it should"));
                    }
                    *at = begin + len + 2;
                    return Ok(Self::Bulk(whole.slice(begin..begin + len)));
                }
            },
            b'*' => match length(header)? {
                None => Self::Nil,
                Some(len) => {
                    let depth = depth.checked_sub(1).ok_or(NotReply("it nests too deep"))?;
                    *at = line.next();
                    // Each takes three bytes at least: what the header says is no reason to allocate more.
                    let mut items = Vec::with_capacity(len.min((whole.len() - *at) / 3));
                    for _ in 0..len {
                        items.push(Self::parse_next(whole, at, depth)?);
                    }
                    return Ok(Self::Array(items));
                }
            },
            _ => return Err(NotReply("an unknown type")),
        };
        *at = line.next();
        Ok(reply)
    }
}

/// As the driver hands it out.
impl From<redis::Value> for Reply {
    fn from(value: redis::Value) -> Self {
        match value {
            redis::Value::Nil => Self::Nil,
            redis::Value::Int(number) => Self::Int(number),
            redis::Value::BulkString(bytes) => Self::Bulk(bytes.into()),
            redis::Value::Array(items) => Self::Array(items.into_iter().map(Self::from).collect()),
            redis::Value::Okay => Self::Simple(Bytes::from_static(b"OK")),
            redis::Value::SimpleString(text) => Self::Simple(text.into()),
            other => Self::Simple(format!("{other:?}").into()),
        }
    }
}

/// Finds where a reply ends that arrives in pieces, without looking into strings.
#[derive(Debug)]
pub(super) struct ReplyEnd {
    /// Where the next value begins.
    at: usize,
    /// Values that belong to the reply and were not met yet.
    n_missing: usize,
}

impl ReplyEnd {
    pub(super) const fn new() -> Self {
        Self {
            at: 0,
            n_missing: 1,
        }
    }

    /// The reply's length, once all of it is among what was received.
    pub(super) fn find(&mut self, received: &[u8]) -> Result<Option<usize>, NotReply> {
        while self.n_missing > 0 {
            let Some(line) = Line::at(received, self.at)? else {
                return Ok(None);
            };
            let header = &received[self.at + 1..line.end];
            self.at = line.next();
            self.n_missing -= 1;
            match line.kind {
                b'$' => {
                    if let Some(len) = length(header)? {
                        self.at += len + 2;
                    }
                }
                b'*' => {
                    let n_items = length(header)?.unwrap_or(0);
                    self.n_missing = self
                        .n_missing
                        .checked_add(n_items)
                        .ok_or(NotReply("an array has too many items"))?;
                }
                _ => {}
            }
        }
        Ok((self.at <= received.len()).then_some(self.at))
    }

    /// Bytes that are missing at least.
    pub(super) fn n_bytes_missing(&self, received: &[u8]) -> usize {
        self.at.saturating_sub(received.len()).max(1)
    }
}

/// The line that a value begins with.
struct Line {
    /// The byte that says what follows.
    kind: u8,
    /// Where its end mark stands.
    end: usize,
}

impl Line {
    /// The line at this place, once all of it is there.
    fn at(bytes: &[u8], at: usize) -> Result<Option<Self>, NotReply> {
        let Some((&kind, rest)) = bytes.get(at..).and_then(<[u8]>::split_first) else {
            return Ok(None);
        };
        if !matches!(kind, b'+' | b'-' | b':' | b'$' | b'*') {
            return Err(NotReply("an unknown type"));
        }
        let Some(len) = rest.iter().position(|&byte| byte == b'\r') else {
            return match rest.len() {
                0..MAX_LINE => Ok(None),
                _ => Err(NotReply("a line that does not end")),
            };
        };
        let end = at + 1 + len;
        match rest.get(len + 1) {
            Some(b'\n') => Ok(Some(Self { kind, end })),
            Some(_) => Err(NotReply("a line that does not end as it should")),
            None => Ok(None),
        }
    }

    /// Where what follows it begins.
    fn next(&self) -> usize {
        self.end + 2
    }
}

/// The length of a string or an array; `None` of nil.
fn length(text: &[u8]) -> Result<Option<usize>, NotReply> {
    if text == b"-1" {
        return Ok(None);
    }
    // Redis holds no longer string unless it is told to (`proto-max-bulk-len` is 512 MiB).
    match usize::try_from(number(text)?) {
        Ok(len @ 0..=0x4000_0000) => Ok(Some(len)),
        _ => Err(NotReply("a length out of range")),
    }
}

fn number(text: &[u8]) -> Result<i64, NotReply> {
    let (sign, digits) = match text {
        [b'-', digits @ ..] => (-1, digits),
        digits => (1, digits),
    };
    if digits.is_empty() {
        return Err(NotReply("a number without digits"));
    }
    digits.iter().try_fold(0_i64, |sum, digit| {
        let digit = match digit {
            b'0'..=b'9' => i64::from(digit - b'0'),
            _ => return Err(NotReply("a digit that is none")),
        };
        sum.checked_mul(10)
            .and_then(|sum| sum.checked_add(sign * digit))
            .ok_or(NotReply("a number out of range"))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bulk(bytes: &'static [u8]) -> Reply {
        Reply::Bulk(Bytes::from_static(bytes))
    }

    fn write(reply: &Reply, into: &mut Vec<u8>) {
        let mut line = |kind: u8, text: &[u8]| {
            into.push(kind);
            into.extend_from_slice(text);
            into.extend_from_slice(b"\r\n");
        };
        match reply {
            Reply::Nil => line(b'$', b"-1"),
            Reply::Int(number) => line(b':', number.to_string().as_bytes()),
            Reply::Simple(text) => line(b'+', text),
            Reply::Error(text) => line(b'-', text),
            Reply::Bulk(bytes) => {
                line(b'$', bytes.len().to_string().as_bytes());
                into.extend_from_slice(bytes);
                into.extend_from_slice(b"\r\n");
            }
            Reply::Array(items) => {
                line(b'*', items.len().to_string().as_bytes());
                for item in items {
                    write(item, into);
                }
            }
        }
    }

    fn any_reply() -> impl Strategy<Value = Reply> {
        let bytes = || proptest::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from);
        let text = || "[ -~]{0,20}".prop_map(Bytes::from);
        let leaf = prop_oneof![
            Just(Reply::Nil),
            any::<i64>().prop_map(Reply::Int),
            text().prop_map(Reply::Simple),
            text().prop_map(Reply::Error),
            bytes().prop_map(Reply::Bulk),
        ];
        leaf.prop_recursive(5, 60, 6, |inner| {
            proptest::collection::vec(inner, 0..6).prop_map(Reply::Array)
        })
    }

    proptest! {
        /// However it is cut: the end is found with the last byte and not before, whatever follows it.
        #[test]
        fn a_reply_is_read_as_it_was_written(reply in any_reply(), piece in 1_usize..50) {
            let mut bytes = Vec::new();
            write(&reply, &mut bytes);
            let len = bytes.len();
            bytes.extend_from_slice(b":1\r\n");

            let mut end = ReplyEnd::new();
            let mut received = 0;
            let found = loop {
                let found = end.find(&bytes[..received]).unwrap();
                if let Some(found) = found {
                    break found;
                }
                prop_assert!(received < len);
                let n_missing = end.n_bytes_missing(&bytes[..received]);
                prop_assert!(n_missing >= 1 && received + n_missing <= len);
                received = (received + piece).min(bytes.len());
            };
            prop_assert_eq!(found, len);
            bytes.truncate(len);
            prop_assert_eq!(Reply::parse(&bytes.into()).unwrap(), reply);
        }

        #[test]
        fn bytes_of_a_stranger_end_in_an_error_at_most(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            drop(ReplyEnd::new().find(&bytes));
            drop(Reply::parse(&bytes.into()));
        }

        /// As above, of bytes that come closer to a reply.
        #[test]
        fn nonsense_ends_in_an_error_at_most(text in r"([*$:+-][0-9-]{0,20}(\r\n)?){0,12}") {
            drop(ReplyEnd::new().find(text.as_bytes()));
            drop(Reply::parse(&text.into()));
        }
    }

    #[test]
    fn strings_are_parts_of_what_was_received() {
        let whole = Bytes::from_static(b"*3\r\n$2\r\nab\r\n*-1\r\n$0\r\n\r\n");
        let parsed = Reply::parse(&whole).unwrap();
        assert_eq!(
            parsed,
            Reply::Array(vec![bulk(b"ab"), Reply::Nil, bulk(b"")])
        );
        let Reply::Array(items) = &parsed else {
            unreachable!()
        };
        let Reply::Bulk(first) = &items[0] else {
            unreachable!()
        };
        assert_eq!(first.as_ptr(), whole[8..].as_ptr());
    }

    #[test]
    fn what_is_no_reply_is_refused() {
        for bytes in [
            "HTTP/1.1 400 Bad Request\r\n",
            "$x\r\n",
            "$-2\r\n",
            "$99999999999\r\n",
            "*99999999999999999999\r\n",
            "\r\n",
            "+OK\r:1\r\n",
            &("+".to_owned() + &"x".repeat(MAX_LINE)),
        ] {
            assert!(ReplyEnd::new().find(bytes.as_bytes()).is_err(), "{bytes:?}");
        }
        assert!(Reply::parse(&"$2\r\nabc\n".into()).is_err());
        let deep = "*1\r\n".repeat(MAX_DEPTH + 1) + ":1\r\n";
        assert!(Reply::parse(&deep.into()).is_err());
    }
}
