//! What commands print, compared with committed files.

use std::{
    collections::BTreeSet,
    fmt::Write,
    path::{Path, PathBuf},
    sync::Mutex,
};

use snapbox::{Assert, Data, data::DataFormat};

use crate::{Env, Output, Passerby, Schemas, redact::Redactions, shell::quoted};

/// The variable that has the files rewritten: `SNAPSHOTS=overwrite cargo test …`.
const ACTION: &str = "SNAPSHOTS";

/// What one or several commands print, one after the other, as `tests/cmd/<name>.txt` has it.
///
/// The file reads as a terminal would: `$` before what was typed, what came on stdout, `2>` before what
/// came on stderr, `?` before an exit code that is not 0. What differs from run to run is replaced by
/// something of the same length that does not; see `Redactions`. JSON is held to the command's schema
/// besides.
///
/// Compared when dropped.
#[derive(Debug)]
pub struct Golden {
    path: PathBuf,
    passerby: Passerby,
    redactions: Option<Redactions>,
    transcript: String,
    is_noted: bool,
}

impl Golden {
    /// Of commands on a test's stream and database. No two tests may have the same name.
    pub fn of(name: &str, test: &Env) -> Self {
        let mut golden = Self::with(name, Passerby::on(test));
        golden.redact(&test.key_prefix().to_string(), "passerby");
        golden
    }

    /// Of commands that print the same wherever and whenever they run: nothing is taken out. The days that
    /// help has in its examples would move with the day of the test.
    pub fn verbatim(name: &str, passerby: Passerby) -> Self {
        let mut golden = Self::with(name, passerby);
        golden.redactions = None;
        golden
    }

    /// Of commands of this environment.
    pub fn with(name: &str, passerby: Passerby) -> Self {
        static TAKEN: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
        let is_new = TAKEN.lock().unwrap().insert(name.to_owned());
        assert!(is_new, "two tests write tests/cmd/{name}.txt");
        Self {
            path: cmd_file(name),
            passerby,
            redactions: Some(Redactions::default()),
            transcript: String::new(),
            is_noted: false,
        }
    }

    /// Shows one text as another, which best has the same length. Also in what was typed.
    pub fn redact(&mut self, text: &str, shown: &str) {
        if let Some(redactions) = &mut self.redactions {
            redactions.literal(text, shown);
        }
    }

    /// Says in the file what happened before the next command.
    pub fn note(&mut self, text: &str) {
        self.begin();
        writeln!(self.transcript, "# {text}").unwrap();
        self.is_noted = true;
    }

    /// Runs a command, and notes what it prints.
    pub async fn run(&mut self, args: &[&str]) -> Output {
        let output = self.passerby.run(args).await;
        self.add(args, &output);
        output
    }

    /// Notes what a command has printed that the test ran in its own way.
    pub fn add(&mut self, args: &[&str], output: &Output) {
        if args.contains(&"--json") {
            Schemas::committed().assert_valid(args, &output.stdout);
        }
        if !std::mem::take(&mut self.is_noted) {
            self.begin();
        }
        let typed = args.iter().map(|arg| quoted(arg)).collect::<Vec<_>>();
        let mut shown = format!("$ passerby {}\n", typed.join(" "));
        shown.push_str(&output.stdout);
        for line in output.stderr.lines() {
            writeln!(shown, "2> {line}").unwrap();
        }
        match output.code {
            Some(0) => {}
            Some(code) => writeln!(shown, "? {code}").unwrap(),
            None => shown.push_str("? signal\n"),
        }
        if let Some(redactions) = &mut self.redactions {
            shown = redactions.apply(&shown);
        }
        for line in shown.lines() {
            // Help ends paragraphs with spaces, which editors take away.
            writeln!(self.transcript, "{}", line.trim_end()).unwrap();
        }
    }

    fn begin(&mut self) {
        if !self.transcript.is_empty() {
            self.transcript.push('\n');
        }
    }
}

impl Drop for Golden {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            compare_with_file(&self.transcript, &self.path);
        }
    }
}

/// Where what is printed stands.
pub fn cmd_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("cmd/{name}.txt"))
}

/// Asserts that a file has this text, or rewrites it where `SNAPSHOTS=overwrite` asks for that.
pub fn compare_with_file(text: &str, path: &Path) {
    let expected = Data::read_from(path, Some(DataFormat::Text)).raw();
    Assert::new().action_env(ACTION).eq(text, expected);
}
