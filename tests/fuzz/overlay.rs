//! Our overlay without a kernel: what /dev/fuse would bring comes over a socket. `request`: garbage in requests gets an answer, and nothing
//! but the upper layer changes. `tree`: operations, decoded from bytes, do to it what they do to a tree in memory, also when it is mounted again.
//!
//! The kernel holds what we tell it of until it says that it forgets: so does `Client`.

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair, sockopt};
use sandbox::overlay::{Limit, Overlay, Ownership, Upper, serve};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::thread::JoinHandle;
use std::time::Duration;

const ROOT: u64 = 1;
const SMALL: u64 = 4 << 20;

/// Opcodes. kernel: include/uapi/linux/fuse.h
const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const SETATTR: u32 = 4;
const READLINK: u32 = 5;
const SYMLINK: u32 = 6;
const MKNOD: u32 = 8;
const MKDIR: u32 = 9;
const UNLINK: u32 = 10;
const RMDIR: u32 = 11;
const LINK: u32 = 13;
const READ: u32 = 15;
const WRITE: u32 = 16;
const SETXATTR: u32 = 21;
const GETXATTR: u32 = 22;
const INIT: u32 = 26;
const READDIR: u32 = 28;
const DESTROY: u32 = 38;
const BATCH_FORGET: u32 = 42;
const READDIRPLUS: u32 = 44;
const RENAME2: u32 = 45;

/// Layers in a directory of this process. The lower ones are made once.
struct Ground {
    lowers: Vec<PathBuf>,
    upper: PathBuf,
    work: PathBuf,
}

impl Drop for Ground {
    fn drop(&mut self) {
        for dir in [&self.upper, &self.work] {
            let _ = fs::remove_dir_all(dir);
        }
    }
}

fn base() -> PathBuf {
    std::env::temp_dir().join(format!("sandbox-fuzz-{}", std::process::id()))
}

/// At the end of the run.
pub fn sweep() {
    let _ = fs::remove_dir_all(base());
}

impl Ground {
    fn new() -> Ground {
        static MADE: OnceLock<()> = OnceLock::new();
        let at = base();
        let lowers = vec![at.join("1"), at.join("2")];
        MADE.get_or_init(|| lower(&lowers[0], &lowers[1]));
        let ground = Ground { lowers, upper: at.join("upper"), work: at.join("work") };
        fs::create_dir(&ground.upper).unwrap();
        fs::create_dir(&ground.work).unwrap();
        ground
    }

    /// Of all that must not change: names, times, sizes.
    fn outside(&self) -> Vec<(PathBuf, i64, i64, u64, u32)> {
        fn walk(dir: &Path, into: &mut Vec<(PathBuf, i64, i64, u64, u32)>) {
            for path in fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()) {
                let meta = fs::symlink_metadata(&path).unwrap();
                into.push((path.clone(), meta.ctime(), meta.ctime_nsec(), meta.size(), meta.mode()));
                if meta.is_dir() {
                    walk(&path, into);
                }
            }
        }
        let mut all = Vec::new();
        self.lowers.iter().for_each(|lower| walk(lower, &mut all));
        all
    }
}

/// As `Tree::lower` says.
fn lower(top: &Path, bottom: &Path) {
    for dir in ["1/d", "1/e", "2/d/d", "2/e"] {
        fs::create_dir_all(top.parent().unwrap().join(dir)).unwrap();
    }
    let whiteout = |path: &Path| rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::CharacterDevice, 0.into(), 0).unwrap();
    fs::write(top.join("d/a"), b"top").unwrap();
    whiteout(&top.join("d/b"));
    whiteout(&top.join("c"));
    rustix::fs::setxattr(top.join("e"), c"user.overlay.opaque", b"y", rustix::fs::XattrFlags::empty()).unwrap();
    fs::write(top.join("e/a"), b"opaque").unwrap();
    for name in ["a", "d/a", "d/b", "d/c", "c", "e/b", "d/d/a"] {
        fs::write(bottom.join(name), name).unwrap();
    }
    fs::hard_link(bottom.join("a"), bottom.join("b")).unwrap();
    fs::hard_link(bottom.join("a"), bottom.join("d/e")).unwrap();
    symlink("d", bottom.join("f")).unwrap();
    rustix::fs::setxattr(bottom.join("d/c"), c"user.a", b"7", rustix::fs::XattrFlags::empty()).unwrap();
}

