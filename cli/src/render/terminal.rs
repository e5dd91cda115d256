//! What an output can show.

use std::{
    env,
    io::{self, IsTerminal},
    os::fd::AsFd,
};

/// The width and the characters of an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terminal {
    /// Columns; `None` where lines may be of any length, as in a file.
    pub width: Option<u16>,
    /// Whether characters beyond ASCII are shown.
    pub is_unicode: bool,
}

impl Terminal {
    /// The width of what is drawn where there is no width.
    pub const DEFAULT_WIDTH: u16 = 80;

    /// What standard output can show. `COLUMNS` wins over what the terminal says.
    pub fn stdout() -> Self {
        Self::of(&io::stdout())
    }

    /// What standard error can show. `COLUMNS` wins over what the terminal says.
    pub fn stderr() -> Self {
        Self::of(&io::stderr())
    }

    fn of(output: &(impl AsFd + IsTerminal)) -> Self {
        let columns = env::var("COLUMNS").ok().and_then(|c| c.parse().ok());
        let asked = || {
            let size = rustix::termios::tcgetwinsize(output).ok()?;
            output.is_terminal().then_some(size.ws_col)
        };
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].map(|name| env::var(name).ok());
        Self {
            width: columns.or_else(asked).filter(|&width| width > 0),
            is_unicode: is_utf8(locale),
        }
    }

    /// The columns to draw in.
    pub fn drawing_width(self) -> usize {
        usize::from(self.width.unwrap_or(Self::DEFAULT_WIDTH))
    }
}

/// Whether the first of the locale variables that is set and not empty names UTF-8.
fn is_utf8(variables: [Option<String>; 3]) -> bool {
    let locale = variables
        .into_iter()
        .flatten()
        .find(|value| !value.is_empty());
    locale.is_some_and(|value| {
        let value = value.to_ascii_lowercase();
        value.contains("utf-8") || value.contains("utf8")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_locale_tells_the_characters() {
        let check = |variables: [&str; 3], expected| {
            assert_eq!(is_utf8(variables.map(|v| Some(v.to_owned()))), expected);
        };
        check(["", "", "C.UTF-8"], true);
        check(["", "de_DE.utf8", ""], true);
        check(["C", "de_DE.utf8", "C.UTF-8"], false);
        check(["", "", ""], false);
        assert!(!is_utf8([None, None, None]));
    }
}
