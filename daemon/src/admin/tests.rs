//! A whole admin plane on real sockets.

use super::{show::tests::sample, *};
use crate::audit;
use bytes::Bytes;
use http::Method;
use proto::{admin, id::ServerName};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use std::{
    fs, os::unix::fs::PermissionsExt as _, path::Path, sync::atomic::Ordering::Relaxed,
    time::Duration,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpStream, UnixStream},
    task::JoinHandle,
    time::timeout,
};

const LONG: Duration = Duration::from_secs(10);

/// A running admin plane; the receiver is the keeper's end.
struct Running {
    dir: TempDir,
    plane: Arc<Plane>,
    reloads: mpsc::Receiver<Ask>,
    stop: watch::Sender<bool>,
    served: JoinHandle<anyhow::Result<()>>,
    tcp: Option<SocketAddr>,
}

impl Running {
    fn start(tcp: Option<Tcp>) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), tcp)
    }

    fn start_in(dir: TempDir, tcp: Option<Tcp>) -> Self {
        let settings = Settings {
            unix: Some(socket(&dir)),
            tcp,
        };
        let listeners = Listeners::open(&settings).unwrap();
        let address = listeners.address();
        let (plane, reloads) = plane(&dir);
        let (stop, stopped) = watch::channel(false);
        let served = tokio::spawn(listeners.serve(plane.clone(), stopped));
        Self {
            dir,
            plane,
            reloads,
            stop,
            served,
            tcp: address,
        }
    }

    async fn get(&self, target: &str) -> Result<Bytes, ClientError> {
        ask(&socket(&self.dir), Method::GET, target).await
    }

    async fn tcp(&self, request: &str) -> String {
        let stream = TcpStream::connect(self.tcp.unwrap()).await.unwrap();
        talk(stream, request).await
    }
}

fn socket(dir: &TempDir) -> PathBuf {
    dir.path().join("run/admin.sock")
}

fn plane(dir: &TempDir) -> (Arc<Plane>, mpsc::Receiver<Ask>) {
    let sink = audit::Sink::File(audit::FileSettings {
        path: dir.path().join("audit.jsonl"),
        rotate_bytes: 1 << 20,
        rotate_age: None,
        keep: 1,
        min_free: 0,
        retain_required: false,
    });
    let views = Arc::new(Views::default());
    views.put(Arc::new(sample()));
    let (reload, reloads) = mpsc::channel(1);
    let plane = Plane {
        views,
        freshness: Arc::new(Freshness::new(LONG)),
        cluster: ::cluster::handle::Handle::disconnected(crate::clock::now()),
        data_dir: dir.path().to_owned(),
        limiter: Arc::new(Limiter::new(
            ::cluster::handle::Handle::disconnected(crate::clock::now()),
            16,
            Arc::new(crate::clock::now),
        )),
        audit: Audit::start(audit::Settings { sink, queue: 8 }).unwrap(),
        metrics: Metrics::new(),
        keeper: reload,
        started: Instant::now(),
        draining: Arc::default(),
        sessions: Arc::new(|| 5),
    };
    (Arc::new(plane), reloads)
}

async fn talk(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut reply = Vec::new();
    let _ = timeout(LONG, stream.read_to_end(&mut reply)).await.unwrap();
    String::from_utf8(reply).unwrap()
}

