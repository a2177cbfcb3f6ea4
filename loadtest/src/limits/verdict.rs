//! Counts against the maximum.

use super::drive::Counts;
use crate::result::{LimitKey, LimitWindow, Verdict};

/// What a window shows, and why where that needs words.
pub(super) fn of(window: &LimitWindow, max: u64, counts: &Counts) -> (Verdict, Option<String>) {
    let views = [
        ("answered", Some(window.admitted)),
        ("the upstream executed", window.admitted_upstream),
        ("the audit logs charged", window.admitted_audit),
    ];
    // More than the maximum is more, whatever else went wrong.
    for (view, count) in views {
        if let Some(count) = count.filter(|n| *n > max) {
            return (Verdict::Over, Some(format!("{view} {count}")));
        }
    }
    let not = |why: String| (Verdict::NotJudged, Some(why));
    if let Some(flaw) = &counts.flaw {
        return not(flaw.clone());
    }
    // A reply that was lost may have been admitted: only the upstream knows, or what was charged.
    let lost = (window.unknown > 0).then(|| {
        let odd = counts.odd.as_deref().unwrap_or_default();
        format!("{} replies were lost ({odd})", window.unknown)
    });
    let truth = match (window.admitted_upstream, window.admitted_audit, &lost) {
        (Some(count), _, _) | (None, Some(count), None) => count,
        // A node that died may not have written what it charged last.
        (None, Some(count), Some(_)) if count >= max => count,
        (None, _, Some(lost)) => return not(format!("{lost}: only --record could tell")),
        (None, None, None) => window.admitted,
    };
    if let Some((view, count)) = views
        .into_iter()
        .skip(1)
        .find_map(|(view, count)| Some((view, count.filter(|n| *n < window.admitted)?)))
    {
        return not(format!(
            "{} were answered as admitted and {view} {count}: is it the right record?",
            window.admitted
        ));
    }
    let asked_for_more = window.refused + window.unavailable > 0;
    match (truth >= max, asked_for_more) {
        (true, true) => (Verdict::Exact, lost),
        (true, false) => not("nothing was refused: more must be asked for".into()),
        (false, _) if window.sent <= max => not(format!("only {} calls were sent", window.sent)),
        (false, _) if window.refused == 0 => not(format!(
            "{} calls were refused because quota could not be had, none because of the limit",
            window.unavailable
        )),
        (false, _) => {
            let lost = lost.map_or(String::new(), |lost| format!("; {lost}"));
            let why = format!("{} were refused below the maximum{lost}", window.refused);
            (Verdict::Short, Some(why))
        }
    }
}

/// Over all windows: the worst of those that were judged, and a sentence.
pub(super) fn overall(keys: &[LimitKey], max: u64, guard_ms: u64) -> (Verdict, String) {
    let windows = || keys.iter().flat_map(|k| &k.windows);
    let count = |verdict: Verdict| windows().filter(|w| w.verdict == verdict).count();
    let (exact, short, over) = (
        count(Verdict::Exact),
        count(Verdict::Short),
        count(Verdict::Over),
    );
    let (judged, all) = (exact + short + over, windows().count());
    let method = format!(
        "Judged: {judged} of {all} whole windows of {}; nothing was sent {guard_ms} ms before and after each border.",
        match keys.len() {
            1 => "1 key".to_owned(),
            n => format!("{n} keys"),
        }
    );
    let (verdict, said) = if over > 0 {
        let most = windows().map(|w| {
            let views = [w.admitted_upstream, w.admitted_audit];
            views.into_iter().flatten().fold(w.admitted, u64::max)
        });
        let most = most.max().unwrap_or(0);
        let said = format!("OVER: {over} windows admitted more than {max}, up to {most}.");
        (Verdict::Over, said)
    } else if short > 0 {
        let said = format!(
            "SHORT: {short} windows admitted fewer than {max} although more were asked for."
        );
        (Verdict::Short, said)
    } else if exact > 0 {
        (
            Verdict::Exact,
            format!("EXACT: every judged window admitted {max}."),
        )
    } else {
        (
            Verdict::NotJudged,
            "NOT JUDGED: no window shows anything.".into(),
        )
    };
    (verdict, format!("{said} {method}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(sent: u64, admitted: u64, refused: u64, unknown: u64) -> LimitWindow {
        LimitWindow {
            starts_ms: 0,
            ends_ms: 1,
            sent,
            admitted,
            refused,
            unavailable: sent - admitted - refused - unknown,
            unknown,
            admitted_upstream: None,
            admitted_audit: None,
            verdict: Verdict::NotJudged,
            why: None,
        }
    }

    #[test]
    fn windows_are_judged_by_the_strictest_view_that_there_is() {
        use Verdict::{Exact, NotJudged, Over, Short};
        let with = |w: LimitWindow, upstream: Option<u64>, audit: Option<u64>| LimitWindow {
            admitted_upstream: upstream,
            admitted_audit: audit,
            ..w
        };
        let rows = [
            (window(60, 30, 30, 0), None, Exact),
            (window(60, 31, 29, 0), None, Over),
            (window(60, 29, 31, 0), None, Short),
            (window(30, 30, 0, 0), None, NotJudged),
            (window(20, 20, 0, 0), None, NotJudged),
            (window(60, 20, 0, 0), None, NotJudged),
            (window(60, 29, 30, 1), None, NotJudged),
            (with(window(60, 29, 30, 1), Some(30), None), None, Exact),
            (with(window(60, 29, 30, 1), Some(29), None), None, Short),
            (with(window(60, 30, 30, 0), Some(31), None), None, Over),
            (with(window(60, 30, 30, 0), Some(30), Some(31)), None, Over),
            (with(window(60, 30, 30, 0), Some(12), None), None, NotJudged),
            (with(window(60, 29, 30, 1), None, Some(30)), None, Exact),
            (with(window(60, 28, 30, 2), None, Some(29)), None, NotJudged),
            (window(60, 30, 30, 0), Some("interrupted"), NotJudged),
            (window(60, 31, 29, 0), Some("interrupted"), Over),
        ];
        for (at, (window, flaw, verdict)) in rows.into_iter().enumerate() {
            let counts = Counts {
                flaw: flaw.map(Into::into),
                odd: Some("transport refused".into()),
                ..Counts::default()
            };
            let (seen, why) = of(&window, 30, &counts);
            assert_eq!(seen, verdict, "row {at}: {why:?}");
            assert!(seen == Exact || why.is_some(), "row {at}");
            // A lost reply is told whatever came of it.
            let told = why.unwrap_or_default().contains("transport refused");
            let lost = window.unknown > 0 && seen != Over;
            assert_eq!(told, lost, "row {at}");
        }
    }

    #[test]
    fn the_worst_window_decides() {
        let key = |verdicts: &[Verdict]| LimitKey {
            key: "a".into(),
            windows: verdicts
                .iter()
                .map(|v| LimitWindow {
                    verdict: *v,
                    ..window(60, 30, 30, 0)
                })
                .collect(),
        };
        use Verdict::{Exact, NotJudged, Over, Short};
        for (verdicts, worst) in [
            (&[Exact, NotJudged][..], Exact),
            (&[Exact, Short], Short),
            (&[Short, Over, Exact], Over),
            (&[NotJudged], NotJudged),
            (&[], NotJudged),
        ] {
            assert_eq!(overall(&[key(verdicts)], 30, 500).0, worst);
        }
    }
}
