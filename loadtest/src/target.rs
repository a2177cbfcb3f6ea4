//! An endpoint: where it is, and how connections to it are made.

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::Full;
use hyper::{body::Incoming, client::conn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::{
    fmt,
    future::Future,
    io,
    net::{SocketAddr, ToSocketAddrs as _},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, rustls::pki_types::ServerName};

/// How long a connection may take to be made.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// An endpoint.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// As given.
    pub url: String,
    /// The whole URI, for HTTP/2.
    pub uri: Uri,
    /// Path and query alone, for HTTP/1.1.
    pub path: Uri,
    /// `Host`.
    pub host: HeaderValue,
    name: String,
    tls: bool,
    addresses: Vec<SocketAddr>,
}

/// Why there is no reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// A word for tables: `refused`, `reset`, `dns`, `tls`, `closed`, `descriptors`, `timeout`, …
    pub code: &'static str,
    /// For people.
    pub text: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Failure {
    /// What an I/O error means.
    pub fn io(error: &io::Error) -> Self {
        // EMFILE and ENFILE have no kind of their own.
        let code = match (error.raw_os_error(), error.kind()) {
            (Some(23 | 24), _) => "descriptors",
            (Some(99), _) => "ports",
            (_, io::ErrorKind::ConnectionRefused) => "refused",
            (_, io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => "reset",
            (_, io::ErrorKind::TimedOut) => "timeout",
            (_, io::ErrorKind::UnexpectedEof) => "closed",
            (_, io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable) => {
                "unreachable"
            }
            _ => "io",
        };
        let advice = match code {
            "descriptors" => {
                "; this process is out of file descriptors: raise the hard limit (`ulimit -Hn`) or use fewer --connections"
            }
            "ports" => {
                "; this address is out of local ports: use fewer connections, no --churn, or more target addresses"
            }
            _ => "",
        };
        Self {
            code,
            text: format!("{error}{advice}"),
        }
    }

    /// What hyper means.
    pub fn hyper(error: &hyper::Error) -> Self {
        let mut source = std::error::Error::source(error);
        while let Some(inner) = source {
            if let Some(io) = inner.downcast_ref::<io::Error>() {
                return Self::io(io);
            }
            source = inner.source();
        }
        let code = if error.is_parse() {
            "not-http"
        } else if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
            "closed"
        } else {
            "http"
        };
        Self {
            code,
            text: error.to_string(),
        }
    }
}

impl Endpoint {
    /// Reads a URL and looks its name up.
    ///
    /// # Errors
    /// A sentence: no URL of http or https, or a name that cannot be resolved.
    pub fn parse(url: &str) -> Result<Self, String> {
        let bad = |why: &str| {
            format!("`{url}` {why}: write http://HOST:PORT/PATH, e.g. http://127.0.0.1:8080/mcp")
        };
        let uri: Uri = url.parse().map_err(|_| bad("is no URL"))?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(bad("is no http or https URL")),
        };
        let authority = uri.authority().ok_or_else(|| bad("has no host"))?;
        if authority.as_str().contains('@') {
            return Err(bad("has credentials in it; tokens go into --grants FILE"));
        }
        let name = authority.host().trim_matches(['[', ']']).to_owned();
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let path = uri.path_and_query().map_or("/", |p| p.as_str());
        let addresses: Vec<SocketAddr> = (name.as_str(), port)
            .to_socket_addrs()
            .map_err(|e| {
                format!("the host of {url} cannot be found ({e}): is its name spelled right?")
            })?
            .collect();
        Ok(Self {
            url: url.to_owned(),
            path: path.parse().map_err(|_| bad("has an unusable path"))?,
            host: HeaderValue::from_str(authority.as_str())
                .map_err(|_| bad("has an unusable host"))?,
            uri,
            name,
            tls,
            addresses,
        })
    }

    /// Whether it is spoken to over TLS.
    pub fn is_tls(&self) -> bool {
        self.tls
    }
}

/// How connections are made.
#[derive(Clone, Debug)]
pub struct Connector {
    /// TLS, ready for both versions of HTTP.
    pub tls: Arc<rustls::ClientConfig>,
    /// HTTP/2 instead of HTTP/1.1 (over plain text with prior knowledge).
    pub http2: bool,
}

/// A connection that takes requests.
#[derive(Debug)]
pub enum Connection {
    /// One request at a time.
    Http1(conn::http1::SendRequest<Full<Bytes>>),
    /// Many at a time.
    Http2(conn::http2::SendRequest<Full<Bytes>>),
}