fn get(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n")
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn the_socket_is_private_and_goes_with_the_plane() {
    let running = Running::start(None);
    let path = socket(&running.dir);
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    running.stop.send_replace(true);
    timeout(LONG, running.served)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert!(!path.exists());
    let error = ask(&path, Method::GET, admin::STATUS).await.unwrap_err();
    assert!(error.to_string().contains("no gateway answers"), "{error}");
}

#[tokio::test]
async fn status_view_and_grants_are_shown() {
    let running = Running::start(None);
    let status: admin::Status =
        serde_json::from_slice(&running.get(admin::STATUS).await.unwrap()).unwrap();
    assert!(status.ready && !status.draining);
    assert_eq!(
        (
            status.revision,
            status.servers,
            status.grants,
            status.sessions
        ),
        (Some(3), 1, 2, 5)
    );
    assert_eq!(status.audit.places, 8);
    running.plane.draining.store(true, Relaxed);
    let status: admin::Status =
        serde_json::from_slice(&running.get(admin::STATUS).await.unwrap()).unwrap();
    assert!(!status.ready && status.draining);

    let view: admin::View =
        serde_json::from_slice(&running.get(admin::VIEW).await.unwrap()).unwrap();
    let grants: admin::Grants =
        serde_json::from_slice(&running.get(admin::GRANTS).await.unwrap()).unwrap();
    assert_eq!(view.grants, grants.grants);
    assert_eq!(view.servers[0].name, "flux");
}

#[tokio::test]
async fn a_reload_goes_to_the_keeper_and_back() {
    let mut running = Running::start(None);
    for (answer, expected) in [
        (Ok(4), Ok(4)),
        (
            Err("tollgate.yaml:3:1: no".to_owned()),
            Err("tollgate.yaml:3:1: no"),
        ),
    ] {
        let path = socket(&running.dir);
        let asked = tokio::spawn(async move { ask(&path, Method::POST, admin::RELOAD).await });
        let asked_of_keeper = timeout(LONG, running.reloads.recv()).await.unwrap();
        let Some(Ask::Reload { answer: reply, .. }) = asked_of_keeper else {
            panic!("no reload was asked for");
        };
        reply.send(answer).unwrap();
        match (asked.await.unwrap(), expected) {
            (Ok(body), Ok(revision)) => {
                let reloaded: admin::Reloaded = serde_json::from_slice(&body).unwrap();
                assert_eq!(reloaded.revision, revision);
            }
            (Err(ClientError::Refused { status, error }), Err(why)) => {
                assert_eq!((status.as_u16(), &*error), (422, why));
            }
            (asked, _) => panic!("{asked:?}"),
        }
    }
}

#[tokio::test]
async fn what_was_counted_is_on_the_metrics_page() {
    let running = Running::start(None);
    running.plane.metrics.watch_audit(&running.plane.audit);
    running
        .plane
        .metrics
        .server(&ServerName::new("flux"))
        .finished("deny", "limit", 10);
    let page = running.get(admin::METRICS).await.unwrap();
    let page = std::str::from_utf8(&page).unwrap();
    for line in [
        r#"tollgate_requests_total{server="flux",decision="deny",code="limit"} 1"#,
        "tollgate_audit_ready 1",
        "tollgate_audit_refused_total 0",
    ] {
        assert!(page.lines().any(|l| l == line), "{line} in {page}");
    }
}

#[tokio::test]
async fn what_is_no_route_or_no_fit_request_is_turned_away() {
    let running = Running::start(None);
    let long = "x".repeat(16 << 10);
    let many: String = (0..64).map(|i| format!("x{i}: 1\r\n")).collect();
    for (request, status) in [
        (get("/v1/nothing", ""), "404"),
        (get("/v1/reload", ""), "405"),
        (get("/v1/limits?top=x", ""), "400"),
        (get("/v1/limits?top=3&filter=a%20b", ""), "200"),
        (get("/v1/status", "Origin: http://localhost\r\n"), "403"),
        (get("/v1/status", "Sec-Fetch-Site: none\r\n"), "403"),
        (get("/v1/status", &format!("x: {long}\r\n")), "431"),
        (get("/v1/status", &many), "431"),
        (get("/v1/status", "Content-Length: 9000\r\n") + &long, "413"),
        (
            "POST /v1/status HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
            "405",
        ),
        ("nonsense\r\n\r\n".to_owned(), "400"),
    ] {
        let stream = UnixStream::connect(socket(&running.dir)).await.unwrap();
        let reply = talk(stream, &request).await;
        let head = &request[..request.len().min(60)];
        assert!(
            reply.starts_with(&format!("HTTP/1.1 {status} ")),
            "{head}: {reply}"
        );
    }
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_one_that_answers_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = socket(&dir);
    fs::create_dir(path.parent().unwrap()).unwrap();
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "stale");
    let running = Running::start_in(dir, None);
    assert!(running.get(admin::STATUS).await.is_ok());

    let settings = Settings {
        unix: Some(path.clone()),
        tcp: None,
    };
    let error = format!("{:#}", Listeners::open(&settings).map(drop).unwrap_err());
    assert!(error.contains("another gateway answers"), "{error}");
    assert!(running.get(admin::STATUS).await.is_ok(), "untouched");

    let file = running.dir.path().join("file");
    fs::write(&file, "precious").unwrap();
    assert!(
        Listeners::open(&Settings {
            unix: Some(file.clone()),
            tcp: None
        })
        .is_err()
    );
    assert_eq!(fs::read(&file).unwrap(), b"precious");

    let open = running.dir.path().join("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
    let error = Listeners::open(&Settings {
        unix: Some(open.join("s")),
        tcp: None,
    });
    assert!(format!("{:#}", error.map(drop).unwrap_err()).contains("writable by everybody"));
}

#[tokio::test]
async fn over_tcp_a_token_is_needed_even_on_loopback() {
    let hash = |token: &str| {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.as_bytes());
        TokenHash(digest.as_ref().try_into().unwrap())
    };
    let tcp = |address: &str, token_sha256| Tcp {
        address: address.parse().unwrap(),
        tls: None,
        token_sha256,
    };
    for unproven in [tcp("127.0.0.1:0", None), tcp("0.0.0.0:0", Some(hash("t")))] {
        let settings = Settings {
            unix: None,
            tcp: Some(unproven),
        };
        assert!(Listeners::open(&settings).is_err(), "{settings:?}");
    }
    let running = Running::start(Some(tcp("127.0.0.1:0", Some(hash("tg_right")))));
    for (headers, status) in [
        ("", "401"),
        ("Authorization: Bearer tg_wrong\r\n", "401"),
        ("Authorization: Bearer tg_right\r\n", "200"),
        ("Authorization: Bearer tg_right\r\nOrigin: null\r\n", "403"),
    ] {
        let reply = running.tcp(&get("/v1/status", headers)).await;
        assert!(
            reply.starts_with(&format!("HTTP/1.1 {status} ")),
            "{headers}: {reply}"
        );
    }
}

