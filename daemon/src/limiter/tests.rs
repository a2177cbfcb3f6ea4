mod beside;
mod memory;
mod shown;
mod threads;

use super::*;
use cluster::memory::{Memory, Mood};
use proto::limit::{Identity, Outcome, RefundOn, Scale, Settled, Window, ledger::Bounds};
use std::ops::Deref;
use tokio::time::timeout_at;

const MINUTE: Window = Window::Duration(60_000);
/// 2026-01-31T23:59:00Z, a Saturday: the last minute of a month, not of a week.
const START: Now = Now {
    unix_ms: 1_769_903_940_000,
    boot_ns: 77_000_000_000,
};

fn later(ms: u64) -> Now {
    Now {
        unix_ms: START.unix_ms + ms,
        boot_ns: START.boot_ns + ms * 1_000_000,
    }
}

/// A runtime like the daemon's.
fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap()
        .block_on(future)
}

/// A limiter, the ledger behind it, and the clock of both, which goes as far as it was told.
struct Node {
    limiter: Limiter,
    memory: Option<Memory>,
    clock: Arc<Mutex<Now>>,
}

impl Deref for Node {
    type Target = Limiter;
    fn deref(&self) -> &Limiter {
        &self.limiter
    }
}

impl Node {
    fn of(counters_max: usize) -> Self {
        let clock = Arc::new(Mutex::new(START));
        let (handle, memory) = cluster::memory::open(Bounds::default(), reader(&clock)).unwrap();
        Self {
            limiter: Limiter::new(handle, counters_max, reader(&clock)),
            memory: Some(memory),
            clock,
        }
    }

    fn disconnected() -> Self {
        let clock = Arc::new(Mutex::new(START));
        Self {
            limiter: Limiter::new(Handle::disconnected(START), 100, reader(&clock)),
            memory: None,
            clock,
        }
    }

    fn memory(&self) -> &Memory {
        self.memory.as_ref().unwrap()
    }

    /// It is this late now, or later. The wall clock may step.
    fn at(&self, now: Now) {
        let mut clock = lock(&self.clock);
        if now.boot_ns >= clock.boot_ns {
            *clock = now;
        }
    }

    async fn define<'a>(
        &self,
        limits: impl IntoIterator<Item = &'a Arc<Limit>>,
        now: Now,
    ) -> Result<(), Error> {
        self.at(now);
        self.limiter.define(limits, now).await
    }

    async fn reserve(&self, charges: &[Charge<'_>], now: Now) -> Result<Tickets, Refused> {
        self.at(now);
        self.limiter.reserve(charges, now).await
    }

    /// Waits until nothing is on its way any more.
    async fn settled(&self) {
        let core = &self.core;
        let on_the_way =
            || core.tasks.load(Ordering::Acquire) + core.giving.load(Ordering::Acquire) > 0;
        while on_the_way() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Sweeps until the ledger was heard.
    async fn sweep(&self, now: Now) {
        self.at(now);
        for _ in 0..4 {
            self.limiter.sweep(now);
            self.settled().await;
        }
    }
}

fn reader(clock: &Arc<Mutex<Now>>) -> Clock {
    let clock = clock.clone();
    Arc::new(move || *lock(&clock))
}

/// A node whose ledger knows these limits.
async fn node(limits: &[&Arc<Limit>]) -> Node {
    node_of(1_000_000, limits).await
}

async fn node_of(counters_max: usize, limits: &[&Arc<Limit>]) -> Node {
    let node = Node::of(counters_max);
    node.define(limits.iter().copied(), START).await.unwrap();
    node
}

pub(super) fn plain(identity: u128, max: u64) -> Limit {
    Limit {
        identity: Identity(identity),
        label: format!("flux/images/img2img/{identity}").into(),
        rule: "/tools/img2img/limits/0".into(),
        kind: Kind::Rate(MINUTE),
        scope: Scope::Grant,
        scale: Scale::Integer,
        max,
        on_deny: None,
        on_unreachable: OnUnreachable::Deny,
        refund_on: RefundOn::default(),
        refund_max: max,
        counts_only: false,
    }
}

fn charge(limit: &Arc<Limit>, amount: u64) -> Charge<'_> {
    Charge {
        limit,
        key: CounterKey(limit.identity.0 << 64),
        amount,
        scope_value: "grant-1",
        key_text: None,
        keys_max: None,
    }
}

