//! A request's way, in order, one file a stage:
//!
//! ```text
//! listener → identify → scan → decide → forward → relay → record
//!  bytes      Caller    Message  Admitted   Reply    body    audit+metrics, once, on drop
//! ```

mod batch;
mod body;
mod decide;
mod decode;
mod error;
mod forward;
mod gate;
mod headers;
mod identify;
mod inflight;
mod inspect;
mod judge;
pub mod listener;
mod memory;
mod paced;
mod record;
mod relay;
mod scan;
mod session;
mod stream;

pub use body::Out;
use bytes::Bytes;
use decide::{Admitted, Message};
use error::Answer;
pub use gate::{Asked, Core, Ends, Gate};
use http::{Method, Request, Response};
use hyper::body::Incoming;
use memory::Memory;
use proto::scan::Body;
use record::Recorder;
pub use session::{Session, Sessions};
use std::rc::Rc;

/// What every endpoint's path begins with; the server's name follows.
pub const ENDPOINT: &str = "/mcp/";

/// A request for `/mcp/<server>`, from its head to its reply.
pub async fn handle(
    core: &Rc<Core>,
    ends: Ends,
    memory: &Memory,
    request: Request<Incoming>,
) -> Response<Out> {
    let (mut parts, incoming) = request.into_parts();
    let uri = parts.uri.clone();
    let server = uri.path().strip_prefix(ENDPOINT).unwrap_or_default();
    let mut asked = match identify::identify(&core.gate, ends, memory, server, &mut parts) {
        Ok(asked) => asked,
        Err(answer) => return record::turned_away(&core.gate, ends, &parts, answer),
    };
    match parts.method {
        Method::POST => {
            let read = scan::body(&mut asked, incoming).await;
            let recorder = asked.recorder(&core.gate, "POST").await;
            match read {
                Ok(body) => post(core, asked, body, recorder).await,
                Err(answer) => recorder.answer(answer),
            }
        }
        Method::GET => {
            let mut recorder = asked.recorder(&core.gate, "GET").await;
            match decide::decide_stream(&core.gate, &asked, Method::GET, &mut recorder) {
                Ok(admitted) => forward_and_relay(core, admitted, recorder).await,
                Err(answer) => recorder.answer(answer),
            }
        }
        Method::DELETE => {
            let mut recorder = asked.recorder(&core.gate, "DELETE").await;
            match decide::decide_stream(&core.gate, &asked, Method::DELETE, &mut recorder) {
                Ok(admitted) => Box::pin(forward::end_session(core, admitted, recorder)).await,
                Err(answer) => recorder.answer(answer),
            }
        }
        _ => asked
            .recorder(&core.gate, "other")
            .await
            .answer(Answer::unknown_verb()),
    }
}

/// A whole body: one message, or (2025-03-26 alone) a batch.
async fn post(
    core: &Rc<Core>,
    mut asked: Box<Asked>,
    body: Bytes,
    recorder: Box<Recorder>,
) -> Response<Out> {
    match scan::read(&core.gate, &mut asked, &body) {
        Ok(Body::One(envelope)) => {
            let message = Message::alone(&envelope, body.clone());
            decide_and_forward(core, &asked, message, recorder).await
        }
        Ok(Body::Batch(elements)) => match batch::check(&core.gate, &asked, elements.len()) {
            Ok(()) => Box::pin(batch::run(core.clone(), asked, &body, elements, recorder)).await,
            Err(answer) => recorder.answer(answer),
        },
        Err(answer) => recorder.answer(answer),
    }
}

/// One message.
async fn decide_and_forward(
    core: &Core,
    asked: &Asked,
    message: Message<'_>,
    mut recorder: Box<Recorder>,
) -> Response<Out> {
    match decide::decide(&core.gate, asked, message, &mut recorder).await {
        Ok(admitted) => forward_and_relay(core, admitted, recorder).await,
        Err(answer) => recorder.answer(answer),
    }
}

/// Only what was admitted can be forwarded; what rides with the reply settles and records at its end.
async fn forward_and_relay(
    core: &Core,
    admitted: Box<Admitted>,
    recorder: Box<Recorder>,
) -> Response<Out> {
    match forward::forward(core, admitted, recorder).await {
        Ok((reply, ride)) => relay::relay(reply, ride).await,
        Err((answer, recorder)) => recorder.answer(answer),
    }
}
