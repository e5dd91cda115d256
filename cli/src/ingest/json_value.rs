//! Turns one JSON value into a field's value, or says what is wrong with it.
//!
//! As lenient as the wire format is with MessagePack, and for the same reasons: ids of cameras are
//! often numbers, a whole number may come as a float, a time as text or as microseconds.

use std::{borrow::Cow, fmt};

use chrono::DateTime;
use passerby_shared::{Gender, Invalid};
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use crate::visible::excerpt;

/// A value of any type. What is inside an array or object is passed over.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum JsonValue<'a> {
    Null,
    Bool(bool),
    Int(i64),
    BigUint(u64),
    Float(f64),
    Text(Cow<'a, str>),
    Array,
    Object,
}

impl JsonValue<'_> {
    fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Int(_) | Self::BigUint(_) => "an integer",
            Self::Float(_) => "a number",
            Self::Text(_) => "a string",
            Self::Array => "an array",
            Self::Object => "an object",
        }
    }

    fn wrong(&self, field: &'static str, expected: &str) -> Invalid {
        Invalid::new(
            field,
            format_args!("is {}, expected {expected}", self.type_name()),
        )
    }

    pub(super) fn int(&self, field: &'static str) -> Result<i64, Invalid> {
        match self {
            Self::Int(value) => Ok(*value),
            Self::Float(value) => exact_integer(*value).ok_or_else(|| {
                Invalid::new(field, format_args!("{value:?} is not a whole number"))
            }),
            Self::BigUint(value) => Err(Invalid::new(
                field,
                format_args!("{value} does not fit into 64 bits with a sign"),
            )),
            other => Err(other.wrong(field, "an integer")),
        }
    }

    pub(super) fn int32(&self, field: &'static str) -> Result<i32, Invalid> {
        let value = self.int(field)?;
        i32::try_from(value)
            .map_err(|_| Invalid::new(field, format_args!("{value} does not fit into 32 bits")))
    }

    pub(super) fn float(&self, field: &'static str) -> Result<f32, Invalid> {
        #[expect(clippy::cast_possible_truncation, reason = "pixels and fractions")]
        #[expect(clippy::cast_precision_loss, reason = "pixels; exact below 2²⁴")]
        let narrow = match self {
            Self::Float(value) => *value as f32,
            Self::Int(value) => *value as f32,
            Self::BigUint(value) => *value as f32,
            other => return Err(other.wrong(field, "a number")),
        };
        if narrow.is_finite() {
            return Ok(narrow);
        }
        Err(Invalid::new(field, "does not fit into a 32-bit float"))
    }

    pub(super) fn boolean(&self, field: &'static str) -> Result<bool, Invalid> {
        match self {
            Self::Bool(value) => Ok(*value),
            other => Err(other.wrong(field, "a boolean")),
        }
    }

    /// An id: text, or an integer written as text.
    pub(super) fn id(&self, field: &'static str) -> Result<String, Invalid> {
        match self {
            Self::Text(value) => Ok(value.clone().into_owned()),
            Self::Int(value) => Ok(value.to_string()),
            Self::BigUint(value) => Ok(value.to_string()),
            other => Err(other.wrong(field, "a string or an integer")),
        }
    }

    pub(super) fn gender(&self, field: &'static str) -> Result<Gender, Invalid> {
        match self {
            Self::Text(text) => text.parse().map_err(|_| {
                Invalid::new(
                    field,
                    format_args!("`{}` is none of male, female, unknown, M, F", excerpt(text)),
                )
            }),
            other => Err(other.wrong(field, "male, female or unknown")),
        }
    }

    /// A time in microseconds since the Unix epoch.
    pub(super) fn time_us(&self, field: &'static str) -> Result<i64, Invalid> {
        match self {
            Self::Text(text) => DateTime::parse_from_rfc3339(text)
                .map(|time| time.timestamp_micros())
                .map_err(|error| {
                    Invalid::new(
                        field,
                        format_args!(
                            "`{}` is not RFC 3339, as in 2026-09-21T12:00:00.040Z: {error}",
                            excerpt(text)
                        ),
                    )
                }),
            // `time.time() * 1e6` has quarters of a microsecond.
            Self::Float(value) => Self::Float(value.round()).int(field),
            Self::Int(_) | Self::BigUint(_) => self.int(field),
            other => Err(other.wrong(field, "RFC 3339 text or microseconds since 1970")),
        }
    }
}

/// The integer that a float stands for, if it stands for exactly one.
pub(super) fn exact_integer(value: f64) -> Option<i64> {
    const EXACT: f64 = 9_007_199_254_740_992.0; // 2⁵³
    #[expect(clippy::cast_possible_truncation, reason = "whole and within ±2⁵³")]
    (value.fract() == 0.0 && value.abs() <= EXACT).then_some(value as i64)
}

impl<'de: 'a, 'a> Deserialize<'de> for JsonValue<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonValueVisitor)
    }
}

struct JsonValueVisitor;

impl<'de> Visitor<'de> for JsonValueVisitor {
    type Value = JsonValue<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(JsonValue::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(JsonValue::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(JsonValue::Int(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(i64::try_from(value).map_or(JsonValue::BigUint(value), JsonValue::Int))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        Ok(JsonValue::Float(value))
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Self::Value, E> {
        Ok(JsonValue::Text(Cow::Borrowed(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(JsonValue::Text(Cow::Owned(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(JsonValue::Array)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(JsonValue::Object)
    }
}
