//! As much of Markdown as the documentation uses: links, headings, code in a line and code in blocks.

use super::{files, read};

/// A block of code.
pub struct Block {
    /// The page.
    pub page: String,
    /// The line of its fence.
    pub line: usize,
    /// What stands behind the fence, e.g. `yaml,config`.
    pub info: String,
    /// Its text.
    pub text: String,
}

impl Block {
    /// Its language.
    pub fn language(&self) -> &str {
        self.info.split(',').next().unwrap_or_default()
    }
    /// Whether a word stands behind its language.
    pub fn has(&self, word: &str) -> bool {
        self.info.split(',').skip(1).any(|tag| tag == word)
    }
}

/// README, CHANGELOG and every page of the book.
pub fn pages() -> Vec<String> {
    let mut pages = vec!["README.md".to_owned(), "CHANGELOG.md".to_owned()];
    pages.extend(
        files("docs/src")
            .into_iter()
            .filter(|path| path.ends_with(".md")),
    );
    pages
}

/// A page's lines outside blocks of code, with their numbers.
pub fn prose(page: &str) -> Vec<(usize, String)> {
    let mut inside = false;
    let mut lines = Vec::new();
    for (at, line) in read(page).lines().enumerate() {
        if line.trim_start().starts_with("```") {
            inside = !inside;
        } else if !inside {
            lines.push((at + 1, line.to_owned()));
        }
    }
    assert!(!inside, "{page}: a block of code is not closed");
    lines
}

/// Every block of code of every page.
pub fn blocks() -> Vec<Block> {
    let mut found = Vec::new();
    for page in pages() {
        let mut open: Option<Block> = None;
        for (at, line) in read(&page).lines().enumerate() {
            match (line.trim_start().strip_prefix("```"), &mut open) {
                (Some(_), Some(_)) => found.extend(open.take()),
                (Some(info), None) => {
                    let info = info.trim().to_owned();
                    open = Some(Block {
                        page: page.clone(),
                        line: at + 1,
                        info,
                        text: String::new(),
                    });
                }
                (None, Some(block)) => {
                    block.text.push_str(line);
                    block.text.push('\n');
                }
                (None, None) => {}
            }
        }
    }
    found
}

/// Code within a line.
pub fn inline_code(line: &str) -> Vec<&str> {
    line.split('`').skip(1).step_by(2).collect()
}

/// Targets of links within a line.
pub fn links(line: &str) -> Vec<String> {
    let mut code = false;
    let plain: String = line
        .chars()
        .map(|c| {
            code ^= c == '`';
            if code { ' ' } else { c }
        })
        .collect();
    let targets = plain.split("](").skip(1);
    targets
        .filter_map(|rest| Some(rest.split(')').next()?.to_owned()))
        .collect()
}

/// Ids of a page's headings, as mdBook makes them.
pub fn heading_ids(page: &str) -> Vec<String> {
    let headings = prose(page)
        .into_iter()
        .filter(|(_, line)| line.starts_with('#'));
    headings
        .map(|(_, line)| heading_id(line.trim_start_matches('#').trim()))
        .collect()
}

fn heading_id(heading: &str) -> String {
    let kept = heading.chars().filter_map(|c| match c {
        c if c.is_alphanumeric() || c == '_' || c == '-' => Some(c.to_ascii_lowercase()),
        c if c.is_whitespace() => Some('-'),
        _ => None,
    });
    kept.collect()
}

/// Command lines of a block of shell code: continued lines joined, prompts dropped, split at `&&`, `|` and the like.
pub fn commands(block: &Block) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for line in block.text.replace("\\\n", " ").lines() {
        let mut command = Vec::new();
        let mut skip_one = false;
        for word in words(line.trim_start().strip_prefix("$ ").unwrap_or(line)) {
            match &*word {
                "&&" | "|" | "||" | ";" | "&" => found.push(std::mem::take(&mut command)),
                ">" | ">>" | "<" | "2>" => skip_one = true,
                _ if std::mem::take(&mut skip_one) => {}
                _ if command.is_empty() && (word.contains('=') || word == "sudo") => {}
                _ => command.push(word),
            }
        }
        found.push(command);
    }
    found.retain(|command| !command.is_empty());
    found
}

/// Words of a command line, quotes and comments understood.
fn words(line: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let (mut word, mut started, mut quote) = (String::new(), false, None);
    for c in line.chars() {
        match (c, quote) {
            (c, Some(q)) if c == q => quote = None,
            (c, Some(_)) => word.push(c),
            ('\'' | '"', None) => (started, quote) = (true, Some(c)),
            ('#', None) if !started => break,
            (c, None) if c.is_whitespace() => {
                if started {
                    found.push(std::mem::take(&mut word));
                }
                started = false;
            }
            (c, None) => {
                word.push(c);
                started = true;
            }
        }
    }
    if started {
        found.push(word);
    }
    found
}

#[test]
fn command_lines_are_read_as_a_shell_reads_them() {
    let block = |text: &str| Block {
        page: String::new(),
        line: 0,
        info: "sh".into(),
        text: text.into(),
    };
    let read = commands(&block(
        "A=b tollgate check x \\\n  --args '{\"a\": 1}' > out # why\n# only words\n$ a && b|c\n",
    ));
    assert_eq!(read[0], ["tollgate", "check", "x", "--args", "{\"a\": 1}"]);
    assert_eq!(read[1..], [vec!["a"], vec!["b|c"]]);
    assert_eq!(
        heading_id("What `serve` needs, exactly"),
        "what-serve-needs-exactly"
    );
    assert_eq!(links("[a](b.md#c) `[x](y)` [d](e)"), ["b.md#c", "e"]);
}
