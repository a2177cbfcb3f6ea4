//! The command line of the recording server.

use super::{Chance, Delay, Encoding, Eras, Fault, Options, Parser, Reply, Upstream, serve_stdio};
use clap::ValueEnum as _;
use std::{
    io::{self, Write as _},
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
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
    /// How long calls take: 5ms, 1ms..9ms, exp:MEAN or lognormal:MEDIAN:P99
    #[arg(long, default_value = "0s", value_parser = Delay::parse)]
    pub latency: Delay,
    /// Share of calls that end as tool errors, 0 to 1
    #[arg(long, default_value_t = 0.0, value_parser = share)]
    pub error_rate: f64,
    /// Share of calls that are rejected with a JSON-RPC error
    #[arg(long, default_value_t = 0.0, value_parser = share)]
    pub reject_rate: f64,
    /// Share of calls that are executed and never answered
    #[arg(long, default_value_t = 0.0, value_parser = share)]
    pub hang_rate: f64,
    /// Bytes added to every result: N or N..M
    #[arg(long, default_value = "0", value_parser = bytes)]
    pub reply_bytes: (u64, u64),
    /// Progress notifications before every result, where the client asks for them
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=10_000))]
    pub progress_steps: u64,
    /// Of what is left to chance
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Speak HTTP/2 with prior knowledge instead of HTTP/1.1
    #[arg(long)]
    pub http2: bool,
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
    /// What to remember: full, calls (without headers, arguments and bodies: for load), or totals
    #[arg(long, value_enum, default_value_t)]
    pub record: Remember,
    /// The same as --record totals
    #[arg(long)]
    pub no_record: bool,
    /// Append every finished call to this file, one JSON object a line
    #[arg(long)]
    pub record_file: Option<PathBuf>,
    /// Misbehave whenever this method comes, e.g. tools/list=duplicate-keys (may be repeated)
    #[arg(long = "fault", value_name = "METHOD=FAULT", value_parser = fault)]
    pub faults: Vec<(String, Fault)>,
}

/// What is remembered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Remember {
    /// Calls with headers and arguments, and requests with bodies
    #[default]
    Full,
    /// Each call's tool, id, mark and outcome
    Calls,
    /// How many, and how long they took
    Totals,
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("write a share from 0 to 1, e.g. 0.01".into()),
    }
}

fn bytes(text: &str) -> Result<(u64, u64), String> {
    let (from, to) = text.split_once("..").unwrap_or((text, text));
    match (from.parse(), to.parse()) {
        (Ok(from), Ok(to)) if from <= to && to <= 256 << 20 => Ok((from, to)),
        _ => Err("write N or N..M, bytes, at most 268435456".into()),
    }
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
            chance: Chance {
                delay: args.latency,
                error_rate: args.error_rate,
                reject_rate: args.reject_rate,
                hang_rate: args.hang_rate,
                reply_bytes: args.reply_bytes,
                progress_steps: args.progress_steps,
                seed: args.seed,
            },
            http2: args.http2,
            tools: args.tools,
            parser: args.parser,
            check_headers: !args.no_header_checks,
            event_ids: args.event_ids,
            record: !args.no_record && args.record != Remember::Totals,
            record_details: args.record == Remember::Full,
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
