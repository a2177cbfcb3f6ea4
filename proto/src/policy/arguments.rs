//! A call's arguments as a policy reads them: by path, over the validated bytes, their members found in one pass.

use super::{
    condition::Refusal,
    path::{Path, Segment},
};
use crate::scan::{Value, value::Type};
use smallvec::SmallVec;
use std::{borrow::Cow, cell::OnceCell};

/// Objects of more members are walked for each path instead: what is kept for a call stays small whatever is sent.
const MEMBERS_MAX: usize = 256;

/// The arguments of the call that is judged.
pub(super) struct Arguments<'v> {
    value: Option<Value<'v>>,
    /// Of the outermost object, made when the first path is followed: most policies look at few of many arguments, and a
    /// pass for each would cost the product of both.
    members: OnceCell<Option<SmallVec<[Member<'v>; 16]>>>,
}

struct Member<'v> {
    name: Cow<'v, [u8]>,
    is_ascii: bool,
    value: Value<'v>,
}

impl<'v> Arguments<'v> {
    /// Nothing is read before it is asked for.
    pub(super) fn new(validated: Option<&'v [u8]>) -> Self {
        Self {
            value: validated.map(Value::new),
            members: OnceCell::new(),
        }
    }

    /// Gives every value that a path names to `each`; what is missing, or an empty array under `[*]`, is given as `None`.
    pub(super) fn values(
        &self,
        path: &Path,
        each: &mut dyn FnMut(Option<Value<'v>>) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        match (self.value, path.segments()) {
            (Some(value), [Segment::Key(key), rest @ ..]) if value.kind() == Type::Object => {
                values(self.member(value, key)?, rest, each)
            }
            (value, segments) => values(value, segments, each),
        }
    }

    /// The one value that a path without `[*]` names; `null` counts as missing.
    pub(super) fn value(&self, path: &Path) -> Result<Option<Value<'v>>, Refusal> {
        let mut found = None;
        self.values(path, &mut |value| {
            found = value.filter(|v| v.kind() != Type::Null);
            Ok(())
        })?;
        Ok(found)
    }

    fn member(&self, object: Value<'v>, key: &str) -> Result<Option<Value<'v>>, Refusal> {
        let Some(members) = self.members.get_or_init(|| found(object)) else {
            return member(object, key);
        };
        let is_ascii = key.is_ascii();
        // Strangers by their length alone: letters of ASCII fold to letters of ASCII only among themselves.
        let may_be =
            |member: &&Member<'_>| !(is_ascii && member.is_ascii) || member.name.len() == key.len();
        let among = members.iter().filter(may_be);
        pick(among.map(|member| (&member.name, member.value)), key)
    }
}

fn found(object: Value<'_>) -> Option<SmallVec<[Member<'_>; 16]>> {
    let mut members = SmallVec::new();
    for (name, value) in object.entries() {
        if members.len() == MEMBERS_MAX {
            return None;
        }
        members.push(Member {
            is_ascii: name.is_ascii(),
            name,
            value,
        });
    }
    Some(members)
}

fn values<'v>(
    at: Option<Value<'v>>,
    path: &[Segment],
    each: &mut dyn FnMut(Option<Value<'v>>) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let (Some(value), [segment, rest @ ..]) = (at, path) else {
        return each(at);
    };
    match segment {
        Segment::Key(key) => values(child(value, key)?, rest, each),
        Segment::Each => match value.kind() {
            Type::Array => {
                let mut empty = true;
                for element in value.elements() {
                    empty = false;
                    values(Some(element), rest, each)?;
                }
                if empty { each(None) } else { Ok(()) }
            }
            Type::Null => each(None),
            // Anything else would let a call slip past what is said of elements.
            other => Err(Refusal::Misfit(other, "an array".into())),
        },
    }
}

fn child<'v>(value: Value<'v>, key: &str) -> Result<Option<Value<'v>>, Refusal> {
    match value.kind() {
        Type::Object => member(value, key),
        Type::Array if is_index(key) => Ok(key.parse().ok().and_then(|index| value.index(index))),
        _ => Ok(None),
    }
}

fn is_index(key: &str) -> bool {
    key.bytes().all(|b| b.is_ascii_digit()) && (key == "0" || !key.starts_with('0'))
}

fn member<'v>(object: Value<'v>, key: &str) -> Result<Option<Value<'v>>, Refusal> {
    pick(object.entries(), key)
}

/// The member of this name, unless another differs from it in case only.
fn pick<'v, N: AsRef<[u8]>>(
    members: impl Iterator<Item = (N, Value<'v>)>,
    key: &str,
) -> Result<Option<Value<'v>>, Refusal> {
    let (mut found, mut twin) = (None, None);
    for (name, value) in members {
        if name.as_ref() == key.as_bytes() {
            found = Some(value);
        } else if same_but_for_case(name.as_ref(), key) {
            twin = Some(name);
        }
    }
    match twin.filter(|_| found.is_some()) {
        Some(twin) => Err(Refusal::Twin(String::from_utf8_lossy(twin.as_ref()).into())),
        None => Ok(found),
    }
}

fn same_but_for_case(name: &[u8], key: &str) -> bool {
    if name.is_ascii() && key.is_ascii() {
        return name.eq_ignore_ascii_case(key.as_bytes());
    }
    // Up, then down: folds ſ and K too.
    let fold = |text: &'_ str| -> Vec<char> {
        text.chars()
            .flat_map(char::to_uppercase)
            .flat_map(char::to_lowercase)
            .collect()
    };
    // A fold changes lengths by a factor of three at most: long strangers are not folded.
    name.len() <= 3 * key.len()
        && std::str::from_utf8(name).is_ok_and(|name| fold(name) == fold(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str, path: &str) -> Result<Option<String>, Refusal> {
        let path = Path::parse(path).unwrap();
        let arguments = Arguments::new(Some(body.as_bytes()));
        let show =
            |found: Option<Value<'_>>| found.map(|v| String::from_utf8_lossy(v.raw()).into());
        let first = arguments.value(&path).map(show);
        assert_eq!(arguments.value(&path).map(show), first, "asked again");
        first
    }

    #[test]
    fn objects_of_any_size_are_read_alike() {
        let twin = || Err(Refusal::Twin("KEY".to_owned()));
        for others in [
            0,
            1,
            15,
            16,
            MEMBERS_MAX - 2,
            MEMBERS_MAX - 1,
            MEMBERS_MAX,
            1_000,
        ] {
            let others: String = (0..others).map(|n| format!(r#""o{n}":{n},"#)).collect();
            let body = format!(r#"{{{others}"key":{{"in":7}},"größe":1}}"#);
            assert_eq!(read(&body, "args.key.in"), Ok(Some("7".to_owned())));
            assert_eq!(read(&body, "args.größe"), Ok(Some("1".to_owned())));
            assert_eq!(read(&body, "args.kez"), Ok(None));
            let body = format!(r#"{{{others}"key":1,"KEY":2}}"#);
            assert_eq!(read(&body, "args.key"), twin());
            // U+212A, the Kelvin sign, folds to k: other letters, other lengths.
            let body = format!("{{{others}\"key\":1,\"\u{212a}ey\":2}}");
            assert_eq!(
                read(&body, "args.key"),
                Err(Refusal::Twin("\u{212a}ey".to_owned()))
            );
        }
    }
}
