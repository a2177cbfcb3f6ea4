//! Before any load: are the targets there, do they believe the grants, have they the tools?

use crate::{
    drive::{
        exchange::{Exchange, Peer, collect, is_stream},
        session::{Sessions, first_event, initialize},
        unix_ms,
    },
    plan::{Plan, call::Call, call::Protocol, rng::Rng},
    result::ClockOffset,
    target::Failure,
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method};
use serde_json::Value;
use std::{cell::RefCell, rc::Rc, sync::Arc, time::Duration};

/// Most pages of a tool list that are read.
const PAGES_MAX: usize = 100;
/// Grants that are tried; beyond, one bad token shows in the results.
const GRANTS_TRIED: usize = 64;
/// How often clocks are looked at, and in between: a little more than a second together.
const CLOCK_LOOKS: u32 = 60;
const CLOCK_PAUSE: Duration = Duration::from_millis(20);
/// How long a question may take.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// What the targets said.
#[derive(Debug)]
pub struct Met {
    /// The protocol that all of them speak.
    pub protocol: Protocol,
    /// What each calls itself.
    pub servers: Vec<Option<String>>,
    /// The first target's tools.
    pub tools: Vec<String>,
    /// Each one's clock.
    pub clocks: Vec<Clock>,
}

/// Bounds of a target's clock minus ours, ms, from its `Date` headers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Clock(Option<(i64, i64)>);

impl Clock {
    /// A `Date` that came with a reply: the clock showed some moment of that second between our sending and reading.
    pub fn saw(&mut self, date_s: u64, sent_ms: u64, read_ms: u64) {
        let date_ms = date_s as i64 * 1000;
        let (low, high) = (date_ms - read_ms as i64, date_ms + 999 - sent_ms as i64);
        self.0 = Some(match self.0 {
            // Clocks that were set in between leave nothing in common: the newest word counts.
            Some((l, h)) if l.max(low) <= h.min(high) => (l.max(low), h.min(high)),
            _ => (low, high),
        });
    }

    /// The estimate, if there was any `Date`.
    pub fn offset(&self) -> Option<ClockOffset> {
        let (low, high) = self.0?;
        Some(ClockOffset {
            offset_ms: low + (high - low) / 2,
            error_ms: ((high - low) as u64).div_ceil(2),
        })
    }
}

/// Seconds since 1970 of an HTTP date (IMF-fixdate, RFC 9110 §5.6.7).
pub fn http_date(text: &str) -> Option<u64> {
    let mut words = text.split_whitespace().skip(1);
    let day: u64 = words.next()?.parse().ok()?;
    let months = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let month = months.find(words.next()?)? as u64 / 3 + 1;
    let year: u64 = words.next()?.parse().ok()?;
    let mut clock = words.next()?.split(':').map(|n| n.parse::<u64>().ok());
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    // Days from a civil date (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
    let (y, m) = if month <= 2 {
        (year - 1, month + 9)
    } else {
        (year, month - 3)
    };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1;
    Some((days.checked_sub(719_468)?) * 86_400 + hour * 3_600 + minute * 60 + second)
}

/// Asks every target.
///
/// # Errors
/// A sentence that says what to do.
pub fn meet(plan: &Plan, protocol: Option<Protocol>, unlisted: bool) -> Result<Met, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(|e| format!("cannot start: {e}"))?;
    runtime.block_on(async {
        let protocol = match protocol {
            Some(protocol) => protocol,
            None => probe(plan).await?,
        };
        let plan = Arc::new(Plan {
            protocol: protocol.clone(),
            lanes: 1,
            threads: 1,
            ..plan.clone()
        });
        let mut met = Met {
            protocol,
            servers: Vec::new(),
            tools: Vec::new(),
            clocks: Vec::new(),
        };
        for target in 0..plan.endpoints.len() {
            let mut guest = Guest::new(plan.clone(), target);
            let tools = guest.tools(0).await?;
            let called = plan.calls.iter().filter_map(|c| c.tool.as_deref());
            for tool in called.filter(|_| !unlisted) {
                known(tool, &tools, &guest.url())?;
            }
            if target == 0 {
                met.tools = tools;
                for grant in 1..plan.grants.len().min(GRANTS_TRIED) {
                    Guest::new(plan.clone(), target).tools(grant).await?;
                }
            }
            met.servers.push(guest.server.take());
            met.clocks.push(guest.clock);
        }
        Ok(met)
    })
}

