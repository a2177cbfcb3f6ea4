//! A deadline whose timer outlives what it watches: a timer is set when it goes off too soon or is needed sooner, and not
//! for every request.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::time::{Instant, Sleep, sleep_until};

/// See the module.
#[derive(Debug, Default)]
pub struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Ready once `deadline` has passed; until then the task is woken by then, perhaps before as well.
    pub fn poll(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let sleep = self
            .0
            .get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        loop {
            if sleep.deadline() > deadline {
                sleep.as_mut().reset(deadline);
            }
            ready!(sleep.as_mut().poll(cx));
            if sleep.deadline() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{future::poll_fn, time::Duration};

    #[tokio::test]
    async fn an_alarm_that_was_set_for_a_later_or_an_earlier_deadline_goes_off_at_the_one_asked_for()
     {
        let ms = Duration::from_millis;
        let mut alarm = Alarm::default();
        let begun = Instant::now();
        for (first_ms, then_ms) in [(3_600_000, 20), (5, 40)] {
            let mut once = Some(Instant::now() + ms(first_ms));
            let then = Instant::now() + ms(then_ms);
            poll_fn(|cx| {
                // As a request does that ends before its deadline.
                if let Some(first) = once.take() {
                    let _ = alarm.poll(cx, first);
                }
                alarm.poll(cx, then)
            })
            .await;
            let late = Instant::now().saturating_duration_since(then);
            assert!(Instant::now() >= then && late < ms(2_000), "{late:?}");
        }
        assert!(begun.elapsed() < Duration::from_secs(60));
    }
}
