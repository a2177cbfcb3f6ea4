//! The syslog sink: RFC 5424 messages to a socket of this machine.

use super::{SyslogTarget, batch::Batch, sink};
use proto::time::rfc3339;
use std::{
    io::{self, Write as _},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    os::unix::net::UnixDatagram,
    time::Duration,
};

/// Facility 13 (log audit) and severity 6 (informational).
const PRIORITY: u8 = 13 * 8 + 6;
/// Longest wait for a connection or for room in a socket.
const PATIENCE: Duration = Duration::from_secs(1);
/// What every receiver should take (RFC 5424, 6.1): a message that a datagram socket finds too long is cut to this.
const MESSAGE_BYTES: usize = 2_048;

/// The syslog sink.
pub(super) struct SyslogSink {
    target: SyslogTarget,
    socket: Option<Socket>,
    host: String,
}

enum Socket {
    Unix(UnixDatagram),
    Udp(UdpSocket),
    Tcp(TcpStream),
}

impl SyslogSink {
    /// Connects with the first line: the daemon may start later than the gateway.
    pub(super) fn new(target: SyslogTarget) -> Self {
        Self {
            target,
            socket: None,
            host: host_name(),
        }
    }

    fn socket(&mut self) -> io::Result<&mut Socket> {
        match &mut self.socket {
            Some(socket) => Ok(socket),
            none => Ok(none.insert(Socket::connect(&self.target)?)),
        }
    }
}

impl sink::Out for SyslogSink {
    fn write(&mut self, batch: &mut Batch, unix_ms: u64) -> io::Result<()> {
        if let Some(Socket::Tcp(stream)) = &self.socket
            && has_ended(stream)
        {
            self.socket = None;
        }
        let time = rfc3339(unix_ms);
        let header = format!(
            "<{PRIORITY}>1 {time} {} tollgate {} audit - ",
            self.host,
            std::process::id()
        );
        while let Some(line) = batch.line() {
            let message = [header.as_bytes(), line].concat();
            if let Err(error) = self.socket()?.send(&message) {
                // A receiver that was restarted has a new socket; the line is sent again on it.
                self.socket = None;
                return Err(error);
            }
            batch.line_done();
        }
        Ok(())
    }

    fn reopen(&mut self) {
        self.socket = None;
    }
}

impl Socket {
    fn connect(target: &SyslogTarget) -> io::Result<Self> {
        Ok(match target {
            SyslogTarget::Unix(path) => {
                let socket = UnixDatagram::unbound()?;
                socket.connect(path)?;
                socket.set_write_timeout(Some(PATIENCE))?;
                Socket::Unix(socket)
            }
            SyslogTarget::Udp(address) => {
                let any: SocketAddr = match address {
                    SocketAddr::V4(_) => (Ipv4Addr::LOCALHOST, 0).into(),
                    SocketAddr::V6(_) => (Ipv6Addr::LOCALHOST, 0).into(),
                };
                let socket = UdpSocket::bind(any)?;
                socket.connect(address)?;
                Socket::Udp(socket)
            }
            SyslogTarget::Tcp(address) => {
                let stream = TcpStream::connect_timeout(address, PATIENCE)?;
                stream.set_write_timeout(Some(PATIENCE))?;
                Socket::Tcp(stream)
            }
        })
    }

    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        match self {
            Socket::Unix(socket) => datagram(message, |bytes| socket.send(bytes)),
            Socket::Udp(socket) => datagram(message, |bytes| socket.send(bytes)),
            Socket::Tcp(stream) => {
                let mut frame = format!("{} ", message.len()).into_bytes();
                frame.extend_from_slice(message);
                stream.write_all(&frame)
            }
        }
    }
}

/// Sends one datagram; one that the socket will never take is cut, so that it does not stop all that follow.
fn datagram(message: &[u8], send: impl Fn(&[u8]) -> io::Result<usize>) -> io::Result<()> {
    match send(message) {
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::MSGSIZE.raw_os_error()) => {
            tracing::error!(
                bytes = message.len(),
                "audit: a line is too long for the syslog socket and was cut"
            );
            let mut end = message.len().min(MESSAGE_BYTES);
            while end > 0 && message.get(end).is_some_and(|byte| byte & 0xc0 == 0x80) {
                end -= 1;
            }
            send(&message[..end]).map(drop)
        }
        sent => sent.map(drop),
    }
}

