//! What an image's configuration says about a run, as a patch; and how `--change` edits one. Called by `cli`.
//!
//! *Invariants*
//! - I1 only the fields below are read: no label, no annotation and no other field means anything to us. cve: 2026-53488, 2026-53492
#![forbid(unsafe_code)]

use super::Image;
use super::store::Store;
use crate::error::{Error, Result};
use crate::spec::process::signal;
use crate::spec::{Patch, storage};
use serde_json::{Map, Value, json};
use std::ffi::OsString;
use std::path::PathBuf;

/// What the image wants to be run with. `entrypoint` and `words` are the user's own. oci: config.md#properties
pub fn patch(image: &Image, entrypoint: Option<&str>, words: Vec<OsString>) -> Result<Patch> {
    let mut patch = Patch::default();
    let config = image.config.config();
    let own = |list: Option<&Vec<String>>| list.cloned().unwrap_or_default();
    let config = config.as_ref();
    let p = &mut patch.process;

    // Docker: an entry point of the user's own takes the image's command away too.
    let (first, rest) = match entrypoint {
        Some(word) => (words_of(word)?, Vec::new()),
        None => (own(config.and_then(|c| c.entrypoint().as_ref())), own(config.and_then(|c| c.cmd().as_ref()))),
    };
    p.argv = first.into_iter().map(OsString::from).collect();
    if words.is_empty() {
        p.argv.extend(rest.into_iter().map(OsString::from));
    } else {
        p.argv.extend(words);
    }
    if p.argv.is_empty() {
        return Err(Error::usage("cannot run the image: it names no command").hint("sandbox run IMAGE CMD [ARG...]"));
    }
    let Some(config) = config else { return Ok(patch) };
    let bad = |field: &str, value: &str, why: &str| Error::usage(format!("cannot use the image: its {field} '{value}' {why}"));
    for variable in own(config.env().as_ref()) {
        match variable.split_once('=') {
            Some((name, value)) if !name.is_empty() && !variable.contains('\0') => p.env.insert(name.to_string(), value.to_string()),
            _ => return Err(bad("Env", &variable, "is not NAME=VALUE")),
        };
    }
    if let Some(user) = config.user().as_ref().filter(|u| !u.is_empty()) {
        p.user = Some(user.parse().map_err(|_| bad("User", user, "is no user").hint("say which with -u"))?);
    }
    if let Some(dir) = config.working_dir().as_ref().filter(|d| !d.is_empty()) {
        p.cwd = Some(storage::inside(dir).map_err(|_| bad("WorkingDir", dir, "is no absolute path").hint("say where with -w"))?);
    }
    if let Some(name) = config.stop_signal().as_ref().filter(|s| !s.is_empty()) {
        signal(name).map_err(|_| bad("StopSignal", name, "is no signal"))?;
        p.stop_signal = Some(name.clone());
    }
    Ok(patch)
}

/// docker: the `Healthcheck` of an image, which is no part of OCI's configuration.
pub fn healthcheck_of(store: &Store, image: &Image) -> Result<Option<Value>> {
    let file = store.open_blob(&image.id)?;
    let mut config: Value =
        serde_json::from_reader(std::io::BufReader::new(file)).map_err(|e| Error::usage(format!("cannot read the image: {e}")))?;
    Ok(Some(config["config"]["Healthcheck"].take()).filter(Value::is_object))
}

/// The directories that the image wants outside the writable layer. cve: 2022-23648 (one with `..` in it)
pub fn volumes(image: &Image) -> Result<Vec<PathBuf>> {
    let config = image.config.config().as_ref();
    let list = config.and_then(|c| c.volumes().clone()).unwrap_or_default();
    let inside = |v: &String| storage::inside(v).map_err(|_| Error::usage(format!("cannot use the image: its volume '{v}' is no absolute path")));
    list.iter().map(inside).collect()
}

/// `--entrypoint`: one word, or a JSON array of several; an empty one takes the image's away.
fn words_of(word: &str) -> Result<Vec<String>> {
    if word.starts_with('[') {
        return serde_json::from_str(word).map_err(|_| Error::usage(format!("bad --entrypoint '{word}': a program, or a JSON array of words")));
    }
    Ok(if word.is_empty() { Vec::new() } else { vec![word.to_string()] })
}

