//! The lock-free bucket (limits.md §3): leased quota of one counter, spent without asking anybody.
//!
//! ```text
//!          ┌ epoch: 24 bits ┬ remaining: 40 bits ┐
//!   state  │ even = open    │ units              │   one AtomicU64, changed by compare-and-swap alone: a borrow or
//!          └────────────────┴────────────────────┘   a carry of an add would reach the epoch
//!   wide   units that do not fit into 40 bits, behind a lock that small amounts never touch
//! ```
//!
//! The epoch moves by two with every window. While it is odd the bucket is being refilled and holds nothing. A
//! [`Ticket`] remembers the epoch, so that a refund can only reach the window that was charged.

use super::sync::{AtomicBool, AtomicU64, Mutex, Ordering};
use crate::time::Now;

const REMAINING_BITS: u32 = 40;
/// Most units that the lock-free part holds.
pub const NARROW_MAX: u64 = (1 << REMAINING_BITS) - 1;
const EPOCH_MASK: u64 = (1 << (64 - REMAINING_BITS)) - 1;

/// The two halves of the state word.
#[derive(Clone, Copy, PartialEq, Eq)]
struct State {
    epoch: u64,
    remaining: u64,
}

impl State {
    fn unpack(word: u64) -> Self {
        Self {
            epoch: word >> REMAINING_BITS,
            remaining: word & NARROW_MAX,
        }
    }
    fn pack(self) -> u64 {
        debug_assert!(self.remaining <= NARROW_MAX);
        (self.epoch & EPOCH_MASK) << REMAINING_BITS | self.remaining
    }
    fn with(self, remaining: u64) -> Self {
        Self { remaining, ..self }
    }
}

/// Units taken out of a bucket. It moves, it is never copied: give it to [`Bucket::refund`], or drop it and the units
/// stay charged.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a dropped ticket stays charged"]
pub struct Ticket {
    epoch: u64,
    window: u64,
    amount: u64,
}

impl Ticket {
    /// The id of the window that was charged.
    pub fn window(&self) -> u64 {
        self.window
    }
    /// Units.
    pub fn amount(&self) -> u64 {
        self.amount
    }
}

/// Where and until when units may be spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The window's id.
    pub window: u64,
    /// The window's end on the boot clock, nanoseconds: refunds are refused from here on.
    pub end_ns: u64,
    /// The lease's end on the boot clock, nanoseconds: nothing is taken from here on. At most `end_ns`.
    pub deadline_ns: u64,
}

/// A counter's leased quota.
///
/// Spending (`try_take`) and giving back (`refund`) may happen on any thread at any time. The holder's side (`install`,
/// `top_up`, `take_back`, `mint`) is safe on any thread too, but means something only when one holder at a time calls it.
#[derive(Debug)]
pub struct Bucket {
    state: AtomicU64,
    window: AtomicU64,
    end_ns: AtomicU64,
    deadline_ns: AtomicU64,
    /// Fewer units than this are worth a word to the holder; 0: none are.
    low: AtomicU64,
    /// Nobody was told yet that it is low.
    hint: AtomicBool,
    /// Units of this epoch beyond what the state word holds. Every change of the epoch happens under this lock.
    wide: Mutex<u64>,
    /// Set while `wide` may hold something: read without the lock, written under it.
    is_wide: AtomicBool,
}

impl Default for Bucket {
    fn default() -> Self {
        Self {
            state: AtomicU64::new(0),
            window: AtomicU64::new(0),
            end_ns: AtomicU64::new(0),
            deadline_ns: AtomicU64::new(0),
            low: AtomicU64::new(0),
            hint: AtomicBool::new(false),
            wide: Mutex::new(0),
            is_wide: AtomicBool::new(false),
        }
    }
}

