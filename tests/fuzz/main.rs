//! Everything that reads what others wrote, fed with garbage. Run by `cargo test --test fuzz [-- TARGET..]`.
//!
//! First every file of `corpus/TARGET/` as it is, then mutations of them for `FUZZ_SECONDS` (2) each. An input that brings a new kind of
//! answer is kept for the run, so that mutations build on each other. A panic, a broken promise, or a second of processor time ends the
//! run with status 1 and the input, to be put into the corpus. Deterministic but for the time it has; must never change a file, but for those of
//! `overlay` in a directory of its own.

mod overlay;

use sandbox::cli::run::RunArgs;
use sandbox::error::Result;
use sandbox::host::{caller, mounts, subid};
use sandbox::ident::{Bytes, Name};
use sandbox::image::registry::Challenge;
use sandbox::image::registry::conf::Registries;
use sandbox::image::registry::credentials::AuthFile;
use sandbox::image::{archive, layout, tar};
use sandbox::logs::{Limit, record};
use sandbox::moment::{self, Moment};
use sandbox::monitor::{Keys, control};
use sandbox::overlay::{Override, parse_links};
use sandbox::spec::{IdMapping, Mount, Patch, Seccomp, SeccompProfile, Ulimit, User, policy, process, restrict, storage};
use std::collections::{BTreeSet, HashSet};
use std::fmt::Debug;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// An input to the kind of answer it got. Panics where a promise is broken.
type Target = fn(&[u8]) -> String;

const TARGETS: [(&str, Target); 33] = [
    ("volume", volume),
    ("mount", |b| plain(text(b).and_then(|s| Mount::keys(&s).ok_text()))),
    ("tmpfs", |b| plain(text(b).and_then(|s| Mount::tmpfs(&s).ok_text()))),
    ("device", device),
    ("user", round_trip::<User>),
    ("idmap", round_trip::<IdMapping>),
    ("ulimit", round_trip::<Ulimit>),
    ("bytes", round_trip::<Bytes>),
    ("name", round_trip::<Name>),
    ("word", word),
    ("args", args),
    ("policy", policy),
    ("seccomp", seccomp),
    ("mountinfo", mountinfo),
    ("accounts", accounts),
    ("subids", subids),
    ("challenge", challenge),
    ("registries", registries),
    ("credentials", credentials),
    ("manifest", document),
    ("index", document),
    ("config", config),
    ("archive", archive),
    ("place", place),
    ("layer", layer),
    ("log", log),
    ("log-max", round_trip::<Limit>),
    ("keys", round_trip::<Keys>),
    ("moment", moment),
    ("ask", ask),
    ("override", overridden),
    ("request", overlay::request),
    ("tree", overlay::tree),
];

// -------------------------------------------------------------------------------------------------------------- targets

/// Accepted, or the error without what it quotes.
fn kind<T>(result: &Result<T>) -> String {
    match result {
        Ok(_) => "accepted".to_string(),
        Err(e) => {
            let (first, rest) = e.message().split_once('\'').unwrap_or((e.message(), ""));
            let letters = |part: &str, most| part.chars().filter(|c| !c.is_ascii_digit()).take(most).collect::<String>();
            letters(first, 30) + &letters(rest.rsplit('\'').next().unwrap_or(""), 60)
        }
    }
}

fn text(bytes: &[u8]) -> std::result::Result<String, String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| "no text".to_string())
}

trait OkText<T> {
    fn ok_text(self) -> std::result::Result<T, String>;
}

impl<T> OkText<T> for Result<T> {
    fn ok_text(self) -> std::result::Result<T, String> {
        let kind = kind(&self);
        self.map_err(|_| kind)
    }
}

/// A mount's target has nothing in it that a later step would have to resolve.
fn plain(mount: std::result::Result<Mount, String>) -> String {
    match mount {
        Ok(m) => {
            resolved(&m.target);
            format!("accepted {} {}", m.read_only, m.no_exec)
        }
        Err(kind) => kind,
    }
}

fn resolved(path: &Path) {
    let fine = |c| matches!(c, Component::RootDir | Component::Normal(_));
    assert!(path.is_absolute() && path.components().all(fine) && !path.as_os_str().as_encoded_bytes().contains(&0), "{path:?}");
}

