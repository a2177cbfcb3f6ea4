//! The admin plane's sockets.

use super::{
    Plane, Settings, Tcp,
    guard::{Caller, Proof},
    routes,
    tls::Certificates,
};
use anyhow::Context as _;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::fs::Mode;
use socket2::{Domain, SockAddr, Socket, Type};
use std::{
    convert::Infallible,
    fs::{self, DirBuilder, Permissions},
    io,
    net::{SocketAddr, TcpListener as StdTcpListener},
    os::unix::{
        fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
        net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream},
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::{Semaphore, watch},
    time::{sleep, timeout},
};

/// Most connections at once; beyond, they wait in the backlog.
const CONNECTIONS: usize = 32;
/// Backlog of the sockets.
const BACKLOG: i32 = 64;
/// Largest request head, bytes (hyper's minimum), and most fields in it.
const HEAD_BYTES: usize = 8 << 10;
const HEADERS: usize = 32;
/// How long the TLS handshake and a request's head may take.
const HEAD_WAIT: Duration = Duration::from_secs(5);
/// How long a connection may last: each carries one request.
const CONNECTION_LIFE: Duration = Duration::from_secs(60);
/// Pause after an accept that failed (no file descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// The open sockets. Dropping them removes the Unix socket's file.
pub struct Listeners {
    unix: Option<(StdUnixListener, SocketFile)>,
    tcp: Option<(StdTcpListener, Tcp, Option<Certificates>)>,
}

impl Listeners {
    /// Opens the sockets. Errors: an address or path is taken or may not be used, certificates cannot be read, a TCP
    /// listener without proof of its callers.
    pub fn open(settings: &Settings) -> anyhow::Result<Self> {
        let unix = settings.unix.as_deref().map(|path| {
            open_unix(path).with_context(|| format!("admin: the socket {}", path.display()))
        });
        let tcp = settings.tcp.as_ref().map(|tcp| {
            open_tcp(tcp).with_context(|| format!("admin: the listener {}", tcp.address))
        });
        Ok(Self {
            unix: unix.transpose()?,
            tcp: tcp.transpose()?,
        })
    }

    /// The TCP listener's address, its port known.
    pub fn address(&self) -> Option<SocketAddr> {
        self.tcp.as_ref()?.0.local_addr().ok()
    }

    /// Serves until `shutdown` turns true.
    pub async fn serve(
        self,
        plane: Arc<Plane>,
        shutdown: watch::Receiver<bool>,
    ) -> anyhow::Result<()> {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        let unix = async {
            let Some((listener, _file)) = self.unix else {
                return Ok(());
            };
            let listener = UnixListener::from_std(listener)?;
            loop {
                let place = places.clone().acquire_owned().await;
                let Some((stream, _)) = accepted(listener.accept().await).await else {
                    continue;
                };
                let plane = plane.clone();
                let caller = Caller::local(stream.peer_cred().ok().map(|peer| peer.uid()));
                tokio::spawn(async move {
                    converse(stream, plane, caller).await;
                    drop(place);
                });
            }
        };
        let tcp = async {
            let Some((listener, settings, mut certificates)) = self.tcp else {
                return Ok(());
            };
            let listener = TcpListener::from_std(listener)?;
            let proof = settings
                .token_sha256
                .map_or(Proof::Connection, Proof::Token);
            loop {
                let place = places.clone().acquire_owned().await;
                let Some((stream, _)) = accepted(listener.accept().await).await else {
                    continue;
                };
                let acceptor = certificates.as_mut().map(Certificates::acceptor);
                let plane = plane.clone();
                tokio::spawn(async move {
                    match acceptor {
                        None => converse(stream, plane, Caller::remote(proof, None)).await,
                        Some(acceptor) => {
                            if let Ok(Ok(stream)) =
                                timeout(HEAD_WAIT, acceptor.accept(stream)).await
                            {
                                let shown = stream.get_ref().1.peer_certificates();
                                let shown = shown.and_then(<[_]>::first);
                                let caller = Caller::remote(proof, shown.map(AsRef::as_ref));
                                converse(stream, plane, caller).await;
                            }
                        }
                    }
                    drop(place);
                });
            }
        };
        let both = async { tokio::try_join!(unix, tcp).map(|((), ())| ()) };
        tokio::select! {
            served = both => {
                served.map_err(|error: io::Error| error).context("admin: a listener failed")?;
                stopped(shutdown).await;
            }
            () = stopped(shutdown.clone()) => {}
        }
        Ok(())
    }
}