impl Bucket {
    /// Takes this amount, or nothing and returns `None`: too little is left, or the lease is over. An amount of 0 is
    /// always had.
    pub fn try_take(&self, amount: u64, now: Now) -> Option<Ticket> {
        let mut word = self.state.load(Ordering::Acquire);
        if amount == 0 {
            return Some(Ticket {
                epoch: State::unpack(word).epoch,
                window: self.window.load(Ordering::Acquire),
                amount,
            });
        }
        loop {
            let state = State::unpack(word);
            if state.remaining < amount {
                return if self.is_wide.load(Ordering::Acquire) {
                    self.try_take_wide(amount, now)
                } else {
                    None
                };
            }
            // Read between the load and the exchange: if `install` wrote newer values, the exchange fails.
            if now.boot_ns >= self.deadline_ns.load(Ordering::Acquire) {
                return None;
            }
            let window = self.window.load(Ordering::Acquire);
            match self.exchange(word, state.with(state.remaining - amount)) {
                Ok(()) => {
                    return Some(Ticket {
                        epoch: state.epoch,
                        window,
                        amount,
                    });
                }
                Err(found) => word = found,
            }
        }
    }

    /// The exact path for amounts that the state word alone cannot serve.
    fn try_take_wide(&self, amount: u64, now: Now) -> Option<Ticket> {
        let mut wide = self.lock();
        if now.boot_ns >= self.deadline_ns.load(Ordering::Acquire) {
            return None;
        }
        // Small takers and refunds go on meanwhile; under the lock the epoch stands still.
        let state = self.update(|state| {
            let narrow = state.remaining.min(amount);
            (amount - narrow <= *wide).then(|| state.with(state.remaining - narrow))
        })?;
        *wide -= amount - state.remaining.min(amount);
        self.settle_wide(&mut wide);
        Some(self.ticket(state.epoch, amount))
    }

    /// Gives a ticket's units back, if its epoch is still the bucket's and its window is not over; says whether.
    pub fn refund(&self, ticket: Ticket, now: Now) -> bool {
        if ticket.amount == 0 {
            return true;
        }
        let mut word = self.state.load(Ordering::Acquire);
        loop {
            let state = State::unpack(word);
            if state.epoch != ticket.epoch || now.boot_ns >= self.end_ns.load(Ordering::Acquire) {
                return false;
            }
            match state.remaining.checked_add(ticket.amount) {
                Some(sum) if sum <= NARROW_MAX => match self.exchange(word, state.with(sum)) {
                    Ok(()) => return true,
                    Err(found) => word = found,
                },
                _ => break,
            }
        }
        let mut wide = self.lock();
        let state = State::unpack(self.state.load(Ordering::Acquire));
        if state.epoch != ticket.epoch {
            return false;
        }
        self.add(&mut wide, ticket.amount);
        true
    }

    /// Starts a window with this many units: close, swap, open. Whatever the bucket held of the former window is gone.
    pub fn install(&self, span: Span, amount: u64) {
        let mut wide = self.lock();
        let mut word = self.state.load(Ordering::Acquire);
        let closed = loop {
            let state = State::unpack(word);
            let closed = State {
                epoch: state.epoch + 1,
                remaining: 0,
            };
            match self.exchange(word, closed) {
                Ok(()) => break closed,
                Err(found) => word = found,
            }
        };
        *wide = 0;
        self.is_wide.store(false, Ordering::Release);
        self.window.store(span.window, Ordering::Release);
        self.end_ns.store(span.end_ns, Ordering::Release);
        self.deadline_ns.store(span.deadline_ns, Ordering::Release);
        self.set_low(0);
        let open = State {
            epoch: closed.epoch + 1,
            remaining: amount.min(NARROW_MAX),
        };
        if amount > NARROW_MAX {
            *wide = amount - NARROW_MAX;
            self.is_wide.store(true, Ordering::Release);
        }
        // Nobody exchanges a closed state (it holds nothing and no ticket has its epoch), so a store is enough.
        self.state.store(open.pack(), Ordering::Release);
    }

    /// Adds units within the window.
    pub fn top_up(&self, amount: u64) {
        let mut wide = self.lock();
        self.add(&mut wide, amount);
    }