/// Edit the `config` object of an image's configuration as a Dockerfile's instruction would: `CMD ["sh"]`, `ENV A=b`. Unknown fields stay.
pub fn change(config: &mut Map<String, Value>, instruction: &str) -> Result<()> {
    let bad = |why: &str| Error::usage(format!("bad --change '{instruction}': {why}"));
    let text = instruction.trim();
    let (verb, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let rest = rest.trim();
    if rest.is_empty() || rest.contains('\0') {
        return Err(bad("an instruction of a Dockerfile and its words"));
    }
    let word = || {
        let words = split(rest).ok_or_else(|| bad("a quote is not closed"))?;
        <[String; 1]>::try_from(words).map(|[w]| w).map_err(|_| bad("one word"))
    };
    match verb.to_ascii_uppercase().as_str() {
        "CMD" => drop(config.insert("Cmd".into(), command(rest))),
        "ENTRYPOINT" => {
            // docker: an entry point resets the command that belonged to the old one.
            config.remove("Cmd");
            config.insert("Entrypoint".into(), command(rest));
        }
        "USER" => {
            let user = word()?;
            user.parse::<crate::spec::User>().map_err(|e| bad(e.message()))?;
            config.insert("User".into(), json!(user));
        }
        "WORKDIR" => {
            // A relative one goes on from what there is.
            let before = config.get("WorkingDir").and_then(Value::as_str).unwrap_or("/");
            let dir = PathBuf::from(before).join(word()?);
            let dir = storage::inside(&dir.to_string_lossy()).map_err(|_| bad("a path without '..'"))?;
            config.insert("WorkingDir".into(), json!(dir));
        }
        "STOPSIGNAL" => {
            let name = word()?;
            signal(&name).map_err(|e| bad(e.message()))?;
            config.insert("StopSignal".into(), json!(name));
        }
        "ENV" => {
            let mut list: Vec<String> = config.get("Env").and_then(|v| serde_json::from_value(v.clone()).ok()).unwrap_or_default();
            for (name, value) in pairs(rest).ok_or_else(|| bad("NAME=VALUE"))? {
                list.retain(|v| v.split_once('=').is_none_or(|(n, _)| n != name));
                list.push(format!("{name}={value}"));
            }
            config.insert("Env".into(), json!(list));
        }
        "LABEL" => {
            let labels = object(config, "Labels");
            labels.extend(pairs(rest).ok_or_else(|| bad("NAME=VALUE"))?.into_iter().map(|(n, v)| (n, json!(v))));
        }
        "EXPOSE" => {
            let ports = object(config, "ExposedPorts");
            for word in rest.split_whitespace() {
                let (port, protocol) = word.split_once('/').unwrap_or((word, "tcp"));
                let number = |n: &str| n.parse::<u16>().is_ok_and(|n| n != 0);
                let fine = port.split_once('-').map_or_else(|| number(port), |(a, b)| number(a) && number(b));
                if !fine || !matches!(protocol, "tcp" | "udp" | "sctp") {
                    return Err(bad("PORT[/tcp|udp|sctp]"));
                }
                ports.insert(format!("{port}/{protocol}"), json!({}));
            }
        }
        "VOLUME" => {
            let list = serde_json::from_str(rest).ok().or_else(|| split(rest)).ok_or_else(|| bad("a quote is not closed"))?;
            let volumes = object(config, "Volumes");
            for volume in list {
                let path = storage::inside(&volume).map_err(|_| bad("absolute paths"))?;
                volumes.insert(path.display().to_string(), json!({}));
            }
        }
        "ONBUILD" => {
            let list = config.entry("OnBuild").or_insert(json!([]));
            match list.as_array_mut() {
                Some(list) => list.push(json!(rest)),
                None => *list = json!([rest]),
            }
        }
        "HEALTHCHECK" => drop(config.insert("Healthcheck".into(), healthcheck(rest).ok_or_else(|| bad("NONE, or [OPTIONS] CMD ..."))?)),
        _ => {
            let known = "CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME or WORKDIR";
            return Err(bad(&format!("'{verb}' is none of {known}")));
        }
    }
    Ok(())
}

/// A field that is an object, made if it is not there.
fn object<'a>(config: &'a mut Map<String, Value>, field: &str) -> &'a mut Map<String, Value> {
    let value = config.entry(field).or_insert(Value::Null);
    if !value.is_object() {
        *value = json!({});
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("made just now"),
    }
}

