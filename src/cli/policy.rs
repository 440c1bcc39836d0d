//! `sandbox policy list|show|check|diff`: what a policy says, in the words of its file.
//!
//! Called by `cli`, which prints the text. Reads policies only through `spec::policy`; starts nothing.
#![forbid(unsafe_code)]

use crate::error::{Error, Kind, Result};
use crate::spec::{Patch, Root, Userns, policy};
use serde_json::Value;
use std::path::Path;

/// A table of names, or JSON.
pub fn list(home: &Path, json: bool) -> Result<String> {
    let listed = policy::list(home);
    if json {
        return pretty(&listed);
    }
    let width = |of: fn(&policy::Listed) -> &str, head: &str| listed.iter().map(|l| of(l).chars().count()).fold(head.len(), usize::max);
    let (name, origin) = (width(|l| &l.name, "NAME"), width(|l| &l.origin, "ORIGIN"));
    let mut out = format!("{:name$}  {:origin$}  DESCRIPTION\n", "NAME", "ORIGIN");
    for l in &listed {
        out += &format!("{:name$}  {:origin$}  {}\n", l.name, l.origin, l.description);
    }
    Ok(out)
}

/// The whole policy, with what lies under it, as a policy file or as JSON.
pub fn show(word: &str, home: &Path, json: bool) -> Result<String> {
    let said = policy::said(&whole(word, home)?);
    if json { pretty(&said) } else { Ok(toml(&said)) }
}

/// Whether `file` may be used: as a policy, and as a site's ceiling or a default.
pub fn check(file: &str, home: &Path) -> Result<String> {
    // A bare word is a file of this directory here, as for every command that takes a FILE.
    let word = if file.contains('/') { file.to_string() } else { format!("./{file}") };
    let mut patch = whole(&word, home)?;
    let flaws = policy::flaws(&patch);
    if let Some(flaw) = flaws.first() {
        return Err(Error::usage(format!("cannot use policy {file}: {flaw}")));
    }
    // What is left to find is found by settling; root and ids come from the command line.
    patch.root = Some(Root::Host);
    patch.userns.get_or_insert(Userns::Auto);
    patch.settle().map_err(|e| e.context(format!("check policy {file}")))?;
    Ok(format!("{file}: ok\n"))
}

/// What differs between two whole policies: one line for each key, or for each entry of a list.
pub fn diff(a: &str, b: &str, home: &Path) -> Result<String> {
    let lines = |word: &str| -> Result<Vec<String>> {
        let mut out = Vec::new();
        flatten("", &policy::said(&whole(word, home)?), &mut out);
        Ok(out)
    };
    let (a, b) = (lines(a)?, lines(b)?);
    let mut changed: Vec<(&str, char)> = a.iter().filter(|l| !b.contains(l)).map(|l| (l.as_str(), '-')).collect();
    changed.extend(b.iter().filter(|l| !a.contains(l)).map(|l| (l.as_str(), '+')));
    // By key, so that the old and the new value of one key stand together.
    changed.sort_by_key(|(line, sign)| (line.split(" = ").next().unwrap_or("").to_string(), *sign == '+'));
    Ok(changed.iter().map(|(line, sign)| format!("{sign} {line}\n")).collect())
}

fn whole(word: &str, home: &Path) -> Result<Patch> {
    Ok(policy::choose(Some(word), home)?.0)
}

fn pretty(value: &impl serde::Serialize) -> Result<String> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Error::new(Kind::Bug, format!("cannot write JSON: {e}")))?;
    Ok(text + "\n")
}

/// A policy file: plain keys, then the sections; lists of entries with one entry a line.
fn toml(said: &Value) -> String {
    fn section(name: &str, value: &Value, out: &mut String) {
        let Some(map) = value.as_object() else { return };
        let (tables, plain): (Vec<_>, Vec<_>) = map.iter().partition(|(_, v)| v.is_object());
        if !name.is_empty() && (!plain.is_empty() || tables.is_empty()) {
            *out += &format!("\n[{name}]\n");
        }
        for (k, v) in plain {
            match v.as_array().filter(|list| list.iter().any(Value::is_object)) {
                Some(list) => {
                    *out += &format!("{} = [\n", key(k));
                    list.iter().for_each(|entry| *out += &format!("  {},\n", inline(entry)));
                    *out += "]\n";
                }
                None => *out += &format!("{} = {}\n", key(k), inline(v)),
            }
        }
        for (k, v) in tables {
            let path = if name.is_empty() { key(k) } else { format!("{name}.{}", key(k)) };
            section(&path, v, out);
        }
    }
    let mut out = String::new();
    section("", said, &mut out);
    out
}

