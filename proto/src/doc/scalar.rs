//! YAML 1.2's core schema: what a plain scalar means.

use super::Value;

/// The meaning of a plain scalar, or why it has none that everybody shares. Numbers come out in JSON's grammar.
pub(super) fn resolve(text: &str) -> Result<Value, String> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Ok(Value::Null),
        "true" | "True" | "TRUE" => return Ok(Value::Bool(true)),
        "false" | "False" | "FALSE" => return Ok(Value::Bool(false)),
        _ => {}
    }
    match number(text) {
        Some(Ok(number)) => Ok(Value::Number(number)),
        Some(Err(why)) => Err(why),
        None => Ok(Value::String(text.to_owned())),
    }
}

/// `None`: not a number at all. `Err`: a number that cannot be used.
pub(super) fn number(text: &str) -> Option<Result<String, String>> {
    if let Some(digits) = text.strip_prefix("0x") {
        return radix(text, digits, 16);
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return radix(text, digits, 8);
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    match unsigned {
        ".inf" | ".Inf" | ".INF" | ".nan" | ".NaN" | ".NAN" => {
            return Some(Err(format!(
                "`{text}` is not a finite number; quote it if text is meant"
            )));
        }
        _ => {}
    }
    decimal(text, unsigned)
}

fn radix(text: &str, digits: &str, base: u32) -> Option<Result<String, String>> {
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(base)) {
        return None;
    }
    Some(
        u128::from_str_radix(digits, base)
            .map(|n| n.to_string())
            .map_err(|_| format!("`{text}` is too large a number")),
    )
}

/// `[-+]? ( "." [0-9]+ | [0-9]+ ( "." [0-9]* )? ) ( [eE] [-+]? [0-9]+ )?`
fn decimal(text: &str, unsigned: &str) -> Option<Result<String, String>> {
    let (mantissa, exponent) = match unsigned.find(['e', 'E']) {
        Some(at) => unsigned
            .split_at_checked(at)
            .map(|(m, e)| (m, Some(e.trim_start_matches(['e', 'E']))))?,
        None => (unsigned, None),
    };
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    if let Some(exponent) = exponent
        && !digits(exponent.strip_prefix(['-', '+']).unwrap_or(exponent))
    {
        return None;
    }
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    let fits = match (whole, fraction) {
        ("", Some(fraction)) => digits(fraction),
        (whole, Some("") | None) => digits(whole),
        (whole, Some(fraction)) => digits(whole) && digits(fraction),
    };
    if !fits {
        return None;
    }
    if whole.len() > 1 && whole.starts_with('0') {
        return Some(Err(format!(
            "`{text}` starts with 0, which YAML 1.1 reads as octal and YAML 1.2 as decimal; \
             quote it if text is meant, else write the number without the 0 or as 0o…"
        )));
    }
    let mut json = String::with_capacity(text.len() + 1);
    if text.starts_with('-') {
        json.push('-');
    }
    json.push_str(if whole.is_empty() { "0" } else { whole });
    if let Some(fraction) = fraction.filter(|f| !f.is_empty()) {
        json.push('.');
        json.push_str(fraction);
    }
    if let Some(exponent) = exponent {
        json.push('e');
        json.push_str(exponent);
    }
    Some(Ok(json))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_mean_what_the_core_schema_says() {
        let number = |s: &str| Value::Number(s.into());
        let text = |s: &str| Value::String(s.into());
        for (written, meant) in [
            ("", Value::Null),
            ("~", Value::Null),
            ("True", Value::Bool(true)),
            ("yes", text("yes")),
            ("on", text("on")),
            ("12", number("12")),
            ("+12", number("12")),
            ("-0.50", number("-0.50")),
            (".5", number("0.5")),
            ("5.", number("5")),
            ("1E+3", number("1e+3")),
            ("0x1F", number("31")),
            ("0o17", number("15")),
            ("0", number("0")),
            ("0.1", number("0.1")),
            ("1_000", text("1_000")),
            ("12:30", text("12:30")),
            ("1.2.3", text("1.2.3")),
            ("-", text("-")),
            (".", text(".")),
            ("1e", text("1e")),
            ("1e5e5", text("1e5e5")),
            ("0x", text("0x")),
            ("2027-01-31T00:00:00Z", text("2027-01-31T00:00:00Z")),
        ] {
            assert_eq!(resolve(written), Ok(meant), "{written}");
        }
    }

    #[test]
    fn numbers_with_two_meanings_or_none_are_refused() {
        for written in [
            "0644",
            "-.inf",
            ".NaN",
            "0xffffffffffffffffffffffffffffffffff",
        ] {
            assert!(resolve(written).is_err(), "{written}");
        }
    }
}
