//! Streams that are held open for what the server has to say unasked.

use super::{
    exchange::{Ask, Exchange, Peer, is_stream},
    lane::Live,
};
use crate::{
    plan::call::{Call, Protocol},
    target::Failure,
};
use bytes::Bytes;
use http::Method;
use http_body_util::BodyExt as _;
use proto::scan::sse;
use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

/// Before a stream that ended is opened again.
const AGAIN: Duration = Duration::from_secs(1);
/// Largest event, bytes.
const EVENT_BYTES_MAX: usize = 16 << 20;

/// Holds a stream open for ever, opening it again when it ends.
pub async fn hold(mut peer: Peer, number: usize, live: Arc<Live>) {
    loop {
        // A server that has no such stream is asked again all the same: it may be starting.
        let _ = listen(&mut peer, number, &live).await;
        tokio::time::sleep(AGAIN).await;
    }
}

async fn listen(peer: &mut Peer, number: usize, live: &Live) -> Result<(), Failure> {
    let plan = peer.plan.clone();
    let target = number % plan.endpoints.len().max(1);
    let grant = number % plan.grants.len().max(1);
    let arguments = r#"{"notifications":{"toolsListChanged":true}}"#;
    let Ok(call) = Call::parse(&format!("subscriptions/listen {arguments}")) else {
        return Ok(());
    };
    let mut out = Exchange::begin();
    let ask = Ask {
        // Beyond every id that the lanes use.
        id: (1 << 52) + number as u64,
        call: &call,
        target,
        grant,
        extra: "",
    };
    let request = match plan.protocol {
        Protocol::Modern => {
            let made = {
                let mut rng = peer.rng.borrow_mut();
                call.make(&plan.protocol, ask.id, "", false, &mut rng)
            };
            let headers = peer.headers(target, grant, Some(&call), None);
            peer.request(Method::POST, target, headers, made.body.into())
        }
        Protocol::Legacy(_) => {
            let sessions = peer.sessions.clone();
            let session = sessions.for_call(peer, &ask, &mut out).await?;
            let headers = peer.headers(target, grant, None, session.as_ref());
            peer.request(Method::GET, target, headers, Bytes::new())
        }
    };
    let response = peer.send(target, request, &mut out).await?;
    if !is_stream(&response) {
        return Ok(());
    }
    let mut splitter = sse::Splitter::new(EVENT_BYTES_MAX);
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| Failure::hyper(&e))?;
        if let Ok(data) = frame.into_data() {
            let count = |event: sse::Event| {
                live.listened
                    .fetch_add(u64::from(event.data.is_some()), Relaxed);
            };
            if splitter.push(&data, count).is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}
