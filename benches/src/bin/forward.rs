//! The floor of `benches/proxies`: a proxy of the libraries that the gateway is made of (hyper's connections, tokio's
//! one-threaded runtime, mimalloc) that forwards heads and bodies as they come and does nothing else: no grant, no scan,
//! no policy, no bound, no timeout, no record. Never for anything but a measurement on loopback.
//!
//! ```text
//! forward PORT UPSTREAM_PORT    forwards /mcp/images to /mcp, and /mcp/X to /X
//! ```

use http::{HeaderValue, Request, Response, Uri, header};
use hyper::{
    body::Incoming,
    client::conn::http1::{SendRequest, handshake},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use std::{cell::RefCell, error::Error, net::Ipv4Addr, process::ExitCode, rc::Rc};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Builder,
    task::{LocalSet, spawn_local},
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What failed: it ends the client's connection.
type Failed = Box<dyn Error + Send + Sync>;

/// The upstream's connection of one client's: requests of HTTP/1.1 come one after the other.
type Link = RefCell<Option<SendRequest<Incoming>>>;

async fn forward(
    mut request: Request<Incoming>,
    upstream: u16,
    link: Rc<Link>,
) -> Result<Response<Incoming>, Failed> {
    let path = request.uri().path();
    let rest = path.strip_prefix("/mcp/").unwrap_or(path);
    let path = if rest == "images" { "mcp" } else { rest };
    *request.uri_mut() = format!("/{path}").parse::<Uri>()?;
    let headers = request.headers_mut();
    headers.insert(header::HOST, HeaderValue::from_static("upstream"));
    headers.remove(header::AUTHORIZATION);
    let kept = link.take();
    let mut sender = match kept {
        Some(sender) => sender,
        None => {
            let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, upstream)).await?;
            socket.set_nodelay(true)?;
            let (sender, connection) = handshake(TokioIo::new(socket)).await?;
            spawn_local(connection);
            sender
        }
    };
    sender.ready().await?;
    let reply = sender.send_request(request).await?;
    link.replace(Some(sender));
    Ok(reply)
}

async fn serve(listener: TcpListener, upstream: u16) -> Result<(), Failed> {
    loop {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        let link = Rc::new(Link::default());
        let service = service_fn(move |request| forward(request, upstream, link.clone()));
        spawn_local(http1::Builder::new().serve_connection(TokioIo::new(socket), service));
    }
}

fn run() -> Result<(), Failed> {
    let ports: Vec<u16> = std::env::args()
        .skip(1)
        .map_while(|port| port.parse().ok())
        .collect();
    let &[port, upstream] = ports.as_slice() else {
        return Err("usage: forward PORT UPSTREAM_PORT".into());
    };
    let runtime = Builder::new_current_thread().enable_io().build()?;
    LocalSet::new().block_on(&runtime, async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        serve(listener, upstream).await
    })
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("forward: {error}");
            ExitCode::FAILURE
        }
    }
}