/// A value on one line. What a policy holds is text, whole numbers, truth, lists and tables of them; TOML and JSON spell
/// all but tables, and the escapes of DEL, alike.
fn inline(value: &Value) -> String {
    match value {
        Value::String(_) => value.to_string().replace('\u{7f}', "\\u007f"),
        Value::Array(list) => format!("[{}]", list.iter().map(inline).collect::<Vec<_>>().join(", ")),
        Value::Object(map) => {
            let fields = map.iter().map(|(k, v)| format!("{} = {}", key(k), inline(v))).collect::<Vec<_>>();
            if fields.is_empty() { "{}".into() } else { format!("{{ {} }}", fields.join(", ")) }
        }
        _ => value.to_string(),
    }
}

fn key(key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if bare { key.to_string() } else { inline(&Value::String(key.to_string())) }
}

/// `files.hide = { path = "~/.ssh", why = "keys" }`, a line for each entry.
fn flatten(name: &str, value: &Value, out: &mut Vec<String>) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (k, v) in map {
                flatten(&if name.is_empty() { key(k) } else { format!("{name}.{}", key(k)) }, v, out);
            }
        }
        Value::Array(list) if !list.is_empty() => out.extend(list.iter().map(|v| format!("{name} = {}", inline(v)))),
        _ => out.push(format!("{name} = {}", inline(value))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const NOWHERE: &str = "/nonexistent";

    fn file(name: &str, text: &str) -> String {
        let path = std::env::temp_dir().join(format!("sandbox-cli-policy-{name}-{}.toml", std::process::id()));
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_string()
    }

    #[test]
    fn what_show_prints_is_a_policy_that_says_the_same() {
        for name in policy::builtin_names() {
            let text = show(name, Path::new(NOWHERE), false).unwrap();
            let again = file(&format!("show-{name}"), &text);
            let (first, second) = (whole(name, Path::new(NOWHERE)), policy::load(&again, Path::new(NOWHERE)));
            fs::remove_file(&again).unwrap();
            let mut second = second.unwrap();
            second.limits.asked.clear(); // what is in a file is no default any more
            assert_eq!(first.unwrap(), second, "{name}:\n{text}");
            let json: Value = serde_json::from_str(&show(name, Path::new(NOWHERE), true).unwrap()).unwrap();
            assert!(json["files"]["hide"][0]["why"].is_string());
        }
        // An empty list that says "nothing" is not silence.
        let strict = show("strict", Path::new(NOWHERE), false).unwrap();
        assert!(strict.contains("\n[capabilities]\nkeep = []\n") && strict.contains("\ntcp-bind = []\n"), "{strict}");
    }

    #[test]
    fn list_is_a_table() {
        let text = list(Path::new(NOWHERE), false).unwrap();
        assert!(text.starts_with("NAME     ORIGIN    DESCRIPTION\n") && text.contains("\nstrict   built-in  "), "{text}");
        let json: Vec<Value> = serde_json::from_str(&list(Path::new(NOWHERE), true).unwrap()).unwrap();
        assert_eq!(json.len(), policy::builtin_names().count());
    }

    #[test]
    fn check_says_ok_or_why_not() {
        for (text, want) in [
            ("include = ['strict']\n[userns.keep-id]", Ok(())),
            ("network.mode = 'host'", Ok(())),
            ("network.mode = 'hosts'", Err("line 1, column 16")),
            ("process.umask = '8'", Err("bad process.umask")),
            ("include = ['nothing']", Err("no such policy")),
        ] {
            let path = file("check", text);
            let said = check(&path, Path::new(NOWHERE));
            fs::remove_file(&path).unwrap();
            match want {
                Ok(()) => assert_eq!(said.unwrap(), format!("{path}: ok\n")),
                Err(why) => assert!(said.unwrap_err().message().contains(why), "{text}"),
            }
        }
        assert_eq!(check("strict", Path::new(NOWHERE)).unwrap_err().kind(), Kind::NotFound);
    }

    #[test]
    fn diff_is_by_key() {
        assert_eq!(diff("default", "default", Path::new(NOWHERE)).unwrap(), "");
        let text = diff("default", "nested", Path::new(NOWHERE)).unwrap();
        for line in ["- namespaces.nested = false\n+ namespaces.nested = true\n", "\n+ seccomp.allow = \"@namespaces\"\n", "\n- proc.masks = true\n"]
        {
            assert!(text.contains(line), "{text}");
        }
        let back = diff("nested", "default", Path::new(NOWHERE)).unwrap();
        assert_eq!(back.lines().count(), text.lines().count());
    }
}
