//! Stage 0: bytes. Accepts within bounds, speaks TLS and HTTP, routes by path, and ends what is too slow.

use super::{
    Core, Ends, Out, decide, identify,
    memory::Memory,
    paced::{Busy, Paced, Requests},
};
use crate::{
    drain::{Drain, Phase, Stopping},
    gateway::{Gate, error::Answer},
};
use dashmap::DashMap;
use http::{HeaderValue, Request, Response, StatusCode, Version, header};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{
    convert::Infallible,
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    rc::Rc,
    sync::{
        Arc, RwLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

/// TLS of one listener; replaced whole when its files change.
pub type Tls = Arc<RwLock<Arc<rustls::ServerConfig>>>;

/// What a listener serves.
#[derive(Clone)]
pub struct Serves {
    /// `/mcp/…`
    pub mcp: bool,
    /// `/healthz` and `/readyz`
    pub health: bool,
    /// `/metrics`
    pub metrics: bool,
    /// TLS, where it is on.
    pub tls: Option<Tls>,
}

/// Open connections, in all and by source.
#[derive(Debug, Default)]
pub struct Connections {
    all: AtomicUsize,
    sources: DashMap<IpAddr, usize>,
}

struct Connected {
    connections: Arc<Connections>,
    gate: Arc<Gate>,
    source: IpAddr,
}

impl Connections {
    fn enter(
        self: &Arc<Self>,
        gate: &Arc<Gate>,
        source: IpAddr,
        max: usize,
        max_source: usize,
    ) -> Option<Connected> {
        self.all
            .fetch_update(Relaxed, Relaxed, |n| (n < max).then_some(n + 1))
            .ok()?;
        let mut of_source = self.sources.entry(source).or_insert(0);
        if *of_source >= max_source {
            self.all.fetch_sub(1, Relaxed);
            return None;
        }
        *of_source += 1;
        gate.metrics.connection_opened();
        Some(Connected {
            connections: self.clone(),
            gate: gate.clone(),
            source,
        })
    }
    /// How many are open.
    pub fn open(&self) -> usize {
        self.all.load(Relaxed)
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.connections.all.fetch_sub(1, Relaxed);
        self.gate.metrics.connection_closed();
        if let dashmap::Entry::Occupied(mut entry) = self.connections.sources.entry(self.source) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}

/// Accepts on one socket until the shutdown says stop.
pub async fn accept(
    core: Rc<Core>,
    listener: TcpListener,
    serves: Serves,
    connections: Arc<Connections>,
) {
    let mut phase = core.gate.drain.subscribe();
    loop {
        let accepted = tokio::select! {
            () = Drain::reached(&mut phase, Phase::Stopping) => return,
            accepted = listener.accept() => accepted,
        };
        let (tcp, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, most likely: wait for some to come free instead of spinning.
                tracing::warn!(%error, "cannot accept");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let bounds = core.bounds();
        let source = peer.ip().to_canonical();
        let Some(connected) = connections.enter(
            &core.gate,
            source,
            bounds.connections,
            bounds.connections_source,
        ) else {
            core.gate.audit.rejected("connections", source, "", 0);
            continue;
        };
        let _ = tcp.set_nodelay(true);
        let local = tcp.local_addr().unwrap_or(peer);
        let ends = Ends {
            peer: SocketAddr::new(source, peer.port()),
            local,
        };
        tokio::task::spawn_local(connection(
            core.clone(),
            tcp,
            ends,
            serves.clone(),
            connected,
        ));
    }
}

async fn connection(
    core: Rc<Core>,
    tcp: tokio::net::TcpStream,
    ends: Ends,
    serves: Serves,
    connected: Connected,
) {
    let bounds = core.bounds();
    let tls = serves
        .tls
        .as_ref()
        .and_then(|tls| tls.read().map(|config| config.clone()).ok());
    let result = match (serves.tls.is_some(), tls) {
        (false, _) => http(core.clone(), tcp, ends, serves, false).await,
        (true, Some(config)) => {
            let accept = TlsAcceptor::from(config).accept(tcp);
            match tokio::time::timeout(bounds.header_timeout, accept).await {
                Ok(Ok(stream)) => {
                    let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                    http(core.clone(), stream, ends, serves, h2).await
                }
                Ok(Err(error)) => Err(("tls", error.to_string())),
                Err(_) => Err(("tls_timeout", "handshake too slow".into())),
            }
        }
        (true, None) => Err(("tls", "no certificate in force".into())),
    };
    if let Err((reason, detail)) = result {
        core.gate.metrics.http_protocol_error();
        core.gate.audit.rejected(reason, ends.peer.ip(), "", 0);
        tracing::info!(peer = %ends.peer, reason, detail, "connection ended in a protocol error");
    }
    drop(connected);
}

async fn http<T>(
    core: Rc<Core>,
    io: T,
    ends: Ends,
    serves: Serves,
    h2: bool,
) -> Result<(), (&'static str, String)>
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let bounds = core.bounds();
    let line = Rc::new(Line {
        core: core.clone(),
        ends,
        serves,
        busy: Rc::default(),
        memory: Memory::default(),
    });
    let io = TokioIo::new(Paced::new(
        io,
        line.busy.clone(),
        bounds.header_timeout,
        bounds.idle_timeout,
        h2,
    ));
    let gate = core.gate.clone();
    let mut stopping = Stopping::new(&gate.drain);
    let service = service_fn(move |request| {
        let (line, busy) = (line.clone(), Busy::new(&line.busy));
        async move { Ok::<_, Infallible>(route(&line, request, busy).await) }
    });
    let ended = if h2 {
        let mut builder = hyper::server::conn::http2::Builder::new(LocalExecutor);
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(256)
            .max_header_list_size(bounds.header_bytes as u32);
        let mut connection = std::pin::pin!(builder.serve_connection(io, service));
        tokio::select! {
            ended = connection.as_mut() => ended,
            () = &mut stopping => {
                connection.as_mut().graceful_shutdown();
                until_end(connection, &gate).await
            }
        }
    } else {
        let mut builder = hyper::server::conn::http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(None)
            .max_headers(bounds.headers)
            .max_buf_size(bounds.header_bytes.max(8_192))
            .half_close(false);
        let mut connection = std::pin::pin!(builder.serve_connection(io, service));
        tokio::select! {
            ended = connection.as_mut() => ended,
            () = &mut stopping => {
                connection.as_mut().graceful_shutdown();
                until_end(connection, &gate).await
            }
        }
    };
    match ended {
        Err(error) if error.is_parse() || error.is_parse_too_large() => {
            Err(("http_protocol", error.to_string()))
        }
        Err(error) if is_timeout(&error) => Err(("http_timeout", error.to_string())),
        // A client that left, or a reply that was cut on purpose, has its audit line already.
        _ => Ok(()),
    }
}

async fn until_end<F: Future<Output = hyper::Result<()>>>(
    connection: Pin<&mut F>,
    gate: &Gate,
) -> hyper::Result<()> {
    let mut phase = gate.drain.subscribe();
    tokio::select! {
        ended = connection => ended,
        () = Drain::reached(&mut phase, Phase::Ended) => Ok(()),
    }
}

fn is_timeout(error: &hyper::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        if inner
            .downcast_ref::<io::Error>()
            .is_some_and(|io| io.kind() == io::ErrorKind::TimedOut)
        {
            return true;
        }
        source = inner.source();
    }
    false
}

/// What the requests of a connection have in common.
struct Line {
    core: Rc<Core>,
    ends: Ends,
    serves: Serves,
    busy: Rc<Requests>,
    memory: Memory,
}

async fn route(line: &Line, request: Request<Incoming>, busy: Busy) -> Response<Out> {
    let Line {
        core, ends, serves, ..
    } = line;
    let (gate, ends) = (&core.gate, *ends);
    let version = request.version();
    let path = request.uri().path();
    let mut response = match path {
        "/healthz" if serves.health => plain(StatusCode::OK, "ok\n"),
        "/readyz" if serves.health => ready(gate),
        "/metrics" if serves.metrics => metrics(gate, ends, request),
        _ => match path
            .strip_prefix(super::ENDPOINT)
            .filter(|name| serves.mcp && !name.is_empty() && !name.contains('/'))
        {
            Some(_) => super::handle(core, ends, &line.memory, request).await,
            None => {
                let message = "There is nothing here: endpoints are /mcp/<server>";
                gate.audit.rejected("no_path", ends.peer.ip(), path, 404);
                Answer::refuse(
                    StatusCode::NOT_FOUND,
                    None,
                    super::error::RPC_GATEWAY,
                    "no_path",
                    message,
                )
                .closing()
                .into_response()
            }
        },
    };
    if gate.drain.phase() > Phase::Running {
        response
            .headers_mut()
            .insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response.headers_mut().insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response.map(|body| body.while_busy(busy, version == Version::HTTP_2))
}

fn ready(gate: &Gate) -> Response<Out> {
    let unready = |why| plain(StatusCode::SERVICE_UNAVAILABLE, why);
    if gate.drain.phase() > Phase::Running {
        return unready("draining\n");
    }
    if gate.views.load().is_none() {
        return unready("no configuration in force\n");
    }
    if !gate.audit.ready() {
        return unready("the audit cannot record\n");
    }
    plain(StatusCode::OK, "ready\n")
}

fn metrics(gate: &Gate, ends: Ends, request: Request<Incoming>) -> Response<Out> {
    let (parts, _) = request.into_parts();
    let checked = gate.views.load().ok_or_else(decide::no_view);
    if let Err(answer) = checked.and_then(|view| identify::check_origin(&view, &parts, ends.local))
    {
        return answer.into_response();
    }
    let mut response = Response::new(Out::full(gate.metrics.render()));
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn plain(status: StatusCode, text: &'static str) -> Response<Out> {
    let mut response = Response::new(Out::full(text.as_bytes()));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}

/// Runs hyper's HTTP/2 tasks on this thread.
#[derive(Clone, Copy)]
struct LocalExecutor;

impl<F: Future + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}