    /// Moves the lease's end and the window's, as now known, within the window.
    pub fn extend(&self, deadline_ns: u64, end_ns: u64) {
        self.end_ns.store(end_ns, Ordering::Release);
        self.deadline_ns.store(deadline_ns, Ordering::Release);
    }

    /// With fewer units than this the bucket is low; 0: never.
    pub fn set_low(&self, below: u64) {
        self.low.store(below, Ordering::Release);
        self.hint.store(below > 0, Ordering::Release);
    }

    /// Whether it is low with so many units.
    pub fn is_low(&self, units: u64) -> bool {
        units < self.low.load(Ordering::Acquire)
    }

    /// Whether it is low; says so once, until it is told again what low is. Whoever hears it polls the holder.
    pub fn take_low(&self) -> bool {
        self.hint.load(Ordering::Relaxed)
            && self.is_low(State::unpack(self.state.load(Ordering::Acquire)).remaining)
            && self.hint.swap(false, Ordering::AcqRel)
    }

    /// Takes everything out, to be returned to the ledger; the epoch stays, so refunds still arrive.
    pub fn take_back(&self) -> u64 {
        let mut wide = self.lock();
        let taken = self
            .update(|state| Some(state.with(0)))
            .map_or(0, |state| state.remaining);
        let rest = std::mem::take(&mut *wide);
        self.is_wide.store(false, Ordering::Release);
        taken.saturating_add(rest)
    }

    /// A ticket for units of the present window that went from the ledger to their caller without entering the bucket.
    pub fn mint(&self, amount: u64) -> Ticket {
        let _wide = self.lock();
        let state = State::unpack(self.state.load(Ordering::Acquire));
        self.ticket(state.epoch, amount)
    }

    /// Units that may be taken, whatever the time.
    pub fn remaining(&self) -> u64 {
        let narrow = || State::unpack(self.state.load(Ordering::Acquire)).remaining;
        if self.is_wide.load(Ordering::Acquire) {
            let wide = self.lock();
            return narrow().saturating_add(*wide);
        }
        narrow()
    }

    /// The window that was installed last, and the lease's end.
    pub fn span(&self) -> Span {
        let _wide = self.lock();
        Span {
            window: self.window.load(Ordering::Acquire),
            end_ns: self.end_ns.load(Ordering::Acquire),
            deadline_ns: self.deadline_ns.load(Ordering::Acquire),
        }
    }

    /// Only under the lock, where window and epoch belong together.
    fn ticket(&self, epoch: u64, amount: u64) -> Ticket {
        Ticket {
            epoch,
            window: self.window.load(Ordering::Acquire),
            amount,
        }
    }

    /// Only under the lock: units that do not fit wait in `wide`. Beyond `u64::MAX` they are lost, which is safe.
    fn add(&self, wide: &mut u64, amount: u64) {
        *wide = wide.saturating_add(amount);
        self.settle_wide(wide);
    }

    /// Only under the lock: moves what fits into the state word. `is_wide` stays set until the units have arrived, so
    /// that whoever finds too little in the word waits for the lock instead of giving up.
    fn settle_wide(&self, wide: &mut u64) {
        if *wide > 0 {
            self.is_wide.store(true, Ordering::Release);
            let waiting = *wide;
            let state = self.update(|state| {
                let moved = waiting.min(NARROW_MAX - state.remaining);
                Some(state.with(state.remaining + moved))
            });
            *wide -= state.map_or(0, |state| waiting.min(NARROW_MAX - state.remaining));
        }
        self.is_wide.store(*wide > 0, Ordering::Release);
    }

    /// Exchanges until it works; returns the state before, or `None` when the change does not apply.
    fn update(&self, change: impl Fn(State) -> Option<State>) -> Option<State> {
        let mut word = self.state.load(Ordering::Acquire);
        loop {
            let state = State::unpack(word);
            match self.exchange(word, change(state)?) {
                Ok(()) => return Some(state),
                Err(found) => word = found,
            }
        }
    }

