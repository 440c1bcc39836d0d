//! The house inspects itself: layers, the unsafe fence, names. Run by `cargo shape`; reads the source, builds and runs nothing.
//!
//! Each rule is a function from texts to complaints, and each has a test beside it that plants a violation: a rule that cannot
//! fail is no rule.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Words that say nothing about what a file or a type is.
const BANNED: [&str; 11] = ["util", "helper", "common", "misc", "manager", "handler", "context", "info", "data", "type", "impl"];

/// All that may lie at the top of the repository.
const TOP: [&str; 13] = [
    ".cargo",
    ".ci",
    ".gitignore",
    ".rustfmt.toml",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "completions",
    "man",
    "policies",
    "src",
    "tests",
];

// ---------------------------------------------------------------------------------------------------------------- texts

/// Path below the repository, and text.
type Sources = BTreeMap<String, String>;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folders: &[&str]) -> Sources {
    fn walk(dir: &Path, into: &mut Sources) {
        for entry in std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()) {
            if entry.is_dir() {
                walk(&entry, into);
            } else if entry.extension().is_some_and(|e| e == "rs") {
                let name = entry.strip_prefix(root()).unwrap().to_str().unwrap().to_string();
                into.insert(name, std::fs::read_to_string(&entry).unwrap());
            }
        }
    }
    let mut all = Sources::new();
    folders.iter().for_each(|f| walk(&root().join(f), &mut all));
    assert!(!all.is_empty());
    all
}

fn one(path: &str, text: &str) -> Sources {
    BTreeMap::from([(path.to_string(), text.to_string())])
}

#[derive(Debug, Clone, PartialEq)]
enum Word {
    /// An identifier, a number or a lifetime.
    Name(String),
    /// A string literal, without its quotes.
    Text(String),
    Mark(char),
}

impl Word {
    fn is(&self, text: &str) -> bool {
        match self {
            Word::Name(n) => n == text,
            Word::Mark(c) => text.chars().eq([*c]),
            Word::Text(_) => false,
        }
    }
}

/// Rust as words with their line numbers, without comments.
fn words(text: &str) -> Vec<(usize, Word)> {
    let bytes = text.as_bytes();
    let (mut at, mut line, mut out) = (0, 1, Vec::new());
    let starts = |at: usize, s: &str| bytes[at..].starts_with(s.as_bytes());
    while at < bytes.len() {
        let begin = at;
        if starts(at, "//") {
            at += bytes[at..].iter().take_while(|b| **b != b'\n').count();
        } else if starts(at, "/*") {
            let mut depth = 0;
            while at < bytes.len() {
                match () {
                    () if starts(at, "/*") => (depth, at) = (depth + 1, at + 2),
                    () if starts(at, "*/") => (depth, at) = (depth - 1, at + 2),
                    () => at += 1,
                }
                if depth == 0 {
                    break;
                }
            }
        } else if let Some((end, inner)) = literal(bytes, at) {
            out.push((line, Word::Text(String::from_utf8_lossy(inner).into_owned())));
            at = end;
        } else if bytes[at] == b'\'' {
            // A character, or a lifetime.
            let rest = &bytes[at + 1..];
            let close = if rest.first() == Some(&b'\\') { 2 + rest[2..].iter().position(|b| *b == b'\'').unwrap() } else { utf8(rest[0]) };
            at += if rest.get(close) == Some(&b'\'') { close + 2 } else { 1 };
        } else if bytes[at].is_ascii_alphanumeric() || bytes[at] == b'_' {
            at += bytes[at..].iter().take_while(|b| b.is_ascii_alphanumeric() || **b == b'_').count();
            out.push((line, Word::Name(text[begin..at].to_string())));
        } else {
            if !bytes[at].is_ascii_whitespace() {
                out.push((line, Word::Mark(bytes[at] as char)));
            }
            at += 1;
        }
        line += bytes[begin..at].iter().filter(|b| **b == b'\n').count();
    }
    out
}

fn utf8(first: u8) -> usize {
    first.leading_ones().clamp(1, 4) as usize
}

