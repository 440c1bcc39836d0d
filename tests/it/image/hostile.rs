//! A registry that lies, stalls, breaks off and sends elsewhere: each script ends soon, in one line of error or rightly, tells no secret
//! to anybody, and leaves nothing in the store.

use super::served::{Asked, Made, Packed, Piece, Script, Server, answer, made, manifest, packed, reset};
use crate::support::{Output, Place, finish, mode, patience, place};
use sandbox::image::layout;
use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

const OCI: &str = layout::OCI_MANIFEST;

/// How a pull should end.
enum End {
    Works,
    Says(&'static str),
}
use End::{Says, Works};

/// One home, an innocent host at 127.0.0.2, and what both saw.
struct Stage {
    place: Place,
    image: Made,
    other: Server,
    runs: usize,
}

impl Stage {
    fn new() -> Stage {
        let mut place = place();
        place.env.insert("SANDBOX_STALL".into(), "0.5".into());
        let image = made(300_000);
        let other = Server::start("127.0.0.2", Some(image.clone()), Arc::new(|_, _| false));
        Stage { place, image, other, runs: 0 }
    }

    /// `http://127.0.0.2:PORT`.
    fn elsewhere(&self) -> String {
        format!("http://{}", self.other.address)
    }

    fn passwords(&self, entries: &[(&str, &str)]) {
        let list: Vec<String> = entries.iter().map(|(host, entry)| format!("\"{host}\": {{{entry}}}")).collect();
        let file = self.place.file(".config/containers/auth.json", &format!("{{\"auths\": {{{}}}}}", list.join(",")));
        mode(&file, 0o600);
    }

    /// A registry by this script, with the user's password on file if `known`.
    fn registry(&self, known: bool, script: impl Fn(&Asked, &mut TcpStream) -> bool + Send + Sync + 'static) -> Server {
        let server = Server::start("127.0.0.1", Some(self.image.clone()), Arc::new(script));
        match known {
            true => self.passwords(&[(&server.address.to_string(), PASSWORD)]),
            false => self.passwords(&[]),
        }
        server
    }

    #[track_caller]
    fn run(&self, args: &[&str]) -> Output {
        finish(self.place.cli(args).spawn().expect("start"), b"")
    }

    /// Pull from it into an empty store, and look at what is left of that.
    #[track_caller]
    fn pull(&mut self, what: &str, server: &Server, end: End) -> Output {
        self.pull_name(what, &format!("{}/x", server.address), end)
    }

    #[track_caller]
    fn pull_name(&mut self, what: &str, name: &str, end: End) -> Output {
        self.runs += 1;
        self.place.env.insert("XDG_DATA_HOME".into(), self.place.at(&format!("data{}", self.runs)));
        let output = self.run(&["pull", name]);
        println!("{what}: {}", output.stderr.lines().find(|l| l.starts_with("error")).unwrap_or("works"));
        assert!(output.took < Duration::from_secs(12) * patience(), "{what} took long: {output:?}");
        match end {
            Works => drop(output.ok()),
            Says(words) => {
                output.refused(words);
                assert!(output.stdout.is_empty(), "{what}: {output:?}");
            }
        }
        assert!(!format!("{output:?}").contains("topsecret") && !output.stderr.contains('\u{1b}'), "{what}: {output:?}");
        // The next command finds nothing of it.
        let images = self.run(&["images", "-q"]);
        assert_eq!(images.ok().is_empty(), matches!(end, Says(_)), "{what}: {images:?}");
        let tmp = self.place.path(&format!("data{}/sandbox/store/tmp", self.runs));
        let left: Vec<_> = std::fs::read_dir(tmp).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert!(left.is_empty(), "{what} leaves {left:?}");
        output
    }

