//! Bodies of every shape that costs a scanner something else, made from a seed.

use crate::{chance::Chance, shapes};
use proto::scan::{Bounds, From};

/// One body.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Its shape, e.g. `escaped text`.
    pub shape: &'static str,
    /// Its size in words, e.g. `16 KB`.
    pub size: &'static str,
    /// The message.
    pub bytes: Vec<u8>,
    /// Who sends such messages.
    pub from: From,
}

/// The gateway's bounds, but for keys: the other readers count none.
pub fn bounds() -> Bounds {
    Bounds {
        keys_object_max: usize::MAX,
        keys_body_max: usize::MAX,
        ..Bounds::default()
    }
}

/// Sizes of whole bodies, in bytes.
pub const SIZES: &[(&str, usize)] = &[
    ("200 B", 200),
    ("1 KB", 1 << 10),
    ("16 KB", 16 << 10),
    ("1 MB", 1 << 20),
];

/// Makes a JSON object of nearly this many bytes, never more.
type Maker = fn(&mut Chance, usize) -> String;

/// The shape that is no call.
const TOOLS_LIST: &str = "tools/list reply";

/// What the arguments of a call look like.
const ARGUMENTS: &[(&str, Maker)] = &[
    ("ordinary", shapes::ordinary),
    ("base64", shapes::base64),
    ("escaped text", shapes::escaped),
    ("CJK", shapes::cjk),
    ("nested", shapes::nested),
    ("spaced", shapes::spaced),
    ("small keys", shapes::small_keys),
    // Made otherwise than all that the scanner was tuned on.
    ("held out", shapes::held_out),
];

/// Every shape in every size that suits it: names for [`sample`].
pub fn names() -> impl Iterator<Item = (&'static str, &'static str)> {
    let sizes = |from: usize| SIZES[from..].iter().map(|size| size.0);
    let calls = ARGUMENTS
        .iter()
        .flat_map(move |&(shape, _)| sizes(0).map(move |size| (shape, size)));
    calls.chain(sizes(1).map(|size| (TOOLS_LIST, size)))
}

/// Every sample.
pub fn samples(seed: u64) -> Vec<Sample> {
    names()
        .filter_map(|(shape, size)| sample(seed, shape, size))
        .collect()
}

/// The sample of this shape and size; `None` if there is no such shape or size.
pub fn sample(seed: u64, shape: &str, size: &str) -> Option<Sample> {
    let &(size, bytes) = SIZES.iter().find(|known| known.0 == size)?;
    let mut chance = Chance::new(seed ^ bytes as u64);
    if shape == TOOLS_LIST {
        return Some(Sample {
            shape: TOOLS_LIST,
            size,
            bytes: shapes::tools_list(&mut chance, bytes),
            from: From::Server,
        });
    }
    let &(shape, arguments) = ARGUMENTS.iter().find(|known| known.0 == shape)?;
    Some(Sample {
        shape,
        size,
        bytes: call(&mut chance, bytes, arguments),
        from: From::Client,
    })
}

/// A server's reply of nearly this many bytes with such an object in it; `None` if there is no such shape.
pub fn reply(seed: u64, shape: &str, bytes: usize) -> Option<Vec<u8>> {
    let mut chance = Chance::new(seed ^ bytes as u64);
    let &(_, object) = ARGUMENTS.iter().find(|known| known.0 == shape)?;
    let head = r#"{"jsonrpc":"2.0","id":7,"result":{"content":[],"structuredContent":"#;
    let object = object(&mut chance, bytes.saturating_sub(head.len() + 2));
    Some(format!("{head}{object}}}}}").into_bytes())
}

/// The shapes of [`reply`].
pub fn reply_shapes() -> impl Iterator<Item = &'static str> {
    ARGUMENTS.iter().map(|known| known.0)
}

fn call(chance: &mut Chance, bytes: usize, arguments: Maker) -> Vec<u8> {
    let modern = r#","_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{},"progressToken":17}"#;
    let meta = if bytes >= 400 { modern } else { "" };
    let head = r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"create_charge","#;
    let around = head.len() + r#""arguments":}}"#.len() + meta.len();
    let arguments = arguments(chance, bytes.saturating_sub(around));
    format!(r#"{head}"arguments":{arguments}{meta}}}}}"#).into_bytes()
}

/// Calls whose arguments are `count` keys that look alike at both ends, and as many that do not: a hash of the ends
/// sees one key in the first.
pub fn alike(count: usize) -> (Vec<u8>, Vec<u8>) {
    let of = |key: &dyn Fn(usize) -> String| {
        let members: Vec<String> = (0..count).map(|n| format!(r#""{}":0"#, key(n))).collect();
        let head =
            r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"t","arguments":{"#;
        format!("{head}{}}}}}}}", members.join(",")).into_bytes()
    };
    let alike = of(&|n| format!("argument{n:04}_endings"));
    let unlike = of(&|n| {
        let mut chance = Chance::new(n as u64);
        format!("{:016x}{:04x}", chance.draw(), chance.draw() as u16)
    });
    (alike, unlike)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::scan::read;

    #[test]
    fn a_seed_makes_the_same_well_formed_bodies_of_their_size() {
        for seed in 0..20 {
            for (a, b) in samples(seed).iter().zip(samples(seed)) {
                let what = format!("seed {seed}: {} {}", a.shape, a.size);
                assert_eq!(a.bytes, b.bytes, "{what}");
                let said = read(&a.bytes, &bounds(), a.from);
                assert!(said.is_ok(), "{what}: {said:?}");
                let size = SIZES.iter().find(|size| size.0 == a.size);
                let wanted = size.expect("invariant: samples have these sizes").1;
                let short = if wanted < 1_000 {
                    wanted / 7
                } else {
                    wanted / 20
                };
                let found = a.bytes.len();
                assert!(
                    (wanted - short..=wanted).contains(&found),
                    "{what}: {found}"
                );
            }
        }
    }

    #[test]
    fn keys_that_look_alike_are_read() {
        let (alike, unlike) = alike(1_024);
        assert!(alike.len().abs_diff(unlike.len()) < 2_048);
        for body in [alike, unlike] {
            assert!(read(&body, &Bounds::default(), From::Client).is_ok());
        }
    }
}