#[tokio::test]
async fn over_mutual_tls_only_a_client_of_the_authority_is_heard() {
    let dir = tempfile::tempdir().unwrap();
    let issue = |names: Vec<String>, issuer: &CertifiedIssuer<'_, KeyPair>| {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(names)
            .unwrap()
            .signed_by(&key, issuer)
            .unwrap();
        (certificate, key)
    };
    let authority = || {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    };
    let (ours, other) = (authority(), authority());
    let (server, server_key) = issue(vec!["localhost".into()], &ours);
    let file = |name: &str, pem: String| {
        let path = dir.path().join(name);
        fs::write(&path, pem).unwrap();
        path
    };
    let tls = Tls {
        cert: file("cert.pem", server.pem()),
        key: file("key.pem", server_key.serialize_pem()),
        client_ca: file("ca.pem", ours.pem()),
    };
    let address = "127.0.0.1:0".parse().unwrap();
    let running = Running::start(Some(Tcp {
        address,
        tls: Some(tls),
        token_sha256: None,
    }));

    let mut roots = rustls::RootCertStore::empty();
    roots.add(ours.der().clone()).unwrap();
    let call = async |client: Option<(rcgen::Certificate, KeyPair)>| {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots.clone());
        let config = match client {
            None => config.with_no_client_auth(),
            Some((certificate, key)) => {
                let key = rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der());
                config
                    .with_client_auth_cert(vec![certificate.der().clone()], key.into())
                    .unwrap()
            }
        };
        let stream = TcpStream::connect(running.tcp.unwrap()).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let name = "localhost".try_into().unwrap();
        let mut stream = connector.connect(name, stream).await.ok()?;
        stream
            .write_all(get("/v1/status", "").as_bytes())
            .await
            .ok()?;
        let mut reply = Vec::new();
        let _ = stream.read_to_end(&mut reply).await;
        Some(reply).filter(|reply| !reply.is_empty())
    };
    assert!(call(None).await.is_none());
    assert!(call(Some(issue(Vec::new(), &other))).await.is_none());
    let reply = call(Some(issue(Vec::new(), &ours))).await.unwrap();
    assert!(reply.starts_with(b"HTTP/1.1 200 "));
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_ended() {
    let running = Running::start(None);
    let stream = UnixStream::connect(socket(&running.dir)).await.unwrap();
    talk(stream, "GET /v1/status HTT").await;
}

#[tokio::test]
async fn the_command_line_asks_a_running_gateway() {
    use crate::cli::{Cli, Command, limits, status};
    use clap::Parser as _;
    use std::process::ExitCode;
    let running = Running::start(None);
    let path = socket(&running.dir).to_str().unwrap().to_owned();
    let run = async |arguments: &[&str]| {
        let socket = ["--socket", &path];
        let parsed = Cli::try_parse_from([&["tollgate"], arguments, &socket].concat());
        let command = parsed.unwrap().command;
        let run = move || match command {
            Command::Status(args) => status::run(args),
            Command::Limits(args) => limits::run(args),
            other => panic!("{other:?}"),
        };
        format!("{:?}", tokio::task::spawn_blocking(run).await.unwrap())
    };
    let (good, not_ready) = (format!("Ok({:?})", ExitCode::SUCCESS), ExitCode::from(1));
    for arguments in [
        &["status"][..],
        &["status", "--json"],
        &["status", "--view"],
        &["limits", "show"],
        &["limits", "show", "img2img", "--json"],
        &["limits", "top", "3"],
    ] {
        assert_eq!(run(arguments).await, good, "{arguments:?}");
    }
    running.plane.draining.store(true, Relaxed);
    assert_eq!(run(&["status"]).await, format!("Ok({not_ready:?})"));
}
