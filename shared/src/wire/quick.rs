//! Reads values that are as nearly all are, and gives up on any other: what quick readers of rows have in common.

use super::{
    cursor::{Cursor, Malformed},
    value,
};

/// What is left of the payload.
pub(super) struct Reader<'a>(&'a [u8]);

/// What stands for no value.
pub(super) const NIL: u8 = 0xc0;

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// What was not read yet.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.0
    }

    /// Goes past these bytes, if they come next.
    #[inline]
    pub(super) fn pass(&mut self, bytes: &[u8]) -> bool {
        match self.0.strip_prefix(bytes) {
            Some(rest) => {
                self.0 = rest;
                true
            }
            None => false,
        }
    }

    /// Has something read that is not read here.
    #[inline]
    pub(super) fn slowly<T>(
        &mut self,
        read: impl FnOnce(&mut Cursor<'a>) -> Result<T, Malformed>,
    ) -> Option<T> {
        let mut cursor = Cursor::new(self.0);
        let value = read(&mut cursor).ok()?;
        self.0 = cursor.rest();
        Some(value)
    }

    #[inline]
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (chunk, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*chunk)
    }

    #[inline]
    pub(super) fn byte(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    /// The rest of an integer that begins with `byte`.
    #[inline]
    pub(super) fn int_from(&mut self, byte: u8) -> Option<i64> {
        Some(match byte {
            0x00..=0x7f => i64::from(byte),
            0xe0..=0xff => i64::from(byte.cast_signed()),
            0xcc => i64::from(self.byte()?),
            0xcd => i64::from(u16::from_be_bytes(self.take()?)),
            0xce => i64::from(u32::from_be_bytes(self.take()?)),
            0xcf => i64::try_from(u64::from_be_bytes(self.take()?)).ok()?,
            0xd0 => i64::from(i8::from_be_bytes(self.take()?)),
            0xd1 => i64::from(i16::from_be_bytes(self.take()?)),
            0xd2 => i64::from(i32::from_be_bytes(self.take()?)),
            0xd3 => i64::from_be_bytes(self.take()?),
            _ => return None,
        })
    }

    #[inline]
    pub(super) fn int(&mut self) -> Option<i64> {
        let byte = self.byte()?;
        self.int_from(byte)
    }

    /// The rest of a number that begins with `byte`: a float that fits into 32 bits, or an integer of at most 16.
    #[inline]
    pub(super) fn float_from(&mut self, byte: u8) -> Option<f32> {
        if byte == 0xca {
            return Some(f32::from_be_bytes(self.take()?));
        }
        self.other_float_from(byte)
    }

    /// Apart, so that what is read most often stays short where it is inlined.
    #[inline(never)]
    fn other_float_from(&mut self, byte: u8) -> Option<f32> {
        Some(match byte {
            0xcb => value::narrow(f64::from_be_bytes(self.take()?))?,
            0x00..=0x7f => f32::from(byte),
            0xe0..=0xff => f32::from(byte.cast_signed()),
            0xcc => f32::from(self.byte()?),
            0xcd => f32::from(u16::from_be_bytes(self.take()?)),
            0xd0 => f32::from(i8::from_be_bytes(self.take()?)),
            0xd1 => f32::from(i16::from_be_bytes(self.take()?)),
            _ => return None,
        })
    }

    #[inline]
    pub(super) fn float(&mut self) -> Option<f32> {
        let byte = self.byte()?;
        self.float_from(byte)
    }

    #[inline]
    pub(super) fn optional_float(&mut self) -> Option<Option<f32>> {
        match self.byte()? {
            NIL => Some(None),
            byte => self.float_from(byte).map(Some),
        }
    }
}