/// A limiter with a counter of 6.5 of 10 a minute and a gate with one of four places taken.
pub(crate) fn sample() -> (Limiter, Now) {
    let limiter = run(async {
        let limit = Arc::new(Limit {
            scale: Scale::Micro,
            ..plain(1, 10_000_000)
        });
        let limiter = node(&[&limit]).await;
        admit(&limiter, charge(&limit, 6_500_000), START)
            .await
            .unwrap();
        let gate = Arc::new(Limit {
            kind: Kind::InFlight,
            ..plain(2, 4)
        });
        let place = limiter.reserve(&[charge(&gate, 1)], START).await.unwrap();
        // For the life of the test.
        std::mem::forget(place);
        limiter
    });
    (limiter.limiter, START)
}

fn keyed(limit: &Arc<Limit>, key: u128, keys_max: u32) -> Charge<'_> {
    Charge {
        key: CounterKey(limit.identity.0 << 64 | key),
        key_text: Some(format!("s:{key}")),
        keys_max: Some(keys_max),
        ..charge(limit, 1)
    }
}

fn refused(index: usize, remaining: u64, retry_after_ms: Option<u64>) -> Refused {
    Refused {
        index,
        code: Code::Limit,
        remaining,
        retry_after_ms,
    }
}

/// Takes and commits.
async fn admit(limiter: &Node, charge: Charge<'_>, now: Now) -> Result<(), Refused> {
    let tickets = limiter.reserve(&[charge], now).await?;
    tickets.settle(Outcome::Acted, || now);
    Ok(())
}

/// How many calls of this amount are admitted before the first refusal.
async fn admitted(limiter: &Node, charge: Charge<'_>, now: Now) -> (u64, Refused) {
    let mut calls = 0;
    loop {
        match admit(limiter, charge.clone(), now).await {
            Ok(()) => calls += 1,
            Err(refused) => return (calls, refused),
        }
    }
}

fn charged(limiter: &Node, limit: &Arc<Limit>, now: Now) -> u64 {
    limiter
        .usage()
        .used(limit, charge(limit, 1).key, now.unix_ms)
}

#[test]
fn exactly_max_calls_are_admitted_and_again_in_the_next_window() {
    run(async {
        let limit = Arc::new(plain(1, 30));
        let limiter = node(&[&limit]).await;
        let now = later(20_000);
        let (calls, no) = admitted(&limiter, charge(&limit, 1), now).await;
        assert_eq!((calls, no), (30, refused(0, 0, Some(40_000))));
        // Long after the refusal was heard, and at the last moment of the window.
        let (calls, no) = admitted(&limiter, charge(&limit, 1), later(59_999)).await;
        assert_eq!((calls, no), (0, refused(0, 0, Some(1))));
        let (calls, _) = admitted(&limiter, charge(&limit, 1), later(60_000)).await;
        assert_eq!(calls, 30);
    });
}

#[test]
fn windows_end_at_the_borders_of_weeks_and_months() {
    run(async {
        for (window, last, first) in [
            (Window::Month, 59_999, 60_000),
            (
                Window::Week,
                24 * 3_600_000 + 59_999,
                24 * 3_600_000 + 60_000,
            ),
            (Window::Duration(86_400_000), 59_999, 60_000),
        ] {
            let limit = Arc::new(Limit {
                kind: Kind::Rate(window),
                ..plain(1, 3)
            });
            let limiter = node(&[&limit]).await;
            let at_start = admitted(&limiter, charge(&limit, 1), START).await;
            assert_eq!(at_start, (3, refused(0, 0, Some(first))), "{window:?}");
            let at_last = admitted(&limiter, charge(&limit, 1), later(last)).await;
            assert_eq!(at_last, (0, refused(0, 0, Some(1))), "{window:?}");
            let at_first = admitted(&limiter, charge(&limit, 1), later(first)).await;
            assert_eq!(at_first.0, 3, "{window:?}");
        }
    });
}

