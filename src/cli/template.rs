//! The part of Go's templates that scripts use after `--format`: `{{.ID}}`, `{{json .}}`, `{{index .RepoTags 0}}`, `{{range ..}}`.
//!
//! Called by the commands that print tables. What it does not know it refuses, with the list of what it knows.
//! docker: docs/reference/commandline, "Format command and log output"
#![forbid(unsafe_code)]

use crate::error::{Error, Result, printable};
use serde_json::Value;

const KNOWN: &str = "{{.Field}}, {{.Field.Field}}, {{json .}}, {{index .Field 0}}, {{len .Field}}, {{join .Field \",\"}}, {{lower .Field}}, \
                     {{upper .Field}}, {{println .Field}}, {{.Label \"KEY\"}}, {{range .Field}}..{{end}}";
const DEEPEST: usize = 8;

/// `template`, filled from `row`.
pub fn fill(template: &str, row: &Value) -> Result<String> {
    // As Docker: what a shell passes on as two characters.
    let template = template.replace("\\t", "\t").replace("\\n", "\n");
    let mut out = String::new();
    let rest = part(&template, row, &mut out, 0)?;
    if rest.is_some() { Err(bad("{{end}} without {{range}}")) } else { Ok(out) }
}

fn bad(why: impl std::fmt::Display) -> Error {
    Error::usage(format!("bad template: {why}")).hint(format!("known are {KNOWN}"))
}

/// Up to the end or an `{{end}}`: what comes after that.
fn part<'a>(mut template: &'a str, row: &Value, out: &mut String, depth: usize) -> Result<Option<&'a str>> {
    if depth > DEEPEST {
        return Err(bad("{{range}} is nested too deep"));
    }
    while let Some((before, rest)) = template.split_once("{{") {
        out.push_str(before);
        let (action, after) = rest.split_once("}}").ok_or_else(|| bad("{{ without }}"))?;
        template = after;
        let words: Vec<&str> = action.split_whitespace().collect();
        match words.as_slice() {
            ["end"] => return Ok(Some(template)),
            ["range", field] => {
                let list = look(row, field)?;
                let each: Vec<&Value> = match list {
                    Value::Array(list) => list.iter().collect(),
                    Value::Object(map) => map.values().collect(),
                    Value::Null => Vec::new(),
                    _ => return Err(bad(format!("{field} is no list"))),
                };
                let after = skip(template)?;
                for value in each {
                    part(template, value, out, depth + 1)?;
                }
                template = after;
            }
            ["json", field] => out.push_str(&plain(look(row, field)?.to_string())),
            ["len", field] => {
                let n = match look(row, field)? {
                    Value::Array(list) => list.len(),
                    Value::Object(map) => map.len(),
                    Value::String(s) => s.len(),
                    Value::Null => 0,
                    _ => return Err(bad(format!("{field} has no length"))),
                };
                out.push_str(&n.to_string());
            }
            ["lower", field] => *out += &shown(look(row, field)?).to_lowercase(),
            ["upper", field] => *out += &shown(look(row, field)?).to_uppercase(),
            ["join", field, ..] => {
                let list = look(row, field)?.as_array().ok_or_else(|| bad(format!("{field} is no list")))?;
                let between = action.split('"').nth(1).ok_or_else(|| bad("join by what?"))?;
                *out += &list.iter().map(shown).collect::<Vec<_>>().join(between);
            }
            // In a row they are one word, as docker has them: a part without = goes on with the value before.
            [".Label", key] => {
                let labels = shown(look(row, ".Labels")?);
                let (key, mut is_it) = (key.trim_matches('"'), false);
                for part in labels.split(',') {
                    match part.split_once('=') {
                        Some((name, value)) => {
                            is_it = name == key;
                            out.push_str(if is_it { value } else { "" });
                        }
                        None if is_it => out.extend([",", part]),
                        None => {}
                    }
                }
            }
            ["println", field] => *out += &(shown(look(row, field)?) + "\n"),
            ["index", field, keys @ ..] if !keys.is_empty() => {
                let mut value = look(row, field)?;
                for key in keys {
                    let key = key.trim_matches('"');
                    let found = match value {
                        Value::Array(list) => key.parse::<usize>().ok().and_then(|n| list.get(n)),
                        Value::Object(map) => map.get(key),
                        _ => None,
                    };
                    value = found.ok_or_else(|| bad(format!("{field} has no '{key}'")))?;
                }
                out.push_str(&shown(value));
            }
            [field] => out.push_str(&shown(look(row, field)?)),
            _ => return Err(bad(format!("'{{{{{action}}}}}'"))),
        }
    }
    out.push_str(template);
    Ok(None)
}

