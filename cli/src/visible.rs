//! Makes foreign text safe to show.
//!
//! File names, camera ids and lines of input come from strangers. A control character among them
//! could move the cursor or recolour the terminal of whoever looks, so none is printed as it is.

use std::borrow::Cow;

/// The text with every control character escaped.
pub(crate) fn visible(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_unsafe(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}

/// The beginning of the text, for an error message.
pub(crate) fn excerpt(text: &str) -> String {
    const MAX_CHARS: usize = 40;
    match text.char_indices().nth(MAX_CHARS) {
        None => visible(text).into_owned(),
        Some((end, _)) => format!("{}…", visible(&text[..end])),
    }
}

/// Control characters, and those that reorder the text around them.
fn is_unsafe(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        assert_eq!(excerpt(text), expected);
    }

    #[test]
    fn nothing_that_steers_a_terminal_is_printed() {
        check("cam-1 é", "cam-1 é");
        check("a\u{1b}[31mb\r\n", "a\\u{1b}[31mb\\r\\n");
        check("abc\u{202e}def", "abc\\u{202e}def");
        check(&"é".repeat(41), &format!("{}…", "é".repeat(40)));
    }
}