/// A string literal of any kind that begins here: where it ends, and what is in it.
fn literal(bytes: &[u8], at: usize) -> Option<(usize, &[u8])> {
    let prefix = bytes[at..].iter().take_while(|b| b"rbc".contains(b)).count();
    let raw = bytes[at..at + prefix].contains(&b'r');
    let hashes = if raw { bytes[at + prefix..].iter().take_while(|b| **b == b'#').count() } else { 0 };
    let open = at + prefix + hashes;
    if prefix > 2 || bytes.get(open) != Some(&b'"') {
        return None;
    }
    let mut end = open + 1;
    loop {
        match bytes[end] {
            b'\\' if !raw => end += 2,
            b'"' if bytes[end + 1..].iter().take(hashes).filter(|b| **b == b'#').count() == hashes => break,
            _ => end += 1,
        }
    }
    Some((end + 1 + hashes, &bytes[open + 1..end]))
}

/// Where a sequence of words begins, with its line. `*` fits every word.
fn find(words: &[(usize, Word)], pattern: &[&str]) -> Vec<(usize, usize)> {
    let fits = |w: &[(usize, Word)]| w.iter().zip(pattern).all(|((_, w), p)| *p == "*" || w.is(p));
    words.windows(pattern.len()).enumerate().filter(|(_, w)| fits(w)).map(|(n, w)| (n, w[0].0)).collect()
}

// ---------------------------------------------------------------------------------------------------------------- rules

/// The top modules, ground to doors.
fn modules(lib: &str) -> Vec<String> {
    let words = words(lib);
    find(&words, &["mod", "*", ";"])
        .into_iter()
        .filter_map(|(n, _)| if let Word::Name(name) = &words[n + 1].1 { Some(name.clone()) } else { None })
        .collect()
}

/// The top module that a file of src/ belongs to.
fn home(path: &str) -> &str {
    let rest = path.strip_prefix("src/").unwrap_or(path);
    rest.split('/').next().unwrap_or(rest).trim_end_matches(".rs")
}

/// A module uses only modules listed above it.
fn layers(lib: &str, sources: &Sources) -> Vec<String> {
    let order = modules(lib);
    let rank = |name: &str| order.iter().position(|m| m == name);
    let mut found = Vec::new();
    for (path, text) in sources {
        let Some(own) = rank(home(path)) else {
            if !["src/lib.rs", "src/main.rs"].contains(&path.as_str()) {
                found.push(format!("{path}: lib.rs does not list '{}'", home(path)));
            }
            continue;
        };
        let words = words(text);
        let mut used: Vec<(usize, String)> = Vec::new();
        for (n, line) in find(&words, &["crate", ":", ":", "*"]) {
            match &words[n + 3].1 {
                Word::Name(name) => used.push((line, name.clone())),
                // use crate::{a, b::c}: the first word of each branch.
                _ => {
                    let (mut depth, mut first) = (0, false);
                    for (line, word) in &words[n + 3..] {
                        match word {
                            Word::Mark('{') => (depth, first) = (depth + 1, depth == 0),
                            Word::Mark('}') => depth -= 1,
                            Word::Mark(',') => first = depth == 1,
                            Word::Name(name) if first => {
                                used.push((*line, name.clone()));
                                first = false;
                            }
                            _ => {}
                        }
                        if depth == 0 {
                            break;
                        }
                    }
                }
            }
        }
        for (line, name) in used {
            match rank(&name) {
                Some(other) if other > own => found.push(format!("{path}:{line}: {} uses {name}, which is listed below it", home(path))),
                Some(_) => {}
                None => found.push(format!("{path}:{line}: crate::{name} is no module")),
            }
        }
        found.extend(climbs(path, &words).into_iter().map(|line| format!("{path}:{line}: super:: reaches the crate's top: say crate::")));
    }
    found
}

/// Lines where a chain of `super::` leaves the top module.
fn climbs(path: &str, words: &[(usize, Word)]) -> Vec<usize> {
    let parts = path.strip_prefix("src/").unwrap_or(path).split('/').count();
    let depth = if path.ends_with("/mod.rs") { parts - 1 } else { parts };
    let (mut braces, mut found, mut chain) = (Vec::new(), Vec::new(), 0);
    for (n, (line, word)) in words.iter().enumerate() {
        match word {
            Word::Mark('{') => braces.push(n >= 2 && words[n - 2].1.is("mod")),
            Word::Mark('}') => drop(braces.pop()),
            _ => {}
        }
        chain = if word.is("super") {
            chain + 1
        } else if word.is(":") {
            chain
        } else {
            0
        };
        if word.is("super") && chain >= depth + braces.iter().filter(|m| **m).count() {
            found.push(*line);
        }
    }
    found
}