/// The kernel's side.
struct Client {
    socket: Option<OwnedFd>,
    server: Option<JoinHandle<()>>,
    unique: u64,
    buffer: Vec<u8>,
}

impl Client {
    fn new(ground: &Ground, ownership: Ownership, limit: Limit) -> Client {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        sockopt::set_socket_timeout(&ours, sockopt::Timeout::Recv, Some(Duration::from_secs(20))).unwrap();
        let open = |path: &PathBuf| OwnedFd::from(File::open(path).unwrap());
        let upper = Some(Upper { dir: open(&ground.upper), work: open(&ground.work) });
        let overlay = Overlay { lowers: ground.lowers.iter().map(open).collect(), upper, ownership, limit, within: None };
        // It ends with an error: a socket that is closed is no device that was unmounted.
        let server = std::thread::spawn(move || drop(serve(theirs, overlay)));
        let mut client = Client { socket: Some(ours), server: Some(server), unique: 0, buffer: vec![0; 256 << 10] };
        let hello = [words(&[7, 40, 1 << 20, u32::MAX >> 1]), vec![0; 48]].concat();
        client.ask(INIT, 0, &hello).expect("init");
        client
    }

    /// The answer, without its header, or the errno.
    fn ask(&mut self, opcode: u32, node: u64, more: &[u8]) -> Result<Vec<u8>, i32> {
        self.unique += 2;
        let me = [rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw(), 1, 0];
        let length = 40 + more.len() as u32;
        let header = [words(&[length, opcode]), longs(&[self.unique, node]), words(&me)].concat();
        let socket = self.socket.as_ref().unwrap();
        send(socket, &[&header, more].concat(), SendFlags::empty()).expect("the server takes a request");
        if matches!(opcode, FORGET | BATCH_FORGET) {
            return Ok(Vec::new());
        }
        let n = loop {
            let (n, _) = recv(socket, &mut self.buffer[..], RecvFlags::empty()).unwrap_or_else(|e| panic!("no answer to {opcode}: {e}"));
            // One that cannot be read is answered, even if it said that something is forgotten: the kernel does not listen.
            if n != 16 || long(&self.buffer, 8) == self.unique {
                break n;
            }
        };
        let answer = &self.buffer[..n];
        assert!(n >= 16 && word(answer, 0) as usize == n && long(answer, 8) == self.unique, "a wrong header for {opcode}: {answer:?}");
        match word(answer, 4).cast_signed() {
            0 => Ok(answer[16..].to_vec()),
            error => {
                assert!((-4095..0).contains(&error) && n == 16, "a wrong error for {opcode}: {error}");
                Err(-error)
            }
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        drop(self.socket.take());
        let ended = self.server.take().is_none_or(|s| s.join().is_ok());
        assert!(ended || std::thread::panicking(), "the server panics");
    }
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|w| w.to_ne_bytes()).collect()
}

