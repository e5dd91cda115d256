//! Turns one token into a field's value, or says what is wrong with it.
//!
//! Lenient where writers in other languages differ without ambiguity: Python sends `float64`, and an
//! integer where a float happens to be whole; JavaScript sends the reverse; ids of cameras are often
//! numbers; times come as microseconds, as RFC 3339 text, or as MessagePack's own timestamp type.

use std::borrow::Cow;

use chrono::{DateTime, Utc};

use super::cursor::Token;
use crate::{Gender, Invalid};

fn wrong(field: &'static str, token: Token<'_>, expected: &str) -> Invalid {
    Invalid::new(
        field,
        format_args!("is {}, expected {expected}", token.type_name()),
    )
}

pub(super) fn int(field: &'static str, token: Token<'_>) -> Result<i64, Invalid> {
    match token {
        Token::Int(value) => Ok(value),
        Token::F64(value) => whole(field, value),
        Token::F32(value) => whole(field, f64::from(value)),
        Token::BigUint(value) => Err(Invalid::new(
            field,
            format_args!("{value} does not fit into 64 bits with a sign"),
        )),
        other => Err(wrong(field, other, "an integer")),
    }
}

fn whole(field: &'static str, value: f64) -> Result<i64, Invalid> {
    const EXACT: f64 = 9_007_199_254_740_992.0; // 2⁵³
    if value.fract() == 0.0 && value.abs() <= EXACT {
        #[expect(clippy::cast_possible_truncation, reason = "whole and within ±2⁵³")]
        return Ok(value as i64);
    }
    Err(Invalid::new(
        field,
        format_args!("{value} is not a whole number"),
    ))
}

pub(super) fn int32(field: &'static str, token: Token<'_>) -> Result<i32, Invalid> {
    let value = int(field, token)?;
    i32::try_from(value)
        .map_err(|_| Invalid::new(field, format_args!("{value} does not fit into 32 bits")))
}

#[inline]
pub(super) fn float(field: &'static str, token: Token<'_>) -> Result<f32, Invalid> {
    match token {
        Token::F32(value) => Ok(value),
        #[expect(
            clippy::cast_possible_truncation,
            reason = "pixels and fractions; checked later"
        )]
        Token::F64(value) => Ok(value as f32),
        #[expect(clippy::cast_precision_loss, reason = "pixels; exact below 2²⁴")]
        Token::Int(value) => Ok(value as f32),
        other => Err(wrong(field, other, "a number")),
    }
}

pub(super) fn boolean(field: &'static str, token: Token<'_>) -> Result<bool, Invalid> {
    match token {
        Token::Bool(value) => Ok(value),
        Token::Nil => Ok(false),
        other => Err(wrong(field, other, "a boolean")),
    }
}

pub(super) fn text<'a>(field: &'static str, token: Token<'a>) -> Result<&'a str, Invalid> {
    match token {
        // Writers of the old MessagePack specification have only one type for text and bytes.
        Token::Str(bytes) | Token::Bin(bytes) => {
            std::str::from_utf8(bytes).map_err(|_| Invalid::new(field, "is not UTF-8"))
        }
        other => Err(wrong(field, other, "a string")),
    }
}

/// An id: text, or an integer written as text.
pub(super) fn id<'a>(field: &'static str, token: Token<'a>) -> Result<Cow<'a, str>, Invalid> {
    match token {
        Token::Int(value) => Ok(Cow::Owned(value.to_string())),
        Token::BigUint(value) => Ok(Cow::Owned(value.to_string())),
        other => text(field, other).map(Cow::Borrowed),
    }
}

pub(super) fn gender(field: &'static str, token: Token<'_>) -> Result<Gender, Invalid> {
    match token {
        Token::Int(code) => Gender::from_code(code).ok_or_else(|| {
            Invalid::new(
                field,
                format_args!("{code} is none of 0 unknown, 1 male, 2 female"),
            )
        }),
        other => text(field, other)?
            .parse()
            .map_err(|error| Invalid::new(field, error)),
    }
}

/// A time in microseconds since the Unix epoch.
pub(super) fn time(field: &'static str, token: Token<'_>) -> Result<i64, Invalid> {
    match token {
        Token::Str(_) => {
            let text = text(field, token)?;
            let time = DateTime::parse_from_rfc3339(text).map_err(|error| {
                Invalid::new(field, format_args!("`{text:.40}` is not RFC 3339: {error}"))
            })?;
            Ok(time.timestamp_micros())
        }
        Token::Ext(-1, bytes) => extension_timestamp(bytes)
            .ok_or_else(|| Invalid::new(field, "is a malformed MessagePack timestamp")),
        other => int(field, other),
    }
}

/// MessagePack's timestamp extension: 32, 64 or 96 bits.
fn extension_timestamp(bytes: &[u8]) -> Option<i64> {
    let (seconds, nanos) = match bytes.len() {
        4 => (i64::from(u32::from_be_bytes(bytes.try_into().ok()?)), 0),
        8 => {
            let value = u64::from_be_bytes(bytes.try_into().ok()?);
            (
                i64::try_from(value & 0x3_ffff_ffff).ok()?,
                u32::try_from(value >> 34).ok()?,
            )
        }
        12 => (
            i64::from_be_bytes(bytes[4..].try_into().ok()?),
            u32::from_be_bytes(bytes[..4].try_into().ok()?),
        ),
        _ => return None,
    };
    Some(DateTime::<Utc>::from_timestamp(seconds, nanos)?.timestamp_micros())
}

/// `None` for nil, else what `read` makes of the token.
#[inline]
pub(super) fn optional<'a, T>(
    token: Token<'a>,
    read: impl FnOnce(Token<'a>) -> Result<T, Invalid>,
) -> Result<Option<T>, Invalid> {
    match token {
        Token::Nil => Ok(None),
        other => read(other).map(Some),
    }
}