/// Unsafe code only in sys, and a compiler's lock on every other top module.
fn fence(sources: &Sources) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in sources.iter().filter(|(p, _)| home(p) != "sys") {
        let words = words(text);
        found.extend(find(&words, &["unsafe"]).into_iter().map(|(_, line)| format!("{path}:{line}: unsafe outside sys")));
        let locked = !find(&words, &["#", "!", "[", "forbid", "(", "unsafe_code", ")", "]"]).is_empty();
        let top = path.matches('/').count() == 1 || (path.matches('/').count() == 2 && path.ends_with("/mod.rs"));
        if top && path != "src/lib.rs" && !locked {
            found.push(format!("{path}: no #![forbid(unsafe_code)]"));
        }
    }
    found
}

/// Every file says first what it is.
fn headers(sources: &Sources) -> Vec<String> {
    let begins = |text: &str| text.starts_with("//! ") || text.starts_with("#![doc = include_str!(");
    sources.iter().filter(|(_, text)| !begins(text)).map(|(path, _)| format!("{path}: does not begin with //!")).collect()
}

fn is_banned(word: &str) -> bool {
    let word = word.to_ascii_lowercase();
    BANNED.iter().any(|b| word == *b || word.strip_suffix('s') == Some(b))
}

/// Do these words end inside `impl TRAIT for TYPE {`, and not deeper?
fn implements(words: &[(usize, Word)]) -> bool {
    let mut depth = 0;
    let open = words.iter().rposition(|(_, w)| {
        depth += i32::from(w.is("{")) - i32::from(w.is("}"));
        depth == 1
    });
    let header = open.map(|open| &words[words[..open].iter().rposition(|(_, w)| w.is("}") || w.is(";")).map_or(0, |n| n + 1)..open]);
    header.is_some_and(|header| !find(header, &["impl"]).is_empty() && !find(header, &["for"]).is_empty())
}

/// No name that could stand for anything.
fn names(sources: &Sources) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in sources {
        for part in path.trim_end_matches(".rs").split(['/', '_']).filter(|p| is_banned(p)) {
            found.push(format!("{path}: '{part}' as a file name"));
        }
        let words = words(text);
        for keyword in ["struct", "enum", "trait", "type", "union", "mod"] {
            for (n, line) in find(&words, &[keyword, "*"]) {
                let Word::Name(name) = &words[n + 1].1 else { continue };
                // What a trait calls its type is not ours to choose.
                if keyword == "type" && implements(&words[..n]) {
                    continue;
                }
                let mut spaced = String::new();
                for c in name.chars() {
                    if c.is_ascii_uppercase() || c == '_' {
                        spaced.push(' ');
                    }
                    spaced.push(c);
                }
                if spaced.split([' ', '_']).any(is_banned) {
                    found.push(format!("{path}:{line}: '{name}' as a name"));
                }
            }
        }
    }
    found
}

/// One place that makes a sandbox's processes. A number that is judged, as by a test of the filter, is no call.
fn clones(sources: &Sources) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in sources.iter().filter(|(p, _)| *p != "src/sys/clone.rs") {
        let called = find(&words(text), &["syscall", "(", "*", ":", ":", "SYS_clone3"]);
        found.extend(called.into_iter().map(|(_, line)| format!("{path}:{line}: clone3 outside sys/clone.rs")));
    }
    found
}

/// A program is named by its whole path, or somebody's PATH decides what runs. cve: 2018-6954
fn programs(sources: &Sources) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in sources {
        let words = words(text);
        for (n, line) in find(&words, &["Command", ":", ":", "new", "(", "*"]) {
            let parser = n >= 3 && words[n - 3].1.is("clap");
            if let Word::Text(program) = &words[n + 5].1
                && !program.starts_with('/')
                && !parser
            {
                found.push(format!("{path}:{line}: runs '{program}' by a relative name"));
            }
        }
    }
    found
}

