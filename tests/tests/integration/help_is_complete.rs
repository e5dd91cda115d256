//! Whoever asks for help gets it: every command says what it does, with an example, on a narrow terminal,
//! in man pages, and in what shells complete.

use passerby_consumer::command_line::WorkerCommandLine;
use passerby_tests::{Passerby, Tool};

/// Every command that can be run, with its words.
fn commands() -> Vec<(String, clap::Command)> {
    fn walk(words: &str, command: clap::Command, found: &mut Vec<(String, clap::Command)>) {
        for child in command.get_subcommands() {
            walk(
                &format!("{words} {}", child.get_name()),
                child.clone(),
                found,
            );
        }
        found.push((words.to_owned(), command));
    }
    let mut found = Vec::new();
    walk("passerby", passerby::command(), &mut found);
    let worker = <WorkerCommandLine as clap::CommandFactory>::command();
    walk("passerby-worker", worker, &mut found);
    found
}

#[test]
fn every_command_says_what_it_does_with_an_example() {
    for (words, command) in commands() {
        assert!(command.get_about().is_some(), "{words} has no description");
        for arg in command.get_arguments() {
            let name = arg.get_id();
            assert!(
                arg.get_help().is_some(),
                "{words}: {name} has no description"
            );
        }
        let after = command
            .get_after_help()
            .map(ToString::to_string)
            .unwrap_or_default();
        let has_example = after.contains("Example") || after.contains("Start here");
        assert!(
            has_example && after.contains(&words),
            "{words} has no example of itself: {after}"
        );
    }
}

#[test]
fn help_fits_100_columns() {
    for (words, command) in commands() {
        let help = command.term_width(100).render_long_help().to_string();
        for line in help.lines() {
            assert!(line.chars().count() <= 100, "{words}: {line}");
        }
    }
}

/// Runs a program of the machine; `None` where there is none.
fn run(program: &str, args: &[&str]) -> Option<std::process::Output> {
    let tool = Tool::find(program, &format!("apt-get install {program}"))?;
    Some(tool.command().args(args).output().unwrap())
}

#[tokio::test]
async fn man_pages_are_written_for_every_command() {
    let dir = tempfile::tempdir().unwrap();
    let into = dir.path().join("man1");
    let said = Passerby::alone()
        .run(&["man", into.to_str().unwrap()])
        .await
        .ok();
    assert!(said.contains("man pages written"), "{said}");

    for (words, _) in commands() {
        let page = into.join(format!("{}.1", words.replace(' ', "-")));
        assert!(page.is_file(), "{} is missing", page.display());
        let page = page.to_str().unwrap();
        if let Some(found) = run("mandoc", &["-Tlint", "-Werror", page]) {
            let complaints = String::from_utf8_lossy(&found.stdout);
            assert!(found.status.success(), "{complaints}");
        }
    }
    let page = Passerby::alone().run(&["man"]).await.ok();
    assert!(page.contains(".TH passerby 1"), "{page}");
}

#[tokio::test]
async fn completions_can_be_read_by_their_shells() {
    for program in ["passerby", "passerby-worker"] {
        for (shell, check) in [
            ("bash", &["-n"][..]),
            ("zsh", &["-n"]),
            ("fish", &["--no-execute"]),
            ("elvish", &[]),
            ("powershell", &[]),
        ] {
            let args = ["completions", shell, "--program", program];
            let script = Passerby::alone().run(&args).await.ok();
            assert!(script.contains("redis-url"), "{shell}");
            // Theirs can be read by a shell that somebody sits before, and by no other.
            if check.is_empty() {
                continue;
            }
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), &script).unwrap();
            let check = [check, &[file.path().to_str().unwrap()]].concat();
            if let Some(found) = run(shell, &check) {
                let complaints = String::from_utf8_lossy(&found.stderr);
                assert!(found.status.success(), "{shell}: {complaints}");
            }
        }
    }
}

#[tokio::test]
async fn bash_completes_commands_and_switches() {
    let script = Passerby::alone().run(&["completions", "bash"]).await.ok();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), script).unwrap();
    let complete = |words: &str| {
        let typed = format!(
            "source {}; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
             _passerby passerby \"${{COMP_WORDS[COMP_CWORD]}}\" x; echo \"${{COMPREPLY[@]}}\"",
            file.path().display()
        );
        run("bash", &["-c", &typed])
            .map(|found| String::from_utf8_lossy(&found.stdout).into_owned())
    };
    if let Some(found) = complete("passerby doc") {
        assert_eq!(found, "doctor\n");
    }
    if let Some(found) = complete("passerby doctor --str") {
        assert_eq!(found, "--strict\n");
    }
}
