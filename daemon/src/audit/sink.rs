//! Where finished lines go.

use super::{
    SyslogTarget,
    batch::Batch,
    file::{self, FileSink},
    syslog::SyslogSink,
};
use std::{
    fs::File,
    io::{self, Write as _},
    os::fd::AsFd as _,
};

/// A sink. It blocks its own thread only.
pub(super) trait Out: Send {
    /// Writes the whole batch. On an error what was written has left the batch, and the rest is tried again later.
    fn write(&mut self, batch: &mut Batch, unix_ms: u64) -> io::Result<()>;
    /// Housekeeping, a few times a second: whether new calls may be taken.
    fn tick(&mut self, _unix_ms: u64) -> bool {
        true
    }
    /// Opens the target again: somebody moved it.
    fn reopen(&mut self) {}
    /// Makes what was written durable, where the sink can.
    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Opens a sink.
pub(super) fn open(sink: super::Sink, unix_ms: u64) -> anyhow::Result<Box<dyn Out>> {
    Ok(match sink {
        super::Sink::File(settings) => {
            Box::new(FileSink::open(settings, file::free_bytes, unix_ms)?)
        }
        super::Sink::Stdout => Box::new(Stdout(io::stdout().as_fd().try_clone_to_owned()?.into())),
        super::Sink::Syslog(target) => {
            if let SyslogTarget::Udp(address) | SyslogTarget::Tcp(address) = &target {
                anyhow::ensure!(
                    address.ip().to_canonical().is_loopback(),
                    "audit: syslog at {address} is not on this machine and nothing would be encrypted; \
                     send to a local relay"
                );
            }
            Box::new(SyslogSink::new(target))
        }
    })
}

/// Standard output, without the buffer of the standard library: a partial write is known as such.
struct Stdout(File);

impl Out for Stdout {
    fn write(&mut self, batch: &mut Batch, _unix_ms: u64) -> io::Result<()> {
        while !batch.is_empty() {
            write_some(&mut self.0, batch, u64::MAX)?;
        }
        Ok(())
    }
}

/// Writes lines that fit in `room` (or one), perhaps partly.
pub(super) fn write_some(file: &mut File, batch: &mut Batch, room: u64) -> io::Result<usize> {
    match file.write(batch.fitting(room, true)) {
        Ok(0) => Err(io::ErrorKind::WriteZero.into()),
        Ok(n) => {
            batch.advance(n);
            Ok(n)
        }
        Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(0),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    #[test]
    fn a_pipe_that_takes_lines_in_pieces_gets_each_byte_once() {
        let (mut reader, writer) = io::pipe().unwrap();
        rustix::io::ioctl_fionbio(&writer, true).unwrap();
        let mut sink = Stdout(File::from(std::os::fd::OwnedFd::from(writer)));
        let lines: Vec<String> = (0..20_000).map(|n| format!("line {n}")).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let mut batch = Batch::of(&lines);
        let error = sink.write(&mut batch, 0).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert!((1..20_000).contains(&batch.len()), "{}", batch.len());
        let reading = std::thread::spawn(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).map(|_| text)
        });
        while sink.write(&mut batch, 0).is_err() {
            std::thread::yield_now();
        }
        drop(sink);
        let text = reading.join().unwrap().unwrap();
        assert!(text.lines().eq(lines));
    }
}
