//! A file with every setting, for whoever begins one.

use clap::{Arg, ArgAction, Command};

use super::{key_of, settings, show::as_toml};

const HEAD: &str = "\
# Passerby's settings, each with its default. A PASSERBY_… variable wins over this file, and a flag
# over both. passerby-worker and passerby read the file that --config or PASSERBY_CONFIG names, else
# /etc/passerby/passerby.toml. It may hold passwords: keep it from others (chmod 640).

# For both programs.
";

const WORKER: &str = "
# For passerby-worker alone. `passerby doctor` judges by what stands here.
[worker]
";

const PASSERBY: &str = "
# For passerby alone.
[passerby]
";

/// Every setting of the two programs, commented out.
pub fn example(worker: &Command, passerby: &Command) -> String {
    let (of_worker, of_passerby) = (each_once(worker), each_once(passerby));
    let same = |arg: &Arg, others: &[Arg]| {
        others
            .iter()
            .any(|other| key_of(other) == key_of(arg) && default_of(other) == default_of(arg))
    };
    let (shared, of_worker): (Vec<Arg>, Vec<Arg>) = of_worker
        .into_iter()
        .partition(|arg| same(arg, &of_passerby));
    let of_passerby = of_passerby.into_iter().filter(|arg| !same(arg, &shared));
    let mut text = HEAD.to_owned();
    text.extend(shared.iter().map(setting));
    text.push_str(WORKER);
    text.extend(of_worker.iter().map(setting));
    text.push_str(PASSERBY);
    text.extend(of_passerby.map(|arg| setting(&arg)));
    text
}

fn each_once(command: &Command) -> Vec<Arg> {
    let mut once: Vec<Arg> = Vec::new();
    for arg in settings(command) {
        if !once.iter().any(|known| key_of(known) == key_of(&arg)) {
            once.push(arg);
        }
    }
    once
}

fn default_of(arg: &Arg) -> Option<String> {
    let default = arg.get_default_values().first()?;
    Some(default.to_string_lossy().into_owned())
}

/// What it does, and its default, or what one could write.
fn setting(arg: &Arg) -> String {
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let mut text = String::from("\n");
    for line in wrapped(&help) {
        text.extend(["# ", &line, "\n"]);
    }
    let value = match arg.get_action() {
        ArgAction::SetTrue => "true".to_owned(),
        _ => default_of(arg).unwrap_or_else(|| for_instance(arg).to_owned()),
    };
    text.extend(["#", &key_of(arg), " = ", &as_toml(&value), "\n"]);
    text
}

/// A value for a setting that has no default.
fn for_instance(arg: &Arg) -> &'static str {
    let names = arg.get_value_names().unwrap_or_default();
    match (
        key_of(arg).as_str(),
        names.first().map(|name| name.as_str()),
    ) {
        ("redis-url", _) => "redis://localhost:6379/0",
        ("database-url", _) => "postgresql://localhost/passerby",
        (_, Some("TIME")) => "90d",
        (_, Some("N" | "PERCENT")) => "1",
        (_, Some("ADDRESS")) => "127.0.0.1:9464",
        (_, Some("URL")) => "http://localhost:4317",
        _ => "name",
    }
}

/// Lines of at most 98 characters, with their sign.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.last_mut().expect("begins with one");
        if last.is_empty() {
            last.push_str(word);
        } else if last.chars().count() + 1 + word.chars().count() <= 96 {
            last.push(' ');
            last.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}
