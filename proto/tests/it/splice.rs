//! What the gateway changes in a message, and that all else stays byte for byte.

use proto::scan::tools::Filtered;
use proto::scan::{Body, Bounds, From, Reason, jsonrpc::read, splice, tools};

fn filter(reply: &str, modern: bool, hidden: &[&str]) -> Result<Option<(String, usize)>, Reason> {
    let kept = |name: &str| !hidden.contains(&name);
    match tools::filter(reply.as_bytes(), &Bounds::default(), modern, kept) {
        Ok(Filtered::Unchanged) => Ok(None),
        Ok(Filtered::Spliced { bytes, removed }) => Ok(Some((
            String::from_utf8_lossy(&bytes).into_owned(),
            removed,
        ))),
        Err(refusal) => Err(refusal.reason),
    }
}

fn reply(result: &str) -> String {
    format!(r#"{{ "jsonrpc":"2.0", "id":"q", "result":{result} }}"#)
}

#[test]
fn hidden_tools_are_cut_out_and_the_rest_stays_byte_for_byte() {
    let list = |tools: &str| {
        reply(&format!(
            r#"{{"nextCursor":"", "tools" : [{tools}] , "x":[1 ], "_meta":{{"k":1}}}}"#
        ))
    };
    let a = r#"{"name":"a","inputSchema":{"type":"object","properties":{"name":{}}}}"#;
    let b = r#"{ "title":"B, [really] }" , "name" : "b" }"#;
    let c = r#"{"n\u0061me":"c"}"#;
    let all = format!(" {a} ,\n{b}, {c}\n");
    for (name, hidden, left, removed) in [
        ("the first", vec!["a"], format!(" {b}, {c}\n"), 1),
        (
            "the one in the middle",
            vec!["b"],
            format!(" {a}, {c}\n"),
            1,
        ),
        ("the last", vec!["c"], format!(" {a} ,\n{b}\n"), 1),
        ("all but the first", vec!["b", "c"], format!(" {a}\n"), 2),
        ("all but the last", vec!["a", "b"], format!(" {c}\n"), 2),
        ("all but the middle", vec!["a", "c"], format!(" {b}\n"), 2),
        ("all", vec!["a", "b", "c"], " \n".to_owned(), 3),
    ] {
        assert_eq!(
            filter(&list(&all), false, &hidden),
            Ok(Some((list(&left), removed))),
            "{name}"
        );
    }
    assert_eq!(filter(&list(&all), false, &["d"]), Ok(None));
    assert_eq!(filter(&list(""), false, &["a"]), Ok(None));
    assert_eq!(
        filter(&list(&format!("{a},{a},{b},{a}")), false, &["a"]),
        Ok(Some((list(b), 3)))
    );
    assert_eq!(
        filter(&list(&format!("{a},{a},{b},{a}")), false, &["b"]),
        Ok(Some((list(&format!("{a},{a},{a}")), 1)))
    );
}

#[test]
fn a_filtered_list_is_private() {
    let list = |scope: &str| reply(&format!(r#"{{ {scope}"tools":[{{"name":"a"}}]}}"#));
    let public = list(r#""cacheScope":"public","#);
    let private = list(r#""cacheScope":"private","#);
    let spliced = reply(r#"{"cacheScope":"private", "tools":[{"name":"a"}]}"#);
    for modern in [false, true] {
        assert_eq!(filter(&public, modern, &[]), Ok(Some((private.clone(), 0))));
        assert_eq!(filter(&private, modern, &[]), Ok(None));
    }
    assert_eq!(filter(&list(""), true, &[]), Ok(Some((spliced, 0))));
    assert_eq!(filter(&list(""), false, &[]), Ok(None));
    assert_eq!(
        filter(&list(r#""cacheScope":7,"#), false, &[]),
        Ok(Some((private, 0)))
    );
}

#[test]
fn a_list_that_cannot_be_understood_is_refused() {
    for (name, reply, reason) in [
        ("no tools", reply("{}"), Reason::NotAToolList),
        (
            "tools an object",
            reply(r#"{"tools":{}}"#),
            Reason::NotAToolList,
        ),
        (
            "tools null",
            reply(r#"{"tools":null}"#),
            Reason::NotAToolList,
        ),
        (
            "result a list",
            reply(r#"[{"name":"a"}]"#),
            Reason::NotAToolList,
        ),
        (
            "tool without a name",
            reply(r#"{"tools":[{"name":"a"},{}]}"#),
            Reason::NotAToolList,
        ),
        (
            "name a number",
            reply(r#"{"tools":[{"name":1}]}"#),
            Reason::NotAToolList,
        ),
        (
            "tool a string",
            reply(r#"{"tools":["a"]}"#),
            Reason::NotAToolList,
        ),
        (
            "two lists by case",
            reply(r#"{"tools":[],"Tools":[{"name":"a"}]}"#),
            Reason::FoldedKey,
        ),
        (
            "two names by case",
            reply(r#"{"tools":[{"name":"a","NAME":"b"}]}"#),
            Reason::FoldedKey,
        ),
        (
            "two lists",
            reply(r#"{"tools":[],"tools":[]}"#),
            Reason::DuplicateKey,
        ),
        (
            "two names",
            reply(r#"{"tools":[{"name":"a","n\u0061me":"b"}]}"#),
            Reason::DuplicateKey,
        ),
        (
            "a batch",
            format!("[{}]", reply(r#"{"tools":[]}"#)),
            Reason::NotAToolList,
        ),
        (
            "a request",
            r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#.to_owned(),
            Reason::NotAToolList,
        ),
        ("no JSON", "tools".to_owned(), Reason::Syntax),
        (
            "cut",
            r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"a"}"#.to_owned(),
            Reason::Truncated,
        ),
    ] {
        assert_eq!(filter(&reply, true, &["a"]), Err(reason), "{name}");
    }
    let error = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":"no tools"}}"#;
    assert_eq!(filter(error, true, &["a"]), Ok(None));
}

#[test]
fn ids_and_progress_tokens_are_replaced_and_nothing_else() {
    let bounds = Bounds::default();
    let message = |text: &'static str, from| match read(text.as_bytes(), &bounds, from) {
        Ok(Body::One(message)) => message,
        other => panic!("{other:?}"),
    };
    let call = message(
        r#"{ "params" : {"name":"t","arguments":{"id":1,"progressToken":"mine"},"_meta":{"progressToken":"mine"}},"id": 1 ,"method":"tools/call","jsonrpc":"2.0"}"#,
        From::Client,
    );
    let out =
        splice::with_id_and_token(&call, b"\"g-7\"", Some(b"99"), &bounds, From::Client).unwrap();
    assert_eq!(
        String::from_utf8(out).unwrap(),
        r#"{ "params" : {"name":"t","arguments":{"id":1,"progressToken":"mine"},"_meta":{"progressToken":99}},"id": "g-7" ,"method":"tools/call","jsonrpc":"2.0"}"#
    );
    let out = splice::with_id_and_token(&call, b"2", None, &bounds, From::Client).unwrap();
    assert!(
        String::from_utf8(out)
            .unwrap()
            .contains(r#""_meta":{"progressToken":"mine"}},"id": 2 ,"#)
    );
    let out = splice::with_name(&call, "srv\"t", &bounds, From::Client).unwrap();
    assert!(
        String::from_utf8(out)
            .unwrap()
            .starts_with(r#"{ "params" : {"name":"srv\"t","arg"#)
    );

    // What would change the message's meaning is refused, whoever asks for it.
    for id in ["1,\"id\":2", "null", "", "1}", "1.5"] {
        assert!(
            splice::with_id_and_token(&call, id.as_bytes(), None, &bounds, From::Client).is_err(),
            "{id}"
        );
    }

    let result = message(
        r#"{"jsonrpc":"2.0","id":55,"result":{"id":55}}"#,
        From::Server,
    );
    let out = splice::with_id_and_token(&result, b"\"a\"", None, &bounds, From::Server).unwrap();
    assert_eq!(out, br#"{"jsonrpc":"2.0","id":"a","result":{"id":55}}"#);
    let progress = message(
        r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":99,"progress":99}}"#,
        From::Server,
    );
    let out = splice::with_progress_of(&progress, b"\"mine\"", &bounds, From::Server).unwrap();
    assert!(out.ends_with(br#"{"progressToken":"mine","progress":99}}"#));
    let cancelled = message(
        r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"x","reason":"x"}}"#,
        From::Client,
    );
    let out = splice::with_cancelled_id(&cancelled, b"4", &bounds, From::Client).unwrap();
    assert!(out.ends_with(br#"{"requestId":4,"reason":"x"}}"#));
}

#[test]
fn elements_of_a_batch_are_taken_out_whole() {
    let bounds = Bounds::default();
    let body = br#"[ {"jsonrpc":"2.0","id":1,"method":"ping"} , {"jsonrpc":"2.0","id":2,"method":"ping"},{"jsonrpc":"2.0","id":3,"method":"ping"}]"#;
    let Ok(Body::Batch(batch)) = read(body, &bounds, From::Client) else {
        panic!();
    };
    let left = batch.iter().filter(|m| m.id != Some(b"2"));
    let out = splice::batch(left, &bounds, From::Client).unwrap();
    assert_eq!(
        String::from_utf8(out).unwrap(),
        r#"[{"jsonrpc":"2.0","id":1,"method":"ping"},{"jsonrpc":"2.0","id":3,"method":"ping"}]"#
    );
    let second = splice::with_id_and_token(&batch[1], b"9", None, &bounds, From::Client).unwrap();
    assert_eq!(second, br#"{"jsonrpc":"2.0","id":9,"method":"ping"}"#);
    assert!(splice::batch([], &bounds, From::Client).is_err());
}

#[test]
fn the_version_of_initialize_is_replaced_and_nothing_else() {
    let bytes = br#"{ "jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion" : "2026-07-28","capabilities":{}} }"#;
    let bounds = Bounds::default();
    let Ok(Body::One(message)) = read(bytes, &bounds, From::Client) else {
        panic!("readable")
    };
    let out =
        splice::with_initialize_version(&message, "2025-11-25", &bounds, From::Client).unwrap();
    let wanted = String::from_utf8_lossy(bytes).replace("2026-07-28", "2025-11-25");
    assert_eq!(String::from_utf8_lossy(&out), wanted);
}
