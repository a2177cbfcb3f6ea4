//! A request of the mix: how its bytes are made, and what its reply must be.

use super::{rng::Rng, template::Arguments, text};
use crate::{result::MixEntry, upstream};
use proto::mcp;
use std::{io::Write as _, ops::Range};

/// The protocol that requests are written in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Stateless: every request says its version.
    Modern,
    /// Sessions of this version.
    Legacy(String),
}

impl Protocol {
    /// The version.
    pub fn version(&self) -> &str {
        match self {
            Protocol::Modern => upstream::MODERN,
            Protocol::Legacy(version) => version,
        }
    }
}

/// A request of the mix.
#[derive(Clone, Debug)]
pub struct Call {
    /// The JSON-RPC method.
    pub method: String,
    /// The tool, for `tools/call`.
    pub tool: Option<String>,
    /// Its share.
    pub weight: u32,
    arguments: Arguments,
    written: String,
    /// What a tool of the recording server says to fixed arguments.
    said: Option<String>,
}

/// A body that was made.
#[derive(Debug)]
pub struct Made {
    /// The body.
    pub body: Vec<u8>,
    /// Where in it the arguments are.
    pub arguments: Range<usize>,
}

impl Call {
    /// Reads `NAME[*WEIGHT] [ARGUMENTS]`; a name with a slash is a method.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (name, weight, written) = text::call(text)?;
        let is_method = name.contains('/') || name == "ping";
        let call = Self::new(&name, is_method, weight, &written)?;
        if is_method && mcp::sent_as(&name) != Some(mcp::Sent::Request) {
            return Err(format!(
                "`{name}` is no request of MCP; tools are named without a slash"
            ));
        }
        Ok(call)
    }

    /// A call of a tool.
    ///
    /// # Errors
    /// The arguments cannot be read.
    pub fn tool(name: &str, arguments: &str) -> Result<Self, String> {
        Self::new(name, false, 1, arguments)
    }

    fn new(name: &str, is_method: bool, weight: u32, written: &str) -> Result<Self, String> {
        let arguments = Arguments::parse(written)?;
        let said = match &arguments {
            Arguments::Fixed(bytes) if !is_method => serde_json::from_slice(bytes)
                .ok()
                .and_then(|value| upstream::said(name, &value)),
            _ => None,
        };
        Ok(Self {
            method: if is_method { name } else { "tools/call" }.to_owned(),
            tool: (!is_method).then(|| name.to_owned()),
            weight,
            arguments,
            written: written.to_owned(),
            said,
        })
    }

    /// As a result shows it.
    pub fn entry(&self) -> MixEntry {
        MixEntry {
            method: self.method.clone(),
            tool: self.tool.clone(),
            weight: self.weight,
            arguments: self.written.clone(),
        }
    }

    /// Makes the body of request `id`. `extra` are further members of the arguments as JSON text, e.g. `"a":1`.
    pub fn make(
        &self,
        protocol: &Protocol,
        id: u64,
        extra: &str,
        progress: bool,
        rng: &mut Rng,
    ) -> Made {
        let mut body = Vec::with_capacity(384);
        // Writing to a vector cannot fail.
        let _ = write!(
            body,
            r#"{{"jsonrpc":"2.0","id":{id},"method":"{}","params":{{"#,
            self.method
        );
        let mut arguments = 0..0;
        if let Some(tool) = &self.tool {
            let _ = write!(body, r#""name":"{tool}","arguments":"#);
            let from = body.len();
            self.arguments.render(id, rng, &mut body);
            insert(&mut body, from, extra);
            arguments = from..body.len();
        } else {
            let from = body.len();
            self.arguments.render(id, rng, &mut body);
            // The members alone: `params` is the object here.
            body.pop();
            body.remove(from);
        }
        let before = body.last() != Some(&b'{');
        let comma = if before { "," } else { "" };
        let modern = *protocol == Protocol::Modern;
        if modern {
            let _ = write!(
                body,
                r#"{comma}"_meta":{{"{}":"{}","{}":{{}}"#,
                mcp::META_VERSION,
                protocol.version(),
                mcp::META_CAPABILITIES
            );
        }
        match (modern, progress) {
            (true, true) => drop(write!(body, r#","progressToken":{id}}}"#)),
            (true, false) => body.push(b'}'),
            (false, true) => drop(write!(body, r#"{comma}"_meta":{{"progressToken":{id}}}"#)),
            (false, false) => {}
        }
        body.extend_from_slice(b"}}");
        Made { body, arguments }
    }

    /// The text that the recording server must answer to these arguments, where that is known.
    pub fn expected<'a>(&'a self, arguments: &'a [u8]) -> Option<std::borrow::Cow<'a, str>> {
        use std::borrow::Cow;
        match (self.tool.as_deref()?, &self.said) {
            ("echo", _) => std::str::from_utf8(arguments).ok().map(Cow::Borrowed),
            (_, Some(said)) => Some(Cow::Borrowed(said)),
            (tool, None) => {
                let value = serde_json::from_slice(arguments).ok()?;
                upstream::said(tool, &value).map(Cow::Owned)
            }
        }
    }
}

/// Puts members at the front of the object that begins at `from`.
fn insert(body: &mut Vec<u8>, from: usize, extra: &str) {
    if extra.is_empty() {
        return;
    }
    let rest = body.split_off(from + 1);
    body.extend_from_slice(extra.as_bytes());
    if rest.first() != Some(&b'}') {
        body.push(b',');
    }
    body.extend_from_slice(&rest);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::scan::{Body, Bounds, From, read};

    #[test]
    fn bodies_are_what_a_strict_reader_takes_in_every_era() {
        let legacy = Protocol::Legacy("2025-11-25".into());
        for (text, extra) in [
            ("echo", ""),
            ("echo", r#""call_id":"x""#),
            (r#"echo {"a":"{{text:5}}"}"#, r#""call_id":"x""#),
            ("tools/list", ""),
            (r#"prompts/get {"name":"greet"}"#, ""),
        ] {
            let call = Call::parse(text).unwrap();
            for protocol in [&Protocol::Modern, &legacy] {
                for progress in [false, true] {
                    let made = call.make(protocol, 7, extra, progress, &mut Rng::new(1));
                    let read = read(&made.body, &Bounds::default(), From::Client);
                    let Ok(Body::One(message)) = read else {
                        panic!("{}", String::from_utf8_lossy(&made.body));
                    };
                    assert_eq!(message.id, Some(b"7".as_slice()));
                    assert_eq!(message.method, call.method);
                    assert_eq!(
                        message.meta_version.is_some(),
                        *protocol == Protocol::Modern
                    );
                    assert_eq!(message.progress_token.is_some(), progress);
                    if call.tool.is_some() {
                        assert_eq!(message.arguments, made.body.get(made.arguments.clone()));
                        let arguments: serde_json::Value =
                            serde_json::from_slice(&made.body[made.arguments]).unwrap();
                        assert_eq!(arguments.get("call_id").is_some(), !extra.is_empty());
                    }
                }
            }
        }
        assert!(Call::parse("no/method").unwrap_err().contains("no request"));
    }
}
