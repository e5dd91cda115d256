//! Settings in a TOML file: whatever has an environment variable can stand there, under its flag's name.
//!
//! The file gives defaults. It is read before the command line is, and each of its values becomes the
//! default of its flag; so a variable wins over the file and a flag over both, without any merging of our
//! own, and `--help` shows what holds here.
//!
//! What stands before the first table is for both programs. `[worker]` is for `passerby-worker` alone, and
//! `[passerby]` for `passerby`, which takes from `[worker]` what it does not find elsewhere, except how it
//! logs: `passerby doctor` then judges by what workers do.

mod example;
mod show;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt, io,
    path::{Path, PathBuf},
};

use clap::{Arg, ArgAction, ArgMatches, Command, CommandFactory, FromArgMatches, error::ErrorKind};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

pub use example::example;
pub use show::{Origin, Shown, show};

/// Read where no other file is named.
const DEFAULT_PATH: &str = "/etc/passerby/passerby.toml";
/// Names the file; empty for none.
const VARIABLE: &str = "PASSERBY_CONFIG";
/// A flag's variable is this with the flag's name.
const PREFIX: &str = "PASSERBY_";

/// A program that reads the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// `passerby-worker`
    Worker,
    /// `passerby`
    Passerby,
}

impl Program {
    /// Its own table.
    const fn table(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Passerby => "passerby",
        }
    }

    /// Where it looks for a key, the first that has it.
    fn tables(self, key: &str) -> &'static [&'static str] {
        match self {
            Self::Worker => &["worker", ""],
            Self::Passerby if key.starts_with("log") => &["passerby", ""],
            Self::Passerby => &["passerby", "", "worker"],
        }
    }
}

/// A file that cannot be used. It may hold passwords, so that nothing of it is repeated but names.
#[derive(Debug, thiserror::Error)]
pub enum ConfigFileError {
    /// It cannot be read.
    #[error("read {path}", path = path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Something in it is wrong.
    #[error("{path}, line {line}: {problem}", path = path.display())]
    Invalid {
        /// Which file.
        path: PathBuf,
        /// Where.
        line: usize,
        /// What.
        problem: String,
    },
}

/// What a file says.
#[derive(Debug, Default)]
pub struct ConfigFile {
    path: Option<PathBuf>,
    /// By table and key.
    values: BTreeMap<(String, String), FileValue>,
    ignored: Option<String>,
}

/// A value in a file, as it would be typed.
#[derive(Clone)]
struct FileValue {
    text: String,
    is_flag: bool,
    line: usize,
}

impl fmt::Debug for FileValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}", self.line)
    }
}

/// A command line, read with its defaults from a file.
#[derive(Debug)]
pub struct CommandLine<C> {
    /// What was typed.
    pub args: C,
    /// As clap has it.
    pub matches: ArgMatches,
    /// The command, with the file's defaults.
    pub command: Command,
    /// The file.
    pub file: ConfigFile,
}