/// What is accepted, printed and read again is the same.
fn round_trip<T: FromStr<Err = sandbox::error::Error> + Into<String> + Clone + PartialEq + Debug>(bytes: &[u8]) -> String {
    let Ok(s) = text(bytes) else { return "no text".into() };
    let first = s.parse::<T>();
    if let Ok(value) = &first {
        let printed: String = value.clone().into();
        assert_eq!(printed.parse::<T>().ok().as_ref(), Some(value), "printed as {printed:?}");
    }
    kind(&first)
}

/// A line of a log: what is read of it, written again, is the line, but for the form of its time.
fn log(bytes: &[u8]) -> String {
    match record(bytes) {
        Some(r) => {
            let again = format!("{} {} {} ", r.time, r.stream.as_str(), if r.ends { "F" } else { "P" });
            let again = [again.as_bytes(), r.text].concat();
            assert_eq!(record(&again), Some(r));
            format!("{} {}", r.stream.as_str(), r.ends)
        }
        None => "none".into(),
    }
}

fn moment(bytes: &[u8]) -> String {
    let Ok(s) = text(bytes) else { return "no text".into() };
    let said = Moment::said(&s, Moment(1_709_210_096_000_000_789));
    if let Ok(moment) = &said {
        assert_eq!(moment::written(&moment.to_string()), Some(*moment), "{moment}");
    }
    kind(&said)
}

fn ask(bytes: &[u8]) -> String {
    control::asked(bytes).map_or("nonsense".into(), |ask| format!("{ask:?}").chars().take_while(char::is_ascii_alphabetic).collect())
}

fn volume(bytes: &[u8]) -> String {
    round_trip::<Mount>(bytes);
    plain(text(bytes).and_then(|s| Mount::volume(&s).ok_text()))
}

fn device(bytes: &[u8]) -> String {
    let Ok(s) = text(bytes) else { return "no text".into() };
    let read = storage::device(&s);
    if let Ok((host, inside)) = &read {
        resolved(host);
        resolved(inside);
        assert!(inside.starts_with("/dev"));
    }
    kind(&read)
}

/// The words without a type of their own.
fn word(bytes: &[u8]) -> String {
    let Ok(s) = text(bytes) else { return "no text".into() };
    let mask = process::umask(&s);
    assert!(mask.as_ref().is_ok_and(|m| *m <= 0o777) || mask.is_err());
    let signal = process::signal(&s);
    if let Ok(n) = &signal {
        assert!((1..=64).contains(n) && process::signal(&process::signal_name(*n)).ok() == Some(*n));
    }
    let number = process::number(&s);
    assert!(!matches!(number, Ok(Some(u32::MAX))));
    let capability = restrict::capability(&s);
    assert!(capability.as_ref().is_ok_and(|n| usize::from(*n) < restrict::CAPABILITIES.len()) || capability.is_err());
    let inside = storage::inside(&s);
    if let Ok(path) = &inside {
        resolved(path);
    }
    format!("{} {} {} {} {}", kind(&mask), kind(&signal), kind(&number), kind(&inside), kind(&storage::rootfs(&s)))
}

/// A `WWW-Authenticate` header, a line each.
fn challenge(bytes: &[u8]) -> String {
    match Challenge::parse(bytes.split(|b| *b == b'\n')) {
        Ok(Challenge::Basic) => "basic".to_string(),
        Ok(Challenge::Bearer { realm, service, scope }) => {
            assert!(realm.len() <= bytes.len());
            format!("bearer {} {}", service.is_some(), scope.is_some())
        }
        Err(e) => e.message().to_string(),
    }
}

/// registries.conf: wherever a name leads, it is a place, and not one that is blocked.
fn registries(bytes: &[u8]) -> String {
    let Ok(s) = text(bytes) else { return "no text".into() };
    let mut all = Registries::default();
    let read = all.add(&s);
    if let Err(e) = &read {
        return e.message().chars().take(40).filter(|c| !c.is_ascii_digit()).collect();
    }
    let mut kinds = String::new();
    for name in ["docker.io/library/debian:12", "r.example.com:5000/a/b/c:1", "localhost/x:1"] {
        let sources = all.sources(&name.parse().unwrap());
        if let Ok(places) = &sources {
            assert!(!places.is_empty() && all.target(&name.parse().unwrap()).ok().as_ref() == places.last());
            for place in places {
                assert!(!place.host.is_empty() && !place.host.contains(['/', '@', ' ', '\n', '?', '#']), "{place:?}");
                assert!(
                    !place.repository.split('/').any(|p| matches!(p, "." | "..")) && !place.repository.contains(['?', '#', '@', '\\']),
                    "{place:?}"
                );
            }
        }
        kinds += &format!("{} ", sources.map_or(0, |p| p.len()));
    }
    kinds + if all.resolve("debian:12").is_ok() { "resolved" } else { "not resolved" }
}

