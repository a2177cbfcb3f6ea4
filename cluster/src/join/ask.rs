//! The side that wants in.

use super::{Answer, JoinError, Joined, Question, Refused, Token, Wish, serve::proof};
use crate::{
    codec::{self, Class},
    tls::{Credentials, Who, sha256},
    transport::{Close, Reader, asking, close, joining, preamble, resolve},
};
use bytes::BytesMut;
use proto::limit::HashKey;
use quinn::Endpoint;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData, SigningKey};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use std::{collections::VecDeque, io, time::Duration};
use tokio::time::{sleep, timeout};

/// How long one address may take: longer than the ledger behind it.
const ATTEMPT: Duration = Duration::from_secs(15);
/// Rounds over all addresses, and the pause between them.
const ROUNDS: usize = 20;
const PAUSE: Duration = Duration::from_secs(1);
/// Most addresses in one round: those given and those that are pointed to.
const ADDRESSES_MAX: usize = 32;
/// What TLS is asked for: the certificate's name is not looked at.
const ANY_NODE: &str = "any.tollgate.internal";

/// Joins: asks each address in turn, follows to the node that has the CA's key, and asks again while that may help, for
/// about half a minute.
pub async fn join(addresses: &[String], token: &Token, wish: &Wish) -> Result<Joined, JoinError> {
    let attempt = Attempt::new(token, wish)?;
    let mut last = JoinError::NoAddress;
    for round in 0..ROUNDS {
        if round > 0 {
            sleep(PAUSE).await;
        }
        let mut left: VecDeque<_> = addresses.iter().cloned().collect();
        let mut asked: Vec<String> = Vec::new();
        while let Some(address) = left.pop_front() {
            if asked.contains(&address) || asked.len() == ADDRESSES_MAX {
                continue;
            }
            asked.push(address.clone());
            last = match timeout(ATTEMPT, attempt.ask(&address)).await {
                Err(_) => unreachable(&address, "no answer"),
                Ok(Err(error)) => unreachable(&address, error),
                Ok(Ok((Answer::Elsewhere(next), _))) => {
                    left.extend(next);
                    JoinError::NoAuthority(address)
                }
                Ok(Ok((Answer::Busy | Answer::Unreachable, _))) => {
                    JoinError::Refused(Refused::Unreachable)
                }
                Ok(Ok((Answer::Member(refusal), _))) => {
                    return Err(JoinError::Refused(refusal.into()));
                }
                Ok(Ok((Answer::Malformed, _))) => return Err(JoinError::Malformed),
                Ok(Ok((answer @ Answer::Joined { .. }, ca))) => {
                    // The end of the connection goes out before the program may end.
                    let _ = timeout(PAUSE, attempt.endpoint.wait_idle()).await;
                    return attempt.joined(answer, ca);
                }
            };
        }
    }
    Err(last)
}

fn unreachable(address: &str, problem: impl ToString) -> JoinError {
    JoinError::Unreachable {
        address: address.to_owned(),
        problem: problem.to_string(),
    }
}

/// One wish with one key, asked as often as needed: the same node whoever answers.
struct Attempt {
    endpoint: Endpoint,
    key: KeyPair,
    ca_sha256: [u8; 32],
    question: BytesMut,
    wish: Wish,
}

impl Attempt {
    fn new(token: &Token, wish: &Wish) -> Result<Self, JoinError> {
        let local = |error: &dyn std::fmt::Display| JoinError::Local(error.to_string());
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|e| local(&e))?;
        let signed = proof(&token.hash(), key.der_bytes());
        let question = Question {
            secret: token.secret,
            key: key.der_bytes().to_vec(),
            proof: key.sign(&signed).map_err(|e| local(&e))?,
            name: wish.name.clone(),
            address: wish.address.clone(),
            role: wish.role,
        };
        let mut buffer = BytesMut::from(&preamble(Class::Join)[..]);
        codec::put(&mut buffer, Class::Join, &question).map_err(|_| JoinError::Malformed)?;
        let mut endpoint = asking().map_err(|e| local(&e))?;
        endpoint.set_default_client_config(joining(token.ca_sha256).map_err(|e| local(&e))?);
        Ok(Self {
            endpoint,
            key,
            ca_sha256: token.ca_sha256,
            question: buffer,
            wish: wish.clone(),
        })
    }

    /// The answer, and the CA's certificate that came with it.
    async fn ask(&self, address: &str) -> io::Result<(Answer, CertificateDer<'static>)> {
        let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what);
        let to = resolve(address, self.endpoint.local_addr()?).await?[0];
        let connecting = self.endpoint.connect(to, ANY_NODE);
        let connection = connecting.map_err(io::Error::other)?.await?;
        let (mut send, receive) = connection.open_bi().await?;
        send.write_all(&self.question).await?;
        let _ = send.finish();
        let mut reader = Reader::new(receive, Class::Join, None);
        let Ok(Some((frame, _))) = reader.next().await else {
            return Err(match connection.close_reason() {
                Some(why) => why.into(),
                None => invalid("no answer"),
            });
        };
        let answer = codec::decode(&frame).map_err(io::Error::other)?;
        let chain = connection.peer_identity();
        let chain = chain.and_then(|c| c.downcast::<Vec<CertificateDer<'static>>>().ok());
        let ca = chain.into_iter().flat_map(|chain| chain.into_iter());
        let ca = { ca }.find(|cert| sha256(cert) == self.ca_sha256);
        close(&connection, Close::Done);
        Ok((answer, ca.ok_or_else(|| invalid("no CA"))?))
    }

    fn joined(&self, answer: Answer, ca: CertificateDer<'static>) -> Result<Joined, JoinError> {
        let Answer::Joined {
            cert,
            secret,
            voters,
            authority,
        } = answer
        else {
            return Err(JoinError::Malformed);
        };
        let cert = CertificateDer::from(cert);
        let key = PrivatePkcs8KeyDer::from(self.key.serialize_der());
        let who = Who::of(&cert).map_err(|error| JoinError::Answer(error.to_string()))?;
        if who.role != self.wish.role {
            return Err(JoinError::Answer(
                "the certificate is for another role".into(),
            ));
        }
        let credentials = Credentials { who, ca, cert, key };
        (credentials.check()).map_err(|error| JoinError::Answer(error.to_string()))?;
        Ok(Joined {
            credentials,
            secret: HashKey(secret),
            voters: voters.into_iter().collect(),
            authority,
        })
    }
}