#[test]
fn a_call_that_fits_into_what_is_left_is_never_refused() {
    run(async {
        let limit = Arc::new(plain(1, 100));
        let limiter = node(&[&limit]).await;
        let mut left = 100;
        for amount in [1, 7, 1, 40, 3, 30, 60, 17, 2, 1, 1] {
            let answer = admit(&limiter, charge(&limit, amount), START).await;
            assert_eq!(answer.is_ok(), amount <= left, "{amount} of {left}");
            match answer {
                Ok(()) => left -= amount,
                Err(no) => assert_eq!(no.remaining, left),
            }
            assert_eq!(charged(&limiter, &limit, START), 100 - left);
        }
        assert_eq!(left, 0);
    });
}

#[test]
fn amounts_beyond_40_bits_are_charged_exactly() {
    run(async {
        let max = 900_000_000_000_000;
        let limit = Arc::new(plain(1, max));
        let limiter = node(&[&limit]).await;
        let (calls, no) = admitted(&limiter, charge(&limit, max / 4 + 1), START).await;
        assert_eq!((calls, no.remaining), (3, max / 4 - 3));
        let rest = charge(&limit, max / 4 - 3);
        assert_eq!(admitted(&limiter, rest, START).await.0, 1);
        assert_eq!(charged(&limiter, &limit, START), max);
    });
}

#[test]
fn an_amount_over_max_can_never_fit_and_zero_always_does() {
    run(async {
        let limit = Arc::new(plain(1, 10));
        let limiter = node(&[&limit]).await;
        admit(&limiter, charge(&limit, 4), START).await.unwrap();
        let no = admit(&limiter, charge(&limit, 11), START).await;
        assert_eq!(no, Err(refused(0, 6, None)));
        assert_eq!(
            limiter
                .usage()
                .refused(&limit, charge(&limit, 1).key, 11, START.unix_ms),
            Some(None)
        );
        let tickets = limiter.reserve(&[charge(&limit, 0)], START).await.unwrap();
        assert!(tickets.settle(Outcome::Acted, || START).is_empty());
        let nothing = Arc::new(plain(2, 0));
        assert_eq!(
            admit(&limiter, charge(&nothing, 1), START).await,
            Err(refused(0, 0, None))
        );
    });
}

#[test]
fn a_call_is_charged_for_all_its_limits_or_for_none() {
    run(async {
        let (wide, narrow) = (Arc::new(plain(1, 100)), Arc::new(plain(2, 2)));
        let limiter = node(&[&wide, &narrow]).await;
        let gate = Arc::new(Limit {
            kind: Kind::InFlight,
            ..plain(3, 5)
        });
        let both = [charge(&gate, 1), charge(&wide, 3), charge(&narrow, 1)];
        for _ in 0..2 {
            limiter
                .reserve(&both, START)
                .await
                .unwrap()
                .settle(Outcome::Acted, || START);
        }
        for _ in 0..5 {
            let no = limiter.reserve(&both, START).await.err();
            assert_eq!(no, Some(refused(2, 0, Some(60_000))));
        }
        assert_eq!(charged(&limiter, &wide, START), 6);
        assert_eq!(charged(&limiter, &gate, START), 0);
        // What was given back is no refund: the bound of refunds is untouched.
        assert_eq!(limiter.show(&Filter::default(), START)[0].refunded, 0);
        assert_eq!(admitted(&limiter, charge(&wide, 1), START).await.0, 94);
    });
}

