//! What the parts of a reply mean, and what was read of them.

use super::{
    super::{ID_BYTES_MAX, Kind, reason::Reason, text::unescape},
    Passed, Tool,
};

/// Longest name of a tool, as written, that is given out.
pub(super) const HELD_BYTES_MAX: usize = 4_096;

/// What a value means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Message,
    Version,
    Id,
    Result,
    IsError,
    Tools,
    Tool,
    Name,
    Error,
    Code,
    /// What a tool returned: any key may stand in it.
    Data,
    /// What this version of the protocol does not know: `__proto__` is refused in it.
    Unknown,
}

impl What {
    /// What an element of such an array is.
    pub(super) fn element_of(array: Option<Self>) -> Self {
        match array {
            Some(Self::Tools) => Self::Tool,
            // A result that is no object has no level of the protocol's own.
            Some(Self::Unknown | Self::Version | Self::Result) => Self::Unknown,
            _ => Self::Data,
        }
    }
}

/// What was read of the message.
#[derive(Debug, Default)]
pub(super) struct Seen {
    version: bool,
    id: Option<Vec<u8>>,
    result: bool,
    error: bool,
    code: Option<i64>,
    is_tool_error: bool,
    pub(super) tools: Option<Vec<Tool>>,
}

impl Seen {
    /// A key of such an object: what its value will be.
    pub(super) fn key(&mut self, object: What, key: &[u8]) -> Result<What, Reason> {
        Ok(match (object, key) {
            (What::Message, b"jsonrpc") => What::Version,
            (What::Message, b"id") => What::Id,
            (What::Message, b"result") => {
                self.result = true;
                What::Result
            }
            (What::Message, b"error") => {
                self.error = true;
                What::Error
            }
            (What::Message, b"method" | b"params") => return Err(Reason::Shape),
            (What::Result, b"isError") => What::IsError,
            (What::Result, b"tools") => What::Tools,
            (What::Tool, b"name") => What::Name,
            (What::Error, b"code") => What::Code,
            (What::Message | What::Unknown | What::Version, _) => What::Unknown,
            _ => What::Data,
        })
    }

    /// A string, number or word, as it is written, without quotes.
    pub(super) fn scalar(&mut self, what: What, string: bool, held: Vec<u8>) -> Result<(), Reason> {
        match what {
            What::Version => self.version = string && held == b"2.0",
            What::Id => {
                let quotes = if string { 2 } else { 0 };
                if held.len() + quotes > ID_BYTES_MAX {
                    return Err(Reason::IdTooLong);
                }
                self.id = Some(if string {
                    [b"\"", &held[..], b"\""].concat()
                } else {
                    held
                });
            }
            What::Code => {
                let code = std::str::from_utf8(&held).unwrap_or_default();
                self.code = code.parse().ok().filter(|_| !string);
            }
            What::IsError => self.is_tool_error = !string && held == b"true",
            What::Name => {
                let fits = string && held.len() <= HELD_BYTES_MAX;
                let name = std::str::from_utf8(&held).ok().filter(|_| fits);
                let name = name.and_then(unescape).map(|name| name.into_owned());
                if let Some(tool) = self.tools.iter_mut().flatten().last() {
                    tool.name = name;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The whole message.
    pub(super) fn passed(self) -> Result<Passed, Reason> {
        if !self.version {
            return Err(Reason::Version);
        }
        let kind = match (self.result, self.error) {
            (true, false) if self.id.as_deref().is_none_or(|id| id == b"null") => {
                return Err(Reason::IdType);
            }
            (true, false) => Kind::Result,
            (false, true) => Kind::Error(self.code.ok_or(Reason::ErrorType)?),
            _ => return Err(Reason::Shape),
        };
        Ok(Passed {
            kind,
            id: self.id,
            is_tool_error: self.is_tool_error,
            tools: self.tools,
        })
    }
}