/// Why a command line cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CommandLineError {
    /// The file.
    #[error(transparent)]
    File(#[from] ConfigFileError),
    /// What was typed; also a wish for help.
    #[error(transparent)]
    Usage(#[from] clap::Error),
}

/// Reads a program's command line, its environment, and its file.
///
/// `others` are the commands of other programs whose tables can be checked here.
///
/// # Errors
///
/// [`CommandLineError`] says what is wrong with which of them.
pub fn read<C: CommandFactory + FromArgMatches>(
    program: Program,
    others: &[(Program, Command)],
) -> Result<CommandLine<C>, CommandLineError> {
    let args: Vec<OsString> = std::env::args_os().collect();
    let command = C::command();
    let mut known = vec![(program, command.clone())];
    known.extend_from_slice(others);
    let file = ConfigFile::find(&args)?;
    file.check(&known)?;
    let command = file.as_defaults(program, command);
    let matches = command.clone().try_get_matches_from(args)?;
    let args = C::from_arg_matches(&matches).map_err(|error| error.format(&mut command.clone()))?;
    Ok(CommandLine {
        args,
        matches,
        command,
        file,
    })
}

/// What `--config` names, before anything else is read of the command line.
fn named(args: &[OsString]) -> Option<PathBuf> {
    let mut args = args.iter().skip(1).take_while(|arg| *arg != "--");
    while let Some(arg) = args.next() {
        if arg == "--config" {
            return args.next().map(PathBuf::from);
        }
        if let Some(path) = arg.to_str().and_then(|arg| arg.strip_prefix("--config=")) {
            return Some(PathBuf::from(path));
        }
    }
    None
}

impl ConfigFile {
    fn find(args: &[OsString]) -> Result<Self, ConfigFileError> {
        let is_named = |path: &PathBuf| !path.as_os_str().is_empty();
        if let Some(path) = named(args).or_else(|| std::env::var_os(VARIABLE).map(PathBuf::from)) {
            return match is_named(&path) {
                true => Self::read(&path),
                false => Ok(Self::default()),
            };
        }
        let path = Path::new(DEFAULT_PATH);
        match Self::read(path) {
            // Whoever looks around on a host need not have the rights of its workers.
            Err(ConfigFileError::Read { source, .. }) => Ok(Self {
                ignored: (source.kind() != io::ErrorKind::NotFound)
                    .then(|| format!("going on without {DEFAULT_PATH}: {source}")),
                ..Self::default()
            }),
            read => read,
        }
    }

    fn read(path: &Path) -> Result<Self, ConfigFileError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigFileError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(path, &text)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, ConfigFileError> {
        let line_of = |at: usize| text[..at.min(text.len())].matches('\n').count() + 1;
        let invalid = |at: usize, problem: String| ConfigFileError::Invalid {
            path: path.to_owned(),
            line: line_of(at),
            problem,
        };
        let document = DeTable::parse(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            invalid(at, format!("no TOML: {}", error.message()))
        })?;
        let mut values = BTreeMap::new();
        let mut take = |table: &str, key: &Spanned<_>, value: &Spanned<DeValue<'_>>| {
            let at = key.span().start;
            let key: &std::borrow::Cow<'_, str> = key.get_ref();
            let (text, is_flag) = as_typed(value.get_ref()).ok_or_else(|| {
                invalid(at, format!("{key} must be a text, a number, true or false"))
            })?;
            let value = FileValue {
                text,
                is_flag,
                line: line_of(at),
            };
            values.insert((table.to_owned(), key.to_string()), value);
            Ok(())
        };
        for (name, value) in document.get_ref() {
            match value.get_ref() {
                DeValue::Table(table) if is_table(name.get_ref()) => {
                    for (key, value) in table {
                        take(name.get_ref(), key, value)?;
                    }
                }
                DeValue::Table(_) => {
                    let problem = format!(
                        "there is no table [{}]: there are [worker] and [passerby]",
                        name.get_ref()
                    );
                    return Err(invalid(name.span().start, problem));
                }
                _ => take("", name, value)?,
            }
        }
        Ok(Self {
            path: Some(path.to_owned()),
            values,
            ignored: None,
        })
    }

    /// The file that was read.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// What there is to say of a file that was left aside.
    pub fn ignored(&self) -> Option<&str> {
        self.ignored.as_deref()
    }

    /// Checks that each key is a flag of its program, and each value one that the flag takes.
    fn check(&self, known: &[(Program, Command)]) -> Result<(), ConfigFileError> {
        for ((table, key), value) in &self.values {
            let programs: Vec<&(Program, Command)> = known
                .iter()
                .filter(|(program, _)| table.is_empty() || program.table() == table)
                .collect();
            // The table of a program that this one does not know.
            if programs.is_empty() {
                continue;
            }
            let invalid = |problem| ConfigFileError::Invalid {
                path: self.path.clone().unwrap_or_default(),
                line: value.line,
                problem,
            };
            let settings: Vec<Arg> = programs
                .iter()
                .flat_map(|(_, command)| settings(command))
                .collect();
            let mut meant = settings.iter().filter(|arg| key_of(arg) == *key).peekable();
            if meant.peek().is_none() {
                return Err(invalid(unknown(key, &settings)));
            }
            for arg in meant {
                value.check(key, arg).map_err(&invalid)?;
            }
        }
        Ok(())
    }

    /// The value that a program takes for a key.
    fn get(&self, program: Program, key: &str) -> Option<&FileValue> {
        let tables = program.tables(key).iter();
        tables
            .filter_map(|table| self.values.get(&((*table).to_owned(), key.to_owned())))
            .next()
    }

    /// The command with what the file says as defaults.
    fn as_defaults(&self, program: Program, command: Command) -> Command {
        command
            .mut_args(|arg| match self.get(program, &key_of(&arg)) {
                Some(value) if arg.get_env().is_some() => {
                    let is_secret = arg.is_hide_env_values_set();
                    arg.default_value(value.text.clone())
                        .hide_default_value(is_secret)
                }
                _ => arg,
            })
            .mut_subcommands(|command| self.as_defaults(program, command))
    }
}