#[test]
fn only_what_certainly_did_not_act_is_given_back_and_more_where_the_limit_says_so() {
    run(async {
        use Outcome::*;
        for (on, given_back) in [
            (
                RefundOn::default(),
                [false, true, true, false, false, false],
            ),
            (
                RefundOn {
                    rpc_error: true,
                    ..RefundOn::default()
                },
                [false, true, true, true, false, false],
            ),
            (
                RefundOn {
                    http_5xx: true,
                    tool_error: true,
                    ..RefundOn::default()
                },
                [false, true, true, false, true, true],
            ),
        ] {
            let limit = Arc::new(Limit {
                refund_on: on,
                ..plain(1, 100)
            });
            let limiter = node(&[&limit]).await;
            for (outcome, back) in [Acted, Unsent, Rejected, RpcError, Http5xx, ToolError]
                .into_iter()
                .zip(given_back)
            {
                let before = charged(&limiter, &limit, START);
                let tickets = limiter.reserve(&[charge(&limit, 3)], START).await.unwrap();
                let lines = tickets.settle(outcome, || START);
                let settled = if back {
                    Settled::Refunded
                } else {
                    Settled::Charged
                };
                let line = Charged {
                    identity: 1,
                    window: MINUTE.id(START.unix_ms),
                    amount: 3,
                    settled,
                };
                assert_eq!(lines.as_slice(), [line], "{outcome:?}");
                let now = charged(&limiter, &limit, START);
                assert_eq!(now, if back { before } else { before + 3 }, "{outcome:?}");
            }
        }
    });
}

#[test]
fn a_refund_makes_room_at_once_after_a_refusal() {
    run(async {
        let limit = Arc::new(plain(1, 3));
        let limiter = node(&[&limit]).await;
        let ticket = limiter.reserve(&[charge(&limit, 2)], START).await.unwrap();
        assert_eq!(admitted(&limiter, charge(&limit, 1), START).await.0, 1);
        ticket.settle(Outcome::Unsent, || START);
        assert_eq!(admitted(&limiter, charge(&limit, 2), START).await.0, 1);
        assert_eq!(admitted(&limiter, charge(&limit, 1), START).await.0, 0);
    });
}

#[test]
fn nothing_is_refunded_into_a_later_window() {
    run(async {
        let limit = Arc::new(plain(1, 5));
        let limiter = node(&[&limit]).await;
        let (before, after) = (later(59_000), later(60_000));
        let early = limiter.reserve(&[charge(&limit, 5)], before).await.unwrap();
        // The border alone is enough, whether or not the next window was entered.
        let lines = early.settle(Outcome::Unsent, || after);
        assert_eq!(lines[0].settled, Settled::Charged);
        let early = limiter.reserve(&[charge(&limit, 5)], after).await.unwrap();
        let next = later(120_000);
        admit(&limiter, charge(&limit, 1), next).await.unwrap();
        assert_eq!(
            early.settle(Outcome::Unsent, || next)[0].settled,
            Settled::Charged
        );
        assert_eq!(charged(&limiter, &limit, next), 1);
        assert_eq!(admitted(&limiter, charge(&limit, 1), next).await.0, 4);
    });
}

#[test]
fn a_counter_gives_back_at_most_refund_max_in_a_window() {
    run(async {
        let limit = Arc::new(Limit {
            refund_max: 3,
            ..plain(1, 10)
        });
        let limiter = node(&[&limit]).await;
        let settle = async |now| {
            let tickets = limiter.reserve(&[charge(&limit, 2)], now).await.unwrap();
            tickets.settle(Outcome::Rejected, || now)[0].settled
        };
        assert_eq!(settle(START).await, Settled::Refunded);
        assert_eq!(settle(START).await, Settled::RefundBound);
        assert_eq!(charged(&limiter, &limit, START), 2);
        assert_eq!(settle(later(60_000)).await, Settled::Refunded);
    });
}

