//! Streamable HTTP upstreams: one pool a runtime on hyper's connection API. Redirects are never followed.

use super::{Body, Error, ErrorKind, Request, Response};
use crate::{bounds::Bounds, view::HttpTarget};
use bytes::Bytes;
use http::{HeaderValue, Uri, header};
use http_body_util::Full;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use proto::id::ServerName;
use rustls::{
    ClientConfig, RootCertStore, pki_types::ServerName as TlsName, pki_types::pem::PemObject,
};
use std::{
    cell::RefCell,
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, Weak},
    time::{Duration, Instant},
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Idle connections are dropped after this long: many servers close theirs after a little more.
const IDLE_MAX: Duration = Duration::from_secs(20);

/// A TLS configuration and when it was made.
type Trust = (Instant, Arc<ClientConfig>);
type Sender = SendRequest<Full<Bytes>>;
type Kept = HashMap<Origin, Vec<(Sender, Instant)>>;

/// Connections may be shared by servers with the same scheme, authority and trust.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Origin {
    tls: bool,
    host: String,
    port: u16,
    ca_file: Option<PathBuf>,
}

/// One runtime's connections.
#[derive(Default)]
pub struct Pool {
    /// A lock that only this runtime takes: replies must be `Send`, since those of child processes cross runtimes.
    idle: Arc<Mutex<Kept>>,
    tls: RefCell<HashMap<Option<PathBuf>, Trust>>,
}

/// Gives a connection back to the pool once its reply was read to the end.
pub struct Lease {
    sender: Option<Sender>,
    origin: Origin,
    idle: Weak<Mutex<Kept>>,
    idle_max: usize,
}

impl Lease {
    /// The reply is over: the connection is free again.
    pub fn give_back(&mut self) {
        let (Some(sender), Some(idle)) = (self.sender.take(), self.idle.upgrade()) else {
            return;
        };
        if sender.is_closed() {
            return;
        }
        let Ok(mut idle) = idle.lock() else { return };
        let list = idle.entry(self.origin.clone()).or_default();
        if list.len() < self.idle_max {
            list.push((sender, Instant::now()));
        }
    }
}

impl Pool {
    /// Sends one judged request and returns the reply's head; the body streams.
    pub async fn send(
        &self,
        server: &ServerName,
        target: &HttpTarget,
        request: Request,
        bounds: &Bounds,
    ) -> Result<Response, Error> {
        let origin = origin(target).map_err(|detail| Error {
            kind: ErrorKind::Connect,
            unsent: true,
            detail,
        })?;
        let mut outgoing = build(target, &request);
        let deadline = request
            .deadline
            .unwrap_or_else(|| Instant::now() + bounds.upstream_timeout);
        let sending = async {
            loop {
                let reused = self.take(&origin).await;
                let fresh = reused.is_none();
                let mut sender = match reused {
                    Some(sender) => sender,
                    None => self.connect(&origin, bounds).await?,
                };
                match sender.try_send_request(outgoing).await {
                    Ok(reply) => return Ok((reply, sender)),
                    Err(mut failed) => match failed.take_message() {
                        // A kept connection that had died in its sleep: nothing was sent, a fresh one may be tried.
                        Some(message) if !fresh => outgoing = message,
                        message => {
                            let detail = format!("{server}: {}", failed.into_error());
                            let unsent = message.is_some();
                            let kind = if unsent {
                                ErrorKind::Connect
                            } else {
                                ErrorKind::Protocol
                            };
                            return Err(Error {
                                kind,
                                unsent,
                                detail,
                            });
                        }
                    },
                }
            }
        };
        let timeout = || Error {
            kind: ErrorKind::Timeout,
            unsent: false,
            detail: format!("{server}: no reply in time"),
        };
        let sent = tokio::time::timeout_at(deadline.into(), sending)
            .await
            .map_err(|_| timeout())?;
        let (reply, sender) = sent?;
        if reply.status().is_redirection() {
            let detail = format!("{server}: answered {}", reply.status());
            return Err(Error {
                kind: ErrorKind::Redirect,
                unsent: false,
                detail,
            });
        }
        let idle_max = bounds.upstream_idle;
        if reply.status().is_informational() {
            let detail = format!("{server}: answered {}", reply.status());
            return Err(Error {
                kind: ErrorKind::Protocol,
                unsent: false,
                detail,
            });
        }
        let lease = Lease {
            sender: Some(sender),
            origin,
            idle: Arc::downgrade(&self.idle),
            idle_max,
        };
        Ok(reply.map(|incoming| Body::Http(incoming, Box::new(lease))))
    }

