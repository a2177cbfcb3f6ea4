//! The three pipes of a child: lines in, lines out, and what it says on stderr.

use super::{Counters, message, router::Router};
use crate::metrics::Metrics;
use bytes::Bytes;
use proto::{id::ServerName, scan};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::mpsc,
};

/// A line for the child, and how far it has come.
#[derive(Debug)]
pub struct Line {
    bytes: Bytes,
    state: AtomicU8,
}

const QUEUED: u8 = 0;
const BEGUN: u8 = 1;
const WITHDRAWN: u8 = 2;

impl Line {
    /// A judged message as one line.
    ///
    /// Invariant: the scanner refuses control characters inside strings, so every CR and LF of a judged message is
    /// white space between tokens, and a space in its place changes no meaning.
    pub fn new(message: &[u8]) -> Arc<Self> {
        let mut bytes = Vec::with_capacity(message.len() + 1);
        bytes.extend(message.iter().map(|&byte| match byte {
            b'\n' | b'\r' => b' ',
            other => other,
        }));
        bytes.push(b'\n');
        Arc::new(Self {
            bytes: bytes.into(),
            state: AtomicU8::new(QUEUED),
        })
    }

    fn step(&self, from: u8, to: u8) -> bool {
        self.state
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// Takes the line back; true when the child certainly got nothing of it.
    pub fn withdraw(&self) -> bool {
        self.step(QUEUED, WITHDRAWN) || self.state.load(Ordering::Acquire) == WITHDRAWN
    }
}

/// Writes the queued lines. Returns why the child takes no more; `None` when the queue was closed.
pub async fn write(
    mut pipe: impl AsyncWrite + Unpin,
    mut lines: mpsc::Receiver<Arc<Line>>,
    stall: Duration,
) -> Option<String> {
    while let Some(line) = lines.recv().await {
        if !line.step(QUEUED, BEGUN) {
            continue;
        }
        let mut rest = &*line.bytes;
        while !rest.is_empty() {
            let untouched = rest.len() == line.bytes.len();
            match tokio::time::timeout(stall, pipe.write(rest)).await {
                Ok(Ok(written)) if written > 0 => rest = rest.get(written..).unwrap_or_default(),
                failed => {
                    if untouched {
                        line.step(BEGUN, WITHDRAWN);
                    }
                    return Some(match failed {
                        Ok(Err(error)) => format!("it takes no input: {error}"),
                        Ok(Ok(_)) => "it takes no input".to_owned(),
                        Err(_) => format!("it read none of its input for {stall:?}"),
                    });
                }
            }
        }
    }
    None
}

/// Who a child is, for what is logged and counted about it.
#[derive(Clone)]
pub struct Source {
    /// The server's name.
    pub server: ServerName,
    /// The process.
    pub pid: u32,
    /// The server's counters.
    pub counters: Arc<Counters>,
    /// The daemon's metrics.
    pub metrics: Arc<Metrics>,
    /// The values of the variables that were given to it: never logged.
    pub secrets: Arc<[String]>,
}

impl Source {
    /// A bounded, printable excerpt of a line without the secrets that the child was given.
    pub fn excerpt(&self, line: &[u8], bytes_max: usize) -> String {
        let cut = line.len() > bytes_max;
        let mut text = String::from_utf8_lossy(line.get(..bytes_max).unwrap_or(line)).into_owned();
        for secret in &*self.secrets {
            // The cut may have left only the start of a secret at the very end.
            text = text.replace(secret.as_str(), "***");
            if cut && let Some(start) = tail_of(&text, secret) {
                text.truncate(start);
            }
        }
        let mut text: String = text
            .chars()
            .map(|c| {
                if c.is_control() && c != '\t' {
                    '\u{fffd}'
                } else {
                    c
                }
            })
            .collect();
        if cut {
            text.push('…');
        }
        text
    }
}

/// Where a text that was cut off ends in the beginning of `secret`.
fn tail_of(text: &str, secret: &str) -> Option<usize> {
    let last = text.trim_end_matches('\u{fffd}');
    secret
        .char_indices()
        .map(|(at, c)| at + c.len_utf8())
        .rev()
        .filter_map(|length| secret.get(..length))
        .find_map(|head| last.strip_suffix(head))
        .map(str::len)
}

/// Reads the child's messages until its stdout ends.
pub async fn read(
    mut pipe: impl AsyncRead + Unpin,
    router: Arc<Router>,
    source: Source,
    line_bytes_max: usize,
    bounds: scan::Bounds,
) {
    let mut lines = Lines::new(line_bytes_max);
    let mut rate = Rate::default();
    let mut buffer = vec![0; READ_BYTES];
    let mut whole = Vec::new();
    loop {
        let got = match pipe.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(got) => buffer.get(..got).unwrap_or_default(),
        };
        lines.push(got, |line| whole.push(line));
        for line in whole.drain(..) {
            let skipped = match line {
                Ok(line) => match message::read(&line, &bounds) {
                    Ok(kind) => {
                        router.deliver(&kind, Bytes::from(line)).await;
                        continue;
                    }
                    Err(refused) => {
                        if let Some(id) = &refused.reply_to {
                            router.refuse(id, &refused.reason);
                        }
                        (refused.reason, source.excerpt(&line, EXCERPT_BYTES))
                    }
                },
                Err(TooLong) => (format!("longer than {line_bytes_max} bytes"), String::new()),
            };
            source.counters.skipped.fetch_add(1, Ordering::Relaxed);
            source.metrics.stdio_skipped(&source.server, 1);
            if let Some(unsaid) = rate.allow(SKIPPED_LOGGED_SECOND, Instant::now()) {
                let (reason, line) = skipped;
                tracing::warn!(
                    server = %source.server, pid = source.pid, reason, line, unsaid,
                    "skipped a line of a server's stdout that is no JSON-RPC message"
                );
            }
        }
    }
}

