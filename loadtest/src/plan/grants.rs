//! Grants from a file: bearer tokens never stand on a command line, where every process of the machine can read them.

use http::HeaderValue;
use std::path::Path;

/// A caller.
#[derive(Clone, Debug)]
pub struct Grant {
    /// Its name in reports; to join a gateway's audit log it must be the gateway's id of the grant.
    pub name: String,
    /// `Bearer …`, marked as sensitive.
    pub authorization: HeaderValue,
}

/// Reads `NAME TOKEN` or `TOKEN` a line; empty lines and lines that start with `#` are skipped.
///
/// # Errors
/// A sentence that names the file and the line, never the token.
pub fn read(path: &Path) -> Result<Vec<Grant>, String> {
    let text = std::fs::read_to_string(path).map_err(|e| {
        format!(
            "cannot read the grants' file {}: {e}; it has one grant a line: NAME TOKEN",
            path.display()
        )
    })?;
    let grants = parse(&text).map_err(|e| format!("{}, {e}", path.display()))?;
    if grants.is_empty() {
        return Err(format!(
            "{} has no grant: write one a line, NAME TOKEN",
            path.display()
        ));
    }
    Ok(grants)
}

fn parse(text: &str) -> Result<Vec<Grant>, String> {
    let mut grants: Vec<Grant> = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        let (name, token) = match words.as_slice() {
            [token] => (format!("grant-{}", grants.len() + 1), *token),
            [name, token] => ((*name).to_owned(), *token),
            _ => return Err(format!("line {}: write NAME TOKEN", at + 1)),
        };
        if grants.iter().any(|g| g.name == name) {
            return Err(format!("line {}: the name {name} is taken", at + 1));
        }
        let mut authorization =
            HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| {
                format!(
                    "line {}: the token has characters that no header may have",
                    at + 1
                )
            })?;
        authorization.set_sensitive(true);
        grants.push(Grant {
            name,
            authorization,
        });
    }
    Ok(grants)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_have_names_and_tokens_stay_out_of_sight() {
        let grants = parse("# mine\nagent-a  secret-1\n\nsecret-2\n").unwrap();
        let names: Vec<&str> = grants.iter().map(|g| g.name.as_str()).collect();
        assert_eq!(names, ["agent-a", "grant-2"]);
        assert_eq!(grants[0].authorization, "Bearer secret-1");
        assert!(!format!("{grants:?}").contains("secret"), "{grants:?}");
        for (text, part) in [
            ("a b c", "line 1"),
            ("a x\na y", "is taken"),
            ("a \u{1}", "characters"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
