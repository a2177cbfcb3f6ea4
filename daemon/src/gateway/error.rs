//! What the gateway says itself: refusals, denials and failures, each with its status, its words and whose fault it is.

use super::body::Out;
use crate::upstream;
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use proto::{
    id::RequestId,
    mcp::{self, Era},
    policy::{Code, Denial},
    scan::Refusal,
};

/// JSON-RPC code of the gateway's own denials of methods; outside the range that MCP keeps for itself (-32020…-32099).
pub const RPC_DENIED: i64 = -32010;
/// JSON-RPC code where a session is missing, gone, or a bound of the gateway is reached.
pub const RPC_GATEWAY: i64 = -32000;

/// An answer that no upstream gave.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: StatusCode,
    /// JSON body; empty for none.
    pub body: Bytes,
    /// `Retry-After`, seconds.
    pub retry_after_s: Option<u64>,
    /// `Allow`.
    pub allow: Option<&'static str>,
    /// `WWW-Authenticate`.
    pub authenticate: Option<&'static str>,
    /// The connection ends after this answer (the request's body was not read).
    pub close: bool,
    /// For the record: `deny`, `refuse`, `error` or `allow`.
    pub decision: &'static str,
    /// For the record and metrics: why.
    pub code: &'static str,
    /// The rule that denied.
    pub rule: Option<String>,
    /// Whose fault: `downstream`, `upstream` or `internal`.
    pub side: &'static str,
}

impl Answer {
    fn new(
        status: StatusCode,
        body: Vec<u8>,
        decision: &'static str,
        code: &'static str,
        side: &'static str,
    ) -> Self {
        Self {
            status,
            body: body.into(),
            retry_after_s: None,
            allow: None,
            authenticate: None,
            close: false,
            decision,
            code,
            rule: None,
            side,
        }
    }

    /// A client's mistake, with a JSON-RPC error as its body.
    pub fn refuse(
        status: StatusCode,
        id: Option<&[u8]>,
        code: i64,
        label: &'static str,
        message: &str,
    ) -> Self {
        Self::new(
            status,
            mcp::error(id, code, message, None),
            "refuse",
            label,
            "downstream",
        )
    }

    /// A verb that the endpoint does not know.
    pub fn unknown_verb() -> Self {
        let message = "This endpoint knows POST, GET and DELETE";
        let status = StatusCode::METHOD_NOT_ALLOWED;
        let refused = Self::refuse(status, None, RPC_GATEWAY, "method", message);
        Self {
            allow: Some("POST, GET, DELETE"),
            ..refused
        }
        .closing()
    }

    /// A failure that is not the client's.
    pub fn fail(
        status: StatusCode,
        id: Option<&[u8]>,
        label: &'static str,
        side: &'static str,
        message: &str,
    ) -> Self {
        Self::new(
            status,
            mcp::error(id, -32603, message, None),
            "error",
            label,
            side,
        )
    }

    /// An empty answer with this status.
    pub fn empty(status: StatusCode, code: &'static str) -> Self {
        Self::new(status, Vec::new(), "allow", code, "downstream")
    }

    /// Bytes that the scanner refused.
    pub fn unreadable(refusal: &Refusal, id: Option<&[u8]>) -> Self {
        let message = format!("{} (at byte {})", refusal.reason.text(), refusal.at);
        Self::refuse(
            StatusCode::BAD_REQUEST,
            id,
            refusal.reason.code(),
            refusal.reason.label(),
            &message,
        )
    }

    /// A message that is not what its era allows.
    pub fn violation(violation: &mcp::Violation, id: Option<&[u8]>) -> Self {
        let status = StatusCode::from_u16(violation.status).unwrap_or(StatusCode::BAD_REQUEST);
        let body = mcp::error(
            id,
            violation.code,
            &violation.message,
            violation.data.as_deref(),
        );
        Self::new(status, body, "refuse", violation.label, "downstream")
    }

    /// A method that the closed table does not hold (see the policies page of the book).
    pub fn unknown_method(id: Option<&[u8]>, era: Era, method: &str) -> Self {
        let shown: String = method.chars().take(64).collect();
        let status = match (id, era) {
            (None, _) => StatusCode::BAD_REQUEST,
            (Some(_), Era::Modern) => StatusCode::NOT_FOUND,
            (Some(_), Era::Legacy) => StatusCode::OK,
        };
        let message = format!("Method not found: {shown}");
        Self::refuse(status, id, -32601, "unknown_method", &message)
    }

