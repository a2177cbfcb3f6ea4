//! The queue, the writer and its patience, with a sink that does as it is told.

use super::{batch::Batch, sink::Out, *};
use proto::{
    audit::Record,
    id::{GrantId, RequestId, ServerName},
};
use std::{
    io,
    sync::{Condvar, MutexGuard},
    time::Instant,
};

const T0: u64 = 1_785_230_400_000;
const SHORT: Duration = Duration::from_millis(60);
const LONG: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, PartialEq)]
enum Mood {
    Works,
    Fails,
    Hangs,
    Short,
}

struct State {
    mood: Mood,
    lines: Vec<String>,
    synced: usize,
}

/// A sink whose mood is changed from outside.
#[derive(Clone)]
struct Moody(Arc<(Mutex<State>, Condvar)>);

impl Moody {
    fn new(mood: Mood) -> Self {
        let state = State {
            mood,
            lines: Vec::new(),
            synced: 0,
        };
        Self(Arc::new((Mutex::new(state), Condvar::new())))
    }
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap()
    }
    fn set(&self, mood: Mood) {
        self.state().mood = mood;
        self.0.1.notify_all();
    }
    fn start(&self, queue: usize) -> Audit {
        Audit::start_with(Box::new(self.clone()), queue, || T0).unwrap()
    }
    fn requests(&self) -> Vec<u128> {
        let id = |line: &String| {
            let json: serde_json::Value = serde_json::from_str(line).unwrap();
            u128::from_str_radix(json["request"].as_str()?, 16).ok()
        };
        self.state().lines.iter().filter_map(id).collect()
    }
}

impl Out for Moody {
    fn write(&mut self, batch: &mut Batch, _unix_ms: u64) -> io::Result<()> {
        let mut state = self
            .0
            .1
            .wait_while(self.state(), |s| s.mood == Mood::Hangs)
            .unwrap();
        while let Some(line) = batch.line() {
            if state.mood == Mood::Fails {
                return Err(io::ErrorKind::StorageFull.into());
            }
            state.lines.push(String::from_utf8(line.to_vec()).unwrap());
            batch.line_done();
        }
        Ok(())
    }
    fn tick(&mut self, _unix_ms: u64) -> bool {
        self.state().mood != Mood::Short
    }
    fn sync(&mut self) -> io::Result<()> {
        self.state().synced += 1;
        Ok(())
    }
}