#[test]
fn a_dropped_ticket_stays_charged() {
    run(async {
        let limit = Arc::new(plain(1, 3));
        let limiter = node(&[&limit]).await;
        drop(limiter.reserve(&[charge(&limit, 2)], START).await.unwrap());
        assert_eq!(admitted(&limiter, charge(&limit, 1), START).await.0, 1);
    });
}

#[test]
fn a_place_in_flight_is_freed_by_settling_and_by_dropping() {
    run(async {
        let limit = Arc::new(Limit {
            kind: Kind::InFlight,
            ..plain(1, 2)
        });
        let limiter = node(&[&limit]).await;
        let take = async || limiter.reserve(&[charge(&limit, 1)], START).await;
        let first = take().await.unwrap();
        let second = take().await.unwrap();
        assert_eq!(take().await.err(), Some(refused(0, 0, None)));
        assert_eq!(limiter.show(&Filter::default(), START)[0].in_flight, 2);
        assert!(first.settle(Outcome::Acted, || START).is_empty());
        drop(second);
        let held = [take().await.unwrap(), take().await.unwrap()];
        assert!(take().await.is_err());
        drop(held);
        // Nobody holds it: the sweep forgets it.
        limiter.sweep(later(10_000)).await;
        assert!(limiter.is_empty());
    });
}

#[test]
fn a_lowered_max_admits_nothing_beyond_it_and_a_raised_one_opens_at_once() {
    run(async {
        let limiter = node(&[]).await;
        let of = |max| Arc::new(plain(1, max));
        limiter.define([&of(100)], START).await.unwrap();
        for _ in 0..10 {
            admit(&limiter, charge(&of(100), 1), START).await.unwrap();
        }
        // The bucket holds leased quota now; a call judged by the former view may still come.
        limiter.define([&of(12)], START).await.unwrap();
        let (calls, no) = admitted(&limiter, charge(&of(100), 1), START).await;
        assert_eq!((calls, no.remaining), (2, 0));
        limiter.define([&of(5)], START).await.unwrap();
        assert_eq!(admitted(&limiter, charge(&of(5), 1), START).await.0, 0);
        limiter.define([&of(15)], START).await.unwrap();
        assert_eq!(admitted(&limiter, charge(&of(15), 1), START).await.0, 3);
        assert_eq!(charged(&limiter, &of(15), START), 15);
        // Out of force and back within the window: the same counter.
        limiter.define([], START).await.unwrap();
        limiter.define([&of(16)], START).await.unwrap();
        assert_eq!(admitted(&limiter, charge(&of(16), 1), START).await.0, 1);
        assert_eq!(limiter.show(&Filter::default(), START)[0].max, Some(16));
    });
}

#[test]
fn a_limit_that_only_counts_never_refuses_but_says_what_it_would_have_done() {
    run(async {
        let limit = Arc::new(Limit {
            counts_only: true,
            ..plain(1, 3)
        });
        let limiter = node(&[&limit]).await;
        let key = charge(&limit, 1).key;
        for call in 0..10 {
            let would = limiter.usage().refused(&limit, key, 1, START.unix_ms);
            assert_eq!(would, (call >= 3).then_some(Some(60_000)));
            admit(&limiter, charge(&limit, 1), START).await.unwrap();
        }
        admit(&limiter, charge(&limit, 50), START).await.unwrap();
        assert_eq!(charged(&limiter, &limit, START), 60);
        let gate = Arc::new(Limit {
            kind: Kind::InFlight,
            counts_only: true,
            ..plain(2, 1)
        });
        let _first = limiter.reserve(&[charge(&gate, 1)], START).await.unwrap();
        assert!(limiter.reserve(&[charge(&gate, 1)], START).await.is_ok());
    });
}

