use super::*;
use serde::Deserialize;
use std::collections::BTreeMap;

fn shown(problems: &[Problem]) -> Vec<String> {
    problems
        .iter()
        .map(|p| format!("{} {} {}", p.at, p.pointer, p.message))
        .collect()
}

fn plain(node: &Node) -> serde_json::Value {
    match &node.value {
        Value::Null => serde_json::Value::Null,
        Value::Bool(b) => (*b).into(),
        Value::Number(n) => serde_json::from_str(n).unwrap(),
        Value::String(s) => s.as_str().into(),
        Value::List(items) => items.iter().map(plain).collect(),
        Value::Map(entries) => entries
            .iter()
            .map(|e| (e.key.clone(), plain(&e.value)))
            .collect(),
    }
}

#[test]
fn documents_mean_what_they_say() {
    let rows = [
        ("", "null"),
        ("# nothing\n", "null"),
        (
            "a: 1\nb: [x, 2.50, ~, 'yes', true]\n",
            r#"{"a":1,"b":["x",2.50,null,"yes",true]}"#,
        ),
        ("\u{feff}a: 1\n", r#"{"a":1}"#),
        ("--- \na: |\n  one\n  two\n...\n", r#"{"a":"one\ntwo\n"}"#),
        ("1: x\ntrue: y\n", r#"{"1":"x","true":"y"}"#),
        ("{a: 1, b: c}", r#"{"a":1,"b":"c"}"#),
        ("{\"a\": 1,}", r#"{"a":1}"#),
        ("[\"\\ud83d\\ude00\", -1.5e3]", "[\"😀\", -1.5e3]"),
        (
            "a: !!str 5\nb: ! 7\nc: !!int '8'\n",
            r#"{"a":"5","b":"7","c":8}"#,
        ),
        ("a: &x [1, 2]\nb: *x\n", r#"{"a":[1,2],"b":[1,2]}"#),
        (
            "a: &a {x: 1, y: 2}\nb: &b {y: 3, z: 4}\nc:\n  <<: [*a, *b]\n  x: 9\n",
            r#"{"a":{"x":1,"y":2},"b":{"y":3,"z":4},"c":{"x":9,"y":2,"z":4}}"#,
        ),
        ("'<<': 1\n", r#"{"<<":1}"#),
        ("{\"<<\": {\"a\": 1}}", r#"{"<<":{"a":1}}"#),
        (
            "- a: 1\n  b:\n- ? c\n  : d\n",
            r#"[{"a":1,"b":null},{"c":"d"}]"#,
        ),
    ];
    for (text, json) in rows {
        let node = parse(text).unwrap_or_else(|p| panic!("{text:?}: {:?}", shown(&p)));
        let meant: serde_json::Value = serde_json::from_str(json).unwrap();
        assert_eq!(plain(&node), meant, "{text:?}");
    }
}

#[test]
fn problems_of_form_name_their_places() {
    let deep = format!("{}1{}", "[".repeat(65), "]".repeat(65));
    let deep_yaml = format!("a: {deep}");
    let rows: &[(&str, &[&str])] = &[
        (
            "a: 1\nb: 2\na: 3\nb: 4\n",
            &[
                "3:1 /a the key `a` is already at 1:1",
                "4:1 /b the key `b` is already at 2:1",
            ],
        ),
        (
            "{\"a\": 1, \"\\u0061\": 2}",
            &["1:10 /a the key `a` is already at 1:2"],
        ),
        ("{\"a\": 1,\n \"b\" 2}", &["2:6"]),
        (
            "{\n  \"a\": 1\n  \"b\": 2\n}",
            &["3:3  not valid JSON: expected `,` or `}`, found `\"`"],
        ),
        (
            "[\"\\ud83d x\"]",
            &["1:3 /0 an escape that JSON does not have, or half of a surrogate pair"],
        ),
        (
            "[1, {\"a/b\": [\"x",
            &["1:16 /1/a~1b/0 text without its closing `\"`"],
        ),
        (
            "a: 1\n---\nb: 2\n",
            &["2:1  a second document; put it into a file of its own"],
        ),
        (
            "? [a]\n: b\n",
            &["1:3  a key must be text, not a list or mapping"],
        ),
        (
            "a: !secret b\n",
            &["1:4 /a the tag `!secret` means nothing here"],
        ),
        ("a: !!int x\n", &["1:4 /a the value does not fit its tag"]),
        ("mode: 0644\n", &["1:7 /mode `0644` starts with 0"]),
        (
            "a: &x\n  b: *x\n",
            &["2:6 /a/b an alias inside the very value that it names"],
        ),
        (
            "a: *x\n",
            &["1:4  not valid YAML: while parsing node, found unknown anchor"],
        ),
        (
            "a:\n  <<: 1\n",
            &["2:7 /a `<<` takes an alias of a mapping, or a list of them"],
        ),
        ("a: [1\nb: 2\n", &["2:"]),
        (&deep, &["1:65 "]),
        (&deep_yaml, &["1:67 "]),
    ];
    for (text, expected) in rows {
        let problems = shown(&parse(text).expect_err(text));
        assert_eq!(problems.len(), expected.len(), "{text:?}: {problems:?}");
        for (problem, expected) in problems.iter().zip(*expected) {
            assert!(problem.starts_with(expected), "{text:?}: {problem:?}");
        }
    }
}

#[test]
fn aliases_cannot_grow_a_document_without_bound() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..20 {
        let alias = format!("*a{}", i - 1);
        text += &format!("a{i}: &a{i} [{}]\n", [alias.as_str(); 10].join(", "));
    }
    let problems = parse(&text).unwrap_err();
    assert!(
        problems[0].message.contains("aliases expanded"),
        "{problems:?}"
    );

    let mut nested = "a0: &a0 [x]\n".to_owned();
    for i in 1..100 {
        nested += &format!("a{i}: &a{i} [*a{}]\n", i - 1);
    }
    let problems = parse(&nested).unwrap_err();
    assert!(problems[0].message.contains("deep"), "{problems:?}");
}

#[derive(Debug, Deserialize, PartialEq)]
struct Shop {
    name: Spanned<String>,
    #[serde(default)]
    open: bool,
    stock: BTreeMap<String, Item>,
    #[serde(default)]
    tags: Vec<String>,
    owner: Option<Owner>,
    #[serde(default)]
    doors: Entries<u8>,
}

#[derive(Debug, Deserialize, PartialEq)]
struct Item {
    price: u16,
    kind: Kind,
    size: u64,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Fruit,
    Bread(String),
    Cheese { months: u8 },
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(try_from = "String")]
struct Owner(String);

impl TryFrom<String> for Owner {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        match text.starts_with(char::is_uppercase) {
            true => Ok(Self(text)),
            false => Err("an owner starts with a capital letter".into()),
        }
    }
}

#[test]
fn a_fitting_document_is_read_with_places() {
    let text = "name: corner\nowner: Ada\nstock:\n  apple: {price: 3, kind: fruit, size: 1}\n  \
                rye: {price: 4, kind: {bread: dark}, size: 2}\n  blue: {price: 9, kind: {cheese: {months: 6}}, size: 3}\n\
                doors:\n  front: 1\n";
    let shop: Shop = from_node(&parse(text).unwrap()).unwrap();
    assert_eq!(shop.name.at, Pos { line: 1, column: 7 });
    assert_eq!(shop.name.value, "corner");
    assert_eq!(shop.stock["rye"].kind, Kind::Bread("dark".into()));
    assert_eq!(shop.stock["blue"].kind, Kind::Cheese { months: 6 });
    assert_eq!(shop.owner, Some(Owner("Ada".into())));
    let (name, door) = &shop.doors.0[0];
    assert_eq!((name.at, *door), (Pos { line: 8, column: 3 }, 1));
}

#[test]
fn every_misfit_is_reported_at_once() {
    let rows: &[(&str, &[&str])] = &[
        ("- 1\n", &["1:1  expected a mapping, found a list"]),
        (
            "name: a\nstok: {}\n",
            &["2:1 /stok unknown key `stok`; did you mean `stock`?"],
        ),
        ("{}", &["1:1  `name` is missing", "1:1  `stock` is missing"]),
        (
            "name: 5\nopen: yes\ntags: [a, 2, b, [c]]\nstock: {}\nowner: ada\n",
            &[
                "1:7 /name expected text (in quotes if it is meant: \"5\"), found a number",
                "2:7 /open expected true or false, found text",
                "3:11 /tags/1 expected text (in quotes",
                "3:17 /tags/3 expected text, found a list",
                "5:8 /owner an owner starts with a capital letter",
            ],
        ),
        (
            "name: a\nstock:\n  x: {price: 70000, kind: fruti, weight: 2}\n  y: {price: 1, kind: {bread: [1]}, size: -1}\n  z: 3\n",
            &[
                "3:6 /stock/x `size` is missing",
                "3:14 /stock/x/price expected a whole number from 0 to 65535, found 70000",
                "3:27 /stock/x/kind `fruti` is none of fruit, bread, cheese; did you mean `fruit`?",
                "3:34 /stock/x/weight unknown key `weight`; known here: price, kind, size",
                "4:31 /stock/y/kind/bread expected text, found a list",
                "4:43 /stock/y/size expected a whole number from 0, found -1",
                "5:6 /stock/z expected a mapping, found a number",
            ],
        ),
        (
            "name: a\nstock:\n  x: {price: 1, size: 1.5, kind: {cheese: {months: 300, age: 1}}}\n  y: {price: 1, size: 1, kind: bread}\n",
            &[
                "3:23 /stock/x/size expected a whole number from 0, found 1.5",
                "3:52 /stock/x/kind/cheese/months expected a whole number from 0 to 255, found 300",
                "3:57 /stock/x/kind/cheese/age unknown key `age`; known here: months",
                "4:32 /stock/y/kind `bread` needs a mapping",
            ],
        ),
        (
            "name: a\nstock: {}\ndoors: {a: b, c: d}\n",
            &[
                "3:12 /doors/a expected a whole number from 0 to 255, found text",
                "3:18 /doors/c expected a whole number from 0 to 255, found text",
            ],
        ),
    ];
    for (text, expected) in rows {
        let problems = shown(&from_node::<Shop>(&parse(text).unwrap()).expect_err(text));
        assert_eq!(problems.len(), expected.len(), "{text:?}: {problems:#?}");
        for (problem, expected) in problems.iter().zip(*expected) {
            assert!(
                problem.starts_with(expected),
                "{text:?}: {problem:?} is not {expected:?}"
            );
        }
    }
}

#[test]
fn a_hundred_problems_are_enough() {
    let tags = ["[1]"; 500].join(", ");
    let text = format!("name: a\nstock: {{}}\ntags: [{tags}]\n");
    assert_eq!(
        from_node::<Shop>(&parse(&text).unwrap()).unwrap_err().len(),
        PROBLEMS_MAX
    );
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_readers_panic(text in "[-\\[\\]{}:,&*!|>?'\"#a-c0-2 \n\t<\\\\u~é]{0,60}") {
        if let Ok(node) = parse(&text) {
            let _ = from_node::<Shop>(&node);
        }
    }
}
