//! Replies read in pieces as they pass, beside the same bytes read whole: turns, of which each one's fastest counts.

use super::SEED;
use proto::scan::{From, read, reply::Reply};
use std::{
    hint::black_box,
    time::{Duration, Instant},
};
use tollgate_benches::bodies::{bounds, reply, reply_shapes};

/// Bytes of a reply, and of a piece: what one read of a socket brings.
const REPLY: usize = 64 << 10;
const PIECE: usize = 8 << 10;
/// Turns of each reader on each body, and how long one is at least.
const TURNS: usize = 25;
const TURN: Duration = Duration::from_millis(2);

/// Prints the table: gigabytes a second.
pub(crate) fn print() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let once = arguments.iter().any(|argument| argument == "--test");
    if arguments.iter().any(|argument| !argument.starts_with("--")) {
        return;
    }
    println!("| reply of 64 KB | whole | in pieces of 8 KB | ratio |\n|---|---|---|---|");
    for shape in reply_shapes() {
        let Some(bytes) = reply(SEED, shape, REPLY) else {
            unreachable!("invariant: the names are those of shapes");
        };
        let mut fastest = [f64::INFINITY; 2];
        for _ in 0..if once { 1 } else { TURNS } {
            let turns = [turn(once, || whole(&bytes)), turn(once, || pieces(&bytes))];
            for (fastest, took) in fastest.iter_mut().zip(turns) {
                *fastest = fastest.min(took);
            }
        }
        let [whole, pieces] = fastest.map(|ns| bytes.len() as f64 / ns);
        println!(
            "| {shape} | {whole:.2} | {pieces:.2} | {:.2} |",
            pieces / whole
        );
    }
}

/// Nanoseconds of one read.
fn turn(once: bool, reads: impl Fn() -> bool) -> f64 {
    let (begun, mut times) = (Instant::now(), 0u32);
    loop {
        assert!(reads(), "the reply is read");
        times += 1;
        let took = begun.elapsed();
        if once || took >= TURN {
            return took.as_nanos() as f64 / f64::from(times);
        }
    }
}

fn whole(bytes: &[u8]) -> bool {
    read(black_box(bytes), &bounds(), From::Server).is_ok()
}

fn pieces(bytes: &[u8]) -> bool {
    let mut reply = Reply::new(&bounds());
    let mut pieces = black_box(bytes).chunks(PIECE);
    pieces.all(|piece| reply.push(piece).is_ok()) && reply.finish().is_ok()
}