#[test]
fn a_used_up_limit_is_known_without_asking_until_its_window_ends() {
    run(async {
        let limit = Arc::new(plain(1, 3));
        let limiter = node(&[&limit]).await;
        let known = |amount, now: Now| {
            limiter.at(now);
            limiter
                .usage()
                .refused(&limit, charge(&limit, 1).key, amount, now.unix_ms)
        };
        assert_eq!(known(1, START), None);
        admit(&limiter, charge(&limit, 2), START).await.unwrap();
        assert_eq!(
            admit(&limiter, charge(&limit, 2), START).await,
            Err(refused(0, 1, Some(60_000)))
        );
        assert_eq!(known(2, START), Some(Some(60_000)));
        assert_eq!(known(1, START), None);
        assert_eq!(known(2, later(60_000)), None);
        assert_eq!(charged(&limiter, &limit, later(60_000)), 0);
    });
}

#[test]
fn steps_of_the_wall_clock_open_no_window() {
    run(async {
        let limit = Arc::new(plain(1, 3));
        let limiter = node(&[&limit]).await;
        assert_eq!(admitted(&limiter, charge(&limit, 1), START).await.0, 3);
        for unix_ms in [0, START.unix_ms + 3_600_000, u64::MAX] {
            let stepped = Now {
                unix_ms,
                ..later(30_000)
            };
            let (calls, no) = admitted(&limiter, charge(&limit, 1), stepped).await;
            assert_eq!((calls, no), (0, refused(0, 0, Some(30_000))));
        }
    });
}

#[test]
fn distinct_keys_are_bounded_and_refused_ones_leave_nothing_behind() {
    run(async {
        let limit = Arc::new(plain(1, 30));
        let limiter = node(&[&limit]).await;
        for key in 0..3 {
            admit(&limiter, keyed(&limit, key, 3), START).await.unwrap();
        }
        for key in 3..50 {
            let no = admit(&limiter, keyed(&limit, key, 3), START)
                .await
                .unwrap_err();
            assert_eq!((no.code, no.retry_after_ms), (Code::Rule, Some(60_000)));
        }
        assert_eq!(limiter.len(), 3);
        assert_eq!(limiter.core.timers.len(), 3);
        // Another grant has keys of its own.
        let other = Charge {
            scope_value: "grant-2",
            ..keyed(&limit, 77, 3)
        };
        admit(&limiter, other, START).await.unwrap();
        admit(&limiter, keyed(&limit, 9, 3), later(60_000))
            .await
            .unwrap();
    });
}

#[test]
fn beyond_counters_max_new_counters_are_refused_as_overloaded_until_old_ones_are_swept() {
    run(async {
        let limit = Arc::new(plain(1, 30));
        let limiter = node_of(4, &[&limit]).await;
        for key in 0..4 {
            admit(&limiter, keyed(&limit, key, 100), START)
                .await
                .unwrap();
        }
        let no = admit(&limiter, keyed(&limit, 4, 100), START)
            .await
            .unwrap_err();
        assert_eq!(no.code, Code::Overloaded);
        admit(&limiter, keyed(&limit, 3, 100), START).await.unwrap();
        // A counter is not forgotten while its window lives, nor while a call holds a ticket of it.
        limiter.sweep(later(30_000)).await;
        assert_eq!(limiter.len(), 4);
        let held = limiter
            .reserve(&[keyed(&limit, 0, 100)], later(30_000))
            .await
            .unwrap();
        limiter.sweep(later(60_000)).await;
        assert_eq!(limiter.len(), 1);
        drop(held);
        limiter.sweep(later(60_000 + 10_000)).await;
        assert!(limiter.is_empty() && limiter.core.timers.len() == 0);
        // The ledger clears a few away with every command.
        let counters = || limiter.memory().read(|ledger| ledger.counters());
        let left = (0..4).fold(usize::MAX, |_, _| counters());
        assert_eq!(left, 0);
        admit(&limiter, keyed(&limit, 4, 100), later(90_000))
            .await
            .unwrap();
    });
}

