//! What rotation and revocation do to a grant's document. Keys that this build does not know are kept.

use super::write::WriteError;
use proto::{
    grant::TokenHash,
    time::{parse_rfc3339, rfc3339},
};
use serde_json::{Map, Value, json};

/// Most former tokens that are kept.
const FORMER_MAX: usize = 8;

fn read(body: &[u8]) -> Result<Map<String, Value>, WriteError> {
    serde_json::from_slice(body).map_err(|error| {
        let why = format!("its document cannot be read ({error}): put it anew, or delete it");
        WriteError::Unfit(why)
    })
}

fn write(document: Map<String, Value>) -> Vec<u8> {
    Value::Object(document).to_string().into_bytes()
}

/// Refuses the grant from now on; its name stays.
pub fn revoke(body: &[u8]) -> Result<Vec<u8>, WriteError> {
    let mut document = read(body)?;
    document.insert("revoked".into(), Value::Bool(true));
    Ok(write(document))
}

/// Gives the grant one new token. Those that it has stay good until `until_ms`; `None`: not at all.
pub fn rotate(
    body: &[u8],
    token: TokenHash,
    now_ms: u64,
    until_ms: Option<u64>,
) -> Result<Vec<u8>, WriteError> {
    let mut document = read(body)?;
    if document.get("revoked").and_then(Value::as_bool) == Some(true) {
        let why = "it is revoked: a grant that was revoked gets no new token; make another";
        return Err(WriteError::Unfit(why.into()));
    }
    let mut former: Vec<Value> = match document.remove("former_tokens") {
        Some(Value::Array(former)) => former,
        _ => Vec::new(),
    };
    let ends_ms = |token: &Value| {
        let until = token.get("until").and_then(Value::as_str).unwrap_or("");
        parse_rfc3339(until).unwrap_or(0)
    };
    former.retain(|token| ends_ms(token) > now_ms);
    let present = match document.remove("token_sha256") {
        Some(Value::Array(present)) => present,
        Some(one) => vec![one],
        None => Vec::new(),
    };
    if let Some(until_ms) = until_ms {
        let until = rfc3339(until_ms);
        let replaced = present.into_iter();
        former.extend(replaced.map(|token| json!({ "token_sha256": token, "until": until })));
    }
    // Beyond the bound those that would end first end now.
    former.sort_by_key(|token| std::cmp::Reverse(ends_ms(token)));
    former.truncate(FORMER_MAX);
    document.insert("token_sha256".into(), token.to_string().into());
    if !former.is_empty() {
        document.insert("former_tokens".into(), former.into());
    }
    Ok(write(document))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: TokenHash = TokenHash([7; 32]);

    fn value(body: &[u8]) -> Value {
        serde_json::from_slice(body).unwrap()
    }

    #[test]
    fn revoking_keeps_what_this_build_does_not_know() {
        let body = br#"{"token_sha256": "sha256:ab", "later": [1]}"#;
        let revoked = value(&revoke(body).unwrap());
        assert_eq!(
            (&revoked["revoked"], &revoked["later"]),
            (&json!(true), &json!([1]))
        );
        assert!(revoke(b"[]").is_err());
    }

    #[test]
    fn a_rotation_replaces_the_token_at_once_or_lets_it_end_later() {
        let body = br#"{"token_sha256": ["sha256:a", "sha256:b"],
            "former_tokens": [{"token_sha256": "sha256:old", "until": "1970-01-01T00:00:05.000Z"}]}"#;
        let at_once = value(&rotate(body, NEW, 10_000, None).unwrap());
        assert_eq!(at_once["token_sha256"], json!(NEW.to_string()));
        assert_eq!(
            at_once.get("former_tokens"),
            None,
            "what has ended is forgotten"
        );
        let later = value(&rotate(body, NEW, 1_000, Some(60_000)).unwrap());
        let former: Vec<_> = later["former_tokens"].as_array().unwrap().iter().collect();
        assert_eq!(former.len(), 3);
        assert_eq!(former[0]["until"], json!("1970-01-01T00:01:00.000Z"));
        assert_eq!(former[2]["token_sha256"], json!("sha256:old"));
        assert!(rotate(br#"{"revoked": true}"#, NEW, 0, None).is_err());
    }

    #[test]
    fn many_rotations_keep_the_tokens_that_end_last() {
        let mut body = br#"{"token_sha256": "sha256:first"}"#.to_vec();
        for n in 0..20 {
            body = rotate(&body, TokenHash([n; 32]), 0, Some(1_000 + u64::from(n))).unwrap();
        }
        let former = value(&body)["former_tokens"].as_array().unwrap().clone();
        assert_eq!(former.len(), FORMER_MAX);
        assert_eq!(
            former[0]["token_sha256"],
            json!(TokenHash([18; 32]).to_string())
        );
    }
}