fn longs(longs: &[u64]) -> Vec<u8> {
    longs.iter().flat_map(|l| l.to_ne_bytes()).collect()
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn named(before: &[u8], name: &[u8]) -> Vec<u8> {
    [before, name, b"\0"].concat()
}

// -------------------------------------------------------------------------------------------------------------- requests

/// Requests one after the other: the opcode, the node (of those that we were told of), the length, and so many bytes. The first byte says
/// whether ownership is virtual.
pub fn request(bytes: &[u8]) -> String {
    let Some((first, mut rest)) = bytes.split_first() else { return "empty".into() };
    let ground = Ground::new();
    let before = ground.outside();
    let ownership = if first & 1 == 0 { Ownership::Real } else { Ownership::Virtual };
    let mut client = Client::new(&ground, ownership, Limit { bytes: Some(SMALL), inodes: Some(64) });
    let (mut nodes, mut kinds) = (vec![ROOT], BTreeSet::new());
    while let [opcode, node, low, high, more @ ..] = rest {
        let length = usize::from(*low) | usize::from(*high) << 8;
        let (payload, left) = more.split_at(length.min(more.len()));
        rest = left;
        let opcode = u32::from(*opcode) % 53;
        // These begin and end a session.
        if matches!(opcode, INIT | DESTROY) {
            continue;
        }
        let mut payload = payload.to_vec();
        if matches!(opcode, READ | READDIR | READDIRPLUS) && payload.len() >= 20 {
            // What fits into a packet.
            let size = word(&payload, 16).min(64 << 10);
            payload[16..20].copy_from_slice(&size.to_ne_bytes());
        }
        // The kernel counts right, and the crate relies on it.
        let text = payload.iter().skip(8).position(|b| *b == 0).map_or(payload.len(), |n| 8 + n + 1);
        for (counted, at, from) in [(WRITE, 16, 40), (SETXATTR, 0, text)] {
            if opcode == counted && payload.len() >= from.max(20) {
                let length = (payload.len() - from) as u32;
                payload[at..at + 4].copy_from_slice(&length.to_ne_bytes());
            }
        }
        let node = nodes[usize::from(*node) % nodes.len()];
        let answer = client.ask(opcode, node, &payload);
        if let (LOOKUP | SYMLINK | MKNOD | MKDIR | LINK, Ok(entry)) = (opcode, &answer) {
            let kind = word(entry, 40 + 60) & libc::S_IFMT;
            assert!(long(entry, 0) == 0 || kind != 0, "an entry of no kind");
            nodes.extend(Some(long(entry, 0)).filter(|n| *n != 0));
        }
        kinds.insert(format!("{opcode}:{}", answer.err().unwrap_or(0)));
    }
    drop(client);
    assert_eq!(ground.outside(), before, "something else than the upper layer has changed");
    let taken = size_of_tree(&ground.upper);
    assert!(taken <= SMALL + (1 << 20), "{taken} bytes are in an upper layer of {SMALL}");
    kinds.into_iter().take(6).collect::<Vec<_>>().join(" ")
}

fn size_of_tree(dir: &Path) -> u64 {
    let sizes = fs::read_dir(dir).into_iter().flatten().flatten().map(|e| match e.metadata() {
        Ok(meta) if meta.is_dir() => size_of_tree(&e.path()),
        Ok(meta) => meta.blocks() * 512,
        Err(_) => 0,
    });
    sizes.sum()
}

// ------------------------------------------------------------------------------------------------------------------ tree

const NAMES: [&[u8]; 6] = [b"a", b"b", b"c", b"d", b"e", b"f"];

#[derive(Debug, Clone, PartialEq)]
enum What {
    File(Vec<u8>),
    Dir(BTreeMap<Vec<u8>, usize>),
    Link(Vec<u8>),
}

#[derive(Debug, Clone)]
struct Thing {
    what: What,
    mode: u32,
    /// Where ownership is virtual, anybody's.
    owner: Option<(u32, u32)>,
    note: Option<u8>,
}

/// A tree in memory: the root is 0; what has no name is kept, since somebody may have it open.
struct Tree(Vec<Thing>);

impl Tree {
    /// What `lower` makes, merged.
    fn lower() -> Tree {
        let mut tree = Tree(Vec::new());
        let root = tree.add(What::Dir(BTreeMap::new()), 0o755);
        let a = tree.add(What::File(b"a".to_vec()), 0o644);
        let (d, e) = (tree.dir_in(root, b"d"), tree.dir_in(root, b"e"));
        tree.dir(root).extend([(b"a".to_vec(), a), (b"b".to_vec(), a)]);
        tree.dir(d).insert(b"e".to_vec(), a);
        let inner = tree.dir_in(d, b"d");
        for (dir, name, content) in [(d, b"a", &b"top"[..]), (d, b"c", b"d/c"), (e, b"a", b"opaque"), (inner, b"a", b"d/d/a")] {
            let file = tree.add(What::File(content.to_vec()), 0o644);
            tree.dir(dir).insert(name.to_vec(), file);
            tree.0[file].note = (content == b"d/c").then_some(b'7');
        }
        let link = tree.add(What::Link(b"d".to_vec()), 0o777);
        tree.dir(root).insert(b"f".to_vec(), link);
        tree
    }

    fn add(&mut self, what: What, mode: u32) -> usize {
        self.0.push(Thing { what, mode, owner: None, note: None });
        self.0.len() - 1
    }

    fn dir_in(&mut self, parent: usize, name: &[u8]) -> usize {
        let made = self.add(What::Dir(BTreeMap::new()), 0o755);
        self.dir(parent).insert(name.to_vec(), made);
        made
    }

    fn dir(&mut self, at: usize) -> &mut BTreeMap<Vec<u8>, usize> {
        match &mut self.0[at].what {
            What::Dir(names) => names,
            other => panic!("no directory: {other:?}"),
        }
    }

    fn is_dir(&self, at: usize) -> bool {
        matches!(self.0[at].what, What::Dir(_))
    }

    fn names(&self, at: usize) -> impl Iterator<Item = (&Vec<u8>, usize)> {
        let names = if let What::Dir(names) = &self.0[at].what { Some(names) } else { None };
        names.into_iter().flatten().map(|(name, at)| (name, *at))
    }

    /// Directories that can be reached, each with its parent and name.
    fn dirs(&self) -> Vec<Placed> {
        let mut all = vec![(0, None)];
        let mut next = 0;
        while next < all.len() {
            let at = all[next].0;
            all.extend(self.names(at).filter(|(_, t)| self.is_dir(*t)).map(|(name, t)| (t, Some((at, name.clone())))));
            next += 1;
        }
        all
    }

    fn is_below(&self, at: usize, top: usize) -> bool {
        at == top || self.names(top).any(|(_, t)| self.is_dir(t) && self.is_below(at, t))
    }

    fn count(&self, at: usize) -> u32 {
        self.dirs().iter().map(|(dir, _)| self.names(*dir).filter(|(_, t)| *t == at).count() as u32).sum()
    }
}

/// A directory, and where its name is; none of the root.
type Placed = (usize, Option<(usize, Vec<u8>)>);

/// Both sides of the comparison.
struct Play<'a> {
    tree: Tree,
    client: Client,
    /// What we were told of: its node, and how often.
    nodes: HashMap<usize, (u64, u64)>,
    ground: &'a Ground,
    ownership: Ownership,
}