    fn exchange(&self, from: u64, to: State) -> Result<(), u64> {
        self.state
            .compare_exchange_weak(from, to.pack(), Ordering::AcqRel, Ordering::Acquire)
            .map(|_| ())
    }

    fn lock(&self) -> super::sync::MutexGuard<'_, u64> {
        // The sections under the lock do not panic; a poisoned lock's number is as exact as any.
        self.wide
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::atomic::AtomicU64 as Count;

    const fn at(boot_ns: u64) -> Now {
        Now {
            unix_ms: 0,
            boot_ns,
        }
    }
    const fn span(window: u64, deadline_ns: u64, end_ns: u64) -> Span {
        Span {
            window,
            end_ns,
            deadline_ns,
        }
    }
    const NOW: Now = at(0);
    const LIVE: Span = span(1, 100, 100);

    #[test]
    fn a_new_bucket_holds_nothing() {
        let bucket = Bucket::default();
        assert_eq!(bucket.try_take(1, NOW), None);
        assert_eq!(bucket.try_take(0, NOW).unwrap().amount(), 0);
    }

    #[test]
    fn nothing_is_taken_after_the_deadline_and_nothing_refunded_after_the_end() {
        let bucket = Bucket::default();
        bucket.install(span(7, 50, 100), 2);
        let first = bucket.try_take(1, at(49)).unwrap();
        assert_eq!(first.window(), 7);
        assert_eq!(bucket.try_take(1, at(50)), None);
        assert!(bucket.refund(first, at(99)));
        bucket.extend(100, 100);
        let second = bucket.try_take(2, at(99)).unwrap();
        assert!(!bucket.refund(second, at(100)));
        assert_eq!(bucket.remaining(), 0);
    }

    #[test]
    fn a_ticket_of_an_older_window_refunds_nothing() {
        let bucket = Bucket::default();
        for large in [1, NARROW_MAX + 5] {
            bucket.install(LIVE, large);
            let ticket = bucket.try_take(large, NOW).unwrap();
            bucket.install(span(2, 100, 100), 10);
            assert!(!bucket.refund(ticket, NOW));
            assert_eq!(bucket.remaining(), 10);
        }
    }

    #[test]
    fn a_refund_after_take_back_arrives_in_the_same_window() {
        let bucket = Bucket::default();
        bucket.install(LIVE, 5);
        let ticket = bucket.try_take(2, NOW).unwrap();
        assert_eq!(bucket.take_back(), 3);
        assert!(bucket.refund(ticket, NOW));
        assert_eq!(bucket.take_back(), 2);
    }

    #[test]
    fn amounts_beyond_40_bits_are_exact() {
        let bucket = Bucket::default();
        let total = 3 * NARROW_MAX + 7;
        bucket.install(LIVE, total);
        assert_eq!(bucket.remaining(), total);
        assert_eq!(bucket.try_take(total + 1, NOW), None);
        let ticket = bucket.try_take(2 * NARROW_MAX + 9, NOW).unwrap();
        assert_eq!(bucket.remaining(), NARROW_MAX - 2);
        assert!(bucket.refund(ticket, NOW));
        assert_eq!(bucket.remaining(), total);
        assert!(bucket.try_take(total, NOW).is_some());
        assert_eq!(bucket.try_take(1, NOW), None);
        bucket.install(LIVE, u64::MAX);
        bucket.top_up(u64::MAX);
        assert!(bucket.remaining() >= u64::MAX - 1);
    }

    #[test]
    fn the_epoch_wraps_without_touching_the_units() {
        let bucket = Bucket::default();
        bucket.state.store(
            State {
                epoch: EPOCH_MASK - 1,
                remaining: NARROW_MAX,
            }
            .pack(),
            Ordering::Release,
        );
        bucket.install(LIVE, 3);
        assert_eq!(State::unpack(bucket.state.load(Ordering::Acquire)).epoch, 0);
        assert_eq!(bucket.remaining(), 3);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Take(u64),
        Refund(usize),
        Drop(usize),
        Install(u64),
        TopUp(u64),
        TakeBack,
        Mint(u64),
        Wait(u64),
    }

