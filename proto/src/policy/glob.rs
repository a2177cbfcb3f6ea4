//! Names with `*`: an exact name beats a glob, the longest glob beats a shorter one.

use std::{cmp::Reverse, collections::HashMap};

/// A name in which `*` stands for any characters, none included.
#[derive(Clone, Debug)]
pub struct Glob {
    text: String,
    /// What stands between the stars; one piece = no star.
    pieces: Vec<String>,
}

impl Glob {
    /// Every text is a glob.
    pub fn new(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            pieces: text.split('*').map(str::to_owned).collect(),
        }
    }

    /// Whether the name has a `*` at all.
    pub fn is_glob(text: &str) -> bool {
        text.contains('*')
    }

    /// Whether a name fits. Linear in the name for each piece.
    pub fn matches(&self, name: &str) -> bool {
        let [first, middle @ .., last] = self.pieces.as_slice() else {
            return self.text == name;
        };
        // The suffix comes off first: what the middle finds leftmost then leaves the most for what follows.
        let Some(mut rest) = name
            .strip_prefix(first.as_str())
            .and_then(|n| n.strip_suffix(last.as_str()))
        else {
            return false;
        };
        middle
            .iter()
            .all(|piece| match rest.split_once(piece.as_str()) {
                Some((_, after)) => {
                    rest = after;
                    true
                }
                None => false,
            })
    }

    fn chars(&self) -> usize {
        self.text.chars().count()
    }
}

/// Names and globs, each standing for something.
#[derive(Clone, Debug)]
pub struct Names<T> {
    exact: HashMap<Box<str>, T, foldhash::fast::RandomState>,
    /// The longest first; of equal length the one that was written first.
    globs: Vec<(Glob, T)>,
}

impl<T> Names<T> {
    /// Sorts names and globs. Of equal names the last one stays (documents have none).
    pub fn new<'n>(names: impl IntoIterator<Item = (&'n str, T)>) -> Self {
        let mut all = Self {
            exact: HashMap::default(),
            globs: Vec::new(),
        };
        for (name, value) in names {
            match Glob::is_glob(name) {
                true => all.globs.push((Glob::new(name), value)),
                false => drop(all.exact.insert(name.into(), value)),
            }
        }
        all.globs.sort_by_key(|(glob, _)| Reverse(glob.chars()));
        all
    }

    /// What wins for this name.
    pub fn find(&self, name: &str) -> Option<&T> {
        self.exact.get(name).or_else(|| {
            self.globs
                .iter()
                .find(|(glob, _)| glob.matches(name))
                .map(|(_, value)| value)
        })
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.globs.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_characters() {
        for (glob, yes, no) in [
            (
                "delete_*",
                &["delete_", "delete_all"][..],
                &["delete", "xdelete_a", "Delete_a"][..],
            ),
            ("*_delete", &["_delete", "a_delete"], &["a_deletes"]),
            (
                "a*b*c",
                &["abc", "axbxc", "abbcc", "abcbc"],
                &["ab", "acb", "bc", "abcd"],
            ),
            ("a*a", &["aa", "aba"], &["a"]),
            ("*", &["", "x"], &[]),
            ("**", &["", "x"], &[]),
            ("a*ab*b", &["aabb", "axabab"], &["aab", "ab"]),
            ("é*", &["été"], &["e"]),
            ("plain", &["plain"], &["plain2", ""]),
        ] {
            let glob_ = Glob::new(glob);
            yes.iter()
                .for_each(|name| assert!(glob_.matches(name), "{glob} {name}"));
            no.iter()
                .for_each(|name| assert!(!glob_.matches(name), "{glob} {name}"));
        }
    }

    #[test]
    fn an_exact_name_beats_a_glob_and_the_longest_glob_beats_a_shorter() {
        let names = Names::new([
            ("*", 0),
            ("get_*", 1),
            ("get_user*", 2),
            ("get_users", 3),
            ("*_user_x", 4),
        ]);
        for (name, winner) in [
            ("get_users", 3),
            ("get_user", 2),
            ("get_a", 1),
            ("b", 0),
            ("get_user_x", 2),
        ] {
            assert_eq!(names.find(name), Some(&winner), "{name}");
        }
        assert_eq!(Names::new([("a", 0)]).find("b"), None);
    }
}