/// auth.json: no error has anything of it.
fn credentials(bytes: &[u8]) -> String {
    let read = AuthFile::parse(bytes).and_then(|file| {
        let first = file.secret("docker.io", "library/debian")?;
        Ok((first.is_some(), file.secret("r.example.com:5000", "a/b")?.is_some()))
    });
    if let Err(e) = &read {
        assert!(!e.message().contains("secret") && !e.message().contains('\n'), "{e}");
    }
    format!("{read:?}").replace(|c: char| c.is_ascii_digit(), "")
}

/// Virtual ownership, and the count of links in an index: anybody writes them into a layer.
fn overridden(bytes: &[u8]) -> String {
    let read = Override::parse(bytes);
    if let Some(over) = &read {
        assert!(over.mode <= 0o7777);
        assert_eq!(Override::parse(over.text().as_bytes()).as_ref(), Some(over), "printed as {}", over.text());
    }
    format!("{:?} {}", read.map(|o| o.kind.map(|(kind, _)| kind)), parse_links(bytes).is_some())
}

/// A command line, one argument a line.
fn args(bytes: &[u8]) -> String {
    let Ok(s) = text(bytes) else { return "no text".into() };
    let command = <RunArgs as clap::Args>::augment_args(clap::Command::new("run").no_binary_name(true));
    match command.try_get_matches_from(s.lines()).and_then(|m| <RunArgs as clap::FromArgMatches>::from_arg_matches(&m)) {
        Ok(_) => "accepted".to_string(),
        Err(e) if e.kind() == clap::error::ErrorKind::UnknownArgument => "unknown".to_string(),
        Err(e) => format!("{:?} {:?}", e.kind(), e.get(clap::error::ContextKind::InvalidArg).map(|a| a.to_string())),
    }
}

fn policy(bytes: &[u8]) -> String {
    let Ok(s) = text(bytes) else { return "no text".into() };
    let read = policy::parse(&s, Path::new("p.toml"));
    if let Ok(patch) = &read {
        let said = serde_json::to_string(patch).unwrap();
        assert_eq!(serde_json::from_str::<Patch>(&said).unwrap(), *patch, "said as {said}");
        // Laid over itself it is itself.
        let twice = patch.clone().then(patch.clone());
        assert_eq!(twice.clone().then(patch.clone()), twice);
        let _ = policy::said(patch);
    }
    kind(&read)
}

/// A profile in Docker's format, all the way to a program. It is read from a file of no directory.
fn seccomp(bytes: &[u8]) -> String {
    let file = rustix::fs::memfd_create("profile", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    let mut file = std::fs::File::from(file);
    file.write_all(bytes).unwrap();
    let profile = SeccompProfile::Docker(PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd())));
    let spec = Seccomp { profile, allow: vec![], deny: vec![], socket_families: vec![] };
    let made = sandbox::confine::seccomp::compile(&spec, false, &BTreeSet::new(), None);
    if let Ok(program) = &made {
        assert!(program.as_ref().is_some_and(|p| p.instructions() > 0), "no filter, and no error");
    }
    kind(&made)
}

fn mountinfo(bytes: &[u8]) -> String {
    let read = mounts::parse(bytes);
    if let Ok(list) = &read {
        for point in list.iter().take(4).map(|m| m.point.clone()).chain(["/".into(), "/proc".into()]) {
            assert!(mounts::submounts(list, &point).all(|m| m.point.starts_with(&point)));
            let _ = mounts::mounted_at(list, &point);
        }
        let _ = mounts::fully_visible(list, "proc");
        return format!("accepted {}", list.len().min(9));
    }
    kind(&read)
}

