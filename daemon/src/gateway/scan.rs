//! Stage 2: the body, read once, bounded in size and time, and strictly.

use super::{Asked, Gate, error::Answer, headers};
use crate::{bounds::Bounds, clock, metrics::Stage};
use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use proto::scan::{Body, From};
use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
};

/// Checks the headers of a POST and reads its whole body. What a body asks for that took its time is asked now.
pub async fn body(asked: &mut Asked, incoming: Incoming) -> Result<Bytes, Answer> {
    headers::check(&asked.headers)?;
    headers::check_media(&asked.headers)?;
    let (body, waited) = whole(incoming, &asked.view.bounds).await?;
    if waited {
        asked.at(clock::now());
    }
    Ok(body)
}

/// Reads a body strictly; what comes out borrows from it.
pub fn read<'b>(gate: &Gate, asked: &mut Asked, body: &'b Bytes) -> Result<Body<'b>, Answer> {
    let read = proto::scan::read(body, &asked.view.bounds.scan(), From::Client);
    let (began_ns, read_ns) = (asked.read_ns, clock::boot_ns());
    asked.read_ns = read_ns;
    gate.metrics
        .stage(Stage::Scan, read_ns.saturating_sub(began_ns));
    read.map_err(|refusal| {
        gate.metrics.refused(refusal.reason.label());
        let id = refusal.id.and_then(|span| body.get(span.start..span.end));
        Answer::unreadable(&refusal, id)
    })
}

/// The whole body; says whether it had to be waited for.
async fn whole(mut incoming: Incoming, bounds: &Bounds) -> Result<(Bytes, bool), Answer> {
    let announced = incoming.size_hint().lower();
    if announced > bounds.body_bytes as u64 {
        return Err(too_large(bounds));
    }
    let mut reading = pin!(collect(&mut incoming, announced as usize, bounds));
    // A short body came with its head: no timer is set for it.
    if let Poll::Ready(read) = poll_fn(|cx| Poll::Ready(reading.as_mut().poll(cx))).await {
        return Ok((read?, false));
    }
    match tokio::time::timeout(bounds.body_timeout, reading).await {
        Ok(read) => Ok((read?, true)),
        Err(_) => {
            let message = "The body did not arrive in time";
            Err(Answer::refuse(
                StatusCode::REQUEST_TIMEOUT,
                None,
                -32600,
                "body_timeout",
                message,
            )
            .closing())
        }
    }
}

async fn collect(
    incoming: &mut Incoming,
    announced: usize,
    bounds: &Bounds,
) -> Result<Bytes, Answer> {
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(frame) = incoming.frame().await {
        let frame = frame.map_err(|_| {
            let message = "The body broke off";
            Answer::refuse(StatusCode::BAD_REQUEST, None, -32600, "body_cut", message).closing()
        })?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if first.len() + rest.len() + data.len() > bounds.body_bytes {
            return Err(too_large(bounds));
        }
        if first.is_empty() && rest.is_empty() {
            first = data;
        } else {
            if rest.is_empty() {
                // Room for what is announced, but never for much more than came.
                let came = 16 * (first.len() + data.len());
                rest.reserve(announced.min(came).max(first.len() + data.len()));
                rest.extend_from_slice(&first);
                first.clear();
            }
            rest.extend_from_slice(&data);
        }
    }
    Ok(if rest.is_empty() {
        first
    } else {
        rest.freeze()
    })
}

fn too_large(bounds: &Bounds) -> Answer {
    let message = format!(
        "The body is over {} bytes (bounds.body_bytes)",
        bounds.body_bytes
    );
    let status = StatusCode::PAYLOAD_TOO_LARGE;
    Answer::refuse(status, None, -32600, "body_bytes", &message).closing()
}