/// The exec form is a JSON array; anything else is for a shell.
fn command(text: &str) -> Value {
    match serde_json::from_str::<Vec<String>>(text) {
        Ok(words) => json!(words),
        Err(_) => json!(["/bin/sh", "-c", text]),
    }
}

/// `A=b C="d e"`, or the old form `A b and the rest`.
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let words = split(text)?;
    let pair = |w: &String| w.split_once('=').filter(|(n, _)| !n.is_empty()).map(|(n, v)| (n.to_string(), v.to_string()));
    if words.first().is_some_and(|w| w.contains('=')) {
        return words.iter().map(pair).collect();
    }
    let (name, value) = text.split_once(char::is_whitespace)?;
    Some(vec![(name.to_string(), value.trim().to_string())])
}

/// Words as a Dockerfile has them: quotes join, a backslash takes the next character as it is. None: a quote is left open.
fn split(text: &str) -> Option<Vec<String>> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            ('\\', None | Some('"')) => word.get_or_insert_default().extend(chars.next()),
            (c, Some(q)) if c == q => quote = None,
            (c, Some(_)) => word.get_or_insert_default().push(c),
            ('"' | '\'', None) => (quote, word) = (Some(c), Some(word.unwrap_or_default())),
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, None) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

/// docker: the `Healthcheck` of an image, times in nanoseconds. Kept for other tools.
fn healthcheck(text: &str) -> Option<Value> {
    let mut rest = text;
    let mut check = Map::new();
    while let Some(option) = rest.strip_prefix("--") {
        let (option, after) = option.split_once(char::is_whitespace)?;
        rest = after.trim_start();
        let (name, value) = option.split_once('=')?;
        let field = match name {
            "interval" => "Interval",
            "timeout" => "Timeout",
            "start-period" => "StartPeriod",
            "start-interval" => "StartInterval",
            "retries" => "Retries",
            _ => return None,
        };
        check.insert(field.into(), if name == "retries" { json!(value.parse::<u32>().ok()?) } else { json!(nanoseconds(value)?) });
    }
    let (verb, command) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let test = match (verb.to_ascii_uppercase().as_str(), command.trim()) {
        ("NONE", "") if check.is_empty() => json!(["NONE"]),
        ("CMD", command) if !command.is_empty() => match serde_json::from_str::<Vec<String>>(command) {
            Ok(words) => json!([vec!["CMD".to_string()], words].concat()),
            Err(_) => json!(["CMD-SHELL", command]),
        },
        _ => return None,
    };
    check.insert("Test".into(), test);
    Some(Value::Object(check))
}

