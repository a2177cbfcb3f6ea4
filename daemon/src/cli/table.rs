//! Text tables for people.

/// Left-aligned columns under a heading, two blanks between; numbers in `right` columns to the right. Control characters
/// (a client chose some of these texts) are shown escaped, so that they cannot drive a terminal.
pub(super) fn table(heading: &[&str], right: &[usize], rows: &[Vec<String>]) -> String {
    let heading = heading.iter().map(|cell| (*cell).to_owned()).collect();
    let rows: Vec<Vec<String>> = std::iter::once(heading)
        .chain(
            rows.iter()
                .map(|row| row.iter().map(|cell| plain(cell)).collect()),
        )
        .collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in &rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width = widths[column];
            match right.contains(&column) {
                true => line += &format!("{cell:>width$}  "),
                false => line += &format!("{cell:<width$}  "),
            }
        }
        out += line.trim_end();
        out.push('\n');
    }
    out
}

fn plain(cell: &str) -> String {
    let shown = |c: char| match c.is_control() {
        true => c.escape_default().collect::<String>(),
        false => c.to_string(),
    };
    cell.chars().map(shown).collect()
}

/// A span of time in its two largest units: `41 s`, `3 min 20 s`, `2 h 5 min`, `12 d 3 h`.
pub(super) fn span(seconds: u64) -> String {
    let (d, h, min, s) = (
        seconds / 86_400,
        seconds / 3_600 % 24,
        seconds / 60 % 60,
        seconds % 60,
    );
    match (d, h, min) {
        (0, 0, 0) => format!("{s} s"),
        (0, 0, _) => format!("{min} min {s} s"),
        (0, _, _) => format!("{h} h {min} min"),
        _ => format!("{d} d {h} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_nothing_drives_the_terminal() {
        let rows = [
            vec!["flüx".to_owned(), "7".to_owned()],
            vec!["a\u{1b}[2J".to_owned(), "1000".to_owned()],
        ];
        assert_eq!(
            table(&["NAME", "USED"], &[1], &rows),
            "NAME        USED\nflüx           7\na\\u{1b}[2J  1000\n"
        );
    }

    #[test]
    fn spans_are_told_in_two_units() {
        for (seconds, told) in [
            (0, "0 s"),
            (59, "59 s"),
            (200, "3 min 20 s"),
            (7_500, "2 h 5 min"),
            (1_047_600, "12 d 3 h"),
        ] {
            assert_eq!(span(seconds), told);
        }
    }
}
