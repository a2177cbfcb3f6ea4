//! What the dialects share about limits: amounts, `N/window`, plain limits.

use super::Told;
use crate::{
    doc::{Any, Spanned},
    limit::{Kind, OnUnreachable, RefundOn, Scale, Scope, Window},
    policy::ir::{Amount, KEYS_MAX, Limit},
};

/// A limit on calls, with nothing special about it.
pub(super) fn calls(counter: String, window: Window, max: u64, scope: Scope) -> Limit {
    Limit {
        counter,
        kind: Kind::Rate(window),
        scope,
        scale: Scale::Integer,
        max: Some(max),
        amount: Amount::Fixed(1),
        key: None,
        keys_max: KEYS_MAX,
        on_unreachable: OnUnreachable::Deny,
        refund_on: RefundOn::default(),
        refund_max: None,
    }
}

/// The counter of a rule that names none.
pub(super) fn rate_counter(window: Window) -> String {
    format!("_rate_{}", window.name())
}

/// A number's text; other values are told as a misfit.
pub(super) fn number<'v>(
    value: &'v Spanned<Any>,
    pointer: &str,
    told: &mut Told,
) -> Option<&'v str> {
    match &value.value {
        Any::Number(text) => Some(text),
        other => {
            told.error(
                value.at,
                pointer,
                format!("expected a number, found {}", other.kind()),
            );
            None
        }
    }
}

/// An amount in units.
pub(super) fn units(
    value: &Spanned<Any>,
    scale: Scale,
    pointer: &str,
    told: &mut Told,
) -> Option<u64> {
    let text = number(value, pointer, told)?;
    scale
        .units(text)
        .map_err(|why| told.error(value.at, pointer, format!("`{text}`: {why}")))
        .ok()
}

/// Whether a number has a fraction, so that its limit counts in millionths.
pub(super) fn has_fraction(value: Option<&Spanned<Any>>) -> bool {
    let text = match value.map(|v| &v.value) {
        Some(Any::Number(text)) => text,
        _ => return false,
    };
    crate::policy::number::Decimal::read(text).is_ok_and(|n| !n.is_integer())
}

/// `30/hour`: a count and a window of a minute, an hour or a day.
pub(super) fn per_window(text: &str) -> Result<(u64, &str, Window), String> {
    let wrong = || format!("`{text}` is not a rate: write N/minute, N/hour or N/day");
    let (count, window) = text.split_once('/').ok_or_else(wrong)?;
    let plain =
        !count.is_empty() && count.bytes().all(|b| b.is_ascii_digit()) && !count.starts_with('0');
    if !plain || !["minute", "hour", "day"].contains(&window) {
        return Err(wrong());
    }
    let max = Scale::Integer
        .units(count)
        .map_err(|why| format!("`{text}`: {why}"))?;
    Ok((max, window, Window::parse(window)?))
}