impl Play<'_> {
    /// An answer with an entry: it must be the node that we have of that thing, and of no other.
    fn told(&mut self, thing: usize, entry: &[u8]) {
        let node = long(entry, 0);
        assert!(node != 0, "thing {thing} is not there");
        let other = self.nodes.iter().find(|(t, (n, _))| **t != thing && *n == node);
        assert!(other.is_none(), "one node for two files: {other:?} and {thing}");
        let known = self.nodes.entry(thing).or_insert((node, 0));
        assert_eq!(known.0, node, "two nodes for the file {thing}");
        known.1 += 1;
        self.looks(thing, &entry[40..]);
    }

    fn looks(&self, thing: usize, attr: &[u8]) {
        let (size, mode, links, owner) = (long(attr, 8), word(attr, 60), word(attr, 64), (word(attr, 68), word(attr, 72)));
        let seen = &self.tree.0[thing];
        let (kind, length) = match &seen.what {
            What::File(content) => (libc::S_IFREG, Some(content.len())),
            What::Dir(_) => (libc::S_IFDIR, None),
            What::Link(target) => (libc::S_IFLNK, Some(target.len())),
        };
        assert_eq!(mode, kind | seen.mode, "mode {mode:o} of {thing}, {seen:?}");
        assert!(length.is_none_or(|l| l as u64 == size), "size {size} of {thing}, {seen:?}");
        assert!(kind == libc::S_IFDIR || links == self.tree.count(thing), "{links} links of {thing}, {}", self.tree.count(thing));
        // Virtual ones are not the kernel's to see, but asked for by name.
        let owners_seen = self.ownership == Ownership::Real;
        assert!(!owners_seen || seen.owner.is_none_or(|o| o == owner), "owner {owner:?} of {thing}, {seen:?}");
    }

    /// The node of a directory, found by name if it was forgotten.
    fn node(&mut self, dirs: &[Placed], dir: usize) -> u64 {
        if dir == 0 {
            return ROOT;
        }
        if let Some((node, _)) = self.nodes.get(&dir) {
            return *node;
        }
        let (parent, name) = dirs.iter().find(|(d, _)| *d == dir).and_then(|(_, from)| from.clone()).expect("reachable");
        let above = self.node(dirs, parent);
        let entry = self.client.ask(LOOKUP, above, &named(b"", &name)).expect("a directory");
        self.told(dir, &entry);
        self.nodes[&dir].0
    }

    /// One operation, of eight bytes: what, where, where to, how much.
    fn step(&mut self, op: &[u8; 8]) -> Option<String> {
        let [kind, dir, name, to_dir, to_name, some, more, last] = op.map(usize::from);
        let dirs = self.tree.dirs();
        let (dir, to_dir) = (dirs[dir % dirs.len()].0, dirs[to_dir % dirs.len()].0);
        let (name, to_name) = (NAMES[name % NAMES.len()], NAMES[to_name % NAMES.len()]);
        let at = self.node(&dirs, dir);
        let there = self.tree.dir(dir).get(name).copied();
        match kind % 16 {
            // The kernel looks first.
            0..=4 if there.is_some() => None,
            0 => {
                let made = self.client.ask(MKDIR, at, &named(&words(&[0o755, 0]), name));
                self.made(dir, name, made, What::Dir(BTreeMap::new()), 0o755)
            }
            1 | 2 => {
                let made = self.client.ask(MKNOD, at, &named(&words(&[libc::S_IFREG | 0o644, 0, 0, 0]), name));
                self.made(dir, name, made, What::File(Vec::new()), 0o644)
            }
            3 => {
                let target = vec![b't'; 1 + some];
                let made = self.client.ask(SYMLINK, at, &[name, b"\0", &target, b"\0"].concat());
                self.made(dir, name, made, What::Link(target), 0o777)
            }
            4 => {
                let file = self.known(some).filter(|f| !self.tree.is_dir(*f) && self.tree.count(*f) > 0)?;
                let answer = self.client.ask(LINK, at, &named(&longs(&[self.nodes[&file].0]), name));
                if let Ok(entry) = &answer {
                    self.tree.dir(dir).insert(name.to_vec(), file);
                    self.told(file, entry);
                }
                self.expected("link", answer.err(), 0)
            }
            5 => {
                let answer = self.client.ask(UNLINK, at, &named(b"", name)).err();
                let expected = match there {
                    None => libc::ENOENT,
                    Some(thing) if self.tree.is_dir(thing) => libc::EISDIR,
                    Some(_) => 0,
                };
                if expected == 0 {
                    self.tree.dir(dir).remove(name);
                }
                self.expected("unlink", answer, expected)
            }
            6 => {
                let answer = self.client.ask(RMDIR, at, &named(b"", name)).err();
                let expected = match there {
                    None => libc::ENOENT,
                    Some(thing) if !self.tree.is_dir(thing) => libc::ENOTDIR,
                    Some(thing) if self.tree.names(thing).next().is_some() => libc::ENOTEMPTY,
                    Some(_) => 0,
                };
                if expected == 0 {
                    self.tree.dir(dir).remove(name);
                }
                self.expected("rmdir", answer, expected)
            }
            7 | 8 => self.rename((dir, name), (to_dir, to_name), [0, 0, libc::RENAME_NOREPLACE, libc::RENAME_EXCHANGE][some % 4]),
            9 => {
                let file = self.known(some)?;
                let What::File(content) = &mut self.tree.0[file].what else { return None };
                let (offset, bytes) = (more * 97, vec![last as u8; 1 + to_dir * 50 + name.len()]);
                content.resize(content.len().max(offset + bytes.len()), 0);
                content[offset..offset + bytes.len()].copy_from_slice(&bytes);
                let sizes = [longs(&[0, offset as u64]), words(&[bytes.len() as u32, 0]), longs(&[0, 0])].concat();
                let answer = self.client.ask(WRITE, self.nodes[&file].0, &[sizes, bytes].concat());
                self.expected("write", answer.err(), 0)
            }
            10 => {
                let thing = self.known(some)?;
                let node = self.nodes[&thing].0;
                let seen = self.tree.0[thing].clone();
                let (valid, size) = (more as u32 & 0xf, (to_dir * 997) as u64);
                let (mode, owner) = ([0o600, 0o755, 0o644, 0o700][last % 4], (1000 + last as u32, 2000));
                let valid = valid & if matches!(seen.what, What::File(_)) { 0xf } else { 0x7 };
                let valid = valid & if matches!(seen.what, What::Link(_)) { 0x6 } else { 0xf };
                // FATTR_MODE, FATTR_UID, FATTR_GID, FATTR_SIZE
                let valid = if self.ownership == Ownership::Virtual && valid & 0x6 == 0x6 { valid } else { valid & !0x6 };
                let payload = [words(&[valid, 0]), longs(&[0, size, 0, 0, 0, 0]), words(&[0, 0, 0, mode, 0, owner.0, owner.1, 0])].concat();
                let answer = self.client.ask(SETATTR, node, &payload);
                let changed = &mut self.tree.0[thing];
                if valid & 0x1 != 0 {
                    changed.mode = mode;
                }
                if valid & 0x6 != 0 {
                    changed.owner = Some(owner);
                }
                if let (What::File(content), true) = (&mut changed.what, valid & 0x8 != 0) {
                    content.resize(size as usize, 0);
                }
                if let Ok(attr) = &answer {
                    self.looks(thing, &attr[16..]);
                }
                self.expected("setattr", answer.err(), 0)
            }
            11 => {
                let thing = self.known(some).filter(|t| !matches!(self.tree.0[*t].what, What::Link(_)))?;
                let value = [b'a' + (last % 26) as u8];
                let answer = self.client.ask(SETXATTR, self.nodes[&thing].0, &[&words(&[1, 0])[..], b"user.a\0", &value].concat());
                self.tree.0[thing].note = Some(value[0]);
                self.expected("setxattr", answer.err(), 0)
            }
            12 => {
                let answer = self.client.ask(LOOKUP, at, &named(b"", name)).expect("lookup");
                match there {
                    Some(thing) => self.told(thing, &answer),
                    None => assert_eq!(long(&answer, 0), 0, "{} is there", name.escape_ascii()),
                }
                Some("lookup".into())
            }
            13 => {
                let thing = self.known(some)?;
                let (node, times) = self.nodes.remove(&thing).expect("known");
                let _ = self.client.ask(FORGET, node, &longs(&[times]));
                Some("forget".into())
            }
            14 => {
                self.look(more.is_multiple_of(2));
                Some("look".into())
            }
            _ => {
                let thing = self.known(some)?;
                self.content(thing);
                Some("content".into())
            }
        }
    }

    /// One of those that we were told of, whether it has a name or not.
    fn known(&self, number: usize) -> Option<usize> {
        let mut all: Vec<usize> = self.nodes.keys().copied().collect();
        all.sort_unstable();
        all.get(number % all.len().max(1)).copied()
    }

    fn expected(&self, what: &str, answer: Option<i32>, expected: i32) -> Option<String> {
        assert_eq!(answer.unwrap_or(0), expected, "{what}");
        Some(format!("{what} {expected}"))
    }

    fn made(&mut self, dir: usize, name: &[u8], answer: Result<Vec<u8>, i32>, what: What, mode: u32) -> Option<String> {
        if let Ok(entry) = &answer {
            let made = self.tree.add(what, mode);
            self.tree.dir(dir).insert(name.to_vec(), made);
            self.told(made, entry);
        }
        self.expected("make", answer.err(), 0)
    }

    fn rename(&mut self, from: (usize, &[u8]), to: (usize, &[u8]), flags: u32) -> Option<String> {
        let (source, target) = (self.tree.dir(from.0).get(from.1).copied(), self.tree.dir(to.0).get(to.1).copied());
        // The kernel does not ask.
        let within = |tree: &Tree, thing: Option<usize>, dir: usize| thing.is_some_and(|t| tree.is_dir(t) && tree.is_below(dir, t));
        if within(&self.tree, source, to.0) || within(&self.tree, target, from.0) {
            return None;
        }
        let dirs = self.tree.dirs();
        let (old, new) = (self.node(&dirs, from.0), self.node(&dirs, to.0));
        let payload = [&longs(&[new])[..], &words(&[flags, 0]), from.1, b"\0", to.1, b"\0"].concat();
        let answer = self.client.ask(RENAME2, old, &payload).err();
        let expected = match (source, target) {
            (None, _) => libc::ENOENT,
            (_, None) if flags == libc::RENAME_EXCHANGE => libc::ENOENT,
            (_, Some(_)) if flags == libc::RENAME_NOREPLACE => libc::EEXIST,
            (Some(s), Some(t)) if s != t && flags == 0 => match (self.tree.is_dir(s), self.tree.is_dir(t)) {
                (true, false) => libc::ENOTDIR,
                (false, true) => libc::EISDIR,
                (true, true) if self.tree.names(t).next().is_some() => libc::ENOTEMPTY,
                _ => 0,
            },
            _ => 0,
        };
        if let (0, Some(s)) = (expected, source)
            && source != target
        {
            self.tree.dir(from.0).remove(from.1);
            self.tree.dir(to.0).insert(to.1.to_vec(), s);
            if let (libc::RENAME_EXCHANGE, Some(t)) = (flags, target) {
                self.tree.dir(from.0).insert(from.1.to_vec(), t);
            }
        }
        self.expected("rename", answer, expected)
    }

    /// Everything that can be reached is as in memory.
    fn look(&mut self, plus: bool) {
        let mut all = vec![0];
        while let Some(dir) = all.pop() {
            let dirs = self.tree.dirs();
            let node = self.node(&dirs, dir);
            let names: Vec<(Vec<u8>, usize)> = self.tree.names(dir).map(|(n, t)| (n.clone(), t)).collect();
            let mut listed = self.list(node, plus);
            for (name, thing) in &names {
                let number = listed.remove(name).unwrap_or_else(|| panic!("{} is not listed", name.escape_ascii()));
                match number {
                    Ok(entry) => self.told(*thing, &entry),
                    Err(number) => {
                        let entry = self.client.ask(LOOKUP, node, &named(b"", name)).expect("a listed name");
                        self.told(*thing, &entry);
                        assert_eq!(number, long(&entry, 40), "the number of {} in a listing", name.escape_ascii());
                    }
                }
                match self.tree.is_dir(*thing) {
                    true => all.push(*thing),
                    false => self.content(*thing),
                }
            }
            assert!(listed.is_empty(), "listed, and not there: {:?}", listed.keys().map(|n| n.escape_ascii().to_string()).collect::<Vec<_>>());
        }
    }

    /// The names of a directory, each with its entry or its number.
    fn list(&mut self, node: u64, plus: bool) -> BTreeMap<Vec<u8>, Result<Vec<u8>, u64>> {
        let (mut all, mut offset) = (BTreeMap::new(), 0);
        loop {
            let payload = [longs(&[0, offset]), words(&[if plus { 400 } else { 100 }, 0]), longs(&[0, 0])].concat();
            let bytes = self.client.ask(if plus { READDIRPLUS } else { READDIR }, node, &payload).expect("a listing");
            let mut rest = &bytes[..];
            if rest.is_empty() {
                return all;
            }
            while !rest.is_empty() {
                let entry = rest.split_off(..if plus { 128 } else { 0 }).expect("an entry");
                let (number, length) = (long(rest, 0), word(rest, 16) as usize);
                offset = long(rest, 8);
                let name = rest[24..24 + length].to_vec();
                rest = &rest[(24 + length).next_multiple_of(8).min(rest.len())..];
                if name != b"." && name != b".." {
                    let twice = all.insert(name.clone(), if plus { Ok(entry.to_vec()) } else { Err(number) });
                    assert!(twice.is_none(), "{} is listed twice", name.escape_ascii());
                }
            }
        }
    }

    fn content(&mut self, thing: usize) {
        let node = self.nodes[&thing].0;
        let attr = self.client.ask(GETATTR, node, &[0; 16]).expect("attributes");
        self.looks(thing, &attr[16..]);
        let seen = self.tree.0[thing].clone();
        match &seen.what {
            What::File(content) => {
                let read = self.client.ask(READ, node, &[longs(&[0, 0]), words(&[128 << 10, 0]), longs(&[0, 0])].concat()).expect("content");
                assert!(read == *content, "other content in {thing}: {} bytes, {}", read.len(), content.len());
            }
            What::Link(target) => assert_eq!(&self.client.ask(READLINK, node, b"").expect("a target"), target),
            What::Dir(_) => {}
        }
        if !matches!(seen.what, What::Link(_)) {
            let note = self.client.ask(GETXATTR, node, &[&words(&[100, 0])[..], b"user.a\0"].concat());
            assert_eq!(note, seen.note.map(|n| vec![n]).ok_or(libc::ENODATA), "the attribute of {thing}");
        }
    }

    /// The server ends, and another one begins.
    fn again(&mut self) {
        self.nodes.clear();
        self.client = Client::new(self.ground, self.ownership, Limit::default());
    }
}

/// Operations of eight bytes each; the first byte says whether ownership is virtual.
pub fn tree(bytes: &[u8]) -> String {
    let Some((first, rest)) = bytes.split_first() else { return "empty".into() };
    let ground = Ground::new();
    let before = ground.outside();
    let ownership = if first & 1 == 0 { Ownership::Real } else { Ownership::Virtual };
    let client = Client::new(&ground, ownership, Limit::default());
    let mut play = Play { tree: Tree::lower(), client, nodes: HashMap::new(), ground: &ground, ownership };
    let mut kinds = BTreeSet::new();
    for op in rest.as_chunks::<8>().0.iter().take(60) {
        kinds.extend(play.step(op));
    }
    play.look(false);
    play.again();
    play.look(true);
    drop(play);
    assert_eq!(ground.outside(), before, "something else than the upper layer has changed");
    kinds.into_iter().collect::<Vec<_>>().join(" ")
}
