//! The three pipes of a child: lines in, lines out, and what it says on stderr.

use super::{Counters, message, router::Router};
use crate::metrics::Metrics;
use bytes::Bytes;
use proto::{
    id::ServerName,
    scan::{self, lines::Splitter},
};
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

/// Why a child takes no more lines.
#[derive(Debug)]
pub enum WriteError {
    /// It has closed its stdin, or is gone.
    Broken(std::io::Error),
    /// It read nothing for this long.
    Stalled(Duration),
}

impl std::fmt::Display for WriteError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            WriteError::Broken(error) => write!(f, "it takes no input: {error}"),
            WriteError::Stalled(stall) => write!(f, "it read none of its input for {stall:?}"),
        }
    }
}

/// Writes the queued lines until the queue is closed.
pub async fn write(
    mut pipe: impl AsyncWrite + Unpin,
    mut lines: mpsc::Receiver<Arc<Line>>,
    stall: Duration,
) -> Result<(), WriteError> {
    while let Some(line) = lines.recv().await {
        if !line.step(QUEUED, BEGUN) {
            continue;
        }
        let mut rest = &*line.bytes;
        while !rest.is_empty() {
            let untouched = rest.len() == line.bytes.len();
            let error = match tokio::time::timeout(stall, pipe.write(rest)).await {
                Ok(Ok(written)) if written > 0 => {
                    rest = rest.get(written..).unwrap_or_default();
                    continue;
                }
                Ok(Ok(_)) => WriteError::Broken(std::io::ErrorKind::WriteZero.into()),
                Ok(Err(error)) => WriteError::Broken(error),
                Err(_) => WriteError::Stalled(stall),
            };
            if untouched {
                line.step(BEGUN, WITHDRAWN);
            }
            return Err(error);
        }
    }
    Ok(())
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
    let mut lines = Splitter::new(line_bytes_max);
    let mut rate = Rate::default();
    let mut buffer = vec![0; READ_BYTES];
    let mut whole = Vec::new();
    let mut skip = |reason: &str, line: &[u8]| {
        source.counters.skipped.fetch_add(1, Ordering::Relaxed);
        source.metrics.stdio_skipped(&source.server, 1);
        if let Some(unsaid) = rate.allow(SKIPPED_LOGGED_SECOND, Instant::now()) {
            let line = source.excerpt(line, EXCERPT_BYTES);
            tracing::warn!(
                server = %source.server, pid = source.pid, reason, line, unsaid,
                "skipped a line of a server's stdout that is no JSON-RPC message"
            );
        }
    };
    while let Some(got) = chunk(&mut pipe, &mut buffer).await {
        let split = lines.push(got, |line| whole.push(one_line(line)));
        for line in whole.drain(..) {
            match message::read(&line, &bounds) {
                Ok(kind) => router.deliver(&kind, line).await,
                Err(refused) => {
                    if let Some(id) = &refused.reply_to {
                        router.refuse(id, &refused.reason);
                    }
                    skip(&refused.reason, &line);
                }
            }
        }
        if let Err(line) = split {
            let reason = "longer than `reply_bytes`";
            // Its id went with it.
            if line.object {
                router.refuse_only(reason);
            }
            skip(reason, b"");
        }
    }
}

/// The next bytes of a pipe; `None` at its end, however it comes.
async fn chunk<'a>(pipe: &mut (impl AsyncRead + Unpin), buffer: &'a mut [u8]) -> Option<&'a [u8]> {
    match pipe.read(buffer).await {
        Ok(0) | Err(_) => None,
        Ok(got) => buffer.get(..got),
    }
}

/// A line's own bytes. A CR within it would end an event's line; the scanner lets it pass only as white space between
/// tokens, so a space in its place changes no meaning.
fn one_line(line: &[u8]) -> Bytes {
    line.iter()
        .map(|&byte| if byte == b'\r' { b' ' } else { byte })
        .collect()
}

/// Logs the child's stderr until it ends.
pub async fn log(mut pipe: impl AsyncRead + Unpin, source: Source) {
    let mut lines = Splitter::new(STDERR_LINE_BYTES);
    let mut rate = Rate::default();
    let mut buffer = vec![0; STDERR_LINE_BYTES];
    let mut say = |line: String| {
        if let Some(unsaid) = rate.allow(STDERR_LOGGED_SECOND, Instant::now()) {
            tracing::info!(server = %source.server, pid = source.pid, line, unsaid, "stderr");
        }
    };
    while let Some(got) = chunk(&mut pipe, &mut buffer).await {
        let split = lines.push(got, |line| say(source.excerpt(line, STDERR_LINE_BYTES)));
        if split.is_err() {
            say(format!("(a line longer than {STDERR_LINE_BYTES} bytes)"));
        }
    }
    // The last words of a process that dies have often no line end.
    if !lines.rest().is_empty() {
        say(source.excerpt(lines.rest(), STDERR_LINE_BYTES));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn source(secrets: &[&str]) -> Source {
        Source {
            server: ServerName::new("s"),
            pid: 1,
            counters: Arc::default(),
            metrics: Metrics::new(),
            secrets: secrets.iter().map(|&s| s.to_owned()).collect(),
        }
    }

    #[test]
    fn an_excerpt_shows_neither_secrets_nor_control_characters_nor_too_much() {
        let source = source(&["s3cret-token"]);
        for (line, bytes_max, shown) in [
            ("plain", 100, "plain"),
            ("key=s3cret-token!", 100, "key=***!"),
            ("a\x1b[31mred\0", 100, "a\u{fffd}[31mred\u{fffd}"),
            ("0123456789", 4, "0123…"),
            ("key=s3cret-token", 10, "key=…"),
            ("é", 1, "\u{fffd}…"),
        ] {
            assert_eq!(source.excerpt(line.as_bytes(), bytes_max), shown);
        }
    }

    #[test]
    fn a_rate_says_how_much_it_left_unsaid() {
        let mut rate = Rate::default();
        let now = Instant::now();
        let said: Vec<_> = (0..4).map(|_| rate.allow(2, now)).collect();
        assert_eq!(said, [Some(0), Some(0), None, None]);
        assert_eq!(rate.allow(2, now + Duration::from_secs(1)), Some(2));
    }

    #[test]
    fn a_line_is_withdrawn_only_before_it_was_begun() {
        let line = Line::new(b"{\r\n}");
        assert_eq!(&*line.bytes, b"{  }\n");
        assert!(line.withdraw() && line.withdraw());
        assert!(!line.step(QUEUED, BEGUN));
        let line = Line::new(b"{}");
        assert!(line.step(QUEUED, BEGUN));
        assert!(!line.withdraw());
    }
}
