//! How a server is to behave.

use super::{Chance, Fault};
use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

/// How a server is to behave.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// What it calls itself.
    pub name: String,
    /// Which protocol eras it serves.
    pub eras: Eras,
    /// Whether `initialize` opens a session with an id (a legacy server may do without).
    pub sessions: bool,
    /// JSON or SSE replies.
    pub reply: Reply,
    /// Put on the reply to `tools/list`, whatever the client accepts.
    pub encoding: Encoding,
    /// Most tools on a page of `tools/list`; 0 = all on one.
    pub page_size: usize,
    /// What every `tools/call` leaves to chance: its latency, its failures.
    pub chance: Chance,
    /// HTTP/2 with prior knowledge instead of HTTP/1.1 (faults that are broken HTTP/1.1 do not work then).
    pub http2: bool,
    /// Names of the tools to have; empty = all.
    pub tools: Vec<String>,
    /// How bodies are read.
    pub parser: Parser,
    /// Whether modern requests whose headers differ from their body are refused, as the specification wants.
    pub check_headers: bool,
    /// Gives SSE events ids, a priming event and `retry:` (resumable streams of 2025-11-25).
    pub event_ids: bool,
    /// Keep the record (off for load runs; the totals are kept all the same).
    pub record: bool,
    /// Keep requests, headers and arguments in the record; without them it holds each call's tool, id, mark and outcome.
    pub record_details: bool,
    /// Append every finished call to this file, one JSON object a line.
    pub record_file: Option<PathBuf>,
    /// Misbehaviour from the start: JSON-RPC method (`*` = any) and what happens.
    pub faults: Vec<(String, Fault)>,
    /// Reset every connection as soon as it is accepted.
    pub reset_on_accept: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            name: "tollgate-upstream".into(),
            eras: Eras::Both,
            sessions: true,
            reply: Reply::Auto,
            encoding: Encoding::Identity,
            page_size: 0,
            chance: Chance::default(),
            http2: false,
            tools: Vec::new(),
            parser: Parser::JavaScript,
            check_headers: true,
            event_ids: false,
            record: true,
            record_details: true,
            record_file: None,
            faults: Vec::new(),
            reset_on_accept: false,
        }
    }
}

/// Protocol eras.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Eras {
    /// Sessions and stateless requests, told apart by the body.
    #[default]
    Both,
    /// Only sessions (2025-03-26 … 2025-11-25).
    Legacy,
    /// Only stateless requests (2026-07-28).
    Modern,
}

/// The form of a reply to a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Reply {
    /// SSE where something comes before the response (progress, questions), else JSON.
    #[default]
    Auto,
    /// JSON; progress is left out.
    Json,
    /// SSE always.
    Sse,
}

/// The content coding of a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Encoding {
    /// None.
    #[default]
    Identity,
    /// gzip
    Gzip,
    /// deflate (zlib)
    Deflate,
}

/// How bodies are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Parser {
    /// As `JSON.parse` behind a text decoder: the last duplicate wins, a byte order mark is dropped.
    #[default]
    #[value(name = "javascript")]
    JavaScript,
    /// As the most careless of the known servers taken together: also UTF-16, keys in any case, `NaN`, lone surrogates,
    /// numbers out of range, whatever follows the first document.
    Lax,
}