impl Connection {
    /// Whether it has ended.
    pub fn is_closed(&self) -> bool {
        match self {
            Connection::Http1(sender) => sender.is_closed(),
            Connection::Http2(sender) => sender.is_closed(),
        }
    }

    /// Whether it can take a request now.
    pub fn is_ready(&self) -> bool {
        match self {
            Connection::Http1(sender) => sender.is_ready(),
            Connection::Http2(sender) => sender.is_ready(),
        }
    }

    /// Sends a request and waits for the head of its reply.
    ///
    /// # Errors
    /// The connection failed.
    pub async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, Failure> {
        match self {
            Connection::Http1(sender) => {
                sender.ready().await.map_err(|e| Failure::hyper(&e))?;
                let sent = sender.send_request(request);
                sent.await.map_err(|e| Failure::hyper(&e))
            }
            Connection::Http2(sender) => {
                sender.ready().await.map_err(|e| Failure::hyper(&e))?;
                let sent = sender.send_request(request);
                sent.await.map_err(|e| Failure::hyper(&e))
            }
        }
    }
}

impl Connector {
    /// Opens a connection; it is served by a task of its own.
    ///
    /// # Errors
    /// It cannot be made within [`CONNECT_MAX`].
    pub async fn connect(&self, endpoint: &Endpoint) -> Result<Connection, Failure> {
        match tokio::time::timeout(CONNECT_MAX, self.open(endpoint)).await {
            Ok(opened) => opened,
            Err(_) => Err(Failure {
                code: "timeout",
                text: format!("no connection within {} s", CONNECT_MAX.as_secs()),
            }),
        }
    }

    async fn open(&self, endpoint: &Endpoint) -> Result<Connection, Failure> {
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in &endpoint.addresses {
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    let _ = stream.set_nodelay(true);
                    return self.secure(endpoint, stream).await;
                }
                Err(error) => last = error,
            }
        }
        Err(Failure::io(&last))
    }

    async fn secure(&self, endpoint: &Endpoint, stream: TcpStream) -> Result<Connection, Failure> {
        if !endpoint.tls {
            return self.shake(stream).await;
        }
        let failed = |text: String| Failure { code: "tls", text };
        let name =
            ServerName::try_from(endpoint.name.clone()).map_err(|e| failed(e.to_string()))?;
        let connector = TlsConnector::from(self.tls.clone());
        match connector.connect(name, stream).await {
            Ok(stream) => self.shake(stream).await,
            Err(error) => Err(failed(format!(
                "the TLS handshake failed: {error}; a private authority is named with --ca FILE"
            ))),
        }
    }

    async fn shake<S>(&self, stream: S) -> Result<Connection, Failure>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let io = TokioIo::new(stream);
        if self.http2 {
            let made = conn::http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .initial_stream_window_size(1 << 20)
                .initial_connection_window_size(16 << 20)
                .handshake(io);
            let (sender, connection) = made.await.map_err(|e| Failure::hyper(&e))?;
            serve(connection);
            return Ok(Connection::Http2(sender));
        }
        let made = conn::http1::Builder::new().handshake(io);
        let (sender, connection) = made.await.map_err(|e| Failure::hyper(&e))?;
        serve(connection);
        Ok(Connection::Http1(sender))
    }
}

/// Drives a connection until it ends; whoever sends on it learns of its errors.
fn serve<T>(connection: impl Future<Output = Result<T, hyper::Error>> + Send + 'static)
where
    T: Send + 'static,
{
    tokio::spawn(async move {
        let _ = connection.await;
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_and_bad_ones_explained() {
        let endpoint = Endpoint::parse("http://127.0.0.1:8080/mcp?x=1").unwrap();
        assert_eq!(endpoint.path.to_string(), "/mcp?x=1");
        assert_eq!(endpoint.host, "127.0.0.1:8080");
        assert!(!endpoint.is_tls());
        assert!(Endpoint::parse("https://[::1]/mcp").unwrap().is_tls());
        for (url, part) in [
            ("127.0.0.1:8080", "write http://"),
            ("ftp://127.0.0.1/", "is no http"),
            ("http://u:p@127.0.0.1/", "--grants"),
            ("http://no-such-host.invalid/", "cannot be found"),
        ] {
            let error = Endpoint::parse(url).unwrap_err();
            assert!(error.contains(part), "{url}: {error}");
        }
    }

    #[test]
    fn a_client_without_descriptors_is_told_what_to_do() {
        let failure = Failure::io(&io::Error::from_raw_os_error(24));
        assert_eq!(failure.code, "descriptors");
        assert!(failure.text.contains("ulimit -Hn"), "{failure}");
    }
}