/// Whether the receiver has closed the stream: what is written then would vanish without an error.
fn has_ended(stream: &TcpStream) -> bool {
    let peeked = stream
        .set_nonblocking(true)
        .and_then(|()| stream.peek(&mut [0]));
    let restored = stream.set_nonblocking(false);
    match peeked {
        Ok(n) => n == 0 || restored.is_err(),
        Err(e) => e.kind() != io::ErrorKind::WouldBlock || restored.is_err(),
    }
}

/// The host's name as a syslog header takes it: visible ASCII, at most 255; `-` if unknown.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name: String = name.trim().chars().take(255).collect();
    match !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic()) {
        true => name,
        false => "-".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::{sink::Out as _, *};
    use std::{io::Read as _, net::TcpListener};

    const AT_MS: u64 = 1_785_230_400_125;

    fn received(bytes: &[u8]) -> (String, String) {
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let (header, message) = text.split_once(" audit - ").unwrap();
        (header.to_owned(), message.to_owned())
    }

    #[test]
    fn a_line_is_one_rfc_5424_message_on_a_unix_socket_and_waits_while_nobody_listens() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut sink = SyslogSink::new(SyslogTarget::Unix(path.clone()));
        let mut batch = Batch::of(&["{\"a\":1}", "{\"b\":2}"]);
        assert!(sink.write(&mut batch, AT_MS).is_err());
        assert_eq!(batch.len(), 2, "nothing was lost");

        let mut buffer = [0; 4_096];
        for _restart in 0..2 {
            let _ = std::fs::remove_file(&path);
            let server = UnixDatagram::bind(&path).unwrap();
            // The first try after a restart may find the old socket dead.
            let _ = sink.write(&mut batch, AT_MS);
            sink.write(&mut batch, AT_MS).unwrap();
            assert!(batch.is_empty());
            let n = server.recv(&mut buffer).unwrap();
            let (header, message) = received(&buffer[..n]);
            assert!(
                header.starts_with("<110>1 2026-07-28T09:20:00.125Z "),
                "{header}"
            );
            let end = format!(" tollgate {}", std::process::id());
            assert!(header.ends_with(&end), "{header}");
            assert_eq!(message, "{\"a\":1}");
            batch = Batch::of(&["{\"a\":1}", "{\"b\":2}"]);
        }
    }

    #[test]
    fn tcp_messages_are_counted_in_octets_and_a_closed_stream_is_opened_again() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut sink = SyslogSink::new(SyslogTarget::Tcp(listener.local_addr().unwrap()));
        for _connection in 0..2 {
            sink.write(&mut Batch::of(&["{}"]), AT_MS).unwrap();
            let (mut peer, _) = listener.accept().unwrap();
            let mut buffer = [0; 4_096];
            let n = peer.read(&mut buffer).unwrap();
            let text = std::str::from_utf8(&buffer[..n]).unwrap();
            let (length, message) = text.split_once(' ').unwrap();
            assert_eq!(length.parse::<usize>().unwrap(), message.len());
            assert_eq!(received(message.as_bytes()).1, "{}");
            drop(peer);
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    #[test]
    fn a_datagram_that_is_too_long_is_cut_instead_of_stopping_all_that_follow() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut sink = SyslogSink::new(SyslogTarget::Udp(server.local_addr().unwrap()));
        let huge = "é".repeat(40_000);
        sink.write(&mut Batch::of(&[&huge, "{}"]), AT_MS).unwrap();
        let mut buffer = [0; 70_000];
        let n = server.recv(&mut buffer).unwrap();
        assert!((MESSAGE_BYTES - 1..=MESSAGE_BYTES).contains(&n), "{n}");
        received(&buffer[..n]);
        let n = server.recv(&mut buffer).unwrap();
        assert_eq!(received(&buffer[..n]).1, "{}");
    }

    #[test]
    fn only_this_machine_is_written_to() {
        for target in [
            SyslogTarget::Udp(([192, 0, 2, 1], 514).into()),
            SyslogTarget::Tcp(([192, 0, 2, 1], 514).into()),
        ] {
            assert!(sink::open(super::super::Sink::Syslog(target), 0).is_err());
        }
    }
}
