//! TLS listeners: certificates that are replaced while it runs, client certificates, TLS upstreams.

use crate::harness::*;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
};
use serde_json::json;
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    sync::Arc,
};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn issue(authority: &Authority) -> (rcgen::Certificate, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".into()]).unwrap();
    (params.signed_by(&key, authority).unwrap(), key)
}

fn write(dir: &Path, authority: &Authority) {
    let (certificate, key) = issue(authority);
    std::fs::write(dir.join("key.pem"), key.serialize_pem()).unwrap();
    std::fs::write(dir.join("cert.pem"), certificate.pem()).unwrap();
}

fn connect(
    gate: &Gate,
    trusted: &Authority,
    client: Option<&Authority>,
) -> Option<BufReader<StreamOwned<ClientConnection, TcpStream>>> {
    connect_with(gate, trusted, client, &[])
}

fn connect_with(
    gate: &Gate,
    trusted: &Authority,
    client: Option<&Authority>,
    alpn: &[&[u8]],
) -> Option<BufReader<StreamOwned<ClientConnection, TcpStream>>> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from(trusted.der().to_vec()))
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = builder.with_root_certificates(roots);
    let mut config = match client {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let (certificate, key) = issue(authority);
            let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
            builder
                .with_client_auth_cert(vec![certificate.der().clone()], key)
                .unwrap()
        }
    };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let name = ServerName::try_from("localhost").unwrap();
    let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = open(gate.address);
    connection.complete_io(&mut stream).ok()?;
    Some(BufReader::new(StreamOwned::new(connection, stream)))
}

fn ask(
    gate: &Gate,
    token: &Token,
    stream: Option<BufReader<StreamOwned<ClientConnection, TcpStream>>>,
) -> Option<Reply> {
    let mut stream = stream?;
    let client = gate.client("s", token);
    let body =
        Client::modern_body("tools/call", json!({ "name": "echo", "arguments": {} })).to_string();
    let headers = [
        ("MCP-Protocol-Version", "2026-07-28"),
        ("Mcp-Method", "tools/call"),
        ("Mcp-Name", "echo"),
    ];
    stream
        .get_mut()
        .write_all(&client.bytes("POST", &headers, body.as_bytes()))
        .ok()?;
    read_reply(&mut stream)
}

fn config(upstream: &str, dir: &Path, token: &Token, tls: &str) -> String {
    let policy = inline(
        "p",
        &json!({ "version": "1", "default": "allow", "tools": {} }),
    );
    let dir = dir.display();
    format!(
        "listeners:\n  - address: 127.0.0.1:0\n    tls: {{ cert: {dir}/cert.pem, key: {dir}/key.pem{tls} }}\n\
         reload_interval: 100ms\nservers:\n  s: {{ url: \"{upstream}\" }}\n{}",
        sections(&policy, &[("g", token, "p")])
    )
}

#[test]
fn a_replaced_certificate_is_shown_to_the_next_connection_and_a_broken_one_is_not() {
    let (upstream, token, dir) = (upstream(), new_token(), tempfile::tempdir().unwrap());
    let (first, second) = (authority("first"), authority("second"));
    write(dir.path(), &first);
    let gate = Gate::start(&config(&upstream.url(), dir.path(), &token, ""));
    assert_eq!(
        ask(&gate, &token, connect(&gate, &first, None))
            .unwrap()
            .status,
        200
    );
    assert!(connect(&gate, &second, None).is_none());
    write(dir.path(), &second);
    eventually("the new certificate is shown", || {
        connect(&gate, &second, None).is_some()
    });
    std::fs::write(dir.path().join("cert.pem"), "not a certificate").unwrap();
    eventually("the log says so", || gate.log().contains("cert.pem"));
    assert_eq!(
        ask(&gate, &token, connect(&gate, &second, None))
            .unwrap()
            .status,
        200
    );
    // A plain request to a TLS port ends the connection, and one line says so.
    let mut plain = open(gate.address);
    plain
        .write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .unwrap();
    eventually("the protocol error is logged", || {
        gate.log().contains("protocol error")
    });
}

#[test]
fn a_listener_with_client_ca_lets_in_only_its_own_certificates() {
    let (upstream, token, dir) = (upstream(), new_token(), tempfile::tempdir().unwrap());
    let (server, clients, strangers) = (
        authority("server"),
        authority("clients"),
        authority("strangers"),
    );
    write(dir.path(), &server);
    std::fs::write(dir.path().join("clients.pem"), clients.pem()).unwrap();
    let tls = format!(", client_ca: {}/clients.pem", dir.path().display());
    let gate = Gate::start(&config(&upstream.url(), dir.path(), &token, &tls));
    let with = |client: Option<&Authority>| {
        ask(&gate, &token, connect(&gate, &server, client)).map(|reply| reply.status)
    };
    assert_eq!(with(Some(&clients)), Some(200));
    assert_eq!(with(Some(&strangers)), None);
    assert_eq!(with(None), None);
}