impl FileValue {
    /// Lets the flag itself read the value.
    fn check(&self, key: &str, arg: &Arg) -> Result<(), String> {
        if matches!(arg.get_action(), ArgAction::SetTrue) != self.is_flag {
            return Err(match self.is_flag {
                true => format!("{key} takes a value, not true or false"),
                false => format!("{key} must be true or false"),
            });
        }
        if self.is_flag {
            return Ok(());
        }
        let mut typed = OsString::from(format!("--{}=", arg.get_long().unwrap_or(key)));
        typed.push(&self.text);
        let alone = Command::new("file").arg(arg.clone().env(None).global(false));
        match alone.try_get_matches_from(["file".into(), typed]) {
            Ok(_) => Ok(()),
            Err(_) if arg.is_hide_env_values_set() => Err(format!("{key} cannot be read")),
            Err(error) if error.kind() == ErrorKind::ValueValidation => {
                let why = std::error::Error::source(&error).map(ToString::to_string);
                Err(format!(
                    "{key}: {}",
                    why.unwrap_or_else(|| error.to_string())
                ))
            }
            Err(error) => Err(format!("{key}: {}", first_line(&error))),
        }
    }
}

fn first_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    line.trim_start_matches("error: ").to_owned()
}

fn is_table(name: &str) -> bool {
    [Program::Worker, Program::Passerby]
        .iter()
        .any(|program| program.table() == name)
}

/// As a flag's value is typed, and whether it is true or false.
fn as_typed(value: &DeValue<'_>) -> Option<(String, bool)> {
    Some(match value {
        DeValue::String(text) => (text.to_string(), false),
        DeValue::Integer(n) => {
            let n = i64::from_str_radix(n.as_str(), n.radix()).ok()?;
            (n.to_string(), false)
        }
        DeValue::Float(n) => (n.as_str().to_owned(), false),
        DeValue::Boolean(is_true) => (is_true.to_string(), true),
        _ => return None,
    })
}

/// The flags that have a variable, those of subcommands too, except the one that names the file.
fn settings(command: &Command) -> Vec<Arg> {
    let own = command
        .get_arguments()
        .filter(|arg| is_setting(arg))
        .cloned();
    own.chain(command.get_subcommands().flat_map(settings))
        .collect()
}

fn is_setting(arg: &Arg) -> bool {
    let variable = arg.get_env().and_then(|name| name.to_str());
    variable.is_some_and(|name| name.starts_with(PREFIX) && name != VARIABLE)
}

/// A setting's key: the name of its variable, in small letters. The flag has the same name, except where a
/// command can do with a shorter one.
fn key_of(arg: &Arg) -> String {
    let variable = arg.get_env().unwrap_or_default().to_string_lossy();
    let name = variable.strip_prefix(PREFIX).unwrap_or(&variable);
    name.to_lowercase().replace('_', "-")
}

