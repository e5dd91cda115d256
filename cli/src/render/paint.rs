//! Colours, where a terminal shows them. What is coloured also says in words what it is.

use std::{
    env,
    io::{self, IsTerminal},
};

/// A colour of the terminal's own palette, which its owner has chosen to be legible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    /// All is well.
    Green,
    /// Look at it.
    Yellow,
    /// Act.
    Red,
    /// Beside the point.
    Dim,
}

/// Whether an output is coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paint {
    is_on: bool,
}

impl Paint {
    /// Standard output: coloured on a terminal, unless `NO_COLOR` is set or the terminal is dumb.
    pub fn stdout() -> Self {
        let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self {
            is_on: io::stdout().is_terminal() && !is_set("NO_COLOR") && !is_dumb,
        }
    }

    /// The text in this colour.
    pub fn text(self, colour: Colour, text: &str) -> String {
        if !self.is_on {
            return text.to_owned();
        }
        let code = match colour {
            Colour::Green => 32,
            Colour::Yellow => 33,
            Colour::Red => 31,
            Colour::Dim => 2,
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_for_terminals() {
        let check =
            |is_on, expected| assert_eq!(Paint { is_on }.text(Colour::Red, "problem"), expected);
        check(false, "problem");
        check(true, "\u{1b}[31mproblem\u{1b}[0m");
    }
}