#[test]
fn a_tls_upstream_is_trusted_by_its_ca_file_alone() {
    let (token, dir) = (new_token(), tempfile::tempdir().unwrap());
    let (trusted, other) = (authority("trusted"), authority("other"));
    write(dir.path(), &trusted);
    // A gateway is the TLS server here: the second one stands before the first.
    let recording = upstream();
    let inner = Gate::start(&config(&recording.url(), dir.path(), &token, ""));
    let policy = inline(
        "p",
        &json!({ "version": "1", "default": "allow", "tools": {} }),
    );
    for (ca, status) in [(&trusted, 200), (&other, 502)] {
        let file = dir.path().join("ca.pem");
        std::fs::write(&file, ca.pem()).unwrap();
        std::fs::write(dir.path().join("auth"), format!("Bearer {}", token.text)).unwrap();
        let outer = Gate::start(&format!(
            "servers:\n  s:\n    url: https://localhost:{}/mcp/s\n    ca_file: {}\n    headers: {{ Authorization: {{ file: {}/auth }} }}\n{}",
            inner.address.port(),
            file.display(),
            dir.path().display(),
            sections(&policy, &[("g", &token, "p")])
        ));
        let reply = outer.client("s", &token).call("echo", json!({}));
        assert_eq!(reply.status, status, "{}", reply.text());
        assert!(!outer.log().contains(&token.text));
    }
    assert_eq!(recording.recorder().count("echo"), 1);
}

/// An HTTP/2 frame (RFC 9113 §4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A client's first bytes: its settings, and a request on stream 1.
fn first(settings: &[u8], headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in headers {
        // A literal without indexing, its name spelled out (RFC 7541 §6.2.2).
        block.push(0);
        for text in [name, value] {
            assert!(text.len() < 127);
            block.push(text.len() as u8);
            block.extend(text.as_bytes());
        }
    }
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        frame(4, 0, 0, settings),
        frame(1, 4, 1, &block),
        frame(0, 1, 1, body),
    ]
    .concat()
}

/// The same from a client that lets no byte of any body through.
fn without_window(headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let initial_window = [0, 4, 0, 0, 0, 0];
    first(&initial_window, headers, body)
}

#[test]
fn an_http2_connection_stays_open_between_requests_whatever_frames_come() {
    let (upstream, token, dir) = (upstream(), new_token(), tempfile::tempdir().unwrap());
    let authority = authority("server");
    write(dir.path(), &authority);
    let bounds = "bounds: { header_timeout: 500ms, idle_timeout: 10m }\n";
    let gate = Gate::start(&format!(
        "{}{bounds}",
        config(&upstream.url(), dir.path(), &token, "")
    ));
    let mut stream = connect_with(&gate, &authority, None, &[b"h2"]).unwrap();
    let head = [
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", "localhost"),
        (":path", "/healthz"),
    ];
    stream.get_mut().write_all(&first(&[], &head, b"")).unwrap();
    let acknowledged = |number: u8| frame(6, 1, 0, &[number; 8]);
    for number in 1..=4 {
        std::thread::sleep(std::time::Duration::from_millis(400));
        let ping = frame(6, 0, 0, &[number; 8]);
        stream.get_mut().write_all(&ping).unwrap();
    }
    let mut read = Vec::new();
    while !read.windows(17).any(|part| part == acknowledged(4)) {
        let more = stream.fill_buf().expect("the connection stands").to_vec();
        assert!(!more.is_empty(), "the connection was closed: {read:?}");
        stream.consume(more.len());
        read.extend(more);
    }
}

#[test]
fn an_http2_client_that_takes_no_byte_of_its_replies_holds_nothing_past_the_deadlines() {
    let (upstream, token, dir) = (upstream(), new_token(), tempfile::tempdir().unwrap());
    let authority = authority("server");
    write(dir.path(), &authority);
    let bounds = "bounds: { upstream_timeout: 1s, idle_timeout: 1s }\n";
    let gate = Gate::start(&format!(
        "{}{bounds}",
        config(&upstream.url(), dir.path(), &token, "")
    ));
    let send = |headers: &[(&str, &str)], body: &[u8]| {
        let mut stream = connect_with(&gate, &authority, None, &[b"h2"]).unwrap();
        stream
            .get_mut()
            .write_all(&without_window(headers, body))
            .unwrap();
        stream
    };
    let bearer = format!("Bearer {}", token.text);
    let head = |method: &'static str, path: &'static str| {
        vec![
            (":method", method),
            (":scheme", "https"),
            (":authority", "localhost"),
            (":path", path),
        ]
    };
    for tool in ["echo", "progress"] {
        let mut call = head("POST", "/mcp/s");
        call.extend([
            ("authorization", bearer.as_str()),
            ("accept", "application/json, text/event-stream"),
            ("content-type", "application/json"),
            ("mcp-protocol-version", "2026-07-28"),
            ("mcp-method", "tools/call"),
            ("mcp-name", tool),
        ]);
        let body = Client::modern_body("tools/call", json!({ "name": tool, "arguments": {} }));
        let mut stream = send(&call, body.to_string().as_bytes());
        let line = gate.audit(1, |line| line["tool"] == tool).pop().unwrap();
        assert_eq!(line["status"], 200, "{line}");
        drop(stream.get_mut().sock.shutdown(std::net::Shutdown::Both));
    }
    let mut stream = send(&head("GET", "/healthz"), b"");
    let (mut rest, began) = (Vec::new(), std::time::Instant::now());
    let _ = stream.read_to_end(&mut rest);
    assert!(began.elapsed() < PATIENCE / 2, "the connection stands");
    assert!(
        !rest.windows(3).any(|part| part == b"ok\n"),
        "the window was not respected"
    );
}
