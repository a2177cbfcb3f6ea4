//! Which message goes where, and when a request ends.

use super::*;

/// `n` progress notes, then the reply.
const STEPS: &str = r#"
def handle(m):
    for n in range(m["params"]["n"]): progress(m["params"]["_meta"]["progressToken"], n)
    reply(m, "done")"#;

fn steps(id: u64, token: Value, n: usize) -> Request {
    let params = json!({"n": n, "_meta": {"progressToken": token}});
    request(json!(id), "steps", params, 10_000)
}

fn skipped(pool: &Pool) -> u64 {
    pool.counters(&name()).skipped.load(Ordering::Relaxed)
}

#[tokio::test]
async fn a_message_is_one_line_whatever_white_space_it_has() {
    let pool = pool();
    let process = start(&pool, "").await;
    let mut spread = request(json!(1), "echo", json!({"a": "b"}), 10_000);
    spread.body =
        "{\n\"jsonrpc\":\r\n\"2.0\",\"id\":1,\r\"method\":\"echo\",\n\n\"params\":{\"a\":\"b\"}}\n"
            .into();
    let mut response = process.post(spread).await.unwrap();
    let reply = next(&mut response).await.unwrap().unwrap();
    assert_eq!(reply["result"]["it"], json!({"a": "b"}));
    let quick = call(&process, 2, "echo").await.unwrap();
    assert_eq!(quick.headers()["content-type"], "application/json");
}

#[tokio::test]
async fn progress_and_reply_come_in_order_on_the_stream_of_their_request() {
    let pool = pool();
    let process = start(&pool, STEPS).await;
    let posts = [
        (1, json!("a\u{e9}"), 5),
        (2, json!(7), 3),
        (3, json!("7"), 300),
    ];
    let responses = posts.iter().map(|(id, token, n)| {
        let process = process.clone();
        async move {
            let response = process.post(steps(*id, token.clone(), *n)).await.unwrap();
            assert!(is_stream(&response));
            all(response).await
        }
    });
    let streams = within(10, futures_util::future::join_all(responses)).await;
    for ((id, token, n), messages) in posts.iter().zip(streams) {
        let (reply, progress) = messages.split_last().unwrap();
        assert_eq!(reply["id"], *id);
        assert_eq!(progress.len(), *n);
        for (at, message) in progress.iter().enumerate() {
            assert_eq!(message["params"]["progress"], at);
            assert_eq!(message["params"]["progressToken"], *token);
        }
    }
}

#[tokio::test]
async fn a_quiet_request_becomes_a_stream_after_two_seconds() {
    let script = "def handle(m):\n    time.sleep(2.5)\n    reply(m, 1)";
    let pool = pool();
    let process = start(&pool, script).await;
    let response = call(&process, 1, "slow").await.unwrap();
    assert!(is_stream(&response));
    assert_eq!(all(response).await.len(), 1);
}