async fn stopped(mut shutdown: watch::Receiver<bool>) {
    // A sender that is gone means the same.
    let _ = shutdown.wait_for(|stop| *stop).await;
}

async fn accepted<T>(accepted: io::Result<T>) -> Option<T> {
    match accepted {
        Ok(connection) => Some(connection),
        Err(error) => {
            tracing::warn!(%error, "admin: a connection could not be accepted");
            sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

/// One connection, one request.
async fn converse<S>(stream: S, plane: Arc<Plane>, caller: Caller)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let service = service_fn(|request: http::Request<Incoming>| {
        let (plane, caller) = (plane.clone(), caller.clone());
        async move { Ok::<_, Infallible>(routes::answer(request, &plane, &caller).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WAIT)
        .max_buf_size(HEAD_BYTES)
        .max_headers(HEADERS)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    if let Ok(Err(error)) = timeout(CONNECTION_LIFE, connection).await {
        tracing::debug!(%error, "admin: a connection ended in an error");
    }
}

fn open_tcp(tcp: &Tcp) -> anyhow::Result<(StdTcpListener, Tcp, Option<Certificates>)> {
    let proven = tcp.tls.is_some() || tcp.token_sha256.is_some();
    anyhow::ensure!(proven, "needs mutual TLS or a token, on loopback too");
    let private = tcp.tls.is_some() || tcp.address.ip().to_canonical().is_loopback();
    anyhow::ensure!(
        private,
        "needs TLS: a token would be readable on the network"
    );
    let certificates = tcp.tls.clone().map(Certificates::read).transpose()?;
    let listener = StdTcpListener::bind(tcp.address)?;
    listener.set_nonblocking(true)?;
    Ok((listener, tcp.clone(), certificates))
}

/// Mode 0600 before anybody can connect, in a directory where nobody else can replace it.
fn open_unix(path: &Path) -> anyhow::Result<(StdUnixListener, SocketFile)> {
    if let Some(directory) = path.parent().filter(|d| !d.as_os_str().is_empty()) {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .with_context(|| format!("the directory {}", directory.display()))?;
        let found = fs::metadata(directory)?;
        let mode = Mode::from_raw_mode(found.mode());
        let replaceable = mode.contains(Mode::WOTH) && !mode.contains(Mode::SVTX);
        anyhow::ensure!(
            !replaceable,
            "{} is writable by everybody",
            directory.display()
        );
        let mine = [0, rustix::process::geteuid().as_raw()].contains(&found.uid());
        anyhow::ensure!(mine, "{} belongs to another user", directory.display());
    }
    remove_stale(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    let file = SocketFile::of(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok((
        StdUnixListener::from(std::os::fd::OwnedFd::from(socket)),
        file,
    ))
}

/// A socket that nobody answers at is what an earlier process left behind.
fn remove_stale(path: &Path) -> anyhow::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
        Ok(found) => anyhow::ensure!(
            found.file_type().is_socket(),
            "something that is no socket is there"
        ),
    }
    match StdUnixStream::connect(path) {
        Ok(_) => anyhow::bail!("another gateway answers there"),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).context("the stale socket cannot be removed")
        }
        Err(error) => Err(error).context("whether another gateway answers there cannot be told"),
    }
}

/// The file of our socket, removed when it is dropped, unless somebody put another in its place.
struct SocketFile {
    path: PathBuf,
    id: (u64, u64),
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            id: file_id(path)?,
        })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if file_id(&self.path).is_ok_and(|id| id == self.id) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn file_id(path: &Path) -> io::Result<(u64, u64)> {
    let found = fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}