#[test]
fn a_sweep_in_a_live_window_loses_no_charge() {
    run(async {
        let limit = Arc::new(plain(1, 100));
        let limiter = node(&[&limit]).await;
        let mut calls = 0;
        for second in 0..59 {
            limiter.sweep(later(second * 1_000)).await;
            for _ in 0..(second % 4) {
                calls += u64::from(
                    admit(&limiter, charge(&limit, 1), later(second * 1_000))
                        .await
                        .is_ok(),
                );
            }
            assert_eq!(charged(&limiter, &limit, later(second * 1_000)), calls);
        }
        assert_eq!(
            calls + admitted(&limiter, charge(&limit, 1), later(59_500)).await.0,
            100
        );
    });
}

#[test]
fn without_the_ledger_a_limit_denies_as_unreachable_or_admits_max_more() {
    run(async {
        let limiter = Node::disconnected();
        let limit = Arc::new(plain(1, 3));
        let no = admit(&limiter, charge(&limit, 1), START).await.unwrap_err();
        assert_eq!(no.code, Code::Unreachable);
        let allow = Arc::new(Limit {
            on_unreachable: OnUnreachable::Allow,
            ..plain(2, 3)
        });
        let tickets = limiter.reserve(&[charge(&allow, 1)], START).await.unwrap();
        assert_eq!(
            tickets.settle(Outcome::Unsent, || START)[0].settled,
            Settled::Refunded
        );
        let (calls, no) = admitted(&limiter, charge(&allow, 1), START).await;
        assert_eq!((calls, no.code), (3, Code::Unreachable));
        limiter.sweep(later(30_000)).await;
        assert_eq!(
            admitted(&limiter, charge(&allow, 1), later(30_000)).await.0,
            0
        );
        assert_eq!(
            admitted(&limiter, charge(&allow, 1), later(60_000)).await.0,
            3
        );
        let counts = Arc::new(Limit {
            counts_only: true,
            ..plain(3, 3)
        });
        assert_eq!(admit(&limiter, charge(&counts, 9), START).await, Ok(()));
        assert!(limiter.define([&limit], START).await.is_err());
    });
}

#[test]
fn a_call_waits_for_the_ledger_a_bounded_time_and_leaves_nothing_behind() {
    run(async {
        let (first, slow) = (Arc::new(plain(1, 30)), Arc::new(plain(2, 30)));
        let limiter = node(&[&first, &slow]).await;
        admit(&limiter, charge(&first, 1), START).await.unwrap();
        admit(&limiter, charge(&slow, 1), START).await.unwrap();
        limiter.memory().set_mood(Mood::Silent);
        let began = Instant::now();
        // The first has enough in its bucket, the other must ask and hears nothing.
        let calls = [charge(&first, 1), charge(&slow, 20)];
        let no = limiter.reserve(&calls, START).await.unwrap_err();
        assert_eq!((no.index, no.code), (1, Code::Unreachable));
        assert!(began.elapsed() >= WAIT && began.elapsed() < 20 * WAIT);
        // A caller that goes away while it waits is as if it had not come.
        let gone = timeout_at(Instant::now() + WAIT / 10, limiter.reserve(&calls, START)).await;
        assert!(gone.is_err());
        assert_eq!(charged(&limiter, &first, START), 1);
        // A ledger that has been silent for long is not waited for by every call.
        limiter.at(later(1_000));
        let began = Instant::now();
        let no = limiter.reserve(&calls, later(1_000)).await.unwrap_err();
        assert_eq!((no.index, no.code), (1, Code::Unreachable));
        assert!(began.elapsed() < WAIT);
        limiter.memory().set_mood(Mood::Answers);
        limiter.settled().await;
        let now = later(2_000);
        assert_eq!(admitted(&limiter, charge(&slow, 1), now).await.0, 29);
        assert_eq!(admitted(&limiter, charge(&first, 1), now).await.0, 29);
    });
}
