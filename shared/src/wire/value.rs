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
        Token::F64(value) => whole(field, value, EXACT_F64),
        Token::F32(value) => whole(field, f64::from(value), EXACT_F32),
        Token::BigUint(value) => Err(Invalid::new(
            field,
            format_args!("{value} does not fit into 64 bits with a sign"),
        )),
        other => Err(wrong(field, other, "an integer")),
    }
}

/// Up to here every whole number has a float of its own: beyond it one stands for several.
const EXACT_F64: f64 = 9_007_199_254_740_992.0; // 2⁵³
const EXACT_F32: f64 = 16_777_216.0; // 2²⁴

fn whole(field: &'static str, value: f64, exact: f64) -> Result<i64, Invalid> {
    if !value.is_finite() {
        return Err(Invalid::new(
            field,
            format_args!("{value} is not a finite number"),
        ));
    }
    if value.fract() != 0.0 {
        return Err(Invalid::new(
            field,
            format_args!("{value:?} is not a whole number"),
        ));
    }
    if value.abs() > exact {
        return Err(Invalid::new(
            field,
            format_args!("{value:?} is too large to be exact as a float: send an integer"),
        ));
    }
    #[expect(clippy::cast_possible_truncation, reason = "whole and within ±2⁵³")]
    Ok(value as i64)
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
        Token::F64(value) => narrow(value).ok_or_else(|| {
            Invalid::new(
                field,
                format_args!("{value:?} does not fit into a 32-bit float"),
            )
        }),
        #[expect(clippy::cast_precision_loss, reason = "pixels; exact below 2²⁴")]
        Token::Int(value) => Ok(value as f32),
        #[expect(clippy::cast_precision_loss, reason = "as above")]
        Token::BigUint(value) => Ok(value as f32),
        other => Err(wrong(field, other, "a number")),
    }
}

/// `None` of a number that is too large.
#[inline]
pub(super) fn narrow(value: f64) -> Option<f32> {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "pixels and fractions need no more"
    )]
    let narrow = value as f32;
    (narrow.is_finite() || !value.is_finite()).then_some(narrow)
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
        Token::Str(_) | Token::Bin(_) => text(field, token).map(Cow::Borrowed),
        other => Err(wrong(field, other, "a string or an integer")),
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
        Token::BigUint(code) => Err(Invalid::new(
            field,
            format_args!("{code} is none of 0 unknown, 1 male, 2 female"),
        )),
        other => text(field, other)?
            .parse()
            .map_err(|error| Invalid::new(field, error)),
    }
}

/// A time in microseconds since the Unix epoch.
pub(super) fn time(field: &'static str, token: Token<'_>) -> Result<i64, Invalid> {
    match token {
        Token::Str(_) | Token::Bin(_) => {
            let text = text(field, token)?;
            let time = DateTime::parse_from_rfc3339(text).map_err(|error| {
                Invalid::new(field, format_args!("`{text:.40}` is not RFC 3339: {error}"))
            })?;
            Ok(time.timestamp_micros())
        }
        Token::Ext(-1, bytes) => extension_timestamp(bytes)
            .ok_or_else(|| Invalid::new(field, "is a malformed MessagePack timestamp")),
        // `time.time() * 1e6` has quarters of a microsecond.
        Token::F64(value) => whole(field, value.round(), EXACT_F64),
        Token::Int(_) | Token::BigUint(_) | Token::F32(_) => int(field, token),
        other => Err(wrong(
            field,
            other,
            "microseconds since 1970, RFC 3339 or a MessagePack timestamp",
        )),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T: std::fmt::Debug + PartialEq>(read: Result<T, Invalid>, expected: Result<T, &str>) {
        assert_eq!(
            read.as_ref().map_err(Invalid::problem),
            expected.as_ref().map_err(|e| *e)
        );
    }

    #[test]
    fn a_float_is_an_integer_only_where_it_is_exact() {
        check(int("f", Token::F64(-7.0)), Ok(-7));
        check(int("f", Token::F64(EXACT_F64)), Ok(1 << 53));
        check(
            int("f", Token::F64(1e300)),
            Err("1e300 is too large to be exact as a float: send an integer"),
        );
        check(int("f", Token::F64(0.5)), Err("0.5 is not a whole number"));
        check(
            int("f", Token::F64(f64::NAN)),
            Err("NaN is not a finite number"),
        );
        check(int("f", Token::F32(16_777_216.0)), Ok(1 << 24));
        check(
            int("f", Token::F32(16_777_218.0)),
            Err("16777218.0 is too large to be exact as a float: send an integer"),
        );
    }

    #[test]
    fn a_number_is_a_number_whatever_its_type() {
        check(float("f", Token::Int(-3)), Ok(-3.0));
        check(float("f", Token::BigUint(1 << 63)), Ok(9.223_372e18));
        check(float("f", Token::F64(0.25)), Ok(0.25));
        check(
            float("f", Token::F64(1e300)),
            Err("1e300 does not fit into a 32-bit float"),
        );
        check(
            float("f", Token::Bool(true)),
            Err("is a boolean, expected a number"),
        );
    }

    #[test]
    fn a_time_is_read_in_every_form_that_is_unambiguous() {
        const US: i64 = 1_790_000_000_123_456;
        check(time("f", Token::Int(US)), Ok(US));
        check(time("f", Token::F64(1_790_000_000_123_456.2)), Ok(US));
        for text in [
            "2026-09-21T14:13:20.123456Z",
            "2026-09-21T14:13:20.123456999Z",
            "2026-09-21T16:13:20.123456+02:00",
        ] {
            check(time("f", Token::Str(text.as_bytes())), Ok(US));
            check(time("f", Token::Bin(text.as_bytes())), Ok(US));
        }
        check(
            time("f", Token::F32(1.79e15)),
            Err("1789999963963392.0 is too large to be exact as a float: send an integer"),
        );
        check(
            time("f", Token::Bool(true)),
            Err(
                "is a boolean, expected microseconds since 1970, RFC 3339 or a MessagePack \
                 timestamp",
            ),
        );
        check(
            time("f", Token::Ext(-1, &[0; 5])),
            Err("is a malformed MessagePack timestamp"),
        );
    }
}
