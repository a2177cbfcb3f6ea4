//! Streamable HTTP upstreams: one pool a runtime on hyper's connection API. Redirects are never followed.

use super::{
    Body, Error, ErrorKind, Reply, Request, Response,
    link::{Home, Link},
};
use crate::{bounds::Bounds, view::HttpTarget};
use bytes::Bytes;
use foldhash::fast::RandomState;
use http::{HeaderValue, Uri, header};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use proto::id::ServerName;
use rustls::{
    ClientConfig, RootCertStore, pki_types::ServerName as TlsName, pki_types::pem::PemObject,
};
use std::{
    cell::RefCell,
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex},
    task::{Context, Waker},
    time::Duration,
};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};
use tokio_rustls::TlsConnector;

/// How often idle connections are looked through.
pub const SWEEP: Duration = Duration::from_secs(2);

/// An idle connection is dropped by the sweep after this many, after 20 s: many servers close theirs after a little more.
/// Counted instead of timed, so that a request reads no clock for it.
const SWEEPS_MAX: u32 = 10;

/// A TLS configuration and when it was made.
type Trust = (Instant, Arc<ClientConfig>);
/// Idle connections and how many sweeps each has idled through.
pub(super) type Kept = HashMap<Arc<Origin>, Vec<(Link, u32)>, RandomState>;

/// Connections may be shared by servers with the same scheme, authority and trust.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Origin {
    tls: bool,
    host: String,
    port: u16,
    ca_file: Option<PathBuf>,
}

/// What all requests to a target have in common, put together on the first.
#[derive(Clone, Debug)]
pub struct Route {
    origin: Arc<Origin>,
    path: Uri,
    host: HeaderValue,
}

impl Route {
    fn new(target: &HttpTarget) -> Result<Self, String> {
        let path = target
            .url
            .path_and_query()
            .map_or("/", |path| path.as_str());
        let authority = target.url.authority().ok_or("the URL names no host")?;
        Ok(Self {
            origin: Arc::new(origin(target)?),
            path: path.parse().unwrap_or_else(|_| Uri::from_static("/")),
            host: HeaderValue::from_str(authority.as_str()).map_err(|e| e.to_string())?,
        })
    }
}

/// One runtime's connections.
#[derive(Default)]
pub struct Pool {
    /// A lock that only this runtime takes: replies must be `Send`, since those of child processes cross runtimes.
    idle: Arc<Mutex<Kept>>,
    tls: RefCell<HashMap<Option<PathBuf>, Trust>>,
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
        let route = target.route.get_or_init(|| Route::new(target));
        let route = route.as_ref().map_err(|detail| Error {
            kind: ErrorKind::Connect,
            unsent: true,
            detail: detail.clone(),
        })?;
        let deadline = match request.deadline {
            Some(deadline) => Instant::from_std(deadline),
            None => Instant::now() + bounds.upstream_timeout,
        };
        let mut outgoing = build(target, route, request);
        let timeout = || Error {
            kind: ErrorKind::Timeout,
            unsent: false,
            detail: format!("{server}: no reply in time"),
        };
        let (reply, link) = loop {
            let reused = self.take(&route.origin);
            let fresh = reused.is_none();
            let mut link = match reused {
                Some(link) => link,
                None => timeout_at(deadline, Box::pin(self.connect(&route.origin, bounds)))
                    .await
                    .map_err(|_| timeout())??,
            };
            match link.send(outgoing, deadline).await.ok_or_else(timeout)? {
                Ok(reply) => break (reply, link),
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
        };
        if reply.status().is_redirection() {
            let detail = format!("{server}: answered {}", reply.status());
            return Err(Error {
                kind: ErrorKind::Redirect,
                unsent: false,
                detail,
            });
        }
        if reply.status().is_informational() {
            let detail = format!("{server}: answered {}", reply.status());
            return Err(Error {
                kind: ErrorKind::Protocol,
                unsent: false,
                detail,
            });
        }
        let home = Home {
            origin: route.origin.clone(),
            idle: Arc::downgrade(&self.idle),
            idle_max: bounds.upstream_idle,
        };
        Ok(reply.map(|incoming| Body::Http(Box::new(Reply::new(incoming, link, home)))))
    }

    /// An idle connection. One that the upstream has closed meanwhile says so when it is sent on, before it sends.
    fn take(&self, origin: &Origin) -> Option<Link> {
        let mut idle = self.idle.lock().ok()?;
        let list = idle.get_mut(origin)?;
        list.pop().map(|(link, _)| link)
    }

    /// Drops connections that idled too long or that the upstream has closed. To be called every [`SWEEP`].
    pub fn sweep(&self) {
        let Ok(mut idle) = self.idle.lock() else {
            return;
        };
        let mut unwoken = Context::from_waker(Waker::noop());
        idle.retain(|_, list| {
            list.retain_mut(|(link, sweeps)| {
                *sweeps += 1;
                *sweeps < SWEEPS_MAX && link.is_ready(&mut unwoken)
            });
            !list.is_empty()
        });
    }

    async fn connect(&self, origin: &Origin, bounds: &Bounds) -> Result<Link, Error> {
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

async fn handshake<T>(io: T, bounds: &Bounds) -> Result<Link, String>
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = http1::Builder::new();
    builder
        .max_headers(bounds.headers)
        .max_buf_size(bounds.header_bytes.max(8_192) * 4);
    let (sender, connection) = builder
        .handshake(TokioIo::new(io))
        .await
        .map_err(|e| e.to_string())?;
    Ok(Link::new(sender, Box::pin(connection)))
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

fn build(target: &HttpTarget, route: &Route, request: Request) -> http::Request<Full<Bytes>> {
    let mut outgoing = http::Request::new(Full::new(request.body));
    *outgoing.uri_mut() = route.path.clone();
    let headers = outgoing.headers_mut();
    *headers = request.headers;
    headers.insert(header::HOST, route.host.clone());
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
    *outgoing.method_mut() = request.verb;
    outgoing
}