    async fn take(&self, origin: &Origin) -> Option<Sender> {
        loop {
            let (mut sender, since) = self.idle.lock().ok()?.get_mut(origin)?.pop()?;
            if since.elapsed() < IDLE_MAX && !sender.is_closed() && sender.ready().await.is_ok() {
                return Some(sender);
            }
        }
    }

    /// Drops connections that idled too long.
    pub fn sweep(&self) {
        let Ok(mut idle) = self.idle.lock() else {
            return;
        };
        idle.retain(|_, list| {
            list.retain(|(sender, since)| since.elapsed() < IDLE_MAX && !sender.is_closed());
            !list.is_empty()
        });
    }

    async fn connect(&self, origin: &Origin, bounds: &Bounds) -> Result<Sender, Error> {
        let connecting = async {
            let tcp = TcpStream::connect((origin.host.as_str(), origin.port))
                .await
                .map_err(|e| e.to_string())?;
            let _ = tcp.set_nodelay(true);
            if !origin.tls {
                return handshake(tcp, bounds).await;
            }
            let name = TlsName::try_from(origin.host.clone()).map_err(|e| e.to_string())?;
            let config = self.tls_config(origin.ca_file.as_ref())?;
            let tls = TlsConnector::from(config)
                .connect(name, tcp)
                .await
                .map_err(|e| e.to_string())?;
            handshake(tls, bounds).await
        };
        let failed = |detail: String| Error {
            kind: ErrorKind::Connect,
            unsent: true,
            detail: format!(
                "cannot connect to {}:{}: {detail}",
                origin.host, origin.port
            ),
        };
        match tokio::time::timeout(bounds.connect_timeout, connecting).await {
            Ok(connected) => connected.map_err(failed),
            Err(_) => Err(failed("timed out (bounds.connect_timeout)".into())),
        }
    }

    /// Trust is read again every minute, so that a replaced CA file counts.
    fn tls_config(&self, ca_file: Option<&PathBuf>) -> Result<Arc<ClientConfig>, String> {
        let mut cache = self.tls.borrow_mut();
        if let Some((made, config)) = cache.get(&ca_file.cloned())
            && made.elapsed() < Duration::from_secs(60)
        {
            return Ok(config.clone());
        }
        let mut roots = RootCertStore::empty();
        match ca_file {
            Some(file) => {
                let certificates = rustls::pki_types::CertificateDer::pem_file_iter(file)
                    .map_err(|e| e.to_string())?;
                for certificate in certificates {
                    roots
                        .add(certificate.map_err(|e| e.to_string())?)
                        .map_err(|e| e.to_string())?;
                }
            }
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let mut config = builder
            .map_err(|e| e.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let config = Arc::new(config);
        cache.insert(ca_file.cloned(), (Instant::now(), config.clone()));
        Ok(config)
    }
}

async fn handshake<T>(io: T, bounds: &Bounds) -> Result<Sender, String>
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + 'static,
{
    let mut builder = http1::Builder::new();
    builder
        .max_headers(bounds.headers)
        .max_buf_size(bounds.header_bytes.max(8_192) * 4);
    let (sender, connection) = builder
        .handshake(TokioIo::new(io))
        .await
        .map_err(|e| e.to_string())?;
    tokio::task::spawn_local(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "connection to an upstream ended");
        }
    });
    Ok(sender)
}

fn origin(target: &HttpTarget) -> Result<Origin, String> {
    let tls = match target.url.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => return Err("the URL is neither http nor https".into()),
    };
    let authority = target.url.authority().ok_or("the URL names no host")?;
    let host = authority
        .host()
        .trim_start_matches('[')
        .trim_end_matches(']')
        .to_owned();
    let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
    Ok(Origin {
        tls,
        host,
        port,
        ca_file: target.ca_file.clone(),
    })
}

fn build(target: &HttpTarget, request: &Request) -> http::Request<Full<Bytes>> {
    let mut outgoing = http::Request::new(Full::new(request.body.clone()));
    *outgoing.method_mut() = request.verb.clone();
    let path = target
        .url
        .path_and_query()
        .map_or("/", |path| path.as_str());
    *outgoing.uri_mut() = path.parse().unwrap_or_else(|_| Uri::from_static("/"));
    let headers = outgoing.headers_mut();
    *headers = request.headers.clone();
    if let Some(authority) = target.url.authority()
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        headers.insert(header::HOST, host);
    }
    if request.verb == http::Method::POST {
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
    }
    headers.insert(
        header::USER_AGENT,
        HeaderValue::from_static(concat!("tollgate/", env!("CARGO_PKG_VERSION"))),
    );
    for (name, value) in &target.headers {
        headers.insert(name.clone(), value.clone());
    }
    outgoing
}
