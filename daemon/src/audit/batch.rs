//! Lines that the writer holds: they leave only when they are written.

/// Capacity that an emptied batch keeps, bytes.
const KEPT_BYTES: usize = 1 << 20;

/// Whole lines, each ended by LF, and how far they are written.
#[derive(Debug, Default)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    /// Where each line ends.
    ends: Vec<usize>,
    /// Lines that are written.
    done: usize,
    /// Bytes that are written; within line `done` after a partial write.
    pos: usize,
}

impl Batch {
    /// Adds one line; `write` appends it, LF included.
    pub(super) fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.bytes);
        self.ends.push(self.bytes.len());
    }

    /// Lines that are not written.
    pub(super) fn len(&self) -> usize {
        self.ends.len() - self.done
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first unwritten line without its LF.
    pub(super) fn line(&self) -> Option<&[u8]> {
        let end = *self.ends.get(self.done)?;
        Some(&self.bytes[self.start()..end - 1])
    }

    /// The first unwritten line is written.
    pub(super) fn line_done(&mut self) {
        if let Some(end) = self.ends.get(self.done) {
            self.pos = *end;
            self.done += 1;
        }
    }

    /// Whether the next byte begins a line.
    pub(super) fn at_line_start(&self) -> bool {
        self.pos == self.start()
    }

    /// A line that was written in part is written again from its start.
    pub(super) fn rewind(&mut self) {
        self.pos = self.start();
    }

    /// The unwritten bytes of as many lines as fit in `room`, of one line if none fits and `at_least_one`.
    pub(super) fn fitting(&self, room: u64, at_least_one: bool) -> &[u8] {
        let open = &self.ends[self.done..];
        let fit = open.partition_point(|end| (end - self.pos) as u64 <= room);
        match (fit, at_least_one) {
            (0, false) => &[],
            (0, true) => &self.bytes[self.pos..open.first().copied().unwrap_or(self.pos)],
            (n, _) => &self.bytes[self.pos..open[n - 1]],
        }
    }

    /// So many bytes of what [`Batch::fitting`] gave are written.
    pub(super) fn advance(&mut self, bytes: usize) {
        self.pos += bytes;
        self.done += self.ends[self.done..].partition_point(|end| *end <= self.pos);
    }

    /// Empties the batch. Lines that were not written are gone.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_BYTES);
        self.ends.clear();
        (self.done, self.pos) = (0, 0);
    }

    fn start(&self) -> usize {
        self.done.checked_sub(1).map_or(0, |last| self.ends[last])
    }
}

#[cfg(test)]
impl Batch {
    /// A batch of these lines.
    pub(super) fn of(lines: &[&str]) -> Self {
        let mut batch = Self::default();
        for line in lines {
            batch.push(|out| out.extend_from_slice(format!("{line}\n").as_bytes()));
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_leave_as_their_bytes_are_written() {
        let mut batch = Batch::of(&["one", "two", "three"]);
        assert_eq!(batch.fitting(3, false), b"");
        assert_eq!(batch.fitting(3, true), b"one\n");
        assert_eq!(batch.fitting(9, false), b"one\ntwo\n");
        batch.advance(6);
        assert_eq!((batch.len(), batch.at_line_start()), (2, false));
        assert_eq!(batch.fitting(100, false), b"o\nthree\n");
        batch.rewind();
        assert_eq!(batch.line(), Some(&b"two"[..]));
        batch.line_done();
        batch.advance(6);
        assert!(batch.is_empty() && batch.line().is_none());
        assert_eq!(batch.fitting(100, true), b"");
        batch.clear();
        assert!(batch.is_empty());
    }
}