    /// Many scripts that need no password.
    #[track_caller]
    fn all(&mut self, scripts: Vec<(&str, End, Script)>) {
        for (what, end, script) in scripts {
            let server = self.registry(false, move |asked, stream| script(asked, stream));
            self.pull(what, &server, end);
            assert!(server.asked().len() < 40, "{what}: {} requests", server.asked().len());
        }
    }
}

/// u:topsecret
const PASSWORD: &str = r#""auth": "dTp0b3BzZWNyZXQ=""#;
const BASIC: &str = "Basic dTp0b3BzZWNyZXQ=";

fn script(f: impl Fn(&Asked, &mut TcpStream) -> bool + Send + Sync + 'static) -> Script {
    Arc::new(f)
}

/// Instead of the manifest.
fn for_manifest(f: impl Fn(&Asked, &mut TcpStream) + Send + Sync + 'static) -> Script {
    script(move |asked, stream| {
        let hit = asked.is("GET", "/manifests/");
        if hit {
            f(asked, stream);
        }
        hit
    })
}

/// This text as the manifest.
fn manifest_is(kind: &'static str, text: impl Into<Vec<u8>>) -> Script {
    let text = text.into();
    for_manifest(move |_, stream| answer(stream, "200 OK", &[("Content-Type", kind)], &text))
}

/// Instead of the layer.
fn for_layer(image: &Made, f: impl Fn(&Asked, &[u8], &mut TcpStream) -> bool + Send + Sync + 'static) -> Script {
    let layer = image.layer.clone();
    script(move |asked, stream| asked.is("GET", &layer.digest) && f(asked, &layer.bytes, stream))
}

fn redirect_to(location: impl Into<String>) -> Script {
    let location = location.into();
    script(move |asked, stream| {
        let hit = asked.is("GET", "/blobs/") || asked.is("GET", "/round");
        if hit {
            answer(stream, "307 Temporary Redirect", &[("Location", &location)], b"");
        }
        hit
    })
}

#[test]
fn cve_2020_15157_redirects() {
    let mut stage = Stage::new();
    let other = stage.elsewhere();
    // With a password, the other host serves blobs and manifests, and never sees it.
    for part in ["/blobs/", "/manifests/"] {
        let to = other.clone();
        let server = stage.registry(true, move |asked, stream| {
            if asked.header("authorization") != BASIC {
                answer(stream, "401 Unauthorized", &[("WWW-Authenticate", "Basic realm=\"r\"")], b"");
            } else if asked.is("GET", part) {
                answer(stream, "302 Found", &[("Location", &format!("{to}{}", asked.path))], b"");
            } else {
                return false;
            }
            true
        });
        stage.pull(part, &server, Works);
        stage.other.never_saw_a_secret();
        assert!(stage.other.asked().iter().any(|a| a.path.contains(part)), "the redirect was not followed");
    }
    // A host that is sent to asks for a password: it gets none.
    let greedy = Server::start(
        "127.0.0.2",
        None,
        Arc::new(|_, stream| {
            answer(stream, "401 Unauthorized", &[("WWW-Authenticate", "Basic realm=\"r\"")], b"");
            true
        }),
    );
    let to = format!("http://{}/blob", greedy.address);
    let server = stage.registry(true, move |asked, stream| {
        if asked.is("GET", "/blobs/") {
            answer(stream, "302 Found", &[("Location", &to)], b"");
            return true;
        }
        false
    });
    stage.pull("the other host wants a password", &server, Says("does not allow it"));
    greedy.never_saw_a_secret();

    let closed = "http://127.0.0.2:1/x".to_string();
    stage.all(vec![
        ("a loop", Says("more than 5 redirects"), redirect_to("/round")),
        ("to a closed port", Says("connection refused"), redirect_to(closed)),
        ("to ftp", Says("neither http nor https"), redirect_to("ftp://127.0.0.1/x")),
        ("to a file", Says("neither http nor https"), redirect_to("file:///etc/passwd")),
        ("with a password", Says("carries a password"), redirect_to("http://a:b@127.0.0.2/x")),
        ("to the metadata service", Says("link-local"), redirect_to("http://169.254.169.254/latest/meta-data/")),
        ("the same in hexadecimal", Says("link-local"), redirect_to("http://0xa9fea9fe/latest")),
        ("the same as IPv6", Says("link-local"), redirect_to("http://[::ffff:169.254.169.254]/latest")),
        ("link-local IPv6", Says("link-local"), redirect_to("http://[fe80::1]/x")),
        ("to nowhere", Says("no URL"), redirect_to("http://[")),
        ("with odd bytes", Says("it is no text"), redirect_to("/\u{e9}")),
        (
            "without a place",
            Says("302"),
            script(|asked, stream| {
                let hit = asked.is("GET", "/blobs/");
                if hit {
                    answer(stream, "302 Found", &[], b"");
                }
                hit
            }),
        ),
        (
            "five in a row",
            Works,
            script(|asked, stream| {
                let hops = asked.path.matches("/hop").count();
                let hit = asked.is("GET", "/blobs/") && hops < 5;
                if hit {
                    let (path, hop) = asked.path.split_once("/v2").map_or(("", ""), |(hop, path)| (path, hop));
                    answer(stream, "301 Moved Permanently", &[("Location", &format!("{hop}/hop/v2{path}"))], b"");
                }
                hit
            }),
        ),
    ]);
    stage.other.never_saw_a_secret();
}

/// A registry that challenges whoever has no `Authorization`, and takes `Bearer good`.
fn challenges(challenge: String) -> impl Fn(&Asked, &mut TcpStream) -> bool + Send + Sync {
    move |asked, stream| {
        if asked.is("GET", "/token") || asked.is("POST", "/token") {
            answer(stream, "200 OK", &[], br#"{"token": "good"}"#);
        } else if asked.header("authorization") == "Bearer good" {
            return false;
        } else {
            let own = asked.header("host").to_string();
            answer(stream, "401 Unauthorized", &[("WWW-Authenticate", &challenge.replace("HERE", &own))], b"");
        }
        true
    }
}

#[test]
fn cve_2019_10214_challenges() {
    let mut stage = Stage::new();
    let bearer = |realm: &str| format!("Bearer realm=\"{realm}\",service=\"s\",scope=\"repository:other:push\"");
    // The own realm gets the password, and is asked for what we need, not for what the challenge says.
    let server = stage.registry(true, challenges(bearer("http://HERE/token")));
    stage.pull("a token", &server, Works);
    let token = server.asked().into_iter().find(|a| a.path.starts_with("/token")).unwrap();
    assert!(
        token.header("authorization") == BASIC && token.path.contains("scope=repository%3Ax%3Apull") && !token.path.contains("push"),
        "{token:?}"
    );
    // Nobody: no password is sent, and a token is asked for.
    let server = stage.registry(false, challenges(bearer("http://HERE/token")));
    stage.pull("an anonymous token", &server, Works);
    server.never_saw_a_secret_but("Bearer good");
    // An identity token is changed into one for this repository.
    let server = stage.registry(false, challenges(bearer("http://HERE/token")));
    stage.passwords(&[(&server.address.to_string(), r#""identitytoken": "topsecret""#)]);
    stage.pull("an identity token", &server, Works);
    assert!(server.asked().iter().any(|a| a.is("POST", "/token") && String::from_utf8_lossy(&a.body).contains("refresh_token=topsecret")));

    // Another host as the token service: it does not learn this registry's password.
    let foreign = format!("{}/token", stage.elsewhere());
    let server = stage.registry(true, challenges(bearer(&foreign)));
    stage.pull("a foreign realm", &server, Says("another domain"));
    assert!(stage.other.asked().is_empty());
    // One with an entry of its own gets that.
    let token = Server::start("127.0.0.2", None, Arc::new(challenges(String::new())));
    let server = stage.registry(false, challenges(bearer(&format!("http://{}/token", token.address))));
    stage.passwords(&[(&server.address.to_string(), r#""auth": "eDp5""#), (&token.address.to_string(), PASSWORD)]);
    stage.pull("a token service with its own entry", &server, Works);
    assert!(token.asked().iter().all(|a| a.header("authorization") == BASIC) && token.asked().len() == 1);

    for (what, challenge, says) in [
        ("metadata", bearer("http://169.254.169.254/token"), "link-local"),
        ("metadata by name", bearer("http://metadata.google.internal/token"), "metadata address"),
        ("plain http elsewhere", bearer("http://example.com/token"), "not https"),
        ("ftp", bearer("ftp://HERE/token"), "it is not https"),
        ("a password in the realm", bearer("http://u:p@HERE/token"), "must not carry a password"),
        ("no URL", bearer("::"), "it is no URL"),
        ("no realm", "Bearer service=\"s\"".into(), "no realm"),
        ("two realms", "Bearer realm=\"http://HERE/token\",realm=\"http://127.0.0.2/\"".into(), "more than one 'realm'"),
        ("huge", bearer(&"a".repeat(20 << 10)), "larger than 16 KiB"),
        ("garbage", "\"\"==,,".into(), "cannot be read"),
        ("nothing we know", "Negotiate".into(), "neither a password nor a token"),
    ] {
        let server = stage.registry(true, challenges(challenge));
        stage.pull(what, &server, Says(says));
        server.never_saw_a_secret();
    }
    let server = stage.registry(false, challenges("Basic realm=\"r\"".into()));
    stage.pull("a password is wanted", &server, Says("wants a user and a password")).hinted();
    let server = stage.registry(true, challenges("Basic realm=\"r\"".into()));
    stage.pull("a wrong password", &server, Says("does not allow it"));
    assert!(server.asked().iter().filter(|a| a.path.contains("manifests")).count() <= 2);
    let server = stage.registry(true, |_, stream| {
        answer(stream, "401 Unauthorized", &[], b"");
        true
    });
    stage.pull("no challenge", &server, Says("neither a password nor a token"));
    server.never_saw_a_secret();
    stage.other.never_saw_a_secret();
}

impl Server {
    #[track_caller]
    fn never_saw_a_secret_but(&self, value: &str) {
        let odd = |a: &Asked| !["", value].contains(&a.header("authorization"));
        assert!(!self.asked().iter().any(odd), "{:?}", self.asked());
    }
}

#[test]
fn token_services_misbehave() {
    let mut stage = Stage::new();
    let other = stage.elsewhere();
    type Token = Box<dyn Fn(&Asked, &mut TcpStream) + Send + Sync>;
    let fixed = |status: &'static str, body: Vec<u8>| -> Token { Box::new(move |_, stream| answer(stream, status, &[], &body)) };
    let cases: Vec<(&str, End, Token)> = vec![
        ("500", Says("gives no token: 500"), fixed("500 Oh", vec![])),
        ("HTML", Says("no token"), fixed("200 OK", b"<html>log in</html>".to_vec())),
        ("nothing", Says("without a token"), fixed("200 OK", b"{}".to_vec())),
        ("an empty one", Says("without a token"), fixed("200 OK", br#"{"token": ""}"#.to_vec())),
        ("another type", Says("no token"), fixed("200 OK", br#"{"token": ["topsecret"]}"#.to_vec())),
        ("a huge one", Says("larger than 1024 KiB"), fixed("200 OK", format!(r#"{{"token": "{}"}}"#, "a".repeat(2 << 20)).into_bytes())),
        ("a large one", Says("a token that is none"), fixed("200 OK", format!(r#"{{"token": "{}"}}"#, "a".repeat(100 << 10)).into_bytes())),
        ("two lines", Says("a token that is none"), fixed("200 OK", br#"{"token": "a\r\nX-Evil: 1"}"#.to_vec())),
        ("refused", Says("does not accept the user"), fixed("401 No", vec![])),
        ("teapot", Says("418"), fixed("418 Teapot", br#"{"errors":[{"code":"X","message":"a\u001b[2Jb\nc"}]}"#.to_vec())),
        ("elsewhere", Says("302"), Box::new(move |_, stream| answer(stream, "302 Found", &[("Location", &format!("{other}/token"))], b""))),
        ("encoded", Says("encoded"), Box::new(|_, stream| answer(stream, "200 OK", &[("Content-Encoding", "gzip")], b"\x1f\x8b"))),
        ("slow", Says("no answer in 0.5 s"), Box::new(|_, _| std::thread::sleep(Duration::from_millis(900)))),
        ("access_token", Works, fixed("200 OK", br#"{"access_token": "good"}"#.to_vec())),
        (
            "429 once",
            Works,
            Box::new(|asked, stream| match asked.before {
                0 => answer(stream, "429 Slowly", &[], b""),
                _ => answer(stream, "200 OK", &[], br#"{"token": "good"}"#),
            }),
        ),
    ];
    for (what, end, token) in cases {
        let inner = challenges("Bearer realm=\"http://HERE/token\"".into());
        let server = stage.registry(true, move |asked, stream| {
            if asked.is("GET", "/token") {
                token(asked, stream);
                return true;
            }
            inner(asked, stream)
        });
        stage.pull(what, &server, end);
        assert!(server.asked().len() < 40);
    }
    assert!(stage.other.asked().is_empty());
}

#[test]
fn manifests_lie() {
    let mut stage = Stage::new();
    let image = stage.image.clone();
    let text = |f: &dyn Fn(&str) -> String| f(std::str::from_utf8(&image.manifest.bytes).unwrap()).into_bytes();
    let with = |from: &str, to: &str| text(&|m| m.replace(from, to));
    let both = text(&|m| m.replacen('{', r#"{"manifests":[],"#, 1));
    let twice = text(&|m| m.replacen('{', r#"{"config":{},"#, 1));
    let foreign = manifest(&image.config, &image.layer, image.layer.bytes.len(), "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip");
    let sized = format!(r#""size":{}"#, image.layer.bytes.len());
    let urls = with(&sized, &format!(r#""urls":["http://127.0.0.2/x"],{sized}"#));
    let index = |entry: &str| format!(r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[{entry}]}}"#, layout::OCI_INDEX);
    let entry = |platform: &str, size: usize| {
        format!(
            r#"{{"mediaType":"{OCI}","digest":"{}","size":{size},"platform":{{"os":"linux","architecture":"{platform}"}}}}"#,
            image.manifest.digest
        )
    };
    let by_tag = |body: String| {
        script(move |asked, stream| {
            let hit = asked.is("GET", "/manifests/latest");
            if hit {
                answer(stream, "200 OK", &[("Content-Type", layout::OCI_INDEX)], body.as_bytes());
            }
            hit
        })
    };
    let status = |status: &'static str, headers: &'static [(&'static str, &'static str)], body: &'static [u8]| {
        for_manifest(move |_, stream| answer(stream, status, headers, body))
    };
    let size = image.manifest.bytes.len();
    stage.all(vec![
        ("a large one", Says("larger than 4096 KiB"), manifest_is(OCI, vec![b' '; 5 << 20])),
        (
            "one without an end",
            Says("larger than 4096 KiB"),
            for_manifest(|_, stream| {
                answer(stream, "200 OK", &[("Transfer-Encoding", "chunked")], b"");
                let chunk = [b"10000\r\n".as_slice(), &[b' '; 65536], b"\r\n"].concat();
                (0..100).for_each(|_| drop(stream.write_all(&chunk)));
            }),
        ),
        ("HTML", Says("media type is 'text/html'"), manifest_is("text/html; charset=utf-8", "{\"schemaVersion\":2}")),
        ("HTML as JSON", Says("cannot use"), manifest_is("application/json", "<!doctype html>")),
        ("another type than it says", Says("and was called"), manifest_is(layout::DOCKER_MANIFEST, image.manifest.bytes.clone())),
        (
            "schema 1",
            Says("schema 1"),
            manifest_is("application/vnd.docker.distribution.manifest.v1+prettyjws", r#"{"schemaVersion":1,"fsLayers":[]}"#),
        ),
        ("cve_2021_41190 manifest and index", Says("at once"), manifest_is(OCI, both)),
        ("a key twice", Says("cannot use"), manifest_is(OCI, twice)),
        ("something behind the end", Says("cannot use"), manifest_is(OCI, text(&|m| format!("{m}{{}}")))),
        ("nothing", Says("cannot use"), manifest_is(OCI, "")),
        ("cve_2024_3727 a path as digest", Says("bad digest"), manifest_is(OCI, with(&image.layer.digest, "sha256:../../../../etc/passwd"))),
        ("a negative size", Says("size"), manifest_is(OCI, with(&sized, r#""size":-300"#))),
        ("a foreign layer", Says("lies elsewhere"), manifest_is(OCI, foreign)),
        ("a layer with an address", Says("lies elsewhere"), manifest_is(OCI, urls)),
        ("an odd layer", Says("media type of a layer"), manifest_is(OCI, manifest(&image.config, &image.layer, 1, "text/plain"))),
        (
            "a digest that it has not",
            Says("says that the manifest has the digest"),
            status("200 OK", &[("Docker-Content-Digest", "sha256:00")], br#"{"schemaVersion":2}"#),
        ),
        ("encoded", Says("encoded"), status("200 OK", &[("Content-Encoding", "gzip")], b"\x1f\x8b\x08")),
        ("204", Says("204"), status("204 No Content", &[], b"")),
        ("404", Says("cannot find"), status("404 Not Found", &[], br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"who?"}]}"#)),
        (
            "403 with a terminal's words",
            Says("does not allow it"),
            status("403 No", &[], b"{\"errors\":[{\"message\":\"\\u001b]0;owned\\u0007\\nno\"}]}"),
        ),
        ("a huge complaint", Says("400"), for_manifest(|_, stream| answer(stream, "400 Bad", &[], &vec![b'x'; 3 << 20]))),
        ("an index without us", Says("cannot find an image"), by_tag(index(&entry("s390x", size)))),
        ("an index of nothing", Says("cannot find an image"), by_tag(index(""))),
        ("an index with a wrong size", Says("should have 7"), by_tag(index(&entry("amd64", 7)))),
        ("an index", Works, by_tag(index(&format!("{},{}", entry("s390x", 1), entry("amd64", size))))),
        ("500 for ever", Says("it answers 500"), status("500 Oh", &[], b"")),
        ("503 for ever", Says("it answers 503"), status("503 Oh", &[], b"")),
        ("429 for ever", Says("it answers 429"), status("429 Slowly", &[], b"")),
        ("429 until tomorrow", Says("asks to wait 86400 s"), status("429 Slowly", &[("Retry-After", "86400")], b"")),
        ("429 until some date", Says("429"), status("429 Slowly", &[("Retry-After", "Fri, 31 Dec 2126 23:59:59 GMT")], b"")),
    ]);
    let kind = |asked: &Asked, status: &str, headers: &[(&str, &str)], stream: &mut TcpStream, times: usize| {
        let hit = asked.is("GET", "/manifests/") && asked.before < times;
        if hit {
            answer(stream, status, headers, b"");
        }
        hit
    };
    stage.all(vec![
        ("500 twice", Works, script(move |a, s| kind(a, "500 Oh", &[], s, 2))),
        ("429 twice", Works, script(move |a, s| kind(a, "429 Slowly", &[], s, 2))),
        ("429 with a time", Works, script(move |a, s| kind(a, "429 Slowly", &[("Retry-After", "1")], s, 1))),
    ]);
    let zstd = packed(1000, Packed::Zstd);
    let (right, config) = (zstd.manifest.digest.clone(), zstd.config.digest.clone());
    let server = Server::start("127.0.0.1", Some(zstd), Arc::new(|_, _| false));
    assert_eq!(stage.pull_name("zstd", &format!("{}/x@{right}", server.address), Works).ok(), config);
    // By digest: exactly that, whatever the registry would rather give.
    let server = stage.registry(false, |_, _| false);
    let (right, wrong) = (image.manifest.digest.clone(), image.config.digest.clone());
    stage.pull_name("a digest", &format!("{}/x@{right}", server.address), Works);
    stage.pull_name("another digest", &format!("{}/x@{wrong}", server.address), Says("it sends something with the digest"));
}

#[test]
fn connections_misbehave() {
    let mut stage = Stage::new();
    let raw = |text: &'static [u8]| for_manifest(move |_, stream| drop(stream.write_all(text)));
    stage.all(vec![
        ("closes at once", Says("cannot talk to"), for_manifest(|_, _| {})),
        ("resets", Says("cannot talk to"), for_manifest(|_, stream| reset(stream))),
        ("is no HTTP", Says("cannot talk to"), raw(b"SSH-2.0-OpenSSH_9.2\r\n")),
        ("has no status", Says("cannot talk to"), raw(b"HTTP/1.1 \r\n\r\n")),
        ("has a bad chunk", Says("cannot talk to"), raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")),
        ("has two lengths", Says("cannot talk to"), raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}")),
        ("has a negative length", Says("cannot talk to"), raw(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n{}")),
        ("breaks off", Says("cannot talk to"), raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n{}")),
        (
            "a header without an end",
            Says("cannot talk to"),
            for_manifest(|_, stream| {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nX: ");
                (0..200).for_each(|_| drop(stream.write_all(&[b'a'; 65536])));
            }),
        ),
        (
            "headers without an end",
            Says("cannot talk to"),
            for_manifest(|_, stream| {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n");
                (0..20_000).for_each(|n| drop(stream.write_all(format!("X-{n}: y\r\n").as_bytes())));
            }),
        ),
        (
            "a header of 100 KiB",
            Says("larger than 64 KiB"),
            for_manifest(|_, stream| answer(stream, "200 OK", &[("X", &"a".repeat(100 << 10))], b"{}")),
        ),
        (
            "a header drop by drop",
            Says("no answer in 0.5 s"),
            for_manifest(|_, stream| {
                for byte in b"HTTP/1.1 200 OK\r\nX: aaaaaaaaaaaaaaaaaaaaaaaaaaaa" {
                    let sent = stream.write_all(&[*byte]);
                    std::thread::sleep(Duration::from_millis(30));
                    if sent.is_err() {
                        return;
                    }
                }
            }),
        ),
        (
            "a body drop by drop",
            Says("does not come to an end"),
            for_manifest(|_, stream| {
                answer(stream, "200 OK", &[("Content-Length", "500")], b"");
                for _ in 0..500 {
                    if stream.write_all(b" ").is_err() {
                        return;
                    }
                    std::thread::sleep(Duration::from_millis(30));
                }
            }),
        ),
        (
            "1xx without an end",
            Says("cannot talk to"),
            for_manifest(|_, stream| {
                for _ in 0..200_000 {
                    if stream.write_all(b"HTTP/1.1 103 Early Hints\r\n\r\n").is_err() {
                        return;
                    }
                }
            }),
        ),
    ]);
}

#[test]
fn blobs_lie_and_break() {
    let mut stage = Stage::new();
    let image = stage.image.clone();
    let half = |bytes: &[u8]| bytes.len() / 2;
    let cut = move |bytes: &[u8], stream: &mut TcpStream| {
        answer(stream, "200 OK", &[("Content-Length", &bytes.len().to_string())], &bytes[..half(bytes)]);
    };
    let fixed = |status: &'static str, headers: &'static [(&'static str, &'static str)]| {
        for_layer(&image, move |_, bytes, stream| {
            answer(stream, status, headers, bytes);
            true
        })
    };
    // The second answer to whoever asks for the rest.
    let rest = |status: &'static str, range: &'static str, skip: usize| {
        for_layer(&image, move |asked, bytes, stream| {
            if asked.before == 0 {
                cut(bytes, stream);
            } else {
                let range = range.replace("LAST", &(bytes.len() - 1).to_string()).replace("ALL", &bytes.len().to_string());
                answer(stream, status, &[("Content-Range", &range)], &bytes[(half(bytes) + skip).min(bytes.len())..]);
            }
            true
        })
    };
    let mut wrong = image.layer.bytes.clone();
    wrong[1000] ^= 1;
    let chunked = |extra: isize| {
        for_layer(&image, move |_, bytes, stream| {
            let bytes = if extra < 0 { &bytes[..bytes.len() - extra.unsigned_abs()] } else { bytes };
            answer(stream, "200 OK", &[("Transfer-Encoding", "chunked")], format!("{:x}\r\n", bytes.len()).as_bytes());
            let _ = stream.write_all(bytes);
            if extra > 0 {
                let _ = stream.write_all(format!("\r\n{extra:x}\r\n{}", "x".repeat(extra.unsigned_abs())).as_bytes());
            }
            let _ = stream.write_all(b"\r\n0\r\n\r\n");
            true
        })
    };
    stage.all(vec![
        (
            "404",
            Says("404"),
            for_layer(&image, |_, _, s| {
                answer(s, "404 Not Found", &[], b"");
                true
            }),
        ),
        ("encoded", Says("encoded"), fixed("200 OK", &[("Content-Encoding", "gzip")])),
        ("206 without being asked", Says("206"), fixed("206 Partial Content", &[])),
        (
            "a longer length",
            Says("which has"),
            for_layer(&image, |_, b, s| {
                answer(s, "200 OK", &[("Content-Length", "9999999")], b);
                true
            }),
        ),
        (
            "a shorter length",
            Says("which has"),
            for_layer(&image, |_, b, s| {
                answer(s, "200 OK", &[], &b[..b.len() - 1]);
                true
            }),
        ),
        ("more than announced", Says("more of blob"), chunked(1000)),
        ("less than announced", Says("breaks off"), chunked(-1000)),
        ("chunks", Works, chunked(0)),
        (
            "other bytes",
            Says("its digest is"),
            for_layer(&image, move |_, _, s| {
                answer(s, "200 OK", &[], &wrong);
                true
            }),
        ),
        ("another part", Says("another part"), rest("206 Partial Content", "bytes 0-LAST/ALL", 0)),
        ("no part named", Says("another part"), rest("206 Partial Content", "", 0)),
        ("416", Says("416"), rest("416 Range Not Satisfiable", "bytes */ALL", usize::MAX / 2)),
        (
            "breaks at one place for ever",
            Says("connection reset"),
            for_layer(&image, move |asked, bytes, stream| {
                if asked.before == 0 {
                    cut(bytes, stream);
                } else {
                    reset(stream);
                }
                true
            }),
        ),
        (
            "a byte, and a break",
            Says("end of file"),
            for_layer(&image, |asked, bytes, stream| {
                let from: usize = asked.header("range").trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap_or(0);
                let range = format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len());
                let headers = [("Content-Length", &*(bytes.len() - from).to_string()), ("Content-Range", &range)];
                answer(stream, if from == 0 { "200 OK" } else { "206 Partial Content" }, &headers, &bytes[from..from + 1]);
                true
            }),
        ),
        (
            "slower than a snail",
            Says("it sends less than"),
            for_layer(&image, |_, bytes, stream| {
                answer(stream, "200 OK", &[("Content-Length", &bytes.len().to_string())], b"");
                for byte in bytes.iter().take(400) {
                    if stream.write_all(&[*byte]).is_err() {
                        break;
                    }
                    std::thread::sleep(Duration::from_millis(20));
                }
                true
            }),
        ),
        ("the configuration is another", Says("its digest is"), {
            let digest = image.config.digest.clone();
            let other = Piece::new(String::from_utf8(image.config.bytes.clone()).unwrap().replace("/noise", "/eviln"));
            script(move |asked, stream| {
                let hit = asked.is("GET", &digest);
                if hit {
                    answer(stream, "200 OK", &[], &other.bytes);
                }
                hit
            })
        }),
    ]);

    // What can go on, goes on: from where it broke, and no byte is fetched twice.
    type Break = Box<dyn Fn(&[u8], &mut TcpStream) + Send + Sync>;
    let breaks: Vec<(&str, Break)> = vec![
        ("the end", Box::new(cut)),
        (
            "a reset",
            Box::new(move |bytes, stream| {
                cut(bytes, stream);
                std::thread::sleep(Duration::from_millis(100));
                reset(stream);
            }),
        ),
        (
            "silence",
            Box::new(move |bytes, stream| {
                cut(bytes, stream);
                std::thread::sleep(Duration::from_millis(1500));
            }),
        ),
        ("no answer", Box::new(|_, _| {})),
        ("502", Box::new(|_, stream| answer(stream, "502 Bad Gateway", &[], b""))),
    ];
    for (what, how) in breaks {
        let digest = image.layer.digest.clone();
        let bytes = image.layer.bytes.clone();
        let server = stage.registry(false, move |asked, stream| {
            let hit = asked.is("GET", &digest) && asked.before == 0;
            if hit {
                how(&bytes, stream);
            }
            hit
        });
        stage.pull(what, &server, Works);
        let layers: Vec<Asked> = server.asked().into_iter().filter(|a| a.path.ends_with(&image.layer.digest)).collect();
        assert_eq!(layers.len(), 2, "{what}");
        if ["the end", "silence"].contains(&what) {
            assert_eq!(layers[1].header("range"), format!("bytes={}-", half(&image.layer.bytes)), "{what}");
        }
    }
    // Range is ignored: what we have is skipped.
    let (digest, bytes) = (image.layer.digest.clone(), image.layer.bytes.clone());
    let server = stage.registry(false, move |asked, stream| {
        let hit = asked.is("GET", &digest);
        match asked.before {
            _ if !hit => {}
            0 => cut(&bytes, stream),
            _ => answer(stream, "200 OK", &[], &bytes),
        }
        hit
    });
    stage.pull("a range is ignored", &server, Works);
}

#[test]
fn cve_2020_15157_uploads() {
    let mut stage = Stage::new();
    let source = stage.registry(false, |_, _| false);
    stage.pull("what is pushed", &source, Works);
    let image = format!("{}/x", source.address);
    let other = stage.elsewhere();
    let secret = |asked: &Asked, stream: &mut TcpStream| {
        let known = asked.header("authorization") == BASIC;
        if !known && asked.method != "PATCH-BEGINS" {
            answer(stream, "401 Unauthorized", &[("WWW-Authenticate", "Basic realm=\"r\"")], b"");
        }
        known
    };
    type Say = Box<dyn Fn(&Asked, &mut TcpStream) -> bool + Send + Sync>;
    let on = |method: &'static str, part: &'static str, times: usize, status: &'static str, location: String| -> Say {
        Box::new(move |asked, stream| {
            let hit = asked.is(method, part) && asked.before < times;
            if hit {
                let headers = [("Location", location.as_str())];
                answer(stream, status, if location.is_empty() { &[] } else { &headers }, br#"{"errors":[{"message":"odd"}]}"#);
            }
            hit
        })
    };
    let always = usize::MAX;
    let cases: Vec<(&str, End, Say)> = vec![
        ("nothing odd", Works, Box::new(|_, _| false)),
        ("begins elsewhere", Says("to another host"), on("POST", "uploads", always, "202 Accepted", format!("{other}/up"))),
        ("goes on elsewhere", Says("to another host"), on("PATCH", "uploads", always, "202 Accepted", format!("{other}/up"))),
        ("with a user", Says("to another host"), on("POST", "uploads", always, "202 Accepted", "http://a@127.0.0.1/up".into())),
        ("is redirected", Says("somewhere else"), on("PATCH", "uploads", always, "307 Temporary Redirect", format!("{other}/up"))),
        ("the manifest is redirected", Says("somewhere else"), on("PUT", "manifests", always, "308 Permanent Redirect", format!("{other}/m"))),
        ("has no place", Says("does not say where"), on("POST", "uploads", always, "202 Accepted", String::new())),
        ("200 for 202", Says("200"), on("POST", "uploads", always, "200 OK", String::new())),
        ("is not wanted", Says("does not allow it"), on("POST", "uploads", always, "403 Forbidden", String::new())),
        ("has a wrong digest", Says("400 Bad Request (odd)"), on("PUT", "uploads", always, "400 Bad Request", String::new())),
        ("fails once", Works, on("PATCH", "uploads", 1, "502 Bad Gateway", String::new())),
        ("fails for ever", Says("it answers 500"), on("PATCH", "uploads", always, "500 Oh", String::new())),
        (
            "is cut off once",
            Works,
            Box::new(|asked, stream| {
                let hit = asked.method == "PATCH-BEGINS" && asked.before == 0;
                if hit {
                    reset(stream);
                }
                hit
            }),
        ),
        (
            "another digest of the manifest",
            Says("another digest"),
            Box::new(|asked, stream| {
                let hit = asked.is("PUT", "manifests");
                if hit {
                    answer(stream, "201 Created", &[("Docker-Content-Digest", "sha256:0")], b"");
                }
                hit
            }),
        ),
    ];
    for (what, end, say) in cases {
        let server = stage.registry(true, move |asked, stream| {
            if !secret(asked, stream) {
                return asked.method != "PATCH-BEGINS";
            }
            say(asked, stream)
        });
        let output = stage.run(&["push", &image, &format!("{}/x:2", server.address)]);
        println!("{what}: {}", output.stderr.lines().find(|l| l.starts_with("error")).unwrap_or("works"));
        assert!(output.took < Duration::from_secs(12) * patience(), "{what}: {output:?}");
        let puts = server.asked().iter().filter(|a| a.is("PUT", "/manifests/2")).count();
        match end {
            Works => {
                assert_eq!(output.ok(), stage.image.manifest.digest, "{what}");
                let sent: Vec<usize> =
                    server.asked().iter().filter(|a| a.method == "PATCH").map(|a| a.header("content-length").parse().unwrap()).collect();
                assert!(sent.contains(&stage.image.layer.bytes.len()) && puts == 1, "{what}: {sent:?}");
            }
            Says(words) => {
                output.refused(words);
                assert!(!output.stderr.contains("topsecret"));
                // Nobody sees half an image.
                assert!(puts == 0 || words == "another digest" || what.contains("manifest"), "{what}");
            }
        }
    }
    assert!(stage.other.asked().is_empty(), "{:?}", stage.other.asked());
}

#[test]
fn proxies() {
    let mut stage = Stage::new();
    // A proxy is asked for the name, whose address we do not know; this machine is not asked for through it.
    let proxy = Server::start("127.0.0.2", Some(stage.image.clone()), Arc::new(|_, _| false));
    stage.place.file(".config/containers/registries.conf", "[[registry]]\nlocation = \"r.invalid\"\ninsecure = true\n");
    stage.place.env.insert("HTTP_PROXY".into(), format!("http://{}", proxy.address));
    stage.pull_name("by a proxy", "r.invalid/x", Works);
    assert!(proxy.asked().iter().all(|a| a.path.starts_with("http://r.invalid/v2/x/")), "{:?}", proxy.asked());
    let seen = proxy.asked().len();
    let server = stage.registry(false, |_, _| false);
    stage.pull("not for this machine", &server, Works);
    stage.place.env.insert("NO_PROXY".into(), ".invalid".into());
    stage.pull_name("not for some", "r.invalid/x", Says("no address is known for r.invalid"));
    assert_eq!(proxy.asked().len(), seen);
    // TLS goes through it whole: it is asked to connect, and told no password.
    stage.place.env.insert("HTTPS_PROXY".into(), format!("http://u:proxy@{}", proxy.address));
    stage.passwords(&[("s.example", PASSWORD)]);
    let output = stage.pull_name("a proxy that does not connect", "s.example/x", Says("cannot talk to s.example"));
    assert!(!output.stderr.contains("proxy@"), "{output:?}");
    let connect = proxy.asked().into_iter().find(|a| a.method == "CONNECT").unwrap();
    assert_eq!(connect.path, "s.example:443");
    proxy.never_saw_a_secret();
}