    fn amount() -> impl Strategy<Value = u64> {
        prop_oneof![0..10u64, NARROW_MAX - 5..NARROW_MAX + 5, 0..1u64 << 45]
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            5 => amount().prop_map(Step::Take),
            3 => (0..8usize).prop_map(Step::Refund),
            1 => (0..8usize).prop_map(Step::Drop),
            1 => amount().prop_map(Step::Install),
            2 => amount().prop_map(Step::TopUp),
            1 => Just(Step::TakeBack),
            1 => amount().prop_map(Step::Mint),
            1 => (0..20u64).prop_map(Step::Wait),
        ]
    }

    proptest! {
        #[test]
        fn it_does_what_plain_numbers_do(steps in proptest::collection::vec(step(), 1..80)) {
            let bucket = Bucket::default();
            let (mut left, mut window, mut clock) = (0u64, 0u64, 0u64);
            let (mut deadline, mut end) = (0u64, 0u64);
            let mut tickets: Vec<Ticket> = Vec::new();
            for step in steps {
                match step {
                    Step::Take(n) => {
                        let taken = bucket.try_take(n, at(clock));
                        prop_assert_eq!(taken.is_some(), n == 0 || (n <= left && clock < deadline));
                        if let Some(ticket) = taken {
                            prop_assert_eq!((ticket.amount(), ticket.window()), (n, window));
                            left -= n;
                            tickets.push(ticket);
                        }
                    }
                    Step::Refund(i) if i < tickets.len() => {
                        let ticket = tickets.swap_remove(i);
                        let (n, home) = (ticket.amount(), ticket.window() == window);
                        let given = bucket.refund(ticket, at(clock));
                        prop_assert_eq!(given, n == 0 || (home && clock < end));
                        left += if given { n } else { 0 };
                    }
                    Step::Drop(i) if i < tickets.len() => drop(tickets.swap_remove(i)),
                    Step::Install(n) => {
                        (window, deadline, end, left) = (window + 1, clock + 10, clock + 25, n);
                        bucket.install(span(window, deadline, end), n);
                    }
                    Step::TopUp(n) => {
                        deadline = end.min(clock + 10);
                        left += n;
                        bucket.extend(deadline, end);
                        bucket.top_up(n);
                    }
                    Step::TakeBack => prop_assert_eq!(bucket.take_back(), std::mem::take(&mut left)),
                    Step::Mint(n) => tickets.push(bucket.mint(n)),
                    Step::Wait(ns) => clock += ns,
                    Step::Refund(_) | Step::Drop(_) => {}
                }
                prop_assert_eq!(bucket.remaining(), left);
            }
        }
    }

    /// Takers, refunders and a holder at once; whatever the schedule, spent + left = put in, and no window is overspent.
    #[test]
    #[allow(clippy::disallowed_methods, reason = "a test of threads needs threads")]
    fn threads_never_spend_a_unit_twice() {
        for unit in [1, NARROW_MAX / 64] {
            const WINDOWS: usize = 40;
            const PER_WINDOW: u64 = 96;
            let bucket = Bucket::default();
            let spent: Vec<Count> = (0..=WINDOWS).map(|_| Count::new(0)).collect();
            let rolling = std::sync::atomic::AtomicBool::new(true);
            let live = |window: usize| span(window as u64, u64::MAX, u64::MAX);
            bucket.install(live(0), PER_WINDOW * unit);
            std::thread::scope(|threads| {
                for thread in 0..4usize {
                    let (bucket, spent, rolling) = (&bucket, &spent, &rolling);
                    threads.spawn(move || {
                        let mut turn = thread;
                        while rolling.load(Ordering::Acquire) {
                            turn += 1;
                            let n = unit * (1 + turn as u64 % 3);
                            let Some(ticket) = bucket.try_take(n, NOW) else {
                                std::thread::yield_now();
                                continue;
                            };
                            let window = ticket.window() as usize;
                            if turn.is_multiple_of(2) || !bucket.refund(ticket, NOW) {
                                spent[window].fetch_add(n, Ordering::AcqRel);
                            }
                        }
                    });
                }
                for window in 0..=WINDOWS {
                    if window > 0 {
                        bucket.install(live(window), PER_WINDOW / 2 * unit);
                        std::thread::yield_now();
                        let unspent = bucket.take_back();
                        bucket.top_up(unspent);
                        bucket.top_up(PER_WINDOW / 2 * unit);
                    }
                    for _ in 0..20 {
                        std::thread::yield_now();
                    }
                }
                while bucket.remaining() > 0 {
                    std::thread::yield_now();
                }
                rolling.store(false, Ordering::Release);
            });
            for (window, spent) in spent.iter().enumerate() {
                let spent = spent.load(Ordering::Acquire);
                assert!(
                    spent <= PER_WINDOW * unit,
                    "window {window} of unit {unit}: {spent}"
                );
            }
            let last = spent[WINDOWS].load(Ordering::Acquire) + bucket.remaining();
            assert_eq!(last, PER_WINDOW * unit, "of unit {unit}");
        }
    }
}