#[tokio::test]
async fn what_belongs_to_no_request_waits_for_the_get_stream() {
    let script = r#"
note("notifications/message", n=0)
def handle(m):
    note("notifications/message", n=1)
    ask("s1", "roots/list")
    reply(m, 1)"#;
    let pool = pool();
    let process = start(&pool, script).await;
    // A request of the server may use the reply of any request but initialize.
    assert_eq!(result(&process, 1, "initialize").await, 1);
    let mut get = process.stream().unwrap();
    assert!(is_stream(&get));
    for expected in [json!(0), json!(1), Value::Null] {
        let message = next(&mut get).await.unwrap().unwrap();
        assert_eq!(message["params"]["n"], expected);
    }
    assert!(process.inject(br#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#));
    let message = next(&mut get).await.unwrap().unwrap();
    assert_eq!(message["method"], "notifications/tools/list_changed");
    process.end().await;
    assert!(next(&mut get).await.is_none(), "it ends with its session");
    assert!(!process.inject(b"{}"));
}

#[tokio::test]
async fn a_request_of_the_server_goes_to_exactly_one_stream() {
    let script = r#"
def handle(m):
    if "method" in m and "id" in m:
        ask("s1", "sampling/createMessage")
        answer = json.loads(sys.stdin.readline())
        reply(m, answer["result"])"#;
    let pool = pool();
    for with_get in [true, false] {
        let process = start(&pool, script).await;
        let mut get = with_get.then(|| process.stream().unwrap());
        let answer = || {
            let mut answer = notification("", json!({}));
            answer.body = r#"{"jsonrpc":"2.0","id":"s1","result":42}"#.into();
            answer
        };
        let poster = process.clone();
        let post = tokio::spawn(async move { call(&poster, 1, "tools/call").await });
        let messages = if let Some(get) = &mut get {
            let asked = within(5, next(get)).await.unwrap().unwrap();
            assert_eq!(asked["id"], "s1");
            assert_eq!(process.post(answer()).await.unwrap().status(), 202);
            all(post.await.unwrap().unwrap()).await
        } else {
            let mut response = within(5, post).await.unwrap().unwrap();
            assert!(is_stream(&response));
            let asked = next(&mut response).await.unwrap().unwrap();
            assert_eq!(asked["id"], "s1");
            assert_eq!(process.post(answer()).await.unwrap().status(), 202);
            all(response).await
        };
        assert_eq!(messages.len(), 1);
        assert_eq!(messages[0]["result"]["it"], 42);
        process.end().await;
        if let Some(get) = get {
            assert_eq!(all(get).await, Vec::<Value>::new());
        }
    }
}

#[tokio::test]
async fn a_newer_get_stream_takes_over_and_nothing_comes_twice_or_not_at_all() {
    let script = r#"
def handle(m):
    for n in range(10): note("notifications/message", n=n)
    reply(m, 1)"#;
    let pool = pool();
    let process = start(&pool, script).await;
    let mut older = process.stream().unwrap();
    result(&process, 1, "say").await;
    let first = next(&mut older).await.unwrap().unwrap();
    let mut newer = process.stream().unwrap();
    let mut seen = vec![first];
    seen.extend(within(5, all(older)).await);
    // One that vanishes leaves what it did not get to its successor.
    seen.push(within(5, next(&mut newer)).await.unwrap().unwrap());
    let left = seen.len();
    let mut newest = process.stream().unwrap();
    seen.extend(within(5, all(newer)).await);
    while seen.len() < 10 {
        seen.push(within(5, next(&mut newest)).await.unwrap().unwrap());
    }
    assert!(left < 10, "the test must leave some to the newest");
    let mut order: Vec<u64> = seen
        .iter()
        .map(|m| m["params"]["n"].as_u64().unwrap())
        .collect();
    order.sort_unstable();
    assert_eq!(order, (0..10).collect::<Vec<_>>());
}

#[tokio::test]
async fn lines_that_are_no_messages_are_skipped_and_counted() {
    let script = r#"
def handle(m):
    raw("Starting server on port 3000...\n\n")
    raw('[{"jsonrpc":"2.0","id":1,"result":{}}]\n')
    raw('{"jsonrpc":"2.0","method":"notifications/message","params":{"a":1,"a":2}}\n')
    raw('{"jsonrpc":"2.0","method":"notifications/message","params":{"a":NaN}}\n')
    raw("x" * 2000000 + "\n")
    raw('{"jsonrpc":"2.0","id":99,"result":{}}\n')
    raw('{"jsonrpc":"2.0","id":1,\r"result":{"it":"fine"}}\r\n')"#;
    let pool = pool();
    let bounds = Bounds {
        reply_bytes: 1 << 20,
        ..Bounds::default()
    };
    let process = pool.start(&name(), &target(script), &bounds).await.unwrap();
    let get = process.stream().unwrap();
    assert_eq!(result(&process, 1, "noise").await, "fine");
    assert_eq!(skipped(&pool), 5);
    let unmatched = &pool.counters(&name()).unmatched;
    assert_eq!(unmatched.load(Ordering::Relaxed), 1);
    process.end().await;
    assert_eq!(all(get).await, Vec::<Value>::new());
}

#[tokio::test]
async fn an_ambiguous_reply_fails_its_request_at_once_and_reaches_nobody() {
    let script = r#"
def handle(m):
    raw('{"jsonrpc":"2.0","id":%d,"result":{"tools":[],"tools":[1]}}\n' % m["id"])"#;
    let pool = pool();
    let process = start(&pool, script).await;
    let error = within(5, call(&process, 1, "tools/list"))
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::Protocol);
    assert!(!error.unsent);
    assert!(error.detail.contains("refused"), "{}", error.detail);
    assert_eq!(skipped(&pool), 1);
    assert_eq!(result(&process, 2, "echo").await, json!({}));
}

#[tokio::test]
async fn a_reply_over_the_bound_fails_the_only_request_that_it_can_be_for() {
    let script = r#"
def handle(m):
    raw('{"result":{"x":"' + "x" * (2000000 if m["method"] == "big" else 2) + '"},"jsonrpc":"2.0","id":%d}\n' % m["id"])"#;
    let pool = pool();
    let bounds = Bounds {
        reply_bytes: 1 << 20,
        ..Bounds::default()
    };
    let process = pool.start(&name(), &target(script), &bounds).await.unwrap();
    let error = within(10, call(&process, 1, "big")).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Protocol);
    assert_eq!(skipped(&pool), 1);
    assert!(within(10, call(&process, 2, "echo")).await.is_ok());
}

