//! `tollgate schema`: the JSON Schemas of the configuration and of the policies' dialects.

use crate::config::raw;
use anyhow::Context;
use proto::policy::dialect::{self, Dialect};
use std::{fs, path::PathBuf, process::ExitCode};

/// Arguments of `tollgate schema`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Directory to write the schemas into; without it the configuration's goes to standard output
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Runs `tollgate schema`.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let schemas = schemas()?;
    let Some(dir) = args.out else {
        for (_, text) in schemas.iter().take(1) {
            print!("{text}");
        }
        return Ok(ExitCode::SUCCESS);
    };
    fs::create_dir_all(&dir).with_context(|| format!("{}", dir.display()))?;
    for (name, text) in schemas {
        let path = dir.join(name);
        fs::write(&path, text).with_context(|| format!("{}", path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// File names and texts, the configuration's first.
fn schemas() -> anyhow::Result<Vec<(String, String)>> {
    let dialects = Dialect::ALL.map(|dialect| {
        let file = format!("{}.json", dialect.name());
        (file, dialect::schema(dialect))
    });
    let config = ("config.json".to_owned(), schemars::schema_for!(raw::Config));
    let schemas = [config].into_iter().chain(dialects);
    schemas
        .map(|(name, schema)| {
            let text = serde_json::to_string_pretty(&schema)?;
            Ok((name, text + "\n"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::path::Path;

    #[test]
    fn shipped_schemas_are_those_of_the_types() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/schema");
        for (name, text) in schemas().unwrap() {
            let shipped = fs::read_to_string(dir.join(&name)).unwrap_or_default();
            assert!(
                shipped == text,
                "config/schema/{name} is not what the types say; `cargo run -- schema --out config/schema` writes it"
            );
        }
    }

    /// Visits the properties of every object in a schema.
    fn properties(value: &Value, visit: &mut dyn FnMut(&str, &Value)) {
        match value {
            Value::Object(map) => {
                if let Some(Value::Object(properties)) = map.get("properties") {
                    properties
                        .iter()
                        .for_each(|(name, schema)| visit(name, schema));
                }
                map.values().for_each(|inner| properties_of(inner, visit));
            }
            Value::Array(items) => items.iter().for_each(|inner| properties_of(inner, visit)),
            _ => {}
        }
    }
    use properties as properties_of;

    #[test]
    fn every_key_says_its_default_or_that_it_is_required() {
        let schema = schemars::schema_for!(raw::Config);
        let mut keys = 0;
        properties(schema.as_value(), &mut |name, schema| {
            keys += 1;
            let text = schema["description"]
                .as_str()
                .unwrap_or_default()
                .replace('\n', " ");
            let section = ["bounds", "audit", "admin", "cluster", "log"].contains(&name);
            // What an enum's variant holds is documented at the variant.
            let variant = schema.get("$ref").is_some() && text.is_empty();
            assert!(
                variant || section || text.contains("Default: ") || text.contains("Required."),
                "`{name}`: {text}"
            );
        });
        assert!(keys > 100, "{keys}");
    }
}