/// Every interleaving of a few steps, up to three preemptions: see `proto/Cargo.toml` for the command.
#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::{sync::Arc, thread};

    const NOW: Now = Now {
        unix_ms: 0,
        boot_ns: 0,
    };
    const fn span(window: u64) -> Span {
        Span {
            window,
            end_ns: 1,
            deadline_ns: 1,
        }
    }

    fn explore(model: impl Fn() + Sync + Send + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(3);
        builder.check(model);
    }

    #[test]
    fn two_takers_never_share_a_unit() {
        for units in [1, NARROW_MAX] {
            explore(move || {
                let bucket = Arc::new(Bucket::default());
                bucket.install(span(1), units + 1);
                let other = bucket.clone();
                let taker = thread::spawn(move || other.try_take(units, NOW).is_some());
                let mine = bucket.try_take(units, NOW).is_some();
                let theirs = taker.join().unwrap();
                // The second may find the first's units gone, never the bucket of both.
                let taken = units * (u64::from(mine) + u64::from(theirs));
                assert!(mine || theirs);
                assert_eq!(bucket.remaining() + taken, units + 1);
            });
        }
    }

    #[test]
    fn a_ticket_names_the_window_that_it_was_taken_from_and_refunds_there_alone() {
        for units in [1, NARROW_MAX + 1] {
            explore(move || {
                let bucket = Arc::new(Bucket::default());
                bucket.install(span(1), units);
                let other = bucket.clone();
                let taker = thread::spawn(move || {
                    let ticket = other.try_take(units, NOW)?;
                    let window = ticket.window();
                    Some((window, other.refund(ticket, NOW)))
                });
                bucket.install(span(2), units);
                let taken = taker.join().unwrap();
                let left = bucket.remaining();
                match taken {
                    // Window 2 lost nothing, or got back what it gave.
                    None | Some((1, _)) | Some((2, true)) => assert_eq!(left, units),
                    other => panic!("{other:?}"),
                }
            });
        }
    }

    #[test]
    fn what_is_taken_back_while_calls_come_and_go_adds_up() {
        for units in [2, NARROW_MAX + 2] {
            explore(move || {
                let bucket = Arc::new(Bucket::default());
                bucket.install(span(1), units);
                let other = bucket.clone();
                let caller = thread::spawn(move || {
                    let kept = other.try_take(1, NOW).map_or(0, |ticket| ticket.amount());
                    if let Some(ticket) = other.try_take(1, NOW) {
                        assert!(other.refund(ticket, NOW));
                    }
                    kept
                });
                let back = bucket.take_back();
                bucket.top_up(1);
                let kept = caller.join().unwrap();
                assert_eq!(bucket.remaining() + back + kept, units + 1);
            });
        }
    }
}