/// `1m30s`, as Go spells it, in nanoseconds.
pub fn nanoseconds(text: &str) -> Option<u64> {
    let (mut total, mut rest) = (0u64, text);
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest.get(..digits)?.parse().ok()?;
        let unit = rest.get(digits..)?;
        let letters = unit.bytes().take_while(u8::is_ascii_alphabetic).count();
        let each = match unit.get(..letters)? {
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        total = number.checked_mul(each)?.checked_add(total)?;
        rest = unit.get(letters..)?;
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(config: Value) -> Image {
        let document = json!({ "architecture": "amd64", "os": "linux", "rootfs": { "type": "layers", "diff_ids": [] }, "config": config });
        let digest = crate::ident::Digest::sha256(&[0; 32]);
        Image {
            names: vec![],
            store: PathBuf::new(),
            manifest: super::super::Descriptor { media_type: String::new(), digest: digest.clone(), size: 0 },
            id: digest,
            config: serde_json::from_value(document).unwrap(),
            layers: vec![],
        }
    }

    #[test]
    fn entry_point_and_command() {
        let both = json!({ "Entrypoint": ["/e", "-x"], "Cmd": ["c", "d"] });
        for (config, entrypoint, words, expected) in [
            (both.clone(), None, "", "/e -x c d"),
            (both.clone(), None, "mine", "/e -x mine"),
            (both.clone(), Some("/f"), "", "/f"),
            (both.clone(), Some("/f"), "y", "/f y"),
            (both.clone(), Some(""), "y z", "y z"),
            (both.clone(), Some("[\"/f\",\"-q\"]"), "y", "/f -q y"),
            (both, Some(""), "", "!"),
            (json!({ "Cmd": ["c"] }), None, "", "c"),
            (json!({ "Entrypoint": ["e"] }), None, "a", "e a"),
            (json!({}), None, "a", "a"),
            (json!({}), None, "", "!"),
        ] {
            let words = words.split_whitespace().map(OsString::from).collect();
            let argv = patch(&image(config), entrypoint, words).map(|p| p.process.argv.join(" ".as_ref()).into_string().unwrap());
            assert_eq!(argv.unwrap_or("!".into()), expected, "{entrypoint:?}");
        }
    }

    #[test]
    fn cve_2024_40635_2016_3697_what_is_no_user_is_refused() {
        for (user, fine) in [
            ("0", true),
            ("1", true),
            ("2147483648", true),
            ("1000:1000", true),
            ("web", true),
            ("", true),
            ("00", false),
            ("4294967295", false),
            ("4294967296", false),
            ("-1", false),
            ("1:", false),
            (":0", false),
            ("+0", false),
            (" 0", false),
            ("1000:1000:1", false),
            ("a\nb", false),
        ] {
            assert_eq!(patch(&image(json!({ "User": user, "Cmd": ["c"] })), None, vec![]).is_ok(), fine, "{user:?}");
        }
    }

    #[test]
    fn cve_2022_23648_paths_are_plain() {
        for bad in ["x", "../x", "/a/../../x", "/a\0"] {
            assert!(patch(&image(json!({ "WorkingDir": bad, "Cmd": ["c"] })), None, vec![]).is_err(), "{bad:?}");
            assert!(volumes(&image(json!({ "Volumes": { bad: {} } }))).is_err(), "{bad:?}");
        }
        assert_eq!(volumes(&image(json!({ "Volumes": { "/b/c/": {} } }))).unwrap(), [PathBuf::from("/b/c")]);
        for bad in [json!({ "Env": ["=x"] }), json!({ "Env": ["x"] }), json!({ "Env": ["A=\0"] }), json!({ "StopSignal": "NOPE" })] {
            assert!(patch(&image(bad.clone()), None, vec!["c".into()]).is_err(), "{bad}");
        }
    }

    #[test]
    fn changes() {
        let mut config = Map::new();
        config.insert("Unknown".into(), json!(1));
        for instruction in [
            "CMD [\"a\", \"b\"]",
            "ENV A=1 B=\"two words\"",
            "env A=3",
            "ENV C  and the rest",
            "EXPOSE 80 53/udp 8000-8010/tcp",
            "LABEL a.b='c d'",
            "USER web:33",
            "WORKDIR /srv",
            "WORKDIR www",
            "VOLUME /data",
            "VOLUME [\"/x\", \"/y\"]",
            "STOPSIGNAL SIGINT",
            "ONBUILD RUN x",
            "HEALTHCHECK --interval=1m30s --retries=2 CMD curl localhost",
        ] {
            change(&mut config, instruction).unwrap();
        }
        let expected = json!({
            "Unknown": 1, "Cmd": ["a", "b"], "Env": ["B=two words", "A=3", "C=and the rest"],
            "ExposedPorts": { "80/tcp": {}, "53/udp": {}, "8000-8010/tcp": {} }, "Labels": { "a.b": "c d" }, "User": "web:33",
            "WorkingDir": "/srv/www", "Volumes": { "/data": {}, "/x": {}, "/y": {} }, "StopSignal": "SIGINT", "OnBuild": ["RUN x"],
            "Healthcheck": { "Test": ["CMD-SHELL", "curl localhost"], "Interval": 90_000_000_000u64, "Retries": 2 },
        });
        assert_eq!(Value::Object(config.clone()), expected);
        change(&mut config, "ENTRYPOINT echo hi").unwrap();
        assert_eq!((config.get("Cmd"), &config["Entrypoint"]), (None, &json!(["/bin/sh", "-c", "echo hi"])));
        for bad in [
            "",
            "CMD",
            "RUN x",
            "ENV x",
            "ENV =x",
            "ENV A=\"x",
            "USER 00",
            "USER a b",
            "WORKDIR ..",
            "VOLUME x",
            "EXPOSE 0",
            "EXPOSE 1/x",
            "STOPSIGNAL NO",
            "HEALTHCHECK CMD",
            "HEALTHCHECK --interval=x CMD a",
            "LABEL a=1 b",
        ] {
            assert!(change(&mut config, bad).is_err(), "{bad:?}");
        }
    }
}
