//! `run` against a server that does everything wrong: every fault has its class, over every transport.

use crate::{
    client::start,
    load::{count, measured, run},
};
use loadtest::{
    result::{Class, Tls},
    upstream::{Chance, Delay, Fault, Options},
};
use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::Arc,
    time::Duration,
};
use tokio_rustls::rustls::{
    self, ServerConfig, ServerConnection, StreamOwned,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};

#[test]
fn every_fault_has_its_class() {
    let server = start(Options::default());
    for (fault, class) in [
        (Fault::Hang, Class::Timeout),
        (Fault::HangMidBody, Class::Timeout),
        (Fault::HangMidStream, Class::Timeout),
        (Fault::Die, Class::Transport),
        (Fault::DieMidBody, Class::Transport),
        (Fault::DieMidStream, Class::Transport),
        (Fault::Reset, Class::Transport),
        (Fault::EndWithoutResponse, Class::WrongBody),
        (Fault::Unauthorized, Class::Rejected),
        (Fault::Redirect, Class::Rejected),
        (Fault::ServerError, Class::ServerError),
        (Fault::Html, Class::WrongBody),
        (Fault::Empty, Class::WrongBody),
        (Fault::Nan, Class::WrongBody),
        (Fault::TwoDocuments, Class::WrongBody),
        (Fault::HalfDocument, Class::WrongBody),
        (Fault::DuplicateResult, Class::WrongBody),
        (Fault::ResultAndError, Class::WrongBody),
        (Fault::Neither, Class::WrongBody),
        (Fault::WrongId, Class::WrongId),
        (Fault::RetypedId, Class::WrongId),
    ] {
        server.fault("tools/call", Some(fault));
        let round = measured(
            &server,
            &["--count", "3", "--workers", "1", "--timeout", "300ms"],
        );
        assert_eq!(count(&round, class), 3, "{fault:?}: {:?}", round.samples);
    }
    server.fault("tools/call", None);
    let round = measured(
        &server,
        &["--count", "3", "--call", "fail", "--workers", "1"],
    );
    assert_eq!(count(&round, Class::ToolError), 3);
    let call = r#"http_status {"status":429}"#;
    let round = measured(&server, &["--count", "3", "--call", call, "--workers", "1"]);
    assert_eq!(count(&round, Class::RateLimited), 3);
}

#[test]
fn what_the_upstream_leaves_to_chance_is_counted_as_it_was_drawn() {
    let server = start(Options {
        chance: Chance {
            error_rate: 0.2,
            reject_rate: 0.1,
            reply_bytes: (100, 200),
            ..Chance::default()
        },
        ..Options::default()
    });
    let round = measured(&server, &["--count", "1000"]);
    let calls = server.recorder().calls();
    use loadtest::upstream::Outcome;
    for (class, outcome, about) in [
        (Class::Ok, Outcome::Done, 700),
        (Class::ToolError, Outcome::Failed, 200),
        (Class::Rejected, Outcome::Rejected, 100),
    ] {
        let drawn = calls.iter().filter(|c| c.outcome == outcome).count() as u64;
        assert_eq!(count(&round, class), drawn, "{class:?}");
        assert!(drawn.abs_diff(about) < 60, "{class:?} {drawn}");
    }
}

#[test]
fn http2_carries_many_requests_on_few_connections() {
    let server = start(Options {
        http2: true,
        chance: Chance {
            delay: Delay::Fixed(Duration::from_millis(5)),
            ..Chance::default()
        },
        ..Options::default()
    });
    let round = measured(
        &server,
        &[
            "--http2",
            "--count",
            "400",
            "--workers",
            "32",
            "--connections",
            "2",
            "--threads",
            "1",
        ],
    );
    assert_eq!(count(&round, Class::Ok), 400, "{:?}", round.samples);
    assert_eq!(round.connects, 2);
    // One after the other they would take two seconds.
    assert!(round.seconds < 1.0, "{}", round.seconds);
}

/// A TLS server that passes plain bytes on; the certificate is for `localhost`.
fn tls_before(plain: std::net::SocketAddr) -> (u16, String) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let config = Arc::new(config);
    let listener = TcpListener::bind("localhost:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let config = config.clone();
            std::thread::spawn(move || pass(stream.unwrap(), config, plain));
        }
    });
    (port, made.cert.pem())
}

/// One request, one reply, again and again: enough for a closed loop.
fn pass(stream: TcpStream, config: Arc<ServerConfig>, plain: std::net::SocketAddr) {
    let mut secure = StreamOwned::new(ServerConnection::new(config).unwrap(), stream);
    let mut inner = TcpStream::connect(plain).unwrap();
    inner.set_nodelay(true).unwrap();
    let mut bytes = vec![0; 64 << 10];
    while let Ok(n @ 1..) = secure.read(&mut bytes) {
        inner.write_all(&bytes[..n]).unwrap();
        let Ok(n @ 1..) = inner.read(&mut bytes) else {
            return;
        };
        if secure.write_all(&bytes[..n]).is_err() {
            return;
        }
    }
}

#[test]
fn certificates_are_believed_when_their_authority_is_named_or_on_demand() {
    let server = start(Options::default());
    let (port, pem) = tls_before(server.addr());
    let url = format!("https://localhost:{port}/mcp");
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, pem).unwrap();
    let arguments = [&url, "--count", "20", "--workers", "2", "--warm-up", "0s"];
    for (more, tls) in [
        (&["--ca", ca.to_str().unwrap()][..], Tls::Verified),
        (&["--insecure"], Tls::Insecure),
    ] {
        let (output, document) = run(&[&arguments[..], more].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        let document = document.unwrap_or_else(|| panic!("{said}"));
        assert_eq!(document.config.tls, tls);
        assert_eq!(count(&document.rounds[0], Class::Ok), 20);
    }
    let (output, document) = run(&arguments);
    assert!(document.is_none());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("--ca FILE"), "{said}");
}
