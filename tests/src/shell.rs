//! What a person would type into a shell.

/// An argument as a shell reads it back: between quotes, where it is not plain.
pub(crate) fn quoted(arg: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=+,@%".contains(c);
    if !arg.is_empty() && arg.chars().all(is_plain) {
        return arg.to_owned();
    }
    // Between single quotes nothing has a meaning but the next of them: it stands outside, after a backslash.
    format!("'{}'", arg.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn what_is_plain_stays_as_it_is() {
        for arg in [
            "--rows",
            "1000000",
            "--only=none",
            "1,2",
            "user@host:5432/a_b.c",
        ] {
            assert_eq!(quoted(arg), arg);
        }
    }

    #[test]
    fn a_shell_reads_back_what_was_quoted() {
        for arg in [
            "",
            "Passerby's: brin timestamp, (session, track)",
            "it's 'quoted'",
            "$HOME `id` \"a\" \\ \\' !1 ~ # * ? [a] {a,b} a;b|c&d <e >f",
            "two\nlines",
            "Grüße",
        ] {
            let script = format!("printf %s {}", quoted(arg));
            let output = Command::new("sh").args(["-c", &script]).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), arg, "{script}");
        }
    }
}
