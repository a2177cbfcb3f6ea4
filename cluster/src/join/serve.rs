//! The side that lets in.

use super::{Admitted, Answer, Candidate, Desk, PROOF_OF, Question, Refused, Token};
use crate::{
    codec::{self, Class},
    identity::NAME_BYTES_MAX,
    tls::{Authority, PublicKey, Who, sha256},
    transport::{Close, Reader, class, close},
};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use bytes::BytesMut;
use proto::command::{NodeId, Role};
use quinn::{Connection, ConnectionError, StoppedError};
use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::time::{Instant, timeout};

/// How long a stranger may take to ask, and to take its answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Questions that are looked at in a burst, and the time after which one more is.
const BURST: u32 = 16;
const ONE_EVERY: Duration = Duration::from_millis(250);
/// Longest `host:port`.
const ADDRESS_BYTES_MAX: usize = 261;

/// Bounds how many questions are looked at.
#[derive(Debug, Default)]
pub(crate) struct Gate(Mutex<Option<Instant>>);

impl Gate {
    /// Whether one more may be looked at now.
    fn pass(&self, now: Instant) -> bool {
        // The time up to which the gate is used up; it never lies further ahead than a burst.
        let mut used = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let next = used.unwrap_or(now).max(now) + ONE_EVERY;
        if next > now + ONE_EVERY * BURST {
            return false;
        }
        *used = Some(next);
        true
    }
}

/// Answers one stranger.
pub(crate) async fn serve(connection: &Connection, node: NodeId, desk: Option<&Desk>, gate: &Gate) {
    let from = connection.remote_address();
    if let Ok(Err(why)) | Err(why) = timeout(PATIENCE * 4, converse(connection, node, desk, gate))
        .await
        .map_err(|_| "it took too long")
    {
        tracing::info!(%from, why, "a node that wants to join was not answered");
    }
    close(connection, Close::Done);
}

async fn converse(
    connection: &Connection,
    node: NodeId,
    desk: Option<&Desk>,
    gate: &Gate,
) -> Result<(), &'static str> {
    let asked = async {
        let (send, mut receive) = connection.accept_bi().await.ok()?;
        class(&mut receive, &[Class::Join]).await.ok()?;
        let mut reader = Reader::new(receive, Class::Join, None);
        let (frame, _) = reader.next().await.ok()??;
        Some((send, codec::decode::<Question>(&frame).ok()?))
    };
    let asked = timeout(PATIENCE, asked).await.ok().flatten();
    let (mut send, question) = asked.ok_or("it did not ask")?;
    let answer = match desk {
        _ if !gate.pass(Instant::now()) => Answer::Busy,
        None => Answer::Elsewhere(None),
        Some(Desk::Elsewhere(address)) => Answer::Elsewhere(address()),
        Some(Desk::Here {
            authority,
            admit,
            unix_ms,
        }) => match candidate(authority, &question) {
            None => Answer::Malformed,
            Some((candidate, key)) => {
                let (name, role) = (candidate.name.clone(), candidate.role);
                let who = Who {
                    cluster: authority.cluster(),
                    node: candidate.node,
                    role,
                };
                let admitted = admit(candidate).await;
                tracing::info!(name, ?role, from = %connection.remote_address(), ok = admitted.is_ok(), "a node asked to join");
                match admitted {
                    Ok(admitted) => joined(authority, who, &key, unix_ms(), admitted, node),
                    Err(Refused::Member(refusal)) => Answer::Member(refusal),
                    Err(Refused::Unreachable) => Answer::Unreachable,
                }
            }
        },
    };
    let mut buffer = BytesMut::new();
    codec::put(&mut buffer, Class::Join, &answer).map_err(|_| "the answer is too large")?;
    let sent = async {
        send.write_all(&buffer).await.ok()?;
        send.finish().ok()?;
        match send.stopped().await {
            // Who has its answer closes the connection.
            Ok(_) | Err(StoppedError::ConnectionLost(ConnectionError::ApplicationClosed(_))) => {
                Some(())
            }
            Err(_) => None,
        }
    };
    let sent = timeout(PATIENCE, sent).await.ok().flatten();
    sent.ok_or("it did not take its answer")
}

/// Who asks, if the question makes sense and the key is its own.
fn candidate(authority: &Authority, question: &Question) -> Option<(Candidate, PublicKey)> {
    let key = PublicKey::new(&question.key)?;
    let token = Token {
        ca_sha256: sha256(authority.cert()),
        secret: question.secret,
    };
    let hash = token.hash();
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key.bytes())
        .verify(&proof(&hash, key.bytes()), &question.proof)
        .ok()?;
    let name = question.name.len() <= NAME_BYTES_MAX && !question.name.is_empty();
    let address = match question.role {
        Role::Voter => {
            let port = question.address.rsplit_once(':').map(|(_, port)| port);
            question.address.len() <= ADDRESS_BYTES_MAX
                && port.is_some_and(|port| port.parse::<u16>().is_ok())
        }
        Role::Client => question.address.is_empty(),
    };
    let candidate = Candidate {
        token: hash,
        node: id(&hash, key.bytes()),
        name: question.name.clone(),
        address: question.address.clone(),
        role: question.role,
    };
    (name && address).then_some((candidate, key))
}

/// What a candidate signs: that the key is its own, and meant for this.
pub(super) fn proof(token: &[u8; 32], key: &[u8]) -> Vec<u8> {
    [PROOF_OF, token, key].concat()
}

/// The same question has the same id, so an answer that was lost can be given again; nobody else can arrive at it.
fn id(token: &[u8; 32], key: &[u8]) -> NodeId {
    let hash = sha256(&[b"tollgate node".as_slice(), token, key].concat());
    let [a, b, c, d, e, f, g, h, ..] = hash;
    NodeId(u64::from_le_bytes([a, b, c, d, e, f, g, h]).max(1))
}

fn joined(
    authority: &Authority,
    who: Who,
    key: &PublicKey,
    unix_ms: u64,
    admitted: Admitted,
    node: NodeId,
) -> Answer {
    match authority.certify(who, key, unix_ms) {
        Ok(cert) => Answer::Joined {
            cert: cert.to_vec(),
            secret: admitted.secret.0,
            voters: admitted.voters.into_iter().collect(),
            authority: node,
        },
        Err(error) => {
            tracing::error!(%error, "a certificate cannot be signed");
            Answer::Unreachable
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_pass_in_a_burst_and_then_one_by_one() {
        let gate = Gate::default();
        let start = Instant::now();
        let passed = (0..100).filter(|_| gate.pass(start)).count();
        assert_eq!(passed, BURST as usize);
        assert!(!gate.pass(start + ONE_EVERY / 2));
        assert!(gate.pass(start + ONE_EVERY));
        assert!(!gate.pass(start + ONE_EVERY));
        let later = start + Duration::from_secs(3_600);
        assert_eq!(
            (0..100).filter(|_| gate.pass(later)).count(),
            BURST as usize
        );
    }
}
