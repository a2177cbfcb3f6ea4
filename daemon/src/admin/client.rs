//! Asking a running gateway over its Unix socket.

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use proto::admin::Failure;
use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{net::UnixStream, time::timeout};

/// How long a whole exchange may take.
const PATIENCE: Duration = Duration::from_secs(35);
/// Largest reply, bytes.
const REPLY_BYTES: usize = 64 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("no gateway answers at {path}: {cause} (is it running? --socket names another path)")]
    NoGateway {
        /// The socket.
        path: PathBuf,
        /// What connecting said.
        cause: io::Error,
    },
    /// Somebody listens, and it is no gateway or it hangs.
    #[error("{path}: the answer cannot be read: {cause}")]
    NoAnswer {
        /// The socket.
        path: PathBuf,
        /// What went wrong.
        cause: String,
    },
    /// The gateway says no.
    #[error("the gateway refuses ({status}): {error}")]
    Refused {
        /// The HTTP status.
        status: StatusCode,
        /// Its sentence.
        error: String,
    },
}

/// Sends one request without a body and returns the body of a 200.
pub async fn ask(socket: &Path, method: Method, target: &str) -> Result<Bytes, ClientError> {
    send(socket, method, target, Bytes::new()).await
}

/// Sends one request and returns the body of a 200.
pub async fn send(
    socket: &Path,
    method: Method,
    target: &str,
    body: Bytes,
) -> Result<Bytes, ClientError> {
    let stream = UnixStream::connect(socket).await;
    let stream = stream.map_err(|cause| ClientError::NoGateway {
        path: socket.to_owned(),
        cause,
    })?;
    let exchanged = match timeout(PATIENCE, exchange(stream, method, target, body)).await {
        Ok(exchanged) => exchanged.map_err(|error| error.to_string()),
        Err(_elapsed) => Err(format!("nothing within {} s", PATIENCE.as_secs())),
    };
    let (status, body) = exchanged.map_err(|cause| ClientError::NoAnswer {
        path: socket.to_owned(),
        cause,
    })?;
    if status == StatusCode::OK {
        return Ok(body);
    }
    let failure: Option<Failure> = serde_json::from_slice(&body).ok();
    Err(ClientError::Refused {
        status,
        error: failure.map_or_else(|| "no reason given".into(), |failure| failure.error),
    })
}

type Anything = Box<dyn std::error::Error + Send + Sync>;

async fn exchange(
    stream: UnixStream,
    method: Method,
    target: &str,
    body: Bytes,
) -> Result<(StatusCode, Bytes), Anything> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::builder()
        .method(method)
        .uri(target)
        .header(header::HOST, "tollgate")
        .body(Full::new(body))?;
    let exchange = async {
        let reply = sender.send_request(request).await?;
        let status = reply.status();
        let body = Limited::new(reply.into_body(), REPLY_BYTES)
            .collect()
            .await?;
        Ok((status, body.to_bytes()))
    };
    let exchange = std::pin::pin!(exchange);
    match futures_util::future::select(exchange, std::pin::pin!(connection)).await {
        futures_util::future::Either::Left((exchanged, _)) => exchanged,
        // The connection may end before its last bytes are read.
        futures_util::future::Either::Right((_, exchange)) => exchange.await,
    }
}