/// Logs the child's stderr until it ends.
pub async fn log(mut pipe: impl AsyncRead + Unpin, source: Source) {
    let mut lines = Lines::new(STDERR_LINE_BYTES);
    let mut rate = Rate::default();
    let mut buffer = vec![0; STDERR_LINE_BYTES];
    loop {
        let got = match pipe.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(got) => buffer.get(..got).unwrap_or_default(),
        };
        lines.push(got, |line| {
            let Some(unsaid) = rate.allow(STDERR_LOGGED_SECOND, Instant::now()) else {
                return;
            };
            let line = match line {
                Ok(line) => source.excerpt(&line, STDERR_LINE_BYTES),
                Err(TooLong) => format!("(a line longer than {STDERR_LINE_BYTES} bytes)"),
            };
            tracing::info!(server = %source.server, pid = source.pid, line, unsaid, "stderr");
        });
    }
}

const READ_BYTES: usize = 64 << 10;
const EXCERPT_BYTES: usize = 200;
/// Skipped lines of one process that are logged in a second; the rest is a number.
const SKIPPED_LOGGED_SECOND: u32 = 5;
/// The longest line of stderr that is logged.
const STDERR_LINE_BYTES: usize = 4 << 10;
/// Lines of stderr of one process that are logged in a second; the rest is a number.
const STDERR_LOGGED_SECOND: u32 = 50;

/// A line was longer than the bound.
#[derive(Debug, PartialEq, Eq)]
pub struct TooLong;

/// Splits bytes into lines; a line beyond the bound is dropped up to its end and reported once.
pub struct Lines {
    max: usize,
    held: Vec<u8>,
    skipping: bool,
}

impl Lines {
    /// Lines of at most `max` bytes.
    pub fn new(max: usize) -> Self {
        Self {
            max,
            held: Vec::new(),
            skipping: false,
        }
    }

    /// Feeds bytes; `each` gets every completed line without its end, empty lines left out.
    pub fn push(&mut self, bytes: &[u8], mut each: impl FnMut(Result<Vec<u8>, TooLong>)) {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            let (part, ended) = match piece.strip_suffix(b"\n") {
                Some(part) => (part, true),
                None => (piece, false),
            };
            if !self.skipping {
                // One more for the CR that may belong to the line's end.
                if self.held.len() + part.len() > self.max + 1 {
                    self.held = Vec::new();
                    self.skipping = true;
                    each(Err(TooLong));
                } else {
                    self.held.extend_from_slice(part);
                }
            }
            if ended && !std::mem::take(&mut self.skipping) {
                let mut line = std::mem::take(&mut self.held);
                if line.last() == Some(&b'\r') {
                    line.pop();
                }
                match line.len() {
                    0 => {}
                    length if length > self.max => each(Err(TooLong)),
                    _ => each(Ok(line)),
                }
            }
        }
    }
}

/// So many log lines a second, and how many were left out since.
#[derive(Default)]
struct Rate {
    since: Option<Instant>,
    used: u32,
    unsaid: u64,
}

impl Rate {
    /// `Some(lines left out before this one)` when this one may be logged.
    fn allow(&mut self, max: u32, now: Instant) -> Option<u64> {
        let fresh = |since: Instant| now.saturating_duration_since(since) < Duration::from_secs(1);
        if !self.since.is_some_and(fresh) {
            self.since = Some(now);
            self.used = 0;
        }
        if self.used < max {
            self.used += 1;
            return Some(std::mem::take(&mut self.unsaid));
        }
        self.unsaid += 1;
        None
    }
}