fn record(n: u128) -> Record {
    Record {
        request: RequestId(n),
        unix_ms: T0,
        source: None,
        grant: GrantId::new("g"),
        label: None,
        session: None,
        server: ServerName::new("s"),
        era: None,
        verb: "POST",
        method: None,
        tool: None,
        batch_index: None,
        decision: "allow",
        code: None,
        rule: None,
        policy: None,
        argument_keys: Vec::new(),
        status: 200,
        upstream_status: None,
        side: None,
        end: "complete",
        latency_us: 0,
        decide_us: 0,
        bytes_in: 0,
        bytes_out: 0,
        limits: Vec::new(),
    }
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < LONG, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_full_queue_refuses_after_the_wait_and_no_line_is_lost() {
    let sink = Moody::new(Mood::Hangs);
    let audit = sink.start(4);
    let mut written = Vec::new();
    let refused = loop {
        let start = Instant::now();
        match audit.slot(SHORT).await {
            Ok(slot) => {
                written.push(written.len() as u128);
                slot.write(Box::new(record(written.len() as u128 - 1)));
            }
            Err(Refused) => break start.elapsed(),
        }
    };
    assert!(refused >= SHORT, "{refused:?}");
    assert!(written.len() >= 4, "{}", written.len());
    assert!(!audit.ready());
    assert_eq!((audit.queued(), audit.refused()), (4, 1));
    sink.set(Mood::Works);
    // A place comes free while somebody waits.
    audit.slot(LONG).await.unwrap().write(Box::new(record(999)));
    written.push(999);
    audit.close().await;
    assert_eq!(sink.requests(), written);
}

#[tokio::test]
async fn a_slot_that_is_dropped_frees_its_place() {
    let audit = Moody::new(Mood::Works).start(1);
    let slot = audit.slot(SHORT).await.unwrap();
    assert_eq!(audit.queued(), 1);
    assert!(audit.slot(SHORT).await.is_err());
    drop(slot);
    assert_eq!(audit.queued(), 0);
    assert!(audit.slot(SHORT).await.is_ok());
}

#[tokio::test]
async fn a_sink_that_fails_makes_calls_refused_and_its_lines_are_written_when_it_works_again() {
    let sink = Moody::new(Mood::Works);
    let audit = sink.start(16);
    let slots = [
        audit.slot(SHORT).await.unwrap(),
        audit.slot(SHORT).await.unwrap(),
    ];
    sink.set(Mood::Fails);
    for (n, slot) in slots.into_iter().enumerate() {
        slot.write(Box::new(record(n as u128)));
    }
    until("not ready", || !audit.ready()).await;
    assert!(audit.slot(SHORT).await.is_err());
    assert_eq!(sink.requests(), [0_u128; 0]);
    sink.set(Mood::Works);
    until("ready", || audit.ready()).await;
    assert_eq!(sink.requests(), [0, 1]);
    assert!(audit.slot(SHORT).await.is_ok());
}

#[tokio::test]
async fn a_sink_without_room_refuses_calls_but_takes_the_lines_of_those_that_were_admitted() {
    let sink = Moody::new(Mood::Works);
    let audit = sink.start(16);
    let slot = audit.slot(SHORT).await.unwrap();
    sink.set(Mood::Short);
    until("not ready", || !audit.ready()).await;
    assert!(audit.slot(SHORT).await.is_err());
    slot.write(Box::new(record(7)));
    until("written", || sink.requests() == [7]).await;
    sink.set(Mood::Works);
    until("ready", || audit.ready()).await;
}

#[tokio::test]
async fn closing_waits_for_calls_that_hold_a_place_and_syncs() {
    let sink = Moody::new(Mood::Works);
    let audit = sink.start(16);
    let slot = audit.slot(SHORT).await.unwrap();
    audit.slot(SHORT).await.unwrap().write(Box::new(record(1)));
    let closing = tokio::spawn({
        let audit = audit.clone();
        async move { audit.close().await }
    });
    until("closing", || !audit.ready()).await;
    assert!(audit.slot(SHORT).await.is_err());
    slot.write(Box::new(record(2)));
    closing.await.unwrap();
    assert_eq!(sink.requests(), [1, 2]);
    assert_eq!(sink.state().synced, 1);
    // Closing again does nothing.
    audit.close().await;
    assert_eq!(sink.state().synced, 1);
}

#[tokio::test]
async fn closing_while_the_sink_fails_tries_on_and_succeeds_when_it_works_in_time() {
    let sink = Moody::new(Mood::Fails);
    let audit = sink.start(16);
    for n in 0..3 {
        audit.slot(SHORT).await.unwrap().write(Box::new(record(n)));
    }
    until("not ready", || !audit.ready()).await;
    let closing = tokio::spawn(async move { audit.close().await });
    tokio::time::sleep(SHORT).await;
    sink.set(Mood::Works);
    closing.await.unwrap();
    assert_eq!(sink.requests(), [0, 1, 2]);
}

#[tokio::test]
async fn rejections_are_written_ten_a_second_and_reason_and_never_take_a_place_of_a_call() {
    let sink = Moody::new(Mood::Works);
    let audit = sink.start(1);
    let _the_only_place = audit.slot(SHORT).await.unwrap();
    let start = Instant::now();
    for _ in 0..5_000 {
        audit.rejected("wrong_token", [127, 0, 0, 1].into(), "/mcp/flux?x=1", 401);
    }
    assert!(start.elapsed() < Duration::from_secs(2));
    assert_eq!(audit.queued(), 1);
    drop(_the_only_place);
    audit.close().await;
    let lines = sink.state().lines.clone();
    let suppressed: u64 = lines
        .iter()
        .filter_map(|l| {
            serde_json::from_str::<serde_json::Value>(l).unwrap()["suppressed"].as_u64()
        })
        .sum();
    let own = lines.iter().filter(|l| l.contains("\"rejected\"")).count() as u64;
    assert_eq!(own + suppressed, 5_000);
    assert_eq!(suppressed, audit.suppressed());
    // The loop may cross a second or two.
    assert!((10..=30).contains(&own), "{own}");
}

#[tokio::test]
async fn lines_reach_a_file_and_closing_leaves_them_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    let sink = Sink::File(FileSettings {
        path: path.clone(),
        rotate_bytes: 1 << 20,
        rotate_age: None,
        keep: 1,
        min_free: 1,
        retain_required: false,
    });
    let audit = Audit::start(Settings { sink, queue: 8 }).unwrap();
    for n in 0..100 {
        audit.slot(LONG).await.unwrap().write(Box::new(record(n)));
    }
    audit.close().await;
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().count(), 100);
    assert!(
        text.lines()
            .all(|l| l.starts_with("{\"event\":\"request\"") && l.ends_with('}'))
    );
}

#[tokio::test]
async fn what_an_operator_changes_is_written_and_refused_where_it_cannot_be() {
    let sink = Moody::new(Mood::Works);
    let audit = sink.start(1);
    let operation = || Operation {
        unix_ms: T0,
        by: "uid:0".into(),
        action: "grant.put",
        target: Some("ci".into()),
        outcome: "done",
        version: Some(1),
        detail: None,
    };
    // A call that holds the only place of the calls' queue is not in its way.
    let _call = audit.slot(SHORT).await.unwrap();
    audit
        .operation_slot(SHORT)
        .await
        .unwrap()
        .write(operation());
    let until = Instant::now() + LONG;
    while sink.state().lines.is_empty() && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(sink.state().lines[0].contains(r#""action":"grant.put""#));
    sink.set(Mood::Fails);
    audit
        .operation_slot(SHORT)
        .await
        .unwrap()
        .write(operation());
    while audit.ready() && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let until = Instant::now() + LONG;
    while audit.operation_slot(SHORT).await.is_ok() && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(audit.operation_slot(SHORT).await.is_err());
}
