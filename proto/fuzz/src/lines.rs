//! Lines: the same as the standard library's, whatever the pieces, none over the bound.

use proto::scan::lines::Splitter;

const LINE_BYTES_MAX: usize = 32;

/// Splits bytes in pieces, the first byte saying how large.
pub fn lines(bytes: &[u8]) {
    let Some((&first, stream)) = bytes.split_first() else {
        return;
    };
    let mut splitter = Splitter::new(LINE_BYTES_MAX);
    let mut found = Vec::new();
    for part in stream.chunks(usize::from(first % 16) + 1) {
        let _ = splitter.push(part, |line| found.push(line.to_vec()));
    }
    let mut expected: Vec<&[u8]> = stream.split(|&b| b == b'\n').collect();
    // What follows the last line end is no line yet.
    expected.pop();
    let expected = expected
        .into_iter()
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let expected: Vec<&[u8]> = expected
        .filter(|line| !line.is_empty() && line.len() <= LINE_BYTES_MAX)
        .collect();
    assert_eq!(found, expected);
    assert!(splitter.rest().len() <= LINE_BYTES_MAX + 1);
}