/// A library that unpacks by itself follows links, or sets what it should not. cve: 2018-20990, 2021-38511, 2007-4559
fn extractions(sources: &Sources) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in sources {
        let words = words(text);
        for method in ["unpack", "unpack_in", "extract"] {
            let called = find(&words, &[".", method, "("]);
            found.extend(called.into_iter().map(|(_, line)| format!("{path}:{line}: {method}() of a library")));
        }
        for (_, line) in
            find(&words, &["std", ":", ":", "fs"]).into_iter().filter(|_| ["src/image/tree.rs", "src/image/tar.rs"].contains(&path.as_str()))
        {
            found.push(format!("{path}:{line}: a path where only handles may be"));
        }
    }
    found
}

/// Nothing lies about at the top.
fn top(entries: &[String]) -> Vec<String> {
    entries.iter().filter(|e| !TOP.contains(&e.as_str())).map(|e| format!("{e}: what is this at the top of the repository?")).collect()
}

/// What git keeps at the top; without git, what is there but the build's output.
fn entries() -> Vec<String> {
    let listed = std::process::Command::new("git").args(["ls-files", "-z"]).current_dir(root()).output();
    let mut names: Vec<String> = match listed {
        Ok(out) if out.status.success() => {
            String::from_utf8_lossy(&out.stdout).split('\0').filter_map(|p| p.split('/').next()).map(str::to_string).collect()
        }
        _ => std::fs::read_dir(root()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect(),
    };
    names.retain(|n| !n.is_empty() && n != "target" && n != ".git");
    names.sort();
    names.dedup();
    names
}

// ---------------------------------------------------------------------------------------------------------------- tests

#[track_caller]
fn holds(complaints: Vec<String>) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[track_caller]
fn catches(complaints: Vec<String>, what: &str) {
    assert!(complaints.len() == 1 && complaints[0].contains(what), "wanted one complaint with '{what}', got {complaints:?}");
}

#[test]
fn a_module_uses_only_modules_above_it() {
    let lib = std::fs::read_to_string(root().join("src/lib.rs")).unwrap();
    assert!(modules(&lib).len() > 10);
    holds(layers(&lib, &sources(&["src"])));
}

#[test]
fn layers_can_fail() {
    let lib = "pub mod ground; // crate::x\npub mod middle;\npub mod door;\n";
    let check = |path: &str, text: &str| layers(lib, &one(path, text));
    holds(check("src/middle.rs", "use crate::ground::{a, door}; // crate::door\nfn f() { crate::middle::g(\"crate::door\", 'a', '\\'') }"));
    holds(check("src/middle/b.rs", "use super::door; mod tests { use super::super::door; use super::*; }"));
    holds(check("src/middle/mod.rs", "mod tests { use super::door; }"));
    catches(check("src/middle.rs", "use crate::ground;\nuse crate::door::x;"), "middle.rs:2: middle uses door");
    catches(check("src/middle/a/b.rs", "fn f() { let c = '\"'; crate::door::x() }"), "middle uses door");
    catches(check("src/middle.rs", "use crate::{ground::{door}, door::y};"), "middle uses door");
    catches(check("src/middle.rs", "use crate::nothing;"), "no module");
    catches(check("src/stray.rs", ""), "does not list 'stray'");
    catches(check("src/middle.rs", "use super::door;"), "super::");
    catches(check("src/middle/mod.rs", "use super::door;"), "super::");
    catches(check("src/middle/b.rs", "use super::super::door;"), "super::");
    catches(check("src/middle.rs", "mod tests { use super::super::door; }"), "super::");
}

#[test]
fn unsafe_code_only_in_sys() {
    holds(fence(&sources(&["src"])));
}

#[test]
fn the_fence_can_fail() {
    let lock = "#![forbid(unsafe_code)]\n";
    holds(fence(&one("src/a.rs", &format!("{lock}// unsafe\nlet s = \"unsafe\"; let r = r#\"unsafe \"quoted\" \"#;"))));
    holds(fence(&one("src/sys/x.rs", "unsafe {}")));
    holds(fence(&one("src/a/b.rs", "fn f() {}")));
    catches(fence(&one("src/a.rs", &format!("{lock}fn f() {{ unsafe {{ g() }} }}"))), "a.rs:2: unsafe");
    catches(fence(&one("src/a/b.rs", "/* /* nested */ */ unsafe fn f() {}")), "unsafe");
    catches(fence(&one("src/a.rs", "// #![forbid(unsafe_code)]\nfn f() {}")), "no #![forbid");
    catches(fence(&one("src/a/mod.rs", "fn f() {}")), "no #![forbid");
}

#[test]
fn every_file_says_what_it_is() {
    holds(headers(&sources(&["src", "tests"])));
}

#[test]
fn headers_can_fail() {
    holds(headers(&one("src/a.rs", "//! What.\n")));
    catches(headers(&one("src/a.rs", "// What.\n")), "does not begin");
    catches(headers(&one("src/a.rs", "#![forbid(unsafe_code)]\n//! What.\n")), "does not begin");
}

#[test]
fn no_name_that_says_nothing() {
    holds(names(&sources(&["src", "tests"])));
}

#[test]
fn names_can_fail() {
    holds(names(&one("src/implicit.rs", "struct Typed; enum Information {} type Database = u8; fn helper() {} impl A for B {}")));
    catches(names(&one("src/utils.rs", "")), "utils");
    catches(names(&one("src/common/mod.rs", "")), "common");
    catches(names(&one("src/net_info.rs", "")), "info");
    catches(names(&one("src/a.rs", "struct RunContext;")), "RunContext");
    catches(names(&one("src/a.rs", "pub enum\nData {}")), "Data");
    catches(names(&one("src/a.rs", "trait SignalHandler {}")), "SignalHandler");
    catches(names(&one("src/a.rs", "type Impl = u8;")), "Impl");
    catches(names(&one("src/a.rs", "mod helpers {}")), "helpers");
    holds(names(&one("src/a.rs", "fn f() {} impl http::Body for A { fn g() {} type Data = u8; }")));
    catches(names(&one("src/a.rs", "impl B for A {} fn f() { type Data = u8; }")), "Data");
}

#[test]
fn one_place_clones() {
    holds(clones(&sources(&["src"])));
    assert!(sources(&["src"])["src/sys/clone.rs"].contains("SYS_clone3"));
}

#[test]
fn clones_can_fail() {
    holds(clones(&one("src/sys/clone.rs", "libc::syscall(libc::SYS_clone3, 0)")));
    holds(clones(&one("src/a.rs", "judge(libc::SYS_clone3); // syscall(libc::SYS_clone3)")));
    catches(clones(&one("src/sys/process.rs", "libc::syscall(\n libc::SYS_clone3, 0)")), "clone3");
}

#[test]
fn programs_are_named_by_their_whole_path() {
    holds(programs(&sources(&["src"])));
}

#[test]
fn programs_can_fail() {
    holds(programs(&one(
        "src/a.rs",
        "Command::new(path); Command::new(\"/usr/bin/newuidmap\"); clap::Command::new(\"run\"); // Command::new(\"x\")",
    )));
    catches(programs(&one("src/a.rs", "std::process::Command::new(\n \"newuidmap\")")), "newuidmap");
    catches(programs(&one("src/a/b.rs", "Command::new(\"./x\")")), "./x");
}

#[test]
fn i05_cve_2018_20990_no_library_unpacks() {
    holds(extractions(&sources(&["src"])));
}

#[test]
fn extractions_can_fail() {
    holds(extractions(&one("src/image/a.rs", "use super::unpack; unpack::begin(dir); std::fs::read(x)")));
    catches(extractions(&one("src/image/a.rs", "archive.unpack(dir)")), "unpack()");
    catches(extractions(&one("src/image/a.rs", "entry\n.unpack_in(dir)?")), "unpack_in()");
    catches(extractions(&one("src/image/tree.rs", "std::fs::set_permissions(p, m)")), "only handles");
}

#[test]
fn the_top_of_the_repository() {
    holds(top(&entries()));
}

#[test]
fn the_top_can_fail() {
    holds(top(&["src".into()]));
    catches(top(&["src".into(), "docs".into()]), "docs");
    catches(top(&["build.rs".into()]), "build.rs");
}
