//! Reads MessagePack token by token, borrowing from the buffer.
//!
//! Nothing is allocated on the word of a length: a string must lie within the buffer, an array or a
//! map must have at least one byte for each element it announces, and nesting is bounded.

/// Deepest nesting that is followed.
const MAX_DEPTH: u8 = 32;

/// Bytes that are not MessagePack: what is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed MessagePack at byte {offset}: {problem}")]
pub struct Malformed {
    /// Offset in the payload.
    pub offset: usize,
    /// What is wrong.
    pub problem: &'static str,
}

/// One token. Of an array and a map only the length is read: the elements follow.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Token<'a> {
    Nil,
    Bool(bool),
    Int(i64),
    /// Only values above `i64::MAX`.
    BigUint(u64),
    F32(f32),
    F64(f64),
    Str(&'a [u8]),
    Bin(&'a [u8]),
    Array(u32),
    Map(u32),
    Ext(i8, &'a [u8]),
}

impl Token<'_> {
    /// The token's type, for an error message.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::Nil => "nil",
            Self::Bool(_) => "a boolean",
            Self::Int(_) | Self::BigUint(_) => "an integer",
            Self::F32(_) | Self::F64(_) => "a float",
            Self::Str(_) => "a string",
            Self::Bin(_) => "binary data",
            Self::Array(_) => "an array",
            Self::Map(_) => "a map",
            Self::Ext(..) => "an extension type",
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, offset: 0 }
    }

    pub(super) fn offset(&self) -> usize {
        self.offset
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.offset == self.bytes.len()
    }

    /// The bytes from here on.
    pub(super) fn rest(&self) -> &'a [u8] {
        &self.bytes[self.offset..]
    }

    /// Goes past bytes that were read by somebody else.
    pub(super) fn skip_bytes(&mut self, len: usize) {
        self.offset += len;
        debug_assert!(self.offset <= self.bytes.len());
    }

    /// The bytes from `start` to here.
    pub(super) fn since(&self, start: usize) -> &'a [u8] {
        &self.bytes[start..self.offset]
    }

    pub(super) fn malformed(&self, problem: &'static str) -> Malformed {
        Malformed {
            offset: self.offset,
            problem,
        }
    }

    #[inline]
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        match self.bytes[self.offset..].first_chunk::<N>() {
            Some(chunk) => {
                self.offset += N;
                Ok(*chunk)
            }
            None => Err(self.malformed("ends within a value")),
        }
    }

    fn take_slice(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let rest = &self.bytes[self.offset..];
        if len > rest.len() {
            return Err(self.malformed("a length reaches beyond the payload"));
        }
        self.offset += len;
        Ok(&rest[..len])
    }

    fn container(&self, len: u32, bytes_per_element: usize) -> Result<u32, Malformed> {
        let rest = self.bytes.len() - self.offset;
        match (len as usize).checked_mul(bytes_per_element) {
            Some(least) if least <= rest => Ok(len),
            _ => Err(self.malformed("announces more elements than the payload has bytes")),
        }
    }

    /// Reads the next token.
    #[inline]
    pub(super) fn token(&mut self) -> Result<Token<'a>, Malformed> {
        let [byte] = self.take()?;
        Ok(match byte {
            0x00..=0x7f => Token::Int(i64::from(byte)),
            0x80..=0x8f => Token::Map(self.container(u32::from(byte & 0x0f), 2)?),
            0x90..=0x9f => Token::Array(self.container(u32::from(byte & 0x0f), 1)?),
            0xa0..=0xbf => Token::Str(self.take_slice(usize::from(byte & 0x1f))?),
            0xc0 => Token::Nil,
            0xc1 => {
                self.offset -= 1;
                return Err(self.malformed("0xc1 is never used"));
            }
            0xc2 => Token::Bool(false),
            0xc3 => Token::Bool(true),
            0xc4 => Token::Bin(self.sized_slice::<1>()?),
            0xc5 => Token::Bin(self.sized_slice::<2>()?),
            0xc6 => Token::Bin(self.sized_slice::<4>()?),
            0xc7 => self.ext_sized::<1>()?,
            0xc8 => self.ext_sized::<2>()?,
            0xc9 => self.ext_sized::<4>()?,
            0xca => Token::F32(f32::from_be_bytes(self.take()?)),
            0xcb => Token::F64(f64::from_be_bytes(self.take()?)),
            0xcc => Token::Int(i64::from(u8::from_be_bytes(self.take()?))),
            0xcd => Token::Int(i64::from(u16::from_be_bytes(self.take()?))),
            0xce => Token::Int(i64::from(u32::from_be_bytes(self.take()?))),
            0xcf => {
                let value = u64::from_be_bytes(self.take()?);
                i64::try_from(value).map_or(Token::BigUint(value), Token::Int)
            }
            0xd0 => Token::Int(i64::from(i8::from_be_bytes(self.take()?))),
            0xd1 => Token::Int(i64::from(i16::from_be_bytes(self.take()?))),
            0xd2 => Token::Int(i64::from(i32::from_be_bytes(self.take()?))),
            0xd3 => Token::Int(i64::from_be_bytes(self.take()?)),
            0xd4..=0xd8 => self.ext(1 << (byte - 0xd4))?,
            0xd9 => Token::Str(self.sized_slice::<1>()?),
            0xda => Token::Str(self.sized_slice::<2>()?),
            0xdb => Token::Str(self.sized_slice::<4>()?),
            0xdc => {
                let len = u32::from(u16::from_be_bytes(self.take()?));
                Token::Array(self.container(len, 1)?)
            }
            0xdd => {
                let len = u32::from_be_bytes(self.take()?);
                Token::Array(self.container(len, 1)?)
            }
            0xde => {
                let len = u32::from(u16::from_be_bytes(self.take()?));
                Token::Map(self.container(len, 2)?)
            }
            0xdf => {
                let len = u32::from_be_bytes(self.take()?);
                Token::Map(self.container(len, 2)?)
            }
            0xe0..=0xff => Token::Int(i64::from(i8::from_be_bytes([byte]))),
        })
    }

    fn length<const N: usize>(&mut self) -> Result<usize, Malformed> {
        Ok(self
            .take::<N>()?
            .iter()
            .fold(0, |len, byte| (len << 8) | usize::from(*byte)))
    }

    fn sized_slice<const N: usize>(&mut self) -> Result<&'a [u8], Malformed> {
        let len = self.length::<N>()?;
        self.take_slice(len)
    }

    fn ext_sized<const N: usize>(&mut self) -> Result<Token<'a>, Malformed> {
        let len = self.length::<N>()?;
        self.ext(len)
    }

    fn ext(&mut self, len: usize) -> Result<Token<'a>, Malformed> {
        let [kind] = self.take()?;
        Ok(Token::Ext(i8::from_be_bytes([kind]), self.take_slice(len)?))
    }

    /// Reads past the elements of `token`, which was just read.
    pub(super) fn skip_rest_of(&mut self, token: Token<'_>) -> Result<(), Malformed> {
        self.skip_nested(token, MAX_DEPTH)
    }

    fn skip_nested(&mut self, token: Token<'_>, depth: u8) -> Result<(), Malformed> {
        let n_values = match token {
            Token::Array(n) => u64::from(n),
            Token::Map(n) => 2 * u64::from(n),
            _ => return Ok(()),
        };
        let Some(depth) = depth.checked_sub(1) else {
            return Err(self.malformed("is nested too deeply"));
        };
        for _ in 0..n_values {
            let token = self.token()?;
            self.skip_nested(token, depth)?;
        }
        Ok(())
    }

    /// Reads past one whole value.
    pub(super) fn skip(&mut self) -> Result<(), Malformed> {
        let token = self.token()?;
        self.skip_rest_of(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_never_believed() {
        for bytes in [
            &[0xdd, 0xff, 0xff, 0xff, 0xff][..],
            &[0xdf, 0xff, 0xff, 0xff, 0xff],
            &[0xdb, 0xff, 0xff, 0xff, 0xff, b'x'],
            &[0xc9, 0xff, 0xff, 0xff, 0xff, 1],
            &[0xcb, 1, 2],
            &[0xc1],
            &[],
        ] {
            assert!(Cursor::new(bytes).token().is_err(), "{bytes:x?}");
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let mut bytes = vec![0x91; 10_000];
        bytes.push(0xc0);
        let error = Cursor::new(&bytes).skip().unwrap_err();
        assert_eq!(error.problem, "is nested too deeply");
    }
}
