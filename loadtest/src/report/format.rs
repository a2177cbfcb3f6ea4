//! Numbers and texts for people: durations, counts, times of day; and texts of others made harmless.
//!
//! A result may come from anybody, and what servers said is in it: every text goes through [`html`] or [`markdown`].

use jiff::Timestamp;

/// Longest text of others that is shown, characters.
const TEXT_MAX: usize = 400;
/// Longest command that is shown, characters: beyond what Linux takes on average, within what a page can hold.
const COMMAND_MAX: usize = 32_768;

/// Three significant digits, no exponent: `0.0123`, `1.23`, `12.3`, `123`, `12,345`.
pub fn number(value: f64) -> String {
    if !value.is_finite() {
        return "–".into();
    }
    // Sums of nothing are −0.
    let value = if value == 0.0 { 0.0 } else { value };
    let magnitude = value.abs();
    let digits = match magnitude {
        m if m == 0.0 || m >= 100.0 => 0,
        m if m >= 10.0 => 1,
        m if m >= 1.0 => 2,
        m if m >= 0.1 => 3,
        _ => 4,
    };
    let text = format!("{value:.digits$}");
    let text = if digits > 0 {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    };
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let grouped = group(whole);
    if fraction.is_empty() {
        grouped
    } else {
        format!("{grouped}.{fraction}")
    }
}

/// A whole number with its thousands apart: `1,234,567`.
pub fn count(value: u64) -> String {
    group(&value.to_string())
}

fn group(whole: &str) -> String {
    let (sign, digits) = match whole.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", whole),
    };
    let mut out = String::from(sign);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A latency: `85 µs`, `1.51 ms`, `2.3 s`.
pub fn latency(ns: u64) -> String {
    let ns = ns as f64;
    match ns {
        _ if ns < 1e3 => format!("{} ns", number(ns)),
        _ if ns < 1e6 => format!("{} µs", number(ns / 1e3)),
        _ if ns < 1e9 => format!("{} ms", number(ns / 1e6)),
        _ => format!("{} s", number(ns / 1e9)),
    }
}

/// A share of 1 as a percentage: `12.5 %`; what is there but tiny is not shown as nothing.
pub fn share(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "–".into();
    }
    let percent = part as f64 / whole as f64 * 100.0;
    if part > 0 && percent < 0.0001 {
        return "< 0.0001 %".into();
    }
    // 99.99996 % is not 100 %.
    if part < whole && percent > 99.9999 {
        return "> 99.9999 %".into();
    }
    let text = if percent > 99.0 && part < whole {
        format!("{percent:.4}")
            .trim_end_matches('0')
            .trim_end_matches('.')
            .to_owned()
    } else {
        number(percent)
    };
    format!("{text} %")
}

/// Memory and bodies: `14.2 MiB`.
pub fn bytes(value: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut amount = value as f64;
    let mut unit = 0;
    while amount >= 1024.0 && unit + 1 < UNITS.len() {
        amount /= 1024.0;
        unit += 1;
    }
    format!("{} {}", number(amount), UNITS[unit])
}

/// A length of time that was asked for: `60 s`, `15 min`.
pub fn length(ms: u64) -> String {
    match ms {
        0 => "0 s".into(),
        _ if ms.is_multiple_of(3_600_000) => format!("{} h", count(ms / 3_600_000)),
        _ if ms.is_multiple_of(60_000) => format!("{} min", count(ms / 60_000)),
        _ => format!("{} s", number(ms as f64 / 1e3)),
    }
}

/// Date and time of day in UTC: `2027-02-28 12:00:00Z`; a moment that no calendar has is shown as its number.
pub fn moment(ms: u64) -> String {
    let stamp = i64::try_from(ms)
        .ok()
        .and_then(|ms| Timestamp::from_millisecond(ms).ok());
    stamp.map_or_else(
        || format!("{ms} ms"),
        |stamp| stamp.strftime("%Y-%m-%d %H:%M:%SZ").to_string(),
    )
}