fn unknown(key: &str, settings: &[Arg]) -> String {
    let nearest = settings
        .iter()
        .map(key_of)
        .map(|known| (strsim::normalized_damerau_levenshtein(key, &known), known))
        .max_by(|(a, _), (b, _)| a.total_cmp(b));
    match nearest {
        Some((likeness, nearest)) if likeness > 0.5 => {
            format!("there is no setting {key}; did you mean {nearest}?")
        }
        _ => format!("there is no setting {key}: `passerby config example` lists them"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command_line::WorkerCommandLine;

    fn parse(text: &str) -> Result<ConfigFile, ConfigFileError> {
        let file = ConfigFile::parse(Path::new("passerby.toml"), text)?;
        file.check(&[(Program::Worker, WorkerCommandLine::command())])?;
        Ok(file)
    }

    fn check(text: &str, expected: &str) {
        let error = parse(text).unwrap_err().to_string();
        assert_eq!(error, format!("passerby.toml, {expected}"));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        check(
            "shards = 4\n\n[worker]\nbatch-row = 10\n",
            "line 4: there is no setting batch-row; did you mean batch-rows?",
        );
        check(
            "batch_rows = 10",
            "line 1: there is no setting batch_rows; did you mean batch-rows?",
        );
        check(
            "quux = 1",
            "line 1: there is no setting quux: `passerby config example` lists them",
        );
        check(
            "\n[wroker]\nshards = 1\n",
            "line 2: there is no table [wroker]: there are [worker] and [passerby]",
        );
        check(
            "linger = \"ten\"",
            "line 1: linger: `ten` is no time: expected a number with ms, s, m, h or d, as 30s",
        );
        check(
            "shards = 0",
            "line 1: shards: number would be zero for non-zero type",
        );
        check(
            "shards = [1]",
            "line 1: shards must be a text, a number, true or false",
        );
        check(
            "shards = true",
            "line 1: shards takes a value, not true or false",
        );
        check("no-trim = \"yes\"", "line 1: no-trim must be true or false");
        check(
            "log-format = \"xml\"",
            "line 1: log-format: invalid value 'xml' for '--log-format <LOG_FORMAT>'",
        );
    }

    #[test]
    fn every_flag_of_a_worker_has_a_variable_of_its_name() {
        for arg in WorkerCommandLine::command().get_arguments() {
            let flag = arg.get_long().unwrap_or_default();
            if ["check-ready", "print-config", "help", "version"].contains(&flag) {
                continue;
            }
            let expected = format!("{PREFIX}{}", flag.to_uppercase().replace('-', "_"));
            assert_eq!(arg.get_env().unwrap().to_str(), Some(expected.as_str()));
        }
    }

    #[test]
    fn nothing_secret_is_repeated() {
        for text in [
            "redis-url = \"redis://me:s3cr3t@host/0",
            "redis-url = \"redis://me:s3cr3t@host/0\" x",
            "redis-url = [\"redis://me:s3cr3t@host/0\"]",
        ] {
            let error = parse(text).unwrap_err();
            assert!(
                !format!("{error} {error:?}").contains("s3cr3t"),
                "{error:?}"
            );
        }
        let file = parse("redis-url = \"redis://me:s3cr3t@host/0\"").unwrap();
        assert!(!format!("{file:?}").contains("s3cr3t"));
        let command = file.as_defaults(Program::Worker, WorkerCommandLine::command());
        let help = command.clone().render_long_help().to_string();
        assert!(!help.contains("s3cr3t"), "{help}");
    }

    #[test]
    fn a_flag_wins_over_the_file() {
        let file =
            parse("shards = 4\nbatch-rows = 10\nno-trim = true\n[worker]\nshards = 5\n").unwrap();
        let command = file.as_defaults(Program::Worker, WorkerCommandLine::command());
        let matches = command
            .try_get_matches_from(["passerby-worker", "--batch-rows", "7"])
            .unwrap();
        let raw = |id: &str| matches.get_raw(id).unwrap().next().unwrap().to_owned();
        assert_eq!(raw("shards"), "5"); // the program's own table
        assert_eq!(raw("batch_rows"), "7");
        assert!(matches.get_flag("no_trim"));
    }

    #[test]
    fn passerby_goes_by_what_workers_do_except_for_logs() {
        let file = parse("[worker]\nmin-idle = \"1m\"\nlog = \"debug\"\n").unwrap();
        assert_eq!(file.get(Program::Passerby, "min-idle").unwrap().text, "1m");
        assert!(file.get(Program::Passerby, "log").is_none());
        assert!(file.get(Program::Worker, "log").is_some());
    }

    #[test]
    fn the_file_is_named_before_anything_else_is_read() {
        let check = |args: &[&str], expected: Option<&str>| {
            let args: Vec<OsString> = args.iter().map(Into::into).collect();
            assert_eq!(named(&args), expected.map(PathBuf::from), "{args:?}");
        };
        check(
            &["passerby", "doctor", "--config", "a.toml"],
            Some("a.toml"),
        );
        check(&["passerby", "--config=b.toml", "doctor"], Some("b.toml"));
        check(&["passerby", "doctor", "--", "--config", "a.toml"], None);
        check(&["passerby", "doctor"], None);
        check(&["passerby", "--config"], None);
    }
}