/// passwd and group, of a root that a stranger made.
fn accounts(bytes: &[u8]) -> String {
    let checked = caller::check_accounts(bytes, "passwd");
    let names = caller::names(bytes);
    let mut found = 0;
    for name in names.iter().map(|(name, _)| name.as_str()).take(4).chain(["root", "0", "", "a:b", "nobody"]) {
        found += usize::from(caller::passwd_lookup(bytes, name).is_some_and(|a| a.home.is_absolute()));
        // cve: 2016-3697
        assert!(name.is_empty() || !name.bytes().all(|b| b.is_ascii_digit()) || caller::passwd_lookup(bytes, name).is_none());
        found += usize::from(caller::group_lookup(bytes, name).is_some_and(|g| g != u32::MAX));
        let groups = caller::groups_of(bytes, name);
        assert_eq!(groups.iter().collect::<HashSet<_>>().len(), groups.len(), "a group twice");
        found += groups.len().min(3);
    }
    assert!(caller::passwd_uid(bytes, 0).is_none_or(|a| a.uid == 0));
    format!("{} {} {found}", kind(&checked), names.len().min(9))
}

fn subids(bytes: &[u8]) -> String {
    let ranges: Vec<_> = subid::entries(bytes).map(|e| e.range()).collect();
    for range in ranges.iter().flatten() {
        assert!(range.count > 0 && range.last() >= range.start && range.last() < u32::MAX);
    }
    assert!(subid::free_start(&[bytes]) >= 100_000);
    let said = subid::collisions(bytes, "ada", 1000, &[("bob".to_string(), 100_000)]);
    format!("{} {} {}", ranges.len().min(9), ranges.iter().flatten().count().min(9), said.len().min(3))
}

/// A manifest or an index, as a registry or an archive gives it.
fn document(bytes: &[u8]) -> String {
    let read = layout::document(bytes, None);
    match &read {
        Ok(layout::Document::Manifest(m)) => {
            assert!(m.layers.len() <= layout::MOST_LAYERS && m.config.size <= layout::LONGEST);
            assert!(m.layers.iter().all(|l| l.digest.hex().len() == 64 && l.size <= 1 << 53));
        }
        Ok(layout::Document::Index(index)) => {
            let chosen = layout::choose(index, &layout::Platform::default());
            assert!(chosen.is_err() || index.entries.iter().any(|e| Some(&e.descriptor) == chosen.as_ref().ok().copied()));
            let fetched = layout::resolve(bytes.to_vec(), None, &layout::Platform::default(), |_| Ok(bytes.to_vec()));
            assert!(fetched.is_err(), "a document that names itself");
            return format!("index {} {}", index.entries.len().min(5), kind(&chosen));
        }
        Err(_) => {}
    }
    kind(&read)
}

fn config(bytes: &[u8]) -> String {
    let read = layout::config(bytes);
    if let Ok((config, diff_ids)) = &read {
        assert_eq!(config.rootfs().diff_ids().len(), diff_ids.len());
        return format!("accepted {} {}", diff_ids.len().min(5), config.history().as_ref().map_or(0, Vec::len).min(5));
    }
    kind(&read)
}

