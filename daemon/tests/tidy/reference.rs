//! The reference page of the configuration, made from the types that read it. After a key has changed, write it anew:
//!
//! ```sh
//! UPDATE=1 cargo test -p tollgate-daemon --test tidy reference
//! ```

use super::{read, root};
use serde_json::{Map, Value};
use std::fmt::Write as _;

const PAGE: &str = "docs/src/configuration-reference.md";

const OPENING: &str = "\
# Every key

This page is made from the configuration's types; a test keeps it so. [Configuration](configuration.md) explains the
sections. A duration is a whole number and `ms`, `s`, `m`, `h` or `d`; a size is a whole number and `B`, `KiB`, `MiB` or
`GiB`, or a bare number of bytes. A name with `[]` behind its type may come several times.
";

/// Types that are explained once at the top instead of in a section of their own.
const PLAIN: &[(&str, &str)] = &[("Duration", "duration"), ("ByteSize", "size")];

struct Page<'s> {
    definitions: &'s Map<String, Value>,
    text: String,
    /// Sections in the order in which they are first named.
    sections: Vec<String>,
}

impl Page<'_> {
    /// The name of a type, with a link where it has a section.
    fn type_name(&mut self, schema: &Value) -> String {
        if let Some(reference) = schema["$ref"].as_str() {
            let name = reference.rsplit('/').next().unwrap_or_default();
            if let Some((_, plain)) = PLAIN.iter().find(|(known, _)| *known == name) {
                return (*plain).to_owned();
            }
            if !self.sections.iter().any(|section| section == name) {
                self.sections.push(name.to_owned());
            }
            return format!("[{}](#{})", words(name), words(name).replace(' ', "-"));
        }
        for key in ["anyOf", "oneOf"] {
            if let Some(choices) = schema[key].as_array() {
                let names: Vec<String> = choices
                    .iter()
                    .filter(|choice| choice["type"] != "null")
                    .map(|choice| self.type_name(choice))
                    .collect();
                return names.join(" or ");
            }
        }
        let kind = match &schema["type"] {
            Value::Array(kinds) => kinds
                .iter()
                .filter_map(Value::as_str)
                .find(|kind| *kind != "null"),
            kind => kind.as_str(),
        };
        match kind {
            Some("array") => format!("{}[]", self.type_name(&schema["items"])),
            Some("object") if schema["additionalProperties"].is_object() => {
                let null = schema["additionalProperties"]["type"].as_array().is_some();
                let value = self.type_name(&schema["additionalProperties"]);
                format!("name: {value}{}", if null { " or null" } else { "" })
            }
            Some("object") => "document".to_owned(),
            Some("integer") => "number".to_owned(),
            Some("boolean") => "true, false".to_owned(),
            Some("string") => "text".to_owned(),
            other => panic!("a type that the reference page cannot name: {other:?} in {schema}"),
        }
    }

    fn section(&mut self, schema: &Value) {
        let _ = writeln!(self.text, "\n{}", line(&schema["description"]));
        if let Some(properties) = schema["properties"].as_object() {
            self.text
                .push_str("\n| Key | Type | Default | Meaning |\n|---|---|---|---|\n");
            for (key, property) in properties {
                let kind = self.type_name(property);
                let (meaning, default) = meaning_and_default(key, property);
                let _ = writeln!(self.text, "| `{key}` | {kind} | {default} | {meaning} |");
            }
        } else if let Some(choices) = schema["oneOf"].as_array() {
            self.text.push_str("\n| Value | Meaning |\n|---|---|\n");
            for choice in choices {
                let value = match (choice["const"].as_str(), choice["properties"].as_object()) {
                    (Some(word), _) => format!("`{word}`"),
                    (None, Some(keys)) => {
                        let keys: Vec<String> = keys
                            .iter()
                            .map(|(key, kind)| format!("`{key}:` {}", self.type_name(kind)))
                            .collect();
                        keys.join(", ")
                    }
                    (None, None) => {
                        panic!("a choice that the reference page cannot name: {choice}")
                    }
                };
                let _ = writeln!(self.text, "| {value} | {} |", line(&choice["description"]));
            }
        } else {
            let kind = self.type_name(schema);
            let _ = writeln!(self.text, "\nIt is {kind}.");
        }
    }
}

/// `ListenerTls` → `listener tls`.
fn words(name: &str) -> String {
    let mut words = String::new();
    for c in name.chars() {
        if c.is_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.extend(c.to_lowercase());
    }
    words
}

fn line(description: &Value) -> String {
    let text = description.as_str().unwrap_or_default();
    text.split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .replace('|', "\\|")
}

/// Every key says what it means and what it is when it is not written.
fn meaning_and_default(key: &str, property: &Value) -> (String, String) {
    let text = line(&property["description"]);
    if let Some(meaning) = text.strip_suffix(" Required.") {
        return (meaning.to_owned(), "required".to_owned());
    }
    match text.split_once(" Default: ") {
        Some((meaning, default)) => (meaning.to_owned(), default.trim_end_matches('.').to_owned()),
        None if property["$ref"].is_string() => (text, "see there".to_owned()),
        None => panic!("`{key}` says neither `Default: …` nor `Required.`: {text}"),
    }
}

fn rendered() -> String {
    let schema = serde_json::to_value(schemars::schema_for!(daemon::config::raw::Config)).unwrap();
    let none = Map::new();
    let mut page = Page {
        definitions: schema["$defs"].as_object().unwrap_or(&none),
        text: OPENING.to_owned(),
        sections: Vec::new(),
    };
    page.text.push_str("\n## the file\n");
    page.section(&schema);
    let mut at = 0;
    while let Some(name) = page.sections.get(at).cloned() {
        let _ = writeln!(page.text, "\n## {}", words(&name));
        let definition = page.definitions[&name].clone();
        page.section(&definition);
        at += 1;
    }
    page.text
}

#[test]
fn the_reference_page_has_every_key() {
    let rendered = rendered();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(root().join(PAGE), &rendered).unwrap();
    }
    assert!(
        read(PAGE) == rendered,
        "{PAGE} is not what the types say: run UPDATE=1 cargo test -p tollgate-daemon --test tidy reference"
    );
}