/// The time of day alone: `12:00:00`.
pub fn time_of_day(ms: u64) -> String {
    let seconds = ms / 1000 % 86_400;
    format!(
        "{:02}:{:02}:{:02}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    )
}

/// A text of others on one line: what controls a terminal or turns the direction of writing is replaced, length is bounded.
pub fn plain(text: &str) -> String {
    tame(text, TEXT_MAX)
}

/// The same for a command, of which nothing that anybody types is left out.
pub fn plain_command(words: &[String]) -> String {
    tame(&command(words), COMMAND_MAX)
}

fn tame(text: &str, max: usize) -> String {
    let mut out: String = text
        .chars()
        .take(max)
        .map(|c| match c {
            '\n' | '\t' | '\r' => ' ',
            c if c.is_control() || turns(c) => '\u{fffd}',
            c => c,
        })
        .collect();
    if text.chars().nth(max).is_some() {
        out.push('…');
    }
    out
}

/// Characters that reorder or hide what stands around them (Unicode TR 9; "trojan source").
fn turns(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// A text inside HTML elements and quoted attributes.
pub fn html(text: &str) -> String {
    escaped(&plain(text))
}

/// The same of a text that is already bounded and tame.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// A text in a line or a table cell of Markdown: everything that has a meaning there loses it.
pub fn markdown(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in plain(text).chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '~' | '#' | '$' | '!' => {
                out.push('\\');
                out.push(c);
            }
            // Bare addresses would become links.
            ':' => out.push_str("&#58;"),
            '@' => out.push_str("&#64;"),
            c => out.push(c),
        }
    }
    out
}

/// A command as a shell takes it: words that need it stand in single quotes.
fn command(words: &[String]) -> String {
    let quoted = words.iter().map(|word| {
        let tame = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
        if !word.is_empty() && word.chars().all(tame) {
            word.clone()
        } else {
            format!("'{}'", word.replace('\'', r"'\''"))
        }
    });
    quoted.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_three_digits_and_never_an_exponent() {
        for (value, text) in [
            (-0.0, "0"),
            (0.0, "0"),
            (0.012_34, "0.0123"),
            (1.5, "1.5"),
            (12.34, "12.3"),
            (99.96, "100"),
            (1234.5, "1,234"),
            (1e15, "1,000,000,000,000,000"),
            (-12_345.0, "-12,345"),
            (f64::NAN, "–"),
        ] {
            assert_eq!(number(value), text, "{value}");
        }
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(latency(169_129_106), "169 ms");
        assert_eq!(latency(78_335), "78.3 µs");
        assert_eq!(bytes(14_680_064), "14 MiB");
        assert_eq!(length(60_000), "1 min");
        assert_eq!(length(1_500), "1.5 s");
    }

    #[test]
    fn a_share_is_rounded_to_neither_nothing_nor_everything() {
        assert_eq!(share(1, 10_000_000), "< 0.0001 %");
        assert_eq!(share(9_999_999, 10_000_000), "> 99.9999 %");
        assert_eq!(share(999, 1000), "99.9 %");
        assert_eq!(share(10_000, 10_000), "100 %");
        assert_eq!(share(0, 5), "0 %");
        assert_eq!(share(0, 0), "–");
    }

    #[test]
    fn moments_beyond_the_calendar_are_numbers() {
        assert_eq!(moment(1_803_816_000_000), "2027-02-28 12:00:00Z");
        assert_eq!(time_of_day(1_803_816_061_000), "12:01:01");
        assert_eq!(moment(u64::MAX), "18446744073709551615 ms");
    }

    #[test]
    fn texts_of_others_can_do_nothing() {
        assert_eq!(
            html("<script>\"'&\u{202e}\u{1b}[31m</script>\n"),
            "&lt;script&gt;&quot;&#39;&amp;\u{fffd}\u{fffd}[31m&lt;/script&gt; "
        );
        assert_eq!(
            markdown("| [a](http://b) `c` <img>"),
            "\\| \\[a\\](http&#58;//b) \\`c\\` &lt;img&gt;"
        );
        assert_eq!(plain(&"x".repeat(1000)).chars().count(), TEXT_MAX + 1);
    }

    #[test]
    fn a_command_can_be_pasted() {
        let words = ["a", "b c", "it's", "--x=1", ""].map(String::from);
        assert_eq!(command(&words), r"a 'b c' 'it'\''s' --x=1 ''");
    }
}