/// A tar with images, of either kind. Only what is compressed would be written, and where that would go there is nothing.
fn archive(bytes: &[u8]) -> String {
    let file = rustix::fs::memfd_create("archive", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    let mut file = std::fs::File::from(file);
    file.write_all(bytes).unwrap();
    std::io::Seek::rewind(&mut file).unwrap();
    let read = archive::names_in(file, Path::new("/nonexistent"), &layout::Platform::default());
    if let Ok(images) = &read {
        for name in images.iter().flatten() {
            assert!(name.digest().is_none() && name.to_string().parse().ok().as_ref() == Some(name));
        }
        return format!("accepted {} {}", images.len().min(5), images.iter().flatten().count().min(5));
    }
    kind(&read)
}

fn place(bytes: &[u8]) -> String {
    let Ok(s) = text(bytes) else { return "no text".into() };
    let read = archive::Place::named(&s);
    if let Ok(Some(place)) = &read {
        assert_eq!(place.to_string(), s);
    }
    kind(&read) + if read.is_ok_and(|p| p.is_some()) { " a place" } else { "" }
}

/// A tar, as it is, and with the checksums that its headers should have: what we take, another reader reads the same.
fn layer(bytes: &[u8]) -> String {
    let mut sealed = bytes.to_vec();
    for block in sealed.chunks_exact_mut(tar::BLOCK).filter(|b| b[257..262] == *b"ustar") {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    format!("{} {}", entries(bytes), entries(&sealed))
}

fn entries(bytes: &[u8]) -> String {
    let mut reader = tar::Reader::new(bytes);
    let mut ours = Vec::new();
    let mut sparse = false;
    let end = loop {
        let entry = match reader.entry() {
            Ok(Some(entry)) => entry,
            Ok(None) => break Ok(()),
            Err(e) => break Err(e),
        };
        let text = |path: &[u8]| path.split(|b| *b == b'/').all(|c| !matches!(c, b"." | b".." | b"") && c.len() <= 255 && !c.contains(&0));
        assert!((entry.path.is_empty() || text(&entry.path)) && entry.path.len() <= 4096, "{entry:?}");
        assert!(entry.form != tar::Form::Link || text(&entry.link), "{entry:?}");
        assert!(entry.form == tar::Form::File || entry.size == 0, "{entry:?}");
        let mut length = 0;
        if let Err(e) = reader.content(&mut |piece| {
            length += piece.len() as u64;
            Ok(())
        }) {
            break Err(e);
        }
        match &entry.extents {
            None => assert_eq!(length, entry.size),
            Some(extents) => {
                assert_eq!(length, extents.iter().map(|(_, n)| n).sum::<u64>());
                assert!(extents.iter().all(|(at, n)| at + n <= entry.size));
            }
        }
        sparse |= entry.extents.is_some();
        ours.push((entry.path, length));
    };
    if end.is_ok() && !sparse {
        let mut theirs = Vec::new();
        // What ends where the content of its last entry ends is fine for us, as for readers in Go; this one wants the padding.
        let padding = vec![0; bytes.len().next_multiple_of(tar::BLOCK) - bytes.len()];
        for entry in ::tar::Archive::new(std::io::Read::chain(bytes, padding.as_slice())).entries().unwrap() {
            let mut entry = entry.expect("another reader finds an error");
            if entry.header().entry_type() != ::tar::EntryType::XGlobalHeader {
                let length = std::io::copy(&mut entry, &mut std::io::sink()).unwrap();
                theirs.push((tar::inside(&entry.path_bytes()).expect("another reader finds another name"), length));
            }
        }
        assert_eq!(ours, theirs, "another reader finds other entries");
    }
    kind(&end)
}

// ------------------------------------------------------------------------------------------------------------- mutation

/// Numbers that look random and are the same in every run. Knuth, MMIX.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % sides.max(1)
    }

    fn range(&mut self, len: usize) -> std::ops::Range<usize> {
        let start = self.roll(len + 1);
        start..start + self.roll((len - start).min(32) + 1)
    }
}

/// What is most often treated wrongly.
const DICTIONARY: [&[u8]; 32] = [
    b":",
    b",",
    b"=",
    b"/",
    b"..",
    b"/../",
    b"//",
    b"~",
    b"-",
    b"-1",
    b"+1",
    b"0",
    b"00",
    b"65536",
    b"4294967294",
    b"4294967295",
    b"4294967296",
    b"9223372036854775808",
    b"18446744073709551615",
    b"18446744073709551616",
    b"1e9",
    b"0x0",
    b"\0",
    b"\n",
    b"\r",
    b"\"",
    b"\\",
    b"\x1b[2J",
    b"\xff",
    b"\xc3\xa4",
    b"\xe2\x80\xae",
    b"unlimited",
];

const LONGEST: usize = 64 << 10;

fn mutate(input: &mut Vec<u8>, other: &[u8], dice: &mut Dice) {
    for _ in 0..=dice.roll(4) {
        let len = input.len();
        match dice.roll(8) {
            0 if len > 0 => input[dice.roll(len)] ^= 1 << dice.roll(8),
            1 if len > 0 => input[dice.roll(len)] = dice.roll(256) as u8,
            2 => drop(input.drain(dice.range(len))),
            3 => {
                let piece = input[dice.range(len)].to_vec();
                let at = dice.roll(len + 1);
                let times = if dice.roll(64) == 0 { 1000 } else { 1 };
                input.splice(at..at, piece.repeat(times));
            }
            4 => {
                let piece = other[dice.range(other.len())].to_vec();
                input.splice(dice.range(len), piece);
            }
            5 => input.insert(dice.roll(len + 1), dice.roll(128) as u8),
            _ => {
                let at = dice.roll(len + 1);
                let over = if dice.roll(2) == 0 { at..at } else { at..(at + dice.roll(8)).min(len) };
                input.splice(over, DICTIONARY[dice.roll(DICTIONARY.len())].iter().copied());
            }
        }
    }
    input.truncate(LONGEST);
}

