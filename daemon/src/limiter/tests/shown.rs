//! What people are shown.

use super::*;

#[test]
fn counters_are_shown_bounded_and_the_fullest_come_first() {
    run(async {
        let (a, b) = (Arc::new(plain(1, 10)), Arc::new(plain(2, 100)));
        let limiter = node(&[&a, &b]).await;
        admit(&limiter, charge(&a, 6), START).await.unwrap();
        let long = "ü".repeat(200);
        let named = Charge {
            scope_value: &long,
            ..keyed(&b, 5, 10)
        };
        admit(
            &limiter,
            Charge {
                amount: 50,
                ..named
            },
            START,
        )
        .await
        .unwrap();
        let top = limiter.top(1, START);
        assert_eq!(
            (top.len(), top[0].identity, top[0].charged, top[0].max),
            (1, Identity(1), 6, Some(10))
        );
        assert_eq!(limiter.top(usize::MAX, START).len(), 2);
        let find = |text: &str| {
            limiter.show(
                &Filter {
                    text: Some(text.into()),
                    ..Filter::default()
                },
                START,
            )
        };
        assert_eq!(find("grant-1").len(), 1);
        assert_eq!(find("nobody").len(), 0);
        let found = &find("s:5")[0];
        assert_eq!(
            (found.charged, found.window_end_ms),
            (50, Some(START.unix_ms + 60_000))
        );
        assert!(found.scope_value.len() <= 131 && found.scope_value.ends_with('…'));
        let most = Filter {
            most: Some(1),
            ..Filter::default()
        };
        assert_eq!(limiter.show(&most, START).len(), 1);
        assert_eq!(limiter.show(&Filter::default(), later(60_000)).len(), 0);
    });
}
