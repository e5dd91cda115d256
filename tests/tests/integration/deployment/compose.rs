use passerby_tests::{Tool, project, project_file};
use serde_json::Value;

fn compose() -> Value {
    serde_norway::from_str(&project_file("docker-compose.yml")).unwrap()
}

fn service(name: &str) -> Value {
    let service = compose()["services"][name].take();
    assert!(service.is_object(), "no service {name}");
    service
}

#[test]
fn the_compose_file_is_one_by_the_specification() {
    let install = "pip install check-jsonschema";
    let Some(tool) = Tool::find("check-jsonschema", install) else {
        return;
    };
    let by_specification = ["--builtin-schema", "vendor.compose-spec"];
    let args = [&by_specification[..], &["docker-compose.yml"]].concat();
    tool.run(project(), &args);
}

#[test]
fn redis_keeps_the_stream_and_refuses_rather_than_forgets() {
    let redis = service("redis");
    let command = redis["command"].as_str().unwrap();
    for setting in [
        "--appendonly yes",
        "--maxmemory-policy noeviction",
        "--maxmemory 1gb",
    ] {
        assert!(command.contains(setting), "no `{setting}` in: {command}");
    }
    assert_eq!(redis["volumes"][0], "redis:/data");
}

#[test]
fn workers_can_be_many() {
    let worker = service("worker");
    for key in ["ports", "container_name"] {
        assert!(
            worker[key].is_null(),
            "only one worker could have its {key}"
        );
    }
    assert!(worker["environment"]["PASSERBY_CONSUMER"].is_null());
}

#[test]
fn workers_have_time_to_finish_and_wait_for_their_servers() {
    let worker = service("worker");
    let grace =
        passerby_consumer::args::parse_duration(worker["stop_grace_period"].as_str().unwrap());
    assert!(grace.unwrap() > default_grace_period());
    for server in ["redis", "postgres"] {
        let condition = &worker["depends_on"][server]["condition"];
        assert_eq!(condition, "service_healthy");
        assert!(service(server)["healthcheck"]["test"].is_array());
    }
}

/// How long a worker takes to stop, unless it is told otherwise.
pub(super) fn default_grace_period() -> std::time::Duration {
    passerby_consumer::WorkerConfig::new(
        "redis://localhost".parse().unwrap(),
        "postgresql://localhost/passerby".parse().unwrap(),
    )
    .grace_period
}

#[test]
fn nothing_is_reachable_from_other_machines() {
    for (name, service) in compose()["services"].as_object().unwrap() {
        for port in service["ports"].as_array().unwrap_or(&Vec::new()) {
            let port = port.as_str().unwrap();
            assert!(port.starts_with("127.0.0.1:"), "{name}: {port}");
        }
        assert!(service["privileged"].is_null(), "{name}");
    }
}

#[test]
fn images_are_pinned_and_files_that_are_mounted_are_there() {
    for (name, service) in compose()["services"].as_object().unwrap() {
        let image = service["image"].as_str().unwrap();
        let (_, tag) = image.split_once(':').expect("a tag");
        assert!(
            tag.contains(|c: char| c.is_ascii_digit()),
            "{name}: {image}"
        );
        for volume in service["volumes"].as_array().unwrap_or(&Vec::new()) {
            let (source, rest) = volume.as_str().unwrap().split_once(':').unwrap();
            if source.starts_with('.') {
                assert!(project().join(source).is_dir(), "{name}: no {source}");
                assert!(rest.ends_with(":ro"), "{name} could write to {source}");
            } else {
                let volumes = compose()["volumes"].take();
                assert!(volumes.get(source).is_some(), "{name}: no volume {source}");
            }
        }
    }
}

#[test]
fn the_image_has_the_version_of_the_program() {
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(service("worker")["image"], format!("passerby:{version}"));
    let dockerfile = project_file("Dockerfile");
    assert!(dockerfile.contains(&format!("ARG VERSION={version}\n")));
}