// ------------------------------------------------------------------------------------------------------------------ run

/// What is being tried, for the watchdog: since when, by whom, and what.
static TRYING: Mutex<Option<(Instant, &'static str, Vec<u8>)>> = Mutex::new(None);
static PANIC: Mutex<String> = Mutex::new(String::new());

fn fail(target: &str, why: &str, input: &[u8]) -> ! {
    let hex: String = input.iter().map(|b| format!("{b:02x}")).collect();
    println!(
        "fuzz {target}: {why}\n  input: {:?}\n  keep it: echo {hex} | xxd -r -p > tests/fuzz/corpus/{target}/NAME",
        String::from_utf8_lossy(input)
    );
    std::process::exit(1)
}

fn processor_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

fn attempt(name: &'static str, target: Target, input: &[u8]) -> String {
    *TRYING.lock().unwrap() = Some((Instant::now(), name, input.to_vec()));
    let before = processor_time();
    let answer = catch_unwind(AssertUnwindSafe(|| target(input)));
    let took = processor_time() - before;
    *TRYING.lock().unwrap() = None;
    match answer {
        Err(_) => fail(name, &PANIC.lock().unwrap(), input),
        Ok(_) if took > Duration::from_secs(1) => fail(name, &format!("took {took:?}"), input),
        Ok(kind) => kind,
    }
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let tree = Path::new(env!("CARGO_MANIFEST_DIR"));
    let own = std::fs::read_dir(tree.join("tests/fuzz/corpus").join(name)).into_iter().flatten();
    // The policies that we ship are a corpus, too.
    let shipped = (name == "policy").then(|| std::fs::read_dir(tree.join("policies")).into_iter().flatten()).into_iter().flatten();
    let mut files: Vec<PathBuf> = own.chain(shipped).map(|e| e.unwrap().path()).filter(|p| p.is_file()).collect();
    files.sort();
    files.iter().map(|f| std::fs::read(f).unwrap()).collect()
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.iter().any(|w| w == "--list") {
        return TARGETS.iter().for_each(|(name, _)| println!("{name}: test"));
    }
    let wanted: Vec<&String> = words.iter().filter(|w| !w.starts_with('-')).collect();
    let seconds = std::env::var("FUZZ_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(2.0);
    // The first one is the cause: a thread of a server may have died before the target did.
    std::panic::set_hook(Box::new(|info| {
        let mut kept = PANIC.lock().unwrap();
        let then = if kept.is_empty() { "" } else { ", then " };
        kept.push_str(&format!("{then}{info}"));
    }));
    std::thread::spawn(|| {
        loop {
            std::thread::sleep(Duration::from_secs(1));
            let stuck = TRYING.lock().unwrap().clone().filter(|(since, ..)| since.elapsed() > Duration::from_secs(30));
            if let Some((_, name, input)) = stuck {
                fail(name, "does not return", &input);
            }
        }
    });
    let mut passed = 0;
    for (name, target) in TARGETS.iter().filter(|(name, _)| wanted.is_empty() || wanted.iter().any(|w| name.contains(w.as_str()))) {
        let mut pool = corpus(name);
        if pool.is_empty() {
            fail(name, "has no corpus", b"");
        }
        let mut kinds: HashSet<String> = pool.iter().map(|input| attempt(name, *target, input)).collect();
        let (mut dice, mut count, end) = (Dice(1), pool.len(), Instant::now() + Duration::from_secs_f64(seconds));
        while Instant::now() < end {
            let mut input = pool[dice.roll(pool.len())].clone();
            let other = pool[dice.roll(pool.len())].clone();
            mutate(&mut input, &other, &mut dice);
            count += 1;
            if kinds.insert(attempt(name, *target, &input)) && pool.len() < 1000 {
                pool.push(input);
            }
        }
        println!("fuzz {name:10} ok: {count:7} inputs, {} kinds of answer", kinds.len());
        passed += 1;
    }
    overlay::sweep();
    println!("\ntest result: ok. {passed} passed; 0 failed; 0 ignored; 0 measured; {} filtered out", TARGETS.len() - passed);
}
