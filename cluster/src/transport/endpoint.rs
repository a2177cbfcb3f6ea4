//! The socket and QUIC's settings.

use crate::{
    codec::{Class, VERSION},
    tls::{self, Alpn, Credentials},
};
use aws_lc_rs::hmac;
use quinn::{
    ClientConfig, Endpoint, EndpointConfig, ServerConfig, TokioRuntime, TransportConfig, VarInt,
};
use quinn_proto::HashedConnectionIdGenerator;
use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, UdpSocket},
    sync::Arc,
    time::Duration,
};

/// A peer that says nothing for this long is gone. Raft's own timers are shorter; this one is for who asks and waits.
const IDLE: Duration = Duration::from_millis(2_500);
/// Who connected says something at least this often.
const KEEP_ALIVE: Duration = Duration::from_millis(700);
/// Before a round trip was measured: nodes are near each other, so a lost first packet is repeated soon.
const FIRST_RTT: Duration = Duration::from_millis(50);
/// Bytes of one stream that may be on the way or unread.
const STREAM_WINDOW: u32 = 4 << 20;
/// The same for what an asker sends on all its streams.
const ASKER_WINDOW: u32 = 1 << 20;
/// The same for a voter.
pub(super) const VOTER_WINDOW: u32 = 16 << 20;
/// Bytes that were sent and not acknowledged on one connection.
const SEND_WINDOW: u64 = 16 << 20;
/// Streams that the one who connected may have open: beats, appends, a snapshot and the one that replaces it.
const UNI_MAX: u32 = 4;
/// Requests.
const BIDI_MAX: u32 = 1;
/// Connections that have not been looked at yet.
const INCOMING_MAX: usize = 256;

/// Why a connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Close {
    /// The node stops.
    Stopped,
    /// The other is not a member, or may not do what it did.
    Forbidden,
    /// It said something that makes no sense.
    Nonsense,
    /// The same node has connected anew.
    Replaced,
    /// It does not read its answers.
    Slow,
    /// The connection has done its work.
    Done,
}

impl Close {
    pub(super) fn code(self) -> VarInt {
        VarInt::from_u32(match self {
            Close::Stopped => 0,
            Close::Forbidden => 1,
            Close::Nonsense => 2,
            Close::Replaced => 3,
            Close::Slow => 4,
            Close::Done => 5,
        })
    }
    pub(super) fn why(self) -> &'static [u8] {
        match self {
            Close::Stopped => b"stopped",
            Close::Forbidden => b"forbidden",
            Close::Nonsense => b"nonsense",
            Close::Replaced => b"replaced",
            Close::Slow => b"slow",
            Close::Done => b"done",
        }
    }
}

/// Closes for this reason.
pub(crate) fn close(connection: &quinn::Connection, why: Close) {
    connection.close(why.code(), why.why());
}

/// What opens a stream.
pub(crate) const fn preamble(class: Class) -> [u8; 2] {
    [VERSION, class.byte()]
}

fn transport(keep_alive: bool) -> Arc<TransportConfig> {
    let mut config = TransportConfig::default();
    config
        .max_concurrent_uni_streams(UNI_MAX.into())
        .max_concurrent_bidi_streams(BIDI_MAX.into())
        .stream_receive_window(STREAM_WINDOW.into())
        .receive_window(
            if keep_alive {
                VOTER_WINDOW
            } else {
                ASKER_WINDOW
            }
            .into(),
        )
        .send_window(SEND_WINDOW)
        .initial_rtt(FIRST_RTT)
        .max_idle_timeout(IDLE.try_into().ok())
        .datagram_receive_buffer_size(None);
    if keep_alive {
        // Who is connected to opens no streams.
        config
            .keep_alive_interval(Some(KEEP_ALIVE))
            .max_concurrent_uni_streams(VarInt::from_u32(0))
            .max_concurrent_bidi_streams(VarInt::from_u32(0));
    }
    Arc::new(config)
}

/// To connect to voters.
pub(super) fn client(credentials: &Credentials) -> io::Result<ClientConfig> {
    let crypto = tls::client(credentials).map_err(io::Error::other)?;
    let mut config = ClientConfig::new(Arc::new(crypto));
    config.transport_config(transport(true));
    Ok(config)
}

/// To connect in order to join.
pub(crate) fn joining(ca_sha256: [u8; 32]) -> io::Result<ClientConfig> {
    let crypto = tls::joining(ca_sha256).map_err(io::Error::other)?;
    let mut config = ClientConfig::new(Arc::new(crypto));
    config.transport_config(transport(true));
    Ok(config)
}

/// An endpoint on a socket; without one it only asks.
pub(super) fn open(credentials: &Credentials, socket: Option<UdpSocket>) -> io::Result<Endpoint> {
    let listens = socket.is_some();
    let mut endpoint = match socket {
        None => asking()?,
        Some(socket) => {
            let crypto = tls::server(credentials).map_err(io::Error::other)?;
            let mut config = ServerConfig::with_crypto(Arc::new(crypto));
            config
                .transport_config(transport(false))
                .migration(false)
                .max_incoming(INCOMING_MAX);
            Endpoint::new(
                known_again(credentials),
                Some(config),
                socket,
                Arc::new(TokioRuntime),
            )?
        }
    };
    debug_assert!(listens || endpoint.local_addr().is_ok());
    endpoint.set_default_client_config(client(credentials)?);
    Ok(endpoint)
}

/// A node that died and is back on its port knows packets of the connections that died with it, and resets those (RFC 9000,
/// section 10.3): what others still send on them would be lost until they time out, votes among it. So the keys of resets
/// and connection ids are not random, they follow from the node's private key.
fn known_again(credentials: &Credentials) -> EndpointConfig {
    let secret = hmac::Key::new(hmac::HMAC_SHA256, credentials.key.secret_pkcs8_der());
    let derive = |label: &[u8]| hmac::sign(&secret, label);
    let resets = derive(b"tollgate quic stateless reset");
    let ids = derive(b"tollgate quic connection ids");
    let mut id_key = [0; 8];
    id_key.copy_from_slice(&ids.as_ref()[..8]);
    let mut config =
        EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, resets.as_ref())));
    config.cid_generator(move || {
        Box::new(HashedConnectionIdGenerator::from_key(u64::from_le_bytes(
            id_key,
        )))
    });
    config
}

/// An endpoint on any port, which nobody is heard on.
pub(crate) fn asking() -> io::Result<Endpoint> {
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))
        .or_else(|_| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))?;
    Endpoint::new(
        EndpointConfig::default(),
        None,
        socket,
        Arc::new(TokioRuntime),
    )
}

/// Which of the two kinds a new connection is; `None`: neither.
pub(super) fn kind(connection: &quinn::Connection) -> Option<Alpn> {
    Alpn::of(connection)
}
