//! The command line of the recording server.

use super::{Encoding, Eras, Fault, Options, Parser, Reply, Upstream, serve_stdio};
use clap::ValueEnum as _;
use std::{
    io::{self, Write as _},
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

/// An MCP server with the tools of the published policy snippets; it remembers every call
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Where to listen; port 0 takes a free one. MCP is at /mcp, the record at /record (GET, DELETE)
    #[arg(long, default_value_t = SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))]
    pub listen: SocketAddr,
    /// Speak on stdin and stdout instead
    #[arg(long)]
    pub stdio: bool,
    /// What it calls itself
    #[arg(long, default_value = "tollgate-upstream")]
    pub name: String,
    /// Protocol eras to serve
    #[arg(long, value_enum, default_value_t)]
    pub eras: Eras,
    /// Open no sessions
    #[arg(long)]
    pub no_sessions: bool,
    /// The form of replies
    #[arg(long, value_enum, default_value_t)]
    pub reply: Reply,
    /// Content coding of the reply to tools/list
    #[arg(long, value_enum, default_value_t)]
    pub encoding: Encoding,
    /// Most tools on a page of tools/list (0 = all)
    #[arg(long, default_value_t = 0)]
    pub page_size: usize,
    /// Milliseconds waited before a call is answered
    #[arg(long, default_value_t = 0)]
    pub latency_ms: u64,
    /// Tools to have, separated by commas (default: all)
    #[arg(long, value_delimiter = ',')]
    pub tools: Vec<String>,
    /// How carelessly bodies are read
    #[arg(long, value_enum, default_value_t)]
    pub parser: Parser,
    /// Take modern requests whose headers differ from their body
    #[arg(long)]
    pub no_header_checks: bool,
    /// Give SSE events ids
    #[arg(long)]
    pub event_ids: bool,
    /// Keep no record
    #[arg(long)]
    pub no_record: bool,
    /// Append every finished call to this file, one JSON object a line
    #[arg(long)]
    pub record_file: Option<PathBuf>,
    /// Misbehave whenever this method comes, e.g. tools/list=duplicate-keys (may be repeated)
    #[arg(long = "fault", value_name = "METHOD=FAULT", value_parser = fault)]
    pub faults: Vec<(String, Fault)>,
}

fn fault(text: &str) -> Result<(String, Fault), String> {
    let (method, fault) = text.split_once('=').ok_or("write METHOD=FAULT")?;
    let known = || {
        let names = Fault::value_variants()
            .iter()
            .filter_map(|f| f.to_possible_value());
        names
            .map(|n| n.get_name().to_owned())
            .collect::<Vec<_>>()
            .join(", ")
    };
    let fault = Fault::from_str(fault, false)
        .map_err(|_| format!("unknown fault; known are {}", known()))?;
    Ok((method.to_owned(), fault))
}

impl From<Args> for Options {
    fn from(args: Args) -> Self {
        Self {
            listen: args.listen,
            name: args.name,
            eras: args.eras,
            sessions: !args.no_sessions,
            reply: args.reply,
            encoding: args.encoding,
            page_size: args.page_size,
            latency: Duration::from_millis(args.latency_ms),
            tools: args.tools,
            parser: args.parser,
            check_headers: !args.no_header_checks,
            event_ids: args.event_ids,
            record: !args.no_record,
            record_file: args.record_file,
            faults: args.faults,
            reset_on_accept: false,
        }
    }
}

/// Serves until stdin ends (stdio) or for ever (HTTP, after its URL was printed on a line of its own).
///
/// # Errors
/// The address cannot be bound, or a file cannot be opened.
pub fn run(args: Args) -> io::Result<()> {
    if args.stdio {
        return serve_stdio(args.into());
    }
    let running = Upstream::start(args.into())?;
    println!("{}", running.url());
    io::stdout().flush()?;
    running.wait();
    Ok(())
}
