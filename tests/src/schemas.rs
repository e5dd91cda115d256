//! The JSON schemas of commands, as `docs/schemas/` has them.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use jsonschema::Validator;
use serde_json::{Deserializer, Value};

/// The schemas by command.
#[derive(Debug)]
pub struct Schemas(BTreeMap<&'static str, Value>);

impl Schemas {
    /// The schemas as the program has them; a test holds `docs/schemas/` equal to that.
    pub fn committed() -> &'static Self {
        static SCHEMAS: LazyLock<Schemas> = LazyLock::new(|| {
            let schemas = passerby::schema::all().into_iter();
            Schemas(
                schemas
                    .map(|(name, schema)| (name, schema.to_value()))
                    .collect(),
            )
        });
        &SCHEMAS
    }

    /// Where they stand for people.
    pub fn folder() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schemas")
    }

    /// Each command with its schema.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &Value)> {
        self.0.iter().map(|(name, schema)| (*name, schema))
    }

    /// Whether a command has a schema.
    pub fn has(&self, command: &str) -> bool {
        self.0.contains_key(command)
    }

    /// Asserts that every value that a command printed is as its schema says, and has nothing that the
    /// schema does not say.
    #[track_caller]
    pub fn assert_valid(&self, args: &[&str], stdout: &str) {
        let name = command_name(args);
        let schema = self.0.get(&*name).unwrap_or_else(|| {
            panic!("`passerby {name} --json` has no schema: add it to cli/src/schema.rs")
        });
        let validator = strict(schema.clone());
        for value in Deserializer::from_str(stdout).into_iter::<Value>() {
            let value =
                value.unwrap_or_else(|error| panic!("{args:?} printed no JSON: {error}: {stdout}"));
            let wrong: Vec<_> = validator
                .iter_errors(&value)
                .map(|error| format!("{}: {error}", error.instance_path()))
                .collect();
            assert!(
                wrong.is_empty(),
                "docs/schemas/{name}.json: {}\n{value:#}",
                wrong.join("; ")
            );
        }
    }
}

/// The name of the command in these arguments: its words joined by `-`.
pub fn command_name(args: &[&str]) -> String {
    let mut command = &passerby::command();
    let mut words = Vec::new();
    for arg in args {
        match command.find_subcommand(arg) {
            Some(found) => {
                words.push(*arg);
                command = found;
            }
            None => break,
        }
    }
    words.join("-")
}

/// Programs are to expect fields that are new; a test is to notice one that the schema leaves out.
fn strict(mut schema: Value) -> Validator {
    close(&mut schema);
    jsonschema::options()
        .should_validate_formats(true)
        .build(&schema)
        .unwrap()
}

fn close(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            if object.get("properties").is_some_and(Value::is_object)
                && !object.contains_key("additionalProperties")
            {
                object.insert("additionalProperties".to_owned(), Value::Bool(false));
            }
            object.values_mut().for_each(close);
        }
        Value::Array(array) => array.iter_mut().for_each(close),
        _ => {}
    }
}