/// Which protocol the first target speaks.
async fn probe(plan: &Plan) -> Result<Protocol, String> {
    let modern = Arc::new(Plan {
        protocol: Protocol::Modern,
        ..plan.clone()
    });
    let mut guest = Guest::new(modern, 0);
    let (status, reply) = guest.ask(0, "server/discover", "{}", None).await?;
    if status == 200 && reply.get("result").is_some() {
        return Ok(Protocol::Modern);
    }
    refused(&guest, 0, status)?;
    Ok(Protocol::Legacy(crate::upstream::LEGACY[0].into()))
}

/// A refused token is an error; everything else is for the caller to judge.
fn refused(guest: &Guest, grant: usize, status: u16) -> Result<(), String> {
    let url = guest.url();
    match (status, guest.peer.plan.grants.get(grant)) {
        (401 | 403, None) => Err(format!(
            "{url} wants a token (HTTP {status}): write it into a file, `NAME TOKEN` a line, and name it with --grants"
        )),
        (401 | 403, Some(grant)) => Err(format!(
            "{url} refused the token of `{}` (HTTP {status}): is it complete, not expired, and meant for this server?",
            grant.name
        )),
        _ => Ok(()),
    }
}

/// A tool must be listed; else the nearest name is suggested.
fn known(tool: &str, tools: &[String], url: &str) -> Result<(), String> {
    if tools.is_empty() || tools.iter().any(|t| t == tool) {
        return Ok(());
    }
    let nearest = tools.iter().min_by_key(|t| distance(t, tool));
    let near = nearest.filter(|t| distance(t, tool) <= tool.len() / 2 + 1);
    let advice = near.map_or(String::new(), |t| format!(" Did you mean `{t}`?"));
    let shown: Vec<&str> = tools.iter().take(30).map(String::as_str).collect();
    let more = if tools.len() > shown.len() {
        ", …"
    } else {
        ""
    };
    Err(format!(
        "{url} lists no tool `{tool}`.{advice} It has: {}{more}. (--unlisted calls it all the same.)",
        shown.join(", ")
    ))
}

/// Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut corner = i;
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
        for (j, y) in b.iter().enumerate() {
            let (Some(&left), Some(&above)) = (row.get(j), row.get(j + 1)) else {
                break;
            };
            let cost = (corner + usize::from(x != *y)).min(left + 1).min(above + 1);
            corner = above;
            if let Some(cell) = row.get_mut(j + 1) {
                *cell = cost;
            }
        }
    }
    row.last().copied().unwrap_or(0)
}

/// Measures every target's clock, for a second and a little: only a `Date` that has just changed says much.
///
/// # Errors
/// A sentence: a target cannot be reached.
pub fn clocks(plan: &Plan) -> Result<Vec<Clock>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(|e| format!("cannot start: {e}"))?;
    let plan = Arc::new(plan.clone());
    runtime.block_on(async {
        let mut guests: Vec<Guest> = (0..plan.endpoints.len())
            .map(|target| Guest::new(plan.clone(), target))
            .collect();
        for _ in 0..CLOCK_LOOKS {
            for guest in &mut guests {
                // Any reply has a date; this one neither costs quota nor opens anything.
                let headers = guest.peer.headers(guest.target, 0, None, None);
                guest.send(Method::OPTIONS, headers, Bytes::new()).await?;
            }
            tokio::time::sleep(CLOCK_PAUSE).await;
        }
        Ok(guests.into_iter().map(|g| g.clock).collect())
    })
}