#[tokio::test]
async fn a_request_that_hangs_times_out_and_the_child_is_told() {
    let script = r#"
def handle(m):
    if m.get("method") == "notifications/cancelled":
        reply({"id": m["params"]["requestId"]}, "late")"#;
    let pool = pool();
    let process = start(&pool, script).await;
    let hang = |id: Value, ms| process.post(request(id, "hang", json!({}), ms));
    let (short, long) = tokio::join!(hang(json!("a"), 300), async {
        let mut response = hang(json!(2), 2_300).await.unwrap();
        assert!(is_stream(&response));
        next(&mut response).await.unwrap()
    });
    let short = short.unwrap_err();
    assert_eq!((short.kind, short.unsent), (ErrorKind::Timeout, false));
    assert_eq!(long.unwrap_err().kind, ErrorKind::Timeout);
    let seen = result(&process, 3, "seen").await;
    let cancelled: Vec<&Value> = seen
        .as_array()
        .unwrap()
        .iter()
        .filter(|m| m["method"] == "notifications/cancelled")
        .map(|m| &m["params"]["requestId"])
        .collect();
    assert_eq!(cancelled, [&json!("a"), &json!(2)]);
    let counters = pool.counters(&name());
    assert_eq!(counters.unmatched.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_request_that_its_client_cancels_ends_without_a_reply() {
    let pool = pool();
    let process = start(&pool, "").await;
    let poster = process.clone();
    let post = tokio::spawn(async move { call(&poster, 1, "hang").await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let cancel = notification("notifications/cancelled", json!({"requestId": 1}));
    assert_eq!(process.post(cancel).await.unwrap().status(), 202);
    let response = within(8, post).await.unwrap().unwrap();
    assert!(is_stream(&response));
    assert_eq!(within(8, all(response)).await, Vec::<Value>::new());
    let seen = result(&process, 2, "seen").await;
    let methods: Vec<&Value> = seen
        .as_array()
        .unwrap()
        .iter()
        .map(|m| &m["method"])
        .collect();
    assert_eq!(methods, ["hang", "notifications/cancelled", "seen"]);
}

#[tokio::test]
async fn a_client_that_vanishes_cancels_nothing() {
    let script = r#"
def handle(m):
    time.sleep(0.3)
    reply(m, 1)"#;
    let pool = pool();
    let process = start(&pool, script).await;
    let gone = call(&process, 1, "slow");
    assert!(
        tokio::time::timeout(Duration::from_millis(100), gone)
            .await
            .is_err()
    );
    let seen = result(&process, 2, "seen").await;
    assert_eq!(seen.as_array().unwrap().len(), 2, "{seen}");
    // Its id is free again, and its reply went to nobody.
    assert_eq!(result(&process, 1, "echo").await, json!({}));
}

#[tokio::test]
async fn an_id_or_token_of_a_request_in_flight_is_refused() {
    let pool = pool();
    let process = start(&pool, "").await;
    let with = |id: Value, token: &str| {
        let params = json!({"_meta": {"progressToken": token}});
        process.post(request(id, "hang", params, 1_000))
    };
    let (first, ..) = tokio::join!(with(json!("\u{e9}"), "t"), async {
        tokio::task::yield_now().await;
        let mut escaped = request(json!("x"), "hang", json!({}), 1_000);
        escaped.expects.as_mut().unwrap().id = Bytes::from_static(br#""\u00e9""#);
        for mut response in [
            process.post(escaped).await.unwrap(),
            with(json!(2), "t").await.unwrap(),
        ] {
            assert_eq!(response.status(), 400);
            let error = next(&mut response).await.unwrap().unwrap();
            assert_eq!(error["error"]["code"], -32600);
        }
    });
    assert_eq!(first.unwrap_err().kind, ErrorKind::Timeout);
    let seen = result(&process, 3, "seen").await;
    assert_eq!(seen.as_array().unwrap().len(), 3, "{seen}");
}

#[tokio::test]
async fn requests_in_flight_are_bounded() {
    let pool = pool();
    let bounds = Bounds {
        calls_server: 2,
        ..Bounds::default()
    };
    let process = pool.start(&name(), &target(""), &bounds).await.unwrap();
    let hang = |id: u64| process.post(request(json!(id), "hang", json!({}), 300));
    let (.., third) = tokio::join!(hang(1), hang(2), hang(3));
    let third = third.unwrap_err();
    assert_eq!((third.kind, third.unsent), (ErrorKind::Overloaded, true));
}

#[tokio::test]
async fn a_flood_that_nobody_reads_is_dropped_and_counted_and_stops_nothing() {
    let script = r#"
def handle(m):
    for n in range(20000): note("notifications/message", n=n, text="x" * 1000)
    reply(m, 1)"#;
    let pool = pool();
    let process = start(&pool, script).await;
    let response = within(20, call(&process, 1, "flood")).await.unwrap();
    // On a slow machine the request becomes a stream meanwhile, and takes the rest.
    let mut messages = all(response).await;
    assert_eq!(messages.pop().unwrap()["result"]["it"], 1);
    assert_eq!(within(20, result(&process, 2, "echo")).await, json!({}));
    let dropped = pool.counters(&name()).dropped.load(Ordering::Relaxed) as usize;
    let mut get = process.stream().unwrap();
    let mut waited = 0;
    while let Ok(message) = tokio::time::timeout(Duration::from_millis(200), next(&mut get)).await {
        message.unwrap().unwrap();
        waited += 1;
    }
    assert!(waited <= WAITING);
    assert_eq!(dropped + messages.len() + waited, 20_000);
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_cut_and_others_go_on() {
    let script = r#"
def handle(m):
    for n in range(2000): progress(m["params"]["_meta"]["progressToken"], "x" * 1000)
    reply(m, 1)"#;
    let pool = pool();
    let process = start(&pool, script).await;
    let mut stuck = process.post(steps(1, json!("t"), 0)).await.unwrap();
    assert!(is_stream(&stuck));
    let other = within(8, call(&process, 2, "echo")).await.unwrap();
    assert_eq!(all(other).await.len(), 1);
    let mut got = 0;
    let error = loop {
        match next(&mut stuck).await {
            Some(Ok(_)) => got += 1,
            Some(Err(error)) => break error,
            None => panic!("a cut stream has no proper end"),
        }
    };
    assert_eq!(error.kind, ErrorKind::Protocol);
    assert!(got < 2000);
}

#[tokio::test]
async fn a_client_that_reads_slowly_gets_everything() {
    let pool = pool();
    let process = start(&pool, STEPS).await;
    let mut response = process.post(steps(1, json!("t"), 20_000)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut got = 0;
    while let Some(message) = next(&mut response).await {
        message.unwrap();
        got += 1;
    }
    assert_eq!(got, 20_001);
}