    /// A denied tool call: a tool result that the agent can reason about, HTTP 200.
    pub fn denied_call(
        denial: &Denial<'_>,
        id: &[u8],
        era: Era,
        request: RequestId,
        hide_detail: bool,
    ) -> Self {
        let body = denial.to_message(id, era, request, hide_detail);
        Self {
            retry_after_s: denial.retry_after_ms.map(|ms| ms.div_ceil(1000).max(1)),
            rule: Some(denial.rule.to_string()),
            ..Self::new(
                StatusCode::OK,
                body,
                "deny",
                denial.code.as_str(),
                "downstream",
            )
        }
    }

    /// A denied method other than `tools/call`: a JSON-RPC error.
    pub fn denied_method(denial: &Denial<'_>, id: Option<&[u8]>, request: RequestId) -> Self {
        let data = format!(
            r#"{{"code":"{}","requestId":"{request}"}}"#,
            denial.code.as_str()
        );
        let message = format!("[POLICY DENIED] {}", denial.message);
        let status = if id.is_some() {
            StatusCode::OK
        } else {
            StatusCode::FORBIDDEN
        };
        Self {
            rule: Some(denial.rule.to_string()),
            ..Self::new(
                status,
                mcp::error(id, RPC_DENIED, &message, Some(&data)),
                "deny",
                denial.code.as_str(),
                "downstream",
            )
        }
    }

    /// A bound of the gateway is reached.
    pub fn overloaded(
        status: StatusCode,
        id: Option<&[u8]>,
        label: &'static str,
        retry_s: u64,
        message: &str,
    ) -> Self {
        Self {
            retry_after_s: Some(retry_s),
            ..Self::new(
                status,
                mcp::error(id, RPC_GATEWAY, message, None),
                "refuse",
                label,
                "downstream",
            )
        }
    }

    /// A `tools/call` that is turned away by a bound or by the audit: still a tool result.
    pub fn turned_away(code: Code, message: &str, id: &[u8], era: Era, request: RequestId) -> Self {
        let denial = Denial {
            code,
            rule: "(gateway)".into(),
            message: message.into(),
            retry_after_ms: Some(1000),
            max: None,
            remaining: None,
        };
        Self {
            side: "internal",
            ..Self::denied_call(&denial, id, era, request, false)
        }
    }

    /// An upstream failed before it answered.
    pub fn upstream(error: &upstream::Error, id: Option<&[u8]>) -> Self {
        use upstream::ErrorKind::{Connect, Overloaded, Protocol, Redirect, SessionGone, Timeout};
        let (status, message) = match error.kind {
            Connect => (
                StatusCode::BAD_GATEWAY,
                "The server behind the gateway cannot be reached",
            ),
            Timeout => (
                StatusCode::GATEWAY_TIMEOUT,
                "The server behind the gateway did not answer in time",
            ),
            Protocol => (
                StatusCode::BAD_GATEWAY,
                "The server behind the gateway broke off or broke the protocol",
            ),
            Redirect => (
                StatusCode::BAD_GATEWAY,
                "The server behind the gateway answered a redirect, which is not followed",
            ),
            Overloaded => (
                StatusCode::SERVICE_UNAVAILABLE,
                "The gateway has no more processes for this server now",
            ),
            SessionGone => (
                StatusCode::NOT_FOUND,
                "The session has ended: initialize again",
            ),
        };
        let side = if error.kind == Overloaded {
            "internal"
        } else {
            "upstream"
        };
        let mut answer = Self::fail(status, id, error.kind.label(), side, message);
        if error.kind == Overloaded {
            answer.retry_after_s = Some(1);
        }
        answer
    }

    /// The same answer, closing the connection.
    pub fn closing(mut self) -> Self {
        self.close = true;
        self
    }

    /// As an HTTP response.
    pub fn into_response(self) -> Response<Out> {
        let mut response = Response::new(Out::full(self.body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        if !is_bodyless(self.status) {
            headers.insert(
                header::CONTENT_TYPE,
                HeaderValue::from_static("application/json"),
            );
        }
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(allow) = self.allow {
            headers.insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        if let Some(challenge) = self.authenticate {
            headers.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static(challenge),
            );
        }
        if self.close {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

fn is_bodyless(status: StatusCode) -> bool {
    matches!(status, StatusCode::ACCEPTED | StatusCode::NO_CONTENT)
}
