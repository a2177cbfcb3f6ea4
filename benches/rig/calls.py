"""The calls that are sent, and the replies that an upstream of fixed bytes gives.

Every call is a `tools/call` of protocol version 2026-07-28 with the id 1, so that one fixed reply answers it.
"""

import hashlib
import http.client
import json
import ssl

from .process import Failed

SERVER, TOOL, PATH = "images", "img2img", "/mcp/images"
TOKEN = "tg_" + "b" * 43


def tokens(count):
    """Names and tokens of grants; the first is the one that calls."""
    for at in range(count):
        yield (f"bench-{at}", "tg_" + hashlib.sha256(f"grant {at}".encode()).hexdigest()[:43]) if at else ("bench", TOKEN)


def grants(count):
    """Names and token digests, as a configuration has them."""
    for name, token in tokens(count):
        yield name, "sha256:" + hashlib.sha256(token.encode()).hexdigest()


VERSION = "2026-07-28"
HEADERS = {
    "Authorization": f"Bearer {TOKEN}",
    "Content-Type": "application/json",
    "Accept": "application/json, text/event-stream",
    "MCP-Protocol-Version": VERSION,
    "Mcp-Method": "tools/call",
    "Mcp-Name": TOOL,
}
SMALL_BYTES, LARGE_BYTES = 500, 65_536
EVENTS = 10


def ask(url, body, headers=None):
    """Sends one call by itself; the reply's status and body."""
    scheme, rest = url.split("://")
    authority, path = rest.split("/", 1)
    if scheme == "https":
        trust = ssl.create_default_context()
        trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection(authority, timeout=10, context=trust)
    else:
        connection = http.client.HTTPConnection(authority, timeout=10)
    try:
        connection.request("POST", "/" + path, body, {**HEADERS, **(headers or {})})
        reply = connection.getresponse()
        return reply.status, reply.read()
    except (OSError, http.client.HTTPException) as error:
        raise Failed(f"{url}: {error}") from error
    finally:
        connection.close()


def _compact(value):
    return json.dumps(value, separators=(",", ":"))


def call(size, width=768):
    """A call of exactly `size` bytes: what is left over goes into the argument `image`, as base64 would."""
    def body(image):
        return _compact({
            "jsonrpc": "2.0", "id": 1, "method": "tools/call",
            "params": {
                "name": TOOL,
                "arguments": {"prompt": "a lighthouse in fog", "width": width, "height": 512, "image": image},
                "_meta": {
                    "io.modelcontextprotocol/protocolVersion": VERSION,
                    "io.modelcontextprotocol/clientCapabilities": {},
                    "progressToken": 1,
                },
            },
        })
    left = size - len(body(""))
    if left < 0:
        raise ValueError(f"a call has at least {size - left} bytes")
    return body(("iVBORw0KGgoAAAANSUhEUgAA" * (left // 24 + 1))[:left])


def reply():
    """The two ends of a result; the upstream puts a text of any length between them."""
    whole = _compact({
        "jsonrpc": "2.0", "id": 1,
        "result": {"resultType": "complete", "content": [{"type": "text", "text": "@"}], "isError": False},
    })
    return tuple(whole.split("@"))


def reply_of(size):
    """A result of exactly `size` bytes."""
    head, tail = reply()
    return head + "A" * (size - len(head) - len(tail)) + tail


def events():
    """A streamed reply: nine events of progress, each sent by itself, and the result."""
    for done in range(1, EVENTS):
        yield _compact({
            "jsonrpc": "2.0", "method": "notifications/progress",
            "params": {"progressToken": 1, "progress": done, "total": EVENTS, "message": "denoising"},
        })
    yield reply_of(SMALL_BYTES)


# Native policy of the calls above: five tools, conditions on three arguments, two limits that are never reached.
LIMIT_MAX = 10**12
SIDE_MAX, TOO_LARGE = 2048, "At most 2048 by 2048"
POLICY = {
    "version": "1",
    "default": "deny",
    "hide": ["delete_image"],
    "all_tools": {"limits": [{"counter": "calls", "window": "hour", "max": LIMIT_MAX, "scope": "server"}]},
    "tools": {
        TOOL: {
            "deny_if": [{"conditions": [{"path": "args.prompt", "op": "regex", "value": "(?i)password|api[_-]?key"}],
                         "on_deny": "Prompts hold no credentials"}],
            "require": [{"conditions": [{"path": "args.prompt", "op": "exists", "value": True},
                                        {"path": "args.width", "op": "lte", "value": SIDE_MAX},
                                        {"path": "args.height", "op": "lte", "value": SIDE_MAX}],
                         "on_deny": TOO_LARGE}],
            "limits": [{"counter": "images", "window": "minute", "max": LIMIT_MAX, "scope": "grant"}],
        },
        "generate_image": {}, "inpaint": {}, "list_images": {},
    },
}
ALLOW_ALL = {"version": "1", "default": "allow"}


def policy(rules=True, limits=True):
    """The policy with its rules, its limits, both or neither."""
    tool = dict(POLICY["tools"][TOOL])
    if not rules:
        tool.pop("deny_if"), tool.pop("require")
    if not limits:
        tool.pop("limits")
    if not rules and not limits:
        return ALLOW_ALL
    document = {**POLICY, "tools": {**POLICY["tools"], TOOL: tool}}
    if not limits:
        document.pop("all_tools")
    if not rules:
        document = {**document, "default": "allow", "hide": []}
    return document


# The exactness test: a limit that a second of calls reaches, in windows that a person waits for.
EXACT_MAX, EXACT_SECONDS = 200, 4
EXACT_WINDOW = f"{EXACT_SECONDS}s"
EXACT = {
    "version": "1", "default": "deny",
    "tools": {TOOL: {"limits": [{"counter": "exact", "window": EXACT_WINDOW, "max": EXACT_MAX, "scope": "grant"}]}},
}
ARGUMENTS = {"prompt": "a lighthouse in fog", "image_url": "https://images.example/a.png", "width": 768, "height": 512}
