//! A link that is cut and mended: a relay of datagrams that can be told to drop everything.

use cluster::{
    tls::Authority,
    transport::{Bounds, Event, Incoming, Members, Peer, Settings, Transport},
};
use proto::command::{NodeId, Role};
use raft::eraftpb::{Message, MessageType};
use std::{
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

const MADE_MS: u64 = 1_785_230_400_000;
const PATIENCE: Duration = Duration::from_secs(20);
/// Some tenths of a second, and room for a machine that is busy with other tests.
const SOON: Duration = Duration::from_secs(3);
const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);

/// Hands datagrams on between one asker and one voter, unless it is cut.
struct Relay {
    address: SocketAddr,
    cut: Arc<AtomicBool>,
    over: Arc<AtomicBool>,
}

impl Relay {
    fn to(voter: SocketAddr) -> Self {
        let outside = UdpSocket::bind("127.0.0.1:0").unwrap();
        let inside = UdpSocket::bind("127.0.0.1:0").unwrap();
        inside.connect(voter).unwrap();
        let relay = Self {
            address: outside.local_addr().unwrap(),
            cut: Arc::default(),
            over: Arc::default(),
        };
        let asker = Arc::new(std::sync::Mutex::new(None));
        for (from, to, is_out) in [
            (
                outside.try_clone().unwrap(),
                inside.try_clone().unwrap(),
                true,
            ),
            (inside, outside, false),
        ] {
            from.set_read_timeout(Some(Duration::from_millis(50)))
                .unwrap();
            let (cut, over, asker) = (relay.cut.clone(), relay.over.clone(), asker.clone());
            thread::spawn(move || {
                let mut bytes = [0; 65_536];
                while !over.load(Ordering::Relaxed) {
                    let Ok((length, source)) = from.recv_from(&mut bytes) else {
                        continue;
                    };
                    if cut.load(Ordering::Relaxed) {
                        continue;
                    }
                    let _ = if is_out {
                        *asker.lock().unwrap() = Some(source);
                        to.send(&bytes[..length])
                    } else {
                        let asker = asker.lock().unwrap().unwrap_or(source);
                        to.send_to(&bytes[..length], asker)
                    };
                }
            });
        }
        relay
    }

    fn cut(&self, is_cut: bool) {
        self.cut.store(is_cut, Ordering::Relaxed);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

fn voter(authority: &Authority, node: NodeId) -> (Transport, Incoming, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let (transport, incoming) = Transport::start(Settings {
        credentials: authority.issue(node, Role::Voter, MADE_MS).unwrap(),
        socket: Some(UdpSocket::bind("127.0.0.1:0").unwrap()),
        snapshots: dir.path().to_owned(),
        bounds: Bounds::default(),
    })
    .unwrap();
    (transport, incoming, dir)
}

async fn until(incoming: &mut Incoming, wanted: impl Fn(&Event) -> bool) -> Event {
    let found = async {
        loop {
            let event = incoming.next().await.expect("it goes on");
            if wanted(&event) {
                return event;
            }
        }
    };
    timeout(PATIENCE, found).await.expect("it happens")
}

fn beat(index: u64) -> Message {
    let mut message = Message {
        from: A.0,
        to: B.0,
        index,
        ..Message::default()
    };
    message.set_msg_type(MessageType::MsgHeartbeat);
    message
}

/// How long after the cut was mended B hears A again, which says something every 50 ms.
async fn heard_again_after(cut_for: Duration) -> Duration {
    let authority = Authority::new(7, MADE_MS).unwrap();
    let (a, mut a_in, _dir) = voter(&authority, A);
    let (b, mut b_in, _dir) = voter(&authority, B);
    let relay = Relay::to(b.local_addr().unwrap());
    let peer = Peer {
        address: relay.address.to_string(),
        role: Role::Voter,
    };
    a.set_members(Members {
        nodes: [(B, peer)].into(),
        ..Members::default()
    });
    until(&mut a_in, |event| matches!(event, Event::Connected(B))).await;
    a.send_raft(&beat(0));
    until(&mut b_in, |event| matches!(event, Event::Raft(_))).await;

    relay.cut(true);
    let began = Instant::now();
    let mut index = 0;
    while began.elapsed() < cut_for {
        index += 1;
        a.send_raft(&beat(index));
        sleep(Duration::from_millis(50)).await;
    }
    while b_in.try_next().is_some() {}
    relay.cut(false);
    let mended = Instant::now();
    let talker = a.clone();
    let talk = tokio::spawn(async move {
        loop {
            index += 1;
            talker.send_raft(&beat(index));
            sleep(Duration::from_millis(50)).await;
        }
    });
    until(&mut b_in, |event| matches!(event, Event::Raft(_))).await;
    talk.abort();
    mended.elapsed()
}

#[tokio::test]
async fn after_a_short_cut_the_peer_is_heard_again_soon() {
    let after = heard_again_after(Duration::from_millis(1_000)).await;
    println!("heard again {after:?} after a cut of 1 s");
    assert!(after < SOON, "{after:?}");
}

#[tokio::test]
async fn after_a_long_cut_the_peer_is_connected_anew_soon() {
    let after = heard_again_after(Duration::from_secs(6)).await;
    println!("heard again {after:?} after a cut of 6 s");
    assert!(after < SOON, "{after:?}");
}