/// A visitor of one target.
pub struct Guest {
    peer: Peer,
    target: usize,
    /// What the target calls itself.
    pub server: Option<String>,
    /// Its clock.
    pub clock: Clock,
}

impl Guest {
    /// Nothing is sent yet.
    pub fn new(plan: Arc<Plan>, target: usize) -> Self {
        let sessions = Rc::new(Sessions::new(&plan));
        let slots = plan
            .endpoints
            .iter()
            .map(|_| vec![tokio::sync::Mutex::new(None)]);
        let shared = Rc::new(slots.collect());
        let rng = Rc::new(RefCell::new(Rng::new(plan.seed)));
        Self {
            peer: Peer::new(plan, sessions, rng, shared, 0),
            target,
            server: None,
            clock: Clock::default(),
        }
    }

    fn url(&self) -> String {
        let endpoint = self.peer.plan.endpoints.get(self.target);
        endpoint.map(|e| e.url.clone()).unwrap_or_default()
    }

    /// Every tool that this grant sees.
    ///
    /// # Errors
    /// A sentence that says what to do.
    pub async fn tools(&mut self, grant: usize) -> Result<Vec<String>, String> {
        let session = match self.peer.plan.protocol.clone() {
            Protocol::Modern => None,
            Protocol::Legacy(version) => self.open(grant, &version).await?,
        };
        let mut tools = Vec::new();
        let mut params = "{}".to_owned();
        for _ in 0..PAGES_MAX {
            let (status, reply) = self
                .ask(grant, "tools/list", &params, session.as_ref())
                .await?;
            refused(self, grant, status)?;
            let Some(page) = reply.pointer("/result/tools").and_then(Value::as_array) else {
                // Not every server has a list; one that has none is not asked for it again.
                break;
            };
            let names = page.iter().filter_map(|t| t.get("name")?.as_str());
            tools.extend(names.map(str::to_owned));
            match reply.pointer("/result/nextCursor") {
                Some(cursor) => params = format!(r#"{{"cursor":{cursor}}}"#),
                None => break,
            }
        }
        if let Some(id) = session {
            let headers = self.peer.headers(self.target, grant, None, Some(&id));
            let _ = self.send(Method::DELETE, headers, Bytes::new()).await;
        }
        Ok(tools)
    }

    async fn open(&mut self, grant: usize, version: &str) -> Result<Option<HeaderValue>, String> {
        let headers = self.peer.headers(self.target, grant, None, None);
        let (status, head, reply) = self
            .send(Method::POST, headers, initialize(version))
            .await?;
        refused(self, grant, status)?;
        if status != 200 || reply.get("result").is_none() {
            let advice = match status {
                502..=504 => "is the server behind this gateway running?",
                _ => "is the path right?",
            };
            return Err(format!(
                "{} answered neither server/discover nor initialize as MCP does (HTTP {status}: {reply}): {advice}",
                self.url()
            ));
        }
        self.named(reply.pointer("/result/serverInfo"));
        let session = head.get("mcp-session-id").cloned();
        let headers = self
            .peer
            .headers(self.target, grant, None, session.as_ref());
        let note = Bytes::from_static(br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#);
        self.send(Method::POST, headers, note).await?;
        Ok(session)
    }

    fn named(&mut self, info: Option<&Value>) {
        let name = info.and_then(|info| info.get("name")?.as_str());
        self.server = name.map(str::to_owned).or(self.server.take());
    }

    /// Asks one question; returns the HTTP status and the reply (null where it was no JSON).
    ///
    /// # Errors
    /// A sentence: the target cannot be reached.
    pub async fn ask(
        &mut self,
        grant: usize,
        method: &str,
        params: &str,
        session: Option<&HeaderValue>,
    ) -> Result<(u16, Value), String> {
        let call = Call::parse(&format!("{method} {params}"))?;
        let protocol = self.peer.plan.protocol.clone();
        let made = call.make(&protocol, 1, "", false, &mut Rng::new(1));
        let headers = self.peer.headers(self.target, grant, Some(&call), session);
        let (status, _, reply) = self.send(Method::POST, headers, made.body.into()).await?;
        self.named(reply.pointer("/result/_meta/io.modelcontextprotocol~1serverInfo"));
        Ok((status, reply))
    }

    async fn send(
        &mut self,
        method: Method,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<(u16, HeaderMap, Value), String> {
        let request = self.peer.request(method, self.target, headers, body);
        let sent = unix_ms();
        let work = async {
            let mut out = Exchange::begin();
            let response = self.peer.send(self.target, request, &mut out).await?;
            let read = unix_ms();
            let (status, head) = (response.status().as_u16(), response.headers().clone());
            let body = match is_stream(&response) {
                true => first_event(response).await?.unwrap_or_default(),
                false => collect(response).await?.to_vec(),
            };
            Ok::<_, Failure>((read, status, head, body))
        };
        let answered = tokio::time::timeout(ANSWER_MAX, work).await;
        let url = self.url();
        let (read, status, head, body) = match answered {
            Ok(Ok(answer)) => answer,
            Ok(Err(failure)) => return Err(unreachable(&url, &failure)),
            Err(_) => {
                return Err(format!(
                    "{url} did not answer within {} s: is it an MCP endpoint, and not overloaded?",
                    ANSWER_MAX.as_secs()
                ));
            }
        };
        let date = head
            .get(http::header::DATE)
            .and_then(|d| http_date(d.to_str().ok()?));
        if let Some(date) = date {
            self.clock.saw(date, sent, read);
        }
        let reply = serde_json::from_slice(&body).unwrap_or(Value::Null);
        Ok((status, head, reply))
    }
}

fn unreachable(url: &str, failure: &Failure) -> String {
    let advice = match failure.code {
        "refused" => {
            "is the server running, and is this its port? (`tollgate-loadtest upstream` starts one to try)"
        }
        "not-http" | "closed" => "does it speak HTTP here, and is it http:// or https://?",
        "unreachable" | "timeout" => "is the address right, and does a firewall stand between?",
        _ => "see above",
    };
    format!("{url} cannot be reached ({failure}): {advice}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_read() {
        assert_eq!(
            http_date("Sun, 06 Nov 1994 08:49:37 GMT"),
            Some(784_111_777)
        );
        assert_eq!(
            http_date("Tue, 29 Feb 2028 00:00:00 GMT"),
            Some(1_835_395_200)
        );
        assert_eq!(http_date("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
        for text in [
            "",
            "Sun",
            "Sun, x Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49",
        ] {
            assert_eq!(http_date(text), None, "{text}");
        }
    }

    #[test]
    fn a_clock_is_bounded_by_every_date_that_was_seen() {
        // The target is 250 ms ahead; each reply takes 10 ms.
        let mut clock = Clock::default();
        assert_eq!(clock.offset(), None);
        for at in (1_000_000..1_002_000).step_by(20) {
            clock.saw((at + 5 + 250) / 1000, at, at + 10);
        }
        let offset = clock.offset().unwrap();
        assert!(
            offset.offset_ms.abs_diff(250) <= offset.error_ms,
            "{offset:?}"
        );
        assert!(offset.error_ms <= 25, "{offset:?}");
    }

    #[test]
    fn a_mistyped_tool_is_suggested() {
        let tools = ["echo", "generate_image"].map(String::from);
        let error = known("genrate_image", &tools, "u").unwrap_err();
        assert!(error.contains("Did you mean `generate_image`?"), "{error}");
        let error = known("zzzzzzzzzz", &tools, "u").unwrap_err();
        assert!(!error.contains("Did you mean"), "{error}");
        assert_eq!(known("echo", &tools, "u"), Ok(()));
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