/// Behind the `{{end}}` of a range over nothing.
fn skip(mut template: &str) -> Result<&str> {
    let mut open = 1;
    while let Some((_, rest)) = template.split_once("{{") {
        let (action, after) = rest.split_once("}}").ok_or_else(|| bad("{{ without }}"))?;
        template = after;
        match action.split_whitespace().next() {
            Some("range") => open += 1,
            Some("end") => open -= 1,
            _ => {}
        }
        if open == 0 {
            return Ok(template);
        }
    }
    Err(bad("{{range}} without {{end}}"))
}

/// `.`, `.Field`, `.Field.Field`.
fn look<'a>(row: &'a Value, field: &str) -> Result<&'a Value> {
    let path = field.strip_prefix('.').ok_or_else(|| bad(format!("'{field}' is no field")))?;
    let mut value = row;
    for name in path.split('.').filter(|n| !n.is_empty()) {
        let known = || value.as_object().map(|o| o.keys().cloned().collect::<Vec<_>>().join(", ")).unwrap_or_default();
        value = match value {
            Value::Object(map) => {
                map.get(name).ok_or_else(|| Error::usage(format!("bad template: no field '{name}'")).hint(format!("there are {}", known())))?
            }
            Value::Null => &Value::Null,
            _ => return Err(bad(format!("no field '{name}' in a plain value"))),
        };
    }
    Ok(value)
}

/// As Go prints it.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        // cve: 2023-28101
        Value::String(s) => printable(s),
        Value::Array(list) => format!("[{}]", list.iter().map(shown).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => format!("map[{}]", map.iter().map(|(k, v)| format!("{}:{}", printable(k), shown(v))).collect::<Vec<_>>().join(" ")),
        other => other.to_string(),
    }
}

/// JSON without what a terminal takes for more than letters: it stays the same JSON.
pub fn plain(json: String) -> String {
    let odd = |c: char| c != '\n' && printable(c.encode_utf8(&mut [0; 4])).len() > c.len_utf8();
    if !json.contains(odd) {
        return json;
    }
    json.chars().map(|c| if odd(c) { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_scripts_use() {
        let row = serde_json::json!({ "ID": "abc", "Tags": ["x", "y"], "Config": { "Env": ["A=1"], "Labels": { "k": "v" } }, "None": null, "Size": 7, "Labels": "flag,a.b=1=2,c=x,y,d=" });
        for (template, text) in [
            ("{{.ID}}", "abc"),
            ("{{ .ID }}:{{.Size}}", "abc:7"),
            ("{{.Config.Env}}", "[A=1]"),
            ("{{.Config.Labels}}", "map[k:v]"),
            ("{{json .Config.Labels}}", "{\"k\":\"v\"}"),
            ("{{index .Tags 1}}", "y"),
            ("{{index .Config.Labels \"k\"}}", "v"),
            ("{{len .Tags}}", "2"),
            ("{{range .Tags}}<{{.}}>{{end}}!", "<x><y>!"),
            ("{{range .None}}<{{.ID}}{{range .X}}{{end}}>{{end}}!", "!"),
            ("{{range .Tags}}{{println .}}{{end}}", "x\ny\n"),
            ("{{join .Tags \", \"}} {{upper .ID}} {{lower .ID}}", "x, y ABC abc"),
            ("{{.Label \"a.b\"}}|{{.Label \"flag\"}}|{{.Label \"none\"}}|{{.Label \"c\"}}|{{.Label \"d\"}}", "1=2|||x,y|"),
            ("a\\tb", "a\tb"),
            ("{{.None.Deeper}}", ""),
        ] {
            assert_eq!(fill(template, &row).unwrap(), text, "{template}");
        }
        for bad in ["{{", "{{.Nope}}", "{{end}}", "{{range .Tags}}", "{{if .ID}}x{{end}}", "{{index .Tags 9}}", "{{ID}}", "{{.ID.X}}", "{{}}"] {
            assert!(fill(bad, &row).is_err(), "{bad}");
        }
        assert!(fill(&"{{range .Tags}}".repeat(1000), &row).is_err());
    }
}
