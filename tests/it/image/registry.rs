//! The commands against Debian's `docker-registry`, with skopeo as the referee: anonymous, with a password, with a private authority.

use super::build::{Layer, oci, tiny};
use super::served::{Made, made};
use super::{has, noise};
use crate::support::*;
use serde_json::json;
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A real registry, and what it wrote into its log.
struct Registry {
    child: Child,
    host: String,
    log: Arc<Mutex<Vec<String>>>,
}

impl Registry {
    /// `extra` is YAML; what is in `http:` comes first.
    fn start(place: &Place, name: &str, extra: &str) -> Registry {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let host = format!("127.0.0.1:{port}");
        let storage = place.dir(name);
        let conf = format!("version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {host}\n{extra}", storage.display());
        let file = place.file(&format!("{name}.yml"), &conf);
        let mut child = place.command("docker-registry").arg("serve").arg(file).spawn().expect("docker-registry");
        let log: Arc<Mutex<Vec<String>>> = Arc::default();
        let streams: [Box<dyn std::io::Read + Send>; 2] = [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
        for stream in streams {
            let log = log.clone();
            std::thread::spawn(move || BufReader::new(stream).lines().map_while(Result::ok).for_each(|l| log.lock().unwrap().push(l)));
        }
        assert!(within(Duration::from_secs(10), || TcpStream::connect(&host).is_ok()), "{:?}", log.lock().unwrap());
        Registry { child, host, log }
    }

    /// Requests with these words in the access log.
    fn served(&self, words: &[&str]) -> usize {
        std::thread::sleep(Duration::from_millis(100));
        self.log.lock().unwrap().iter().filter(|l| l.starts_with("127.0.0.1 ") && words.iter().all(|w| l.contains(w))).count()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Is there all that these tests are made of?
fn parts() -> bool {
    ["docker-registry", "skopeo", "htpasswd", "openssl"].iter().all(|p| has(p))
}

fn skopeo(place: &Place, args: &[&str]) -> Output {
    finish(place.command("skopeo").args(args).spawn().expect("skopeo"), b"")
}

/// skopeo puts it there.
fn seed(place: &Place, image: &Made, host: &str, name: &str) {
    let dir = place.dir("oci");
    image.layout(&dir);
    skopeo(place, &["--insecure-policy", "copy", "-q", "--dest-tls-verify=false", "oci:oci", &format!("docker://{host}/{name}")]).ok();
}

#[test]
fn pull_and_push_anonymously() {
    need!(parts(), "needs docker-registry, skopeo, htpasswd and openssl");
    let mut place = place();
    let registry = Registry::start(&place, "registry", "");
    let (host, image) = (registry.host.clone(), made(2 << 20));
    seed(&place, &image, &host, "team/app:1");
    let name = format!("{host}/team/app:1");

    // Lines for people on stderr, the ID on stdout; the second time nothing is fetched.
    let pulled = place.sandbox(&["pull", &name]);
    assert_eq!(pulled.ok(), image.config.digest);
    assert!(pulled.stderr.contains(&format!("pulling {name}")) && pulled.stderr.contains(&image.layer.digest[7..19]), "{pulled:?}");
    let fetched = registry.served(&["\"GET", "/blobs/"]);
    assert_eq!(fetched, 2);
    let again = place.sandbox(&["pull", "--quiet", &name]);
    assert!(again.ok() == image.config.digest && again.stderr.is_empty(), "{again:?}");
    assert_eq!(registry.served(&["\"GET", "/blobs/"]), fetched);
    // By digest it is the same image.
    assert_eq!(place.sandbox(&["pull", "-q", &format!("{host}/team/app@{}", image.manifest.digest)]).ok(), image.config.digest);
    // On disk it is what the layer says.
    let layers: Vec<_> = std::fs::read_dir(place.store().join("layers")).unwrap().flatten().collect();
    assert_eq!(layers.len(), 1);
    assert_eq!(std::fs::read(layers[0].path().join("diff/noise")).unwrap(), noise(1, 2 << 20));

    // To another repository nothing is sent but the manifest: the registry has the blobs.
    let other = format!("{host}/other/app:2");
    place.sandbox(&["tag", &name, &other]).ok();
    let digest = place.path("digest");
    let pushed = place.sandbox(&["push", "--digestfile", &digest.display().to_string(), &other]);
    assert_eq!(pushed.ok(), image.manifest.digest);
    assert_eq!(std::fs::read_to_string(&digest).unwrap(), image.manifest.digest);
    assert!(pushed.stderr.contains("taken from another repository"), "{pushed:?}");
    assert_eq!(registry.served(&["\"PATCH"]), registry.served(&["skopeo", "\"PATCH"]));
    let again = place.sandbox(&["push", "-q", &other]);
    assert!(again.stderr.is_empty() && again.ok() == image.manifest.digest);
    // Nor is what lies below something new.
    let more = format!("{host}/third/app:1");
    place.sandbox(&["create", "--name", "more", &name, "/noise"]).ok();
    place.sandbox(&["commit", "more", &more]).ok();
    let pushed = place.sandbox(&["push", &more]);
    assert!(pushed.stderr.contains(&format!("{}: taken from another repository", &image.layer.digest[7..19])), "{pushed:?}");
    place.sandbox(&["rm", "more"]).ok();
    // To another registry everything goes, and skopeo finds the very same.
    let second = Registry::start(&place, "second", "");
    let far = format!("{}/far/app:3", second.host);
    assert_eq!(place.sandbox(&["push", "-q", &name, &far]).ok(), image.manifest.digest);
    assert_eq!(second.served(&["\"PATCH", "202"]), 2);
    let seen = skopeo(&place, &["inspect", "--raw", "--tls-verify=false", &format!("docker://{far}")]);
    assert_eq!(seen.stdout.as_bytes(), image.manifest.bytes);
    skopeo(&place, &["--insecure-policy", "copy", "-q", "--src-tls-verify=false", &format!("docker://{far}"), "dir:back"]).ok();
    assert_eq!(std::fs::read(place.path("back").join(&image.layer.digest[7..])).unwrap(), image.layer.bytes);

    // The catalog.
    let found = place.sandbox(&["search", "--format", "json", &format!("{host}/app")]);
    let found: serde_json::Value = serde_json::from_str(found.ok()).unwrap();
    let names: Vec<_> = found.as_array().unwrap().iter().map(|f| f["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["other", "team", "third"].map(|team| format!("{host}/{team}/app")));
    assert_eq!(place.sandbox(&["search", "--limit", "1", &format!("{host}/app")]).ok().lines().count(), 2);

    // A mirror that is away, and one that has it, stand in for a registry that does not exist.
    place.file(
        ".config/containers/registries.conf",
        &format!(
            "[[registry]]\nprefix = \"docker.io\"\nlocation = \"nowhere.invalid\"\n[[registry.mirror]]\nlocation = \"127.0.0.1:1\"\n\
             [[registry.mirror]]\nlocation = \"{host}\"\n[[registry]]\nlocation = \"blocked.example\"\nblocked = true\n\
             [aliases]\n\"short\" = \"{host}/team/app\"\n"
        ),
    );
    let mirrored = place.sandbox(&["pull", "team/app:1"]);
    assert_eq!(mirrored.ok(), image.config.digest);
    assert!(mirrored.stderr.contains("pulling docker.io/team/app:1") && mirrored.stderr.contains("the mirror 127.0.0.1:1 does not help"));
    assert!(place.sandbox(&["pull", "short:1"]).stderr.contains(&format!("pulling {name}")));
    place.sandbox(&["pull", "blocked.example/x"]).refused("registries.conf blocks").hinted();

    for (args, says) in [
        (vec!["pull", "127.0.0.1:1/x"], "connection refused"),
        (vec!["pull", &format!("{host}/team/none")], "cannot find"),
        (vec!["pull", "--platform", "linux", &name], "bad platform"),
        (vec!["pull", "--platform", "linux/s390x", &name], "only, and wanted is linux/s390x"),
        (vec!["push", "none"], "cannot find image"),
        (vec!["push", &image.config.digest], "it is no name"),
        (vec!["pull", &format!("{host}/team/app@sha256:{}", "0".repeat(64))], "cannot find"),
        (vec!["search", "127.0.0.1:1/x"], "connection refused"),
    ] {
        let output = place.sandbox(&args);
        assert!(output.code() != 0 && output.stderr.contains(says), "{args:?} {output:?}");
    }
    // Whoever can change where names lead to is somebody else.
    mode(&place.path(".config/containers/registries.conf"), 0o666);
    place.sandbox(&["pull", &name]).refused("somebody else can change it").hinted();
    place.env.insert("CONTAINERS_REGISTRIES_CONF".into(), "/dev/null".into());
    place.sandbox(&["pull", &name]).refused("no regular file");
}

#[test]
fn thirty_pull_at_once_and_fetch_once() {
    need!(parts(), "needs docker-registry, skopeo, htpasswd and openssl");
    let place = place();
    let registry = Registry::start(&place, "registry", "");
    let image = made(3 << 20);
    seed(&place, &image, &registry.host, "x:1");
    let name = format!("{}/x:1", registry.host);
    let running: Vec<Child> = (0..30).map(|_| place.cli(&["pull", "-q", &name]).spawn().unwrap()).collect();
    for child in running {
        assert_eq!(finish(child, b"").ok(), image.config.digest);
    }
    for piece in [&image.layer, &image.config] {
        assert_eq!(registry.served(&["\"GET", &piece.digest]), 1, "{:?}", registry.log.lock().unwrap());
    }
    assert_eq!(std::fs::read_dir(place.store().join("tmp")).unwrap().count(), 0);
}

#[test]
fn run_pulls_when_it_is_told_to() {
    need!(parts(), "needs docker-registry, skopeo, htpasswd and openssl");
    let place = place();
    let registry = Registry::start(&place, "registry", "");
    let name = format!("{}/app:1", registry.host);
    let tiny = tiny(&place);
    // What the registry has under the name from now on.
    let publish = |word: &str| {
        let from = oci(&place, word, std::slice::from_ref(&tiny), json!({ "Cmd": ["sh", "-c", format!("echo {word}")] }));
        place.sandbox(&["load", &from]).ok();
        place.sandbox(&["push", "-q", &format!("localhost/{word}"), &name]).ok();
        place.sandbox(&["rmi", &format!("localhost/{word}")]).ok();
    };
    let run = |pull: &str| place.sandbox(&["run", "--pull", pull, &name]);
    let asked = || registry.served(&["\"GET", "/manifests/"]);

    publish("one");
    let before = asked();
    run("never").refused("cannot find image").hinted();
    assert_eq!(asked(), before);
    let first = place.sandbox(&["run", &name]);
    assert!(first.ok() == "one" && first.stderr.contains(&format!("pulling {name}")), "{first:?}");
    publish("two");
    let before = asked();
    for pull in ["missing", "never"] {
        let out = run(pull);
        assert!(out.ok() == "one" && out.stderr.is_empty(), "{out:?}");
    }
    assert_eq!(asked(), before);
    assert_eq!(run("newer").ok(), "two");
    assert_eq!(run("never").ok(), "two");
    publish("one");
    assert_eq!(run("always").ok(), "one");
    // Nothing new: asked, and not fetched.
    let (before, blobs) = (asked(), registry.served(&["\"GET", "/blobs/"]));
    for pull in ["always", "newer"] {
        assert_eq!(run(pull).ok(), "one");
    }
    assert!(asked() >= before + 2);
    assert_eq!(registry.served(&["\"GET", "/blobs/"]), blobs);
    place.sandbox(&["run", "--pull", "sometimes", &name]).said("sometimes");
    // An image that goes and comes, and a process of one thread each time.
    for _ in 0..10 {
        place.sandbox(&["rmi", "-f", &name]).ok();
        assert_eq!(run("always").ok(), "one");
    }

    // Nobody answers.
    let mut place = place;
    place.env.insert("SANDBOX_STALL".into(), "1".into());
    drop(registry);
    let run = |pull: &str| place.sandbox(&["run", "--pull", pull, &name]);
    for pull in ["missing", "never"] {
        assert_eq!(run(pull).ok(), "one");
    }
    let newer = run("newer");
    assert!(newer.ok() == "one" && newer.stderr.contains("the image that is there is used"), "{newer:?}");
    run("always").refused("cannot ");
    place.sandbox(&["rmi", "-f", &name]).ok();
    for pull in ["missing", "newer", "always"] {
        run(pull).refused("cannot ");
    }
    place.sandbox(&["prune", "-f"]).ok(); // the other one, without its name
    assert_eq!(place.stored(), Vec::<String>::new());
}

#[test]
fn pulled_ids_beyond_the_range_are_squashed_if_so_said() {
    need!(parts(), "needs docker-registry, skopeo, htpasswd and openssl");
    let place = place();
    let registry = Registry::start(&place, "registry", "");
    let name = format!("{}/far:1", registry.host);
    let far = Layer::new().dir("far", 0o755, (70000, 8)).end();
    oci(&place, "far", &[tiny(&place), far], json!({ "Cmd": ["stat", "-c", "%u:%g", "/far"] }));
    let from = format!("oci:{}:localhost/far:latest", place.at("far"));
    skopeo(&place, &["--insecure-policy", "copy", "-q", "--dest-tls-verify=false", &from, &format!("docker://{name}")]).ok();
    for args in [&["pull", &name][..], &["run", &name], &["run", "--pull", "always", &name]] {
        let out = place.sandbox(args);
        out.refused("uid 70000").hinted();
        assert!(out.stderr.contains("--squash-ids"), "{out:?}");
    }
    place.sandbox(&["gc"]).ok();
    assert_eq!(place.stored(), Vec::<String>::new());
    place.sandbox(&["pull", "--squash-ids", &name]).ok();
    assert_eq!(place.sandbox(&["run", &name]).ok(), "0:8");
    // It is here, but not as one who does not say so would have it.
    place.sandbox(&["pull", &name]).refused("were given to root").hinted();
    assert_eq!(place.sandbox(&["run", "--pull", "always", "--squash-ids", &name]).ok(), "0:8");
    place.sandbox(&["rmi", &name]).ok();
    assert_eq!(place.sandbox(&["run", "--squash-ids", &name]).ok(), "0:8");
    place.sandbox(&["rmi", &name]).ok();
    assert_eq!(place.stored(), Vec::<String>::new());
}

#[test]
fn with_a_password() {
    need!(parts(), "needs docker-registry, skopeo, htpasswd and openssl");
    let mut place = place();
    let made_file = place.command("htpasswd").args(["-Bbn", "u", "topsecret"]).output().unwrap();
    let file = place.file("htpasswd", &String::from_utf8(made_file.stdout).unwrap());
    let registry = Registry::start(&place, "registry", &format!("auth:\n  htpasswd:\n    realm: r\n    path: {}\n", file.display()));
    let (host, image) = (registry.host.clone(), made(1000));
    image.layout(&place.dir("oci"));
    let to = format!("docker://{host}/x:1");
    skopeo(&place, &["--insecure-policy", "copy", "-q", "--dest-tls-verify=false", "--dest-creds", "u:topsecret", "oci:oci", &to]).ok();
    let name = format!("{host}/x:1");

    place.sandbox(&["pull", &name]).refused("wants a user and a password").hinted();
    let login = |place: &Place, password: &str, more: &[&str]| {
        let args = [&["login", "-u", "u", "--password-stdin"], more, &[&host]].concat();
        let mut command = place.cli(&args);
        let output = finish(command.stdin(Stdio::piped()).spawn().unwrap(), password.as_bytes());
        assert!(!format!("{output:?}").contains("topsecret"));
        output
    };
    let auth = place.path(".config/containers/auth.json");
    login(&place, "wrong", &[]).refused("does not accept the user and the password");
    assert!(!auth.exists());
    login(&place, "", &[]).refused("empty");
    assert!(login(&place, "topsecret\n", &[]).ok().contains("auth.json"));
    let kept = std::fs::metadata(&auth).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::mode(&kept) & 0o777, 0o600);
    assert_eq!(place.sandbox(&["pull", "-q", &name]).ok(), image.config.digest);
    assert_eq!(place.sandbox(&["push", "-q", &name, &format!("{host}/y:2")]).ok(), image.manifest.digest);
    assert!(place.sandbox(&["search", &format!("{host}/x")]).ok().contains(&name[..name.len() - 2]));
    // skopeo reads what we wrote, and we what skopeo wrote.
    skopeo(&place, &["inspect", "--authfile", &auth.display().to_string(), "--tls-verify=false", &to]).ok();
    assert_eq!(place.sandbox(&["logout", &host]).ok(), format!("logged out of {host}"));
    place.sandbox(&["pull", "-q", &format!("{host}/y:2")]).refused("wants a user");
    place.sandbox(&["logout", &host]).refused("no password for it is kept");
    let theirs = place.at("their.json");
    let mut skopeo_login = place.command("skopeo");
    skopeo_login.args(["login", "--authfile", &theirs, "--tls-verify=false", "-u", "u", "--password-stdin", &host]).stdin(Stdio::piped());
    finish(skopeo_login.spawn().unwrap(), b"topsecret").ok();
    assert_eq!(place.sandbox(&["pull", "-q", "--authfile", &theirs, &format!("{host}/y:2")]).ok(), image.config.digest);
    place.env.insert("REGISTRY_AUTH_FILE".into(), theirs.clone());
    assert_eq!(place.sandbox(&["pull", "-q", &format!("{host}/y:2")]).ok(), image.config.digest);
    // Others can read it: not any more.
    mode(theirs.as_ref(), 0o644);
    place.sandbox(&["pull", &name]).refused("others can read them").hinted();
    mode(theirs.as_ref(), 0o600);
    place.sandbox(&["logout", "--all"]).ok();
    assert!(!std::fs::read_to_string(&theirs).unwrap().contains(&host));
    place.env.remove("REGISTRY_AUTH_FILE");
    // The session's directory comes first, if it is ours alone.
    let session = place.dir("session");
    mode(&session, 0o700);
    place.env.insert("XDG_RUNTIME_DIR".into(), session.display().to_string());
    login(&place, "topsecret", &[]).ok();
    assert!(session.join("containers/auth.json").exists());
    place.sandbox(&["login", &host]).refused("stdin is no terminal").hinted();
}

#[test]
fn a_helper_keeps_the_password() {
    need!(parts(), "needs docker-registry, skopeo, htpasswd and openssl");
    need!(root(), "needs root, to become another user");
    // Only what root put into a trusted place is run; a name that only this test has.
    let name = format!("docker-credential-sandboxit{}", std::process::id());
    let program = std::path::Path::new("/usr/local/bin").join(&name);
    let place = place();
    std::fs::write(
        &program,
        "#!/bin/sh\nread -r server\nenv >\"$HOME/helper-env\"\ncase $1 in get) [ -e \"$HOME/kept\" ] && echo '{\"Username\":\"u\",\"Secret\":\"topsecret\"}' || \
         { echo 'credentials not found in native keychain'; exit 1; } ;;\nstore) printf '%s' \"$server\" >\"$HOME/kept\" ;; erase) rm \"$HOME/kept\" ;; esac\n",
    )
    .unwrap();
    mode(&program, 0o755);
    let made_file = place.command("htpasswd").args(["-Bbn", "u", "topsecret"]).output().unwrap();
    let file = place.file("htpasswd", &String::from_utf8(made_file.stdout).unwrap());
    let registry = Registry::start(&place, "registry", &format!("auth:\n  htpasswd:\n    realm: r\n    path: {}\n", file.display()));
    let host = registry.host.clone();
    let helper = name.strip_prefix("docker-credential-").unwrap();
    place.file(".config/containers/auth.json", &format!("{{\"credHelpers\": {{\"{host}\": \"{helper}\"}}}}"));
    let mut login = place.cli(&["login", "-u", "u", "--password-stdin", &host]);
    let said = finish(login.stdin(Stdio::piped()).env("SECRET_THING", "1").spawn().unwrap(), b"topsecret");
    let kept = std::fs::read_to_string(place.path("kept")).unwrap_or_default();
    let pull = place.sandbox(&["pull", &format!("{host}/none")]);
    let env = std::fs::read_to_string(place.path("helper-env")).unwrap_or_default();
    let logout = place.sandbox(&["logout", &host]);
    std::fs::remove_file(&program).unwrap();
    assert!(said.ok().contains(&name) && kept.contains("topsecret"), "{said:?} {kept}");
    pull.refused("cannot find");
    assert!(!env.contains("SECRET_THING") && env.contains("HOME="), "{env}");
    assert!(logout.ok().contains(&host) && !place.path("kept").exists());
    assert!(!std::fs::read_to_string(place.path(".config/containers/auth.json")).unwrap().contains("topsecret"));
    // Nobody's program in the user's own PATH is run.
    place.script("bin/docker-credential-mine", "#!/bin/sh\ntouch \"$HOME/ran\"\n");
    place.file(".config/containers/auth.json", "{\"credsStore\": \"mine\"}");
    let mut pull = place.cli(&["pull", &format!("{host}/none")]);
    finish(pull.env("PATH", format!("{}:/usr/bin:/bin", place.at("bin"))).spawn().unwrap(), b"").refused("docker-credential-mine");
    assert!(!place.path("ran").exists());
}

#[test]
fn cve_2025_6032_tls_with_a_private_authority() {
    need!(parts(), "needs docker-registry, skopeo, htpasswd and openssl");
    let mut place = place();
    let openssl = |args: &[&str]| {
        let output = Command::new("openssl").args(args).current_dir(&place.home).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    place.file("san.cnf", "subjectAltName=IP:127.0.0.1\n");
    openssl(&["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.crt", "-days", "2", "-subj", "/CN=ca"]);
    openssl(&["req", "-newkey", "rsa:2048", "-nodes", "-keyout", "host.key", "-out", "host.csr", "-subj", "/CN=127.0.0.1"]);
    openssl(&[
        "x509",
        "-req",
        "-in",
        "host.csr",
        "-CA",
        "ca.crt",
        "-CAkey",
        "ca.key",
        "-CAcreateserial",
        "-days",
        "2",
        "-extfile",
        "san.cnf",
        "-out",
        "host.crt",
    ]);
    openssl(&["req", "-newkey", "rsa:2048", "-nodes", "-keyout", "me.key", "-out", "me.csr", "-subj", "/CN=me"]);
    openssl(&["x509", "-req", "-in", "me.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-days", "2", "-extfile", "san.cnf", "-out", "me.crt"]);
    for file in ["ca.crt", "host.crt", "host.key", "me.crt", "me.key"] {
        mode(&place.path(file), 0o644);
    }
    let tls = |client: bool| {
        let ca = if client { format!("    clientcas:\n      - {}\n", place.at("ca.crt")) } else { String::new() };
        format!("  tls:\n    certificate: {}\n    key: {}\n{ca}", place.at("host.crt"), place.at("host.key"))
    };
    let registry = Registry::start(&place, "registry", &tls(false));
    let strict = Registry::start(&place, "strict", &tls(true));
    let (host, image) = (registry.host.clone(), made(1000));
    seed(&place, &image, &host, "x:1");
    let name = format!("{host}/x:1");

    // Also on this machine, a certificate that nobody vouches for is an error, and no reason to go on without.
    place.sandbox(&["pull", &name]).refused("UnknownIssuer").hinted();
    assert!(place.sandbox(&["search", &format!("{host}/")]).refused("UnknownIssuer").stderr.contains("certs.d"));
    // Four ways to believe it, and one not to care.
    place.file("certs/ca.crt", &std::fs::read_to_string(place.path("ca.crt")).unwrap());
    let certs = place.at("certs");
    assert_eq!(place.sandbox(&["pull", "-q", "--cert-dir", &certs, &name]).ok(), image.config.digest);
    assert_eq!(place.sandbox(&["pull", "-q", "--tls-verify=false", &name]).ok(), image.config.digest);
    place.env.insert("SSL_CERT_FILE".into(), place.at("ca.crt"));
    assert_eq!(place.sandbox(&["push", "-q", &name, &format!("{host}/y:1")]).ok(), image.manifest.digest);
    place.env.remove("SSL_CERT_FILE");
    place.file(&format!(".config/containers/certs.d/{host}/ca.crt"), &std::fs::read_to_string(place.path("ca.crt")).unwrap());
    assert_eq!(place.sandbox(&["push", "-q", &name, &format!("{host}/z:1")]).ok(), image.manifest.digest);
    // A registry that wants to know who we are.
    let there = format!("{}/x:1", strict.host);
    let refused = place.sandbox(&["push", "--cert-dir", &certs, &name, &there]);
    assert!(refused.code() == 125 && refused.stderr.starts_with("pushing") && refused.stderr.contains("cannot talk to"), "{refused:?}");
    place.file("certs/me.cert", &std::fs::read_to_string(place.path("me.crt")).unwrap());
    place.file("certs/me.key", &std::fs::read_to_string(place.path("me.key")).unwrap());
    place.sandbox(&["push", "-q", "--cert-dir", &certs, &name, &there]).refused("others can read it").hinted();
    mode(&place.path("certs/me.key"), 0o600);
    assert_eq!(place.sandbox(&["push", "-q", "--cert-dir", &certs, &name, &there]).ok(), image.manifest.digest);
    // --tls-verify=false is about the certificate: whoever speaks TLS is not spoken to in plain text.
    assert_eq!(registry.served(&["HTTP/1.0\" 400"]), 0);
}
