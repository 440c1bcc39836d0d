//! One operation on a file system, as a value: it can be made from a seed, printed, kept, left out, and played on any side.
//!
//! What is random is decided in `Maker::next`; `World::play` decides nothing, so a sequence does the same wherever it is played.

use crate::calls::{self, Answer, Entries, ROOT, Time, as_user};
use crate::tree::{Tree, attributes, hash};
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

/// A path below the root, of any bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(pub Vec<u8>);

impl Debug for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.len() {
            0..=200 => write!(f, "\"{}\"", self.0.escape_ascii()),
            len => write!(f, "\"{}...\" ({len} bytes)", self.0[..40].escape_ascii()),
        }
    }
}

pub const SLOTS: usize = 6;

/// A buffer in which one entry of any name has room.
const NAME: usize = 300;

/// Each kind is a line; `who` is an id, `slot` a place for an open file.
#[derive(Debug, Clone)]
pub enum Op {
    Open {
        who: u32,
        path: Name,
        flags: i32,
        mode: u32,
        slot: usize,
    },
    Close {
        slot: usize,
    },
    Read {
        slot: usize,
        len: usize,
    },
    Pread {
        slot: usize,
        len: usize,
        at: i64,
    },
    Write {
        slot: usize,
        len: usize,
        byte: u8,
    },
    Pwrite {
        slot: usize,
        len: usize,
        at: i64,
        byte: u8,
    },
    Truncate {
        who: u32,
        path: Name,
        len: i64,
    },
    Ftruncate {
        slot: usize,
        len: i64,
    },
    Fallocate {
        slot: usize,
        mode: i32,
        at: i64,
        len: i64,
    },
    CopyRange {
        from: usize,
        from_at: i64,
        to: usize,
        to_at: i64,
        len: usize,
    },
    SendFile {
        from: usize,
        from_at: i64,
        to: usize,
        len: usize,
    },
    SeekHole {
        slot: usize,
        at: i64,
    },
    SeekData {
        slot: usize,
        at: i64,
    },
    SeekEnd {
        slot: usize,
    },
    MapShared {
        slot: usize,
        byte: u8,
    },
    MapPrivate {
        slot: usize,
        byte: u8,
    },
    Chmod {
        who: u32,
        path: Name,
        mode: u32,
    },
    Fchmod {
        slot: usize,
        mode: u32,
    },
    Chown {
        who: u32,
        path: Name,
        uid: u32,
        gid: u32,
    },
    Lchown {
        who: u32,
        path: Name,
        uid: u32,
        gid: u32,
    },
    Fchown {
        slot: usize,
        uid: u32,
        gid: u32,
    },
    Utimens {
        who: u32,
        path: Name,
        atime: Time,
        mtime: Time,
    },
    Lutimens {
        who: u32,
        path: Name,
        atime: Time,
        mtime: Time,
    },
    Futimens {
        slot: usize,
        mtime: Time,
    },
    SetXattr {
        who: u32,
        path: Name,
        name: &'static str,
        len: usize,
        flags: i32,
        follow: bool,
    },
    FsetXattr {
        slot: usize,
        name: &'static str,
        len: usize,
    },
    GetXattr {
        who: u32,
        path: Name,
        name: &'static str,
        room: usize,
    },
    ListXattr {
        path: Name,
        follow: bool,
    },
    RemoveXattr {
        who: u32,
        path: Name,
        name: &'static str,
        follow: bool,
    },
    SetAcl {
        who: u32,
        path: Name,
        default: bool,
        perm: u16,
        id: u32,
    },
    RemoveAcl {
        who: u32,
        path: Name,
        default: bool,
    },
    Fsync {
        slot: usize,
    },
    Fdatasync {
        slot: usize,
    },
    Syncfs {
        slot: usize,
    },
    Mkdir {
        who: u32,
        path: Name,
        mode: u32,
    },
    Rmdir {
        who: u32,
        path: Name,
    },
    Mkfifo {
        who: u32,
        path: Name,
        mode: u32,
    },
    MkSocket {
        who: u32,
        path: Name,
        mode: u32,
    },
    MkNode {
        who: u32,
        path: Name,
        mode: u32,
    },
    MkDevice {
        path: Name,
        whiteout: bool,
    },
    Symlink {
        who: u32,
        target: Name,
        path: Name,
    },
    Readlink {
        who: u32,
        path: Name,
    },
    Link {
        who: u32,
        from: Name,
        to: Name,
        follow: bool,
    },
    Unlink {
        who: u32,
        path: Name,
    },
    Rename {
        who: u32,
        from: Name,
        to: Name,
    },
    RenameNoReplace {
        who: u32,
        from: Name,
        to: Name,
    },
    Exchange {
        who: u32,
        from: Name,
        to: Name,
    },
    RenameWhiteout {
        from: Name,
        to: Name,
    },
    List {
        who: u32,
        path: Name,
        buffer: usize,
    },
    /// Some entries are read, then names appear and vanish, then the rest is read.
    ListInterrupted {
        path: Name,
        first: usize,
    },
    /// Entries are read, the place of one is kept and gone back to.
    ListAgain {
        path: Name,
        first: usize,
    },
    Statfs {
        path: Name,
    },
    Flock {
        slot: usize,
        operation: i32,
    },
    OfdLock {
        slot: usize,
        kind: i32,
        start: i64,
        len: i64,
    },
    OfdAsk {
        slot: usize,
        kind: i32,
        start: i64,
        len: i64,
    },
    /// Open, unlink, and go on with it.
    UnlinkedIo {
        who: u32,
        path: Name,
    },
    /// Replace by a rename while it is open.
    ReplacedIo {
        path: Name,
    },
    /// Open a directory, remove it, and go on with it.
    RemovedDir {
        path: Name,
    },
    Access {
        who: u32,
        path: Name,
        mode: i32,
    },
    Stat {
        who: u32,
        path: Name,
        follow: bool,
    },
    Fstat {
        slot: usize,
    },
    Tmpfile {
        path: Name,
    },
    /// Directories in each other, until a path is too long for one call; then most of them are removed again.
    Deep {
        path: Name,
        name: usize,
        count: usize,
    },
    /// Opened for reading, then changed by another opener: the first one sees it.
    ReadBehind {
        path: Name,
    },
    /// All files are closed, and both sides are mounted again.
    Remount,
}

impl Op {
    pub fn kind(&self) -> String {
        let text = format!("{self:?}");
        text.split([' ', '{']).next().unwrap_or_default().to_string()
    }
}

// ---------------------------------------------------------------------------------------------------------------- making

pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678_9abc_def1)
    }

    pub fn number(&mut self) -> u64 {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn roll(&mut self, sides: usize) -> usize {
        (self.number() % sides as u64) as usize
    }

    pub fn one<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.roll(of.len())].clone()
    }

    /// One time in so many.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.roll(times) == 0
    }
}

const NAMES: [&str; 12] = ["a", "b", "c", "d", "e", "f", "g.txt", "with space", "\u{e4}", "new", ".hidden", "x"];
const XATTRS: [&str; 9] = ["user.a", "user.a", "user.a", "user.a", "user.b", "user.long", "user.overlay", "security.test", "user.mime_type"];
const MODES: [u32; 12] = [0o644, 0o600, 0o755, 0o777, 0o4755, 0o2755, 0o1777, 0o000, 0o444, 0o640, 0o2640, 0o6711];
const IDS: [u32; 5] = [0, 1000, 2000, 33, 65000];
const TIMES: [Time; 7] =
    [(1, 1), (0, 0), (1_000_000_000, 123_456_789), (1_600_000_000, 999_999_999), (86_400, 0), (0, libc::UTIME_NOW), (0, libc::UTIME_OMIT)];

pub struct Maker {
    pub dice: Dice,
    /// Paths that were there when it was last looked, and those made since.
    pub known: Vec<Vec<u8>>,
    /// Those of them that are directories, and links.
    pub dirs: Vec<Vec<u8>>,
    pub symlinks: Vec<Vec<u8>>,
}

impl Maker {
    pub fn new(dice: Dice, tree: &Tree) -> Maker {
        let mut maker = Maker { dice, known: Vec::new(), dirs: Vec::new(), symlinks: Vec::new() };
        maker.look(tree);
        maker
    }

    /// What is there. Of a large directory some names are enough.
    pub fn look(&mut self, tree: &Tree) {
        let few = |path: &[u8]| !path.starts_with(b"many/file") || path.ends_with(b"7");
        let of = |kind: &str| tree.iter().filter(|(p, l)| few(p) && l.starts_with(kind)).map(|(p, _)| p.clone()).collect();
        (self.known, self.dirs, self.symlinks) = (of(""), of("040"), of("120"));
    }

    /// A name that an operation may have made.
    pub fn made(&mut self, op: &Op) {
        let path = match op {
            Op::Open { path, flags, .. } if flags & libc::O_CREAT != 0 => path,
            Op::Mkdir { path, .. } | Op::Mkfifo { path, .. } | Op::MkNode { path, .. } | Op::Symlink { path, .. } => path,
            Op::Link { to, .. } | Op::Rename { to, .. } | Op::RenameNoReplace { to, .. } => to,
            _ => return,
        };
        if path.0.is_empty() || path.0.len() > 1000 {
            return;
        }
        self.known.push(path.0.clone());
        match op {
            Op::Mkdir { .. } => self.dirs.push(path.0.clone()),
            Op::Symlink { .. } => self.symlinks.push(path.0.clone()),
            _ => {}
        }
    }

    /// Most likely a directory.
    fn dir(&mut self) -> Name {
        if self.dice.once_in(8) { self.path() } else { Name(self.dice.one(&self.dirs)) }
    }

    fn symlink(&mut self) -> Name {
        if self.symlinks.is_empty() || self.dice.once_in(4) { self.path() } else { Name(self.dice.one(&self.symlinks)) }
    }

    fn who(&mut self) -> u32 {
        self.dice.one(&[ROOT, ROOT, ROOT, ROOT, ROOT, ROOT, 1000, 1000, 2000])
    }

    fn parent(&mut self) -> Vec<u8> {
        let mut path = self.dice.one(&self.known);
        // Not too deep.
        if self.dice.once_in(2) || path.iter().filter(|b| **b == b'/').count() > 4 {
            let end = path.iter().rposition(|b| *b == b'/').unwrap_or(0);
            path.truncate(end);
        }
        path
    }

    fn below(&mut self, name: &[u8]) -> Name {
        let parent = self.parent();
        Name(if parent.is_empty() || parent == b"." { name.to_vec() } else { [&parent[..], b"/", name].concat() })
    }

    /// Most likely one that is not there yet.
    fn new_path(&mut self) -> Name {
        if self.dice.once_in(12) {
            return self.odd_path();
        }
        let name = format!("{}{}", self.dice.one(&NAMES), self.dice.one(&["", "", "1", "2"]));
        self.below(name.as_bytes())
    }

    /// Most likely one that is there.
    fn path(&mut self) -> Name {
        match self.dice.roll(20) {
            0 => self.odd_path(),
            1..3 => self.new_path(),
            _ => Name(self.dice.one(&self.known)),
        }
    }

    fn odd_path(&mut self) -> Name {
        let known = self.dice.one(&self.known);
        Name(match self.dice.roll(9) {
            0 => Vec::new(),
            1 => [&known[..], b"/"].concat(),
            2 => [&known[..], b"/."].concat(),
            3 => [&known[..], b"/../", self.dice.one(&NAMES).as_bytes()].concat(),
            4 => self.below(&[b'n'; 255]).0,
            5 => self.below(&[b'n'; 256]).0,
            6 => [&known[..], b"/missing/x"].concat(),
            7 => [b"x/".repeat(2100), b"x".to_vec()].concat(),
            _ => b".".to_vec(),
        })
    }

    fn slot(&mut self) -> usize {
        self.dice.roll(SLOTS)
    }

    fn offset(&mut self) -> i64 {
        let near = self.dice.roll(9000) as i64;
        self.dice.one(&[0, near, near, 4096, 4095, 8192, 65536, 131_072, 300_000, 1 << 20])
    }

    fn len(&mut self) -> usize {
        let some = 1 + self.dice.roll(6000);
        self.dice.one(&[0, 1, some, some, some, 4096, 8192, 40_000, 140_000])
    }

    fn mode(&mut self) -> u32 {
        self.dice.one(&MODES)
    }

    fn time(&mut self) -> Time {
        self.dice.one(&TIMES)
    }

    /// Or leave it: not both, since then only a file system of the kernel knows that it was asked, and takes away setuid.
    fn id(&mut self) -> u32 {
        if self.dice.once_in(5) { u32::MAX } else { self.dice.one(&IDS) }
    }

    fn xattr(&mut self) -> &'static str {
        self.dice.one(&XATTRS)
    }

    fn flags(&mut self) -> i32 {
        let mut flags = self.dice.one(&[libc::O_RDONLY, libc::O_WRONLY, libc::O_RDWR, libc::O_RDWR]) | libc::O_NONBLOCK;
        for (flag, often) in [
            (libc::O_CREAT, 2),
            (libc::O_EXCL, 8),
            (libc::O_TRUNC, 6),
            (libc::O_APPEND, 6),
            (libc::O_DIRECTORY, 25),
            (libc::O_NOFOLLOW, 10),
            (libc::O_SYNC, 25),
        ] {
            if self.dice.once_in(often) {
                flags |= flag;
            }
        }
        flags
    }

    #[expect(clippy::too_many_lines, reason = "a line or two for each kind")]
    pub fn next(&mut self) -> Op {
        // What needs an open file comes often, since it does nothing without one.
        match self.dice.roll(150) {
            0..16 => Op::Open { who: self.who(), path: self.path(), flags: self.flags(), mode: self.mode(), slot: self.slot() },
            16..19 => Op::Close { slot: self.slot() },
            19..22 => Op::Read { slot: self.slot(), len: self.len() },
            22..26 => Op::Pread { slot: self.slot(), len: self.len(), at: self.offset() },
            26..30 => Op::Write { slot: self.slot(), len: self.len(), byte: self.dice.roll(255) as u8 },
            30..36 => Op::Pwrite { slot: self.slot(), len: self.len(), at: self.offset(), byte: self.dice.roll(255) as u8 },
            36..39 => Op::Truncate { who: self.who(), path: self.path(), len: self.offset() },
            39..41 => Op::Ftruncate { slot: self.slot(), len: self.offset() },
            41..45 => {
                let keep = libc::FALLOC_FL_KEEP_SIZE;
                let modes = [0, keep, keep | libc::FALLOC_FL_PUNCH_HOLE, keep | libc::FALLOC_FL_PUNCH_HOLE, libc::FALLOC_FL_PUNCH_HOLE];
                Op::Fallocate { slot: self.slot(), mode: self.dice.one(&modes), at: self.offset(), len: self.offset() }
            }
            45..47 => Op::CopyRange { from: self.slot(), from_at: self.offset(), to: self.slot(), to_at: self.offset(), len: self.len() },
            47 => Op::SendFile { from: self.slot(), from_at: self.offset(), to: self.slot(), len: self.len() },
            48..50 => Op::SeekHole { slot: self.slot(), at: self.offset() },
            50..52 => Op::SeekData { slot: self.slot(), at: self.offset() },
            52 => Op::SeekEnd { slot: self.slot() },
            53..56 => Op::MapShared { slot: self.slot(), byte: self.dice.roll(255) as u8 },
            56 => Op::MapPrivate { slot: self.slot(), byte: self.dice.roll(255) as u8 },
            57..60 => Op::Chmod { who: self.who(), path: self.path(), mode: self.mode() },
            60 => Op::Fchmod { slot: self.slot(), mode: self.mode() },
            61..64 => Op::Chown { who: self.who(), path: self.path(), uid: self.id(), gid: self.dice.one(&IDS) },
            64 => Op::Lchown { who: self.who(), path: self.path(), uid: self.id(), gid: self.dice.one(&IDS) },
            65 => Op::Fchown { slot: self.slot(), uid: self.dice.one(&IDS), gid: self.id() },
            66..69 => Op::Utimens { who: self.who(), path: self.path(), atime: self.time(), mtime: self.time() },
            69 => Op::Lutimens { who: self.who(), path: self.path(), atime: self.time(), mtime: self.time() },
            70 => Op::Futimens { slot: self.slot(), mtime: self.time() },
            71..74 => Op::SetXattr {
                who: self.who(),
                path: self.path(),
                name: self.xattr(),
                len: self.dice.one(&[0, 1, 20, 300]),
                flags: self.dice.one(&[0, 0, libc::XATTR_CREATE, libc::XATTR_REPLACE]),
                follow: !self.dice.once_in(4),
            },
            74 => Op::FsetXattr { slot: self.slot(), name: self.xattr(), len: self.dice.one(&[0, 5, 100]) },
            75..77 => Op::GetXattr { who: self.who(), path: self.path(), name: self.xattr(), room: self.dice.one(&[0, 3, 1000, 1000]) },
            77..79 => Op::ListXattr { path: self.path(), follow: self.dice.once_in(2) },
            79..81 => Op::RemoveXattr { who: self.who(), path: self.path(), name: self.xattr(), follow: !self.dice.once_in(4) },
            81..83 => Op::SetAcl {
                who: self.who(),
                path: self.path(),
                default: self.dice.once_in(3),
                perm: self.dice.roll(8) as u16,
                id: self.dice.one(&IDS),
            },
            83 => Op::RemoveAcl { who: self.who(), path: self.path(), default: self.dice.once_in(2) },
            84 => Op::Fsync { slot: self.slot() },
            85 => Op::Fdatasync { slot: self.slot() },
            86 => Op::Syncfs { slot: self.slot() },
            87..91 => Op::Mkdir { who: self.who(), path: self.new_path(), mode: self.mode() | self.dice.one(&[0, 0o700]) },
            91..94 => Op::Rmdir { who: self.who(), path: self.dir() },
            94 => Op::Mkfifo { who: self.who(), path: self.new_path(), mode: self.mode() },
            95 => Op::MkSocket { who: self.who(), path: self.new_path(), mode: self.mode() },
            96 => Op::MkNode { who: self.who(), path: self.new_path(), mode: self.mode() },
            97 => Op::MkDevice { path: self.new_path(), whiteout: self.dice.once_in(2) },
            98..100 => {
                let target = match self.dice.roll(4) {
                    0 => Name(self.dice.one(&NAMES).as_bytes().to_vec()),
                    1 => Name([b"../", self.dice.one(&NAMES).as_bytes()].concat()),
                    2 => Name(b"missing".to_vec()),
                    _ => Name(vec![b't'; 1 + self.dice.roll(300)]),
                };
                Op::Symlink { who: self.who(), target, path: self.new_path() }
            }
            100 => Op::Readlink { who: self.who(), path: self.symlink() },
            101..105 => Op::Link { who: self.who(), from: self.path(), to: self.new_path(), follow: self.dice.once_in(2) },
            105..110 => Op::Unlink { who: self.who(), path: self.path() },
            110..116 => {
                let to = if self.dice.once_in(3) { self.path() } else { self.new_path() };
                Op::Rename { who: self.who(), from: self.path(), to }
            }
            116 => Op::RenameNoReplace { who: self.who(), from: self.path(), to: self.new_path() },
            117..120 => Op::Exchange { who: self.who(), from: self.path(), to: self.path() },
            120 => Op::RenameWhiteout { from: self.path(), to: self.new_path() },
            121..124 => Op::List { who: self.who(), path: self.dir(), buffer: self.dice.one(&[300, 1000, 32768]) },
            124 => Op::ListInterrupted { path: self.dir(), first: self.dice.roll(6) },
            125 => Op::ListAgain { path: self.dir(), first: self.dice.roll(6) },
            126 => Op::Statfs { path: self.path() },
            127..129 => Op::Flock { slot: self.slot(), operation: self.dice.one(&[libc::LOCK_SH, libc::LOCK_EX, libc::LOCK_EX, libc::LOCK_UN]) },
            129..131 => Op::OfdLock {
                slot: self.slot(),
                kind: self.dice.one(&[libc::F_RDLCK, libc::F_WRLCK, libc::F_UNLCK]),
                start: self.dice.roll(100) as i64,
                len: self.dice.roll(50) as i64,
            },
            131 => Op::OfdAsk {
                slot: self.slot(),
                kind: self.dice.one(&[libc::F_RDLCK, libc::F_WRLCK]),
                start: self.dice.roll(100) as i64,
                len: 1 + self.dice.roll(50) as i64,
            },
            132..134 => Op::UnlinkedIo { who: self.who(), path: self.path() },
            134 => Op::ReplacedIo { path: self.path() },
            135 => Op::RemovedDir { path: self.dir() },
            136..138 => Op::Access { who: self.who(), path: self.path(), mode: self.dice.roll(8) as i32 },
            138..143 => Op::Stat { who: self.who(), path: self.path(), follow: self.dice.once_in(2) },
            143..145 => Op::Fstat { slot: self.slot() },
            145 => Op::Tmpfile { path: self.dir() },
            146 => match self.dice.roll(10) {
                0 => Op::Deep { path: self.dir(), name: self.dice.one(&[1, 100, 255]), count: self.dice.one(&[10, 20, 45]) },
                1..3 => Op::Remount,
                _ => Op::ReadBehind { path: self.path() },
            },
            _ => Op::Stat { who: ROOT, path: self.path(), follow: false },
        }
    }
}

/// The value of an xattr of that length.
pub fn value(len: usize) -> Vec<u8> {
    (0..len).map(|n| b'a' + (n % 26) as u8).collect()
}

/// The blob of an access or default list: owner, one more user, group, mask, others.
pub fn acl(perm: u16, id: u32) -> Vec<u8> {
    let none = u32::MAX;
    let entries = [(0x01, 7, none), (0x02, perm, id), (0x04, 5, none), (0x10, 7, none), (0x20, perm & 1, none)];
    let mut blob = 2_u32.to_le_bytes().to_vec();
    for (tag, perm, id) in entries {
        blob.extend(u16::to_le_bytes(tag));
        blob.extend(u16::to_le_bytes(perm));
        blob.extend(u32::to_le_bytes(id));
    }
    blob
}

pub fn acl_name(default: bool) -> &'static str {
    if default { "system.posix_acl_default" } else { "system.posix_acl_access" }
}

// --------------------------------------------------------------------------------------------------------------- playing

/// What came of an operation: the number or errno, and what was read.
#[derive(Clone, PartialEq, Eq)]
pub struct Outcome {
    pub answer: Answer,
    pub seen: String,
}

impl Debug for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.answer {
            Ok(n) => write!(f, "{n}"),
            Err(e) => write!(f, "{}", calls::errno_name(e)),
        }?;
        if self.seen.is_empty() { Ok(()) } else { write!(f, " {}", self.seen) }
    }
}

/// One side, with its open files.
pub struct World {
    root: PathBuf,
    dir: OwnedFd,
    slots: [Option<OwnedFd>; SLOTS],
}

impl World {
    pub fn new(root: &Path) -> World {
        let dir = calls::open(libc::AT_FDCWD, root.as_os_str().as_encoded_bytes(), libc::O_RDONLY | libc::O_DIRECTORY, 0).expect("the root");
        World { root: root.to_path_buf(), dir, slots: [const { None }; SLOTS] }
    }

    fn at(&self) -> RawFd {
        self.dir.as_raw_fd()
    }

    fn fd(&self, slot: usize) -> RawFd {
        self.slots[slot].as_ref().map_or(-1, AsRawFd::as_raw_fd)
    }

    /// For calls that take no directory.
    fn whole(&self, path: &Name) -> Vec<u8> {
        if path.0.is_empty() { Vec::new() } else { [self.root.as_os_str().as_encoded_bytes(), b"/", &path.0].concat() }
    }

    fn open(&self, path: &Name, flags: i32) -> Answer<OwnedFd> {
        calls::open(self.at(), &path.0, flags | libc::O_NONBLOCK, 0o644)
    }

    pub fn play(&mut self, op: &Op) -> Outcome {
        let mut seen = String::new();
        let answer = self.call(op, &mut seen);
        Outcome { answer, seen }
    }

    #[expect(clippy::too_many_lines, reason = "a line or two for each kind")]
    fn call(&mut self, op: &Op, seen: &mut String) -> Answer {
        let at = self.at();
        match op {
            Op::Open { who, path, flags, mode, slot } => {
                self.slots[*slot] = None;
                self.slots[*slot] = Some(as_user(*who, || calls::open(at, &path.0, *flags, *mode))?);
                Ok(0)
            }
            Op::Close { slot } => Ok(i64::from(self.slots[*slot].take().is_some())),
            Op::Read { slot, len } => calls::read(self.fd(*slot), *len).map(|b| bytes(&b, seen)),
            Op::Pread { slot, len, at } => calls::pread(self.fd(*slot), *len, *at).map(|b| bytes(&b, seen)),
            Op::Write { slot, len, byte } => {
                let written = calls::write(self.fd(*slot), &vec![*byte; *len])?;
                self.fifo_now(self.fd(*slot));
                Ok(written)
            }
            Op::Pwrite { slot, len, at, byte } => calls::pwrite(self.fd(*slot), &vec![*byte; *len], *at),
            // Man pages promise a time only where the size changes.
            Op::Truncate { who, path, len } => {
                as_user(*who, || calls::truncate(&self.whole(path), *len))?;
                calls::utimens(at, &path.0, (0, libc::UTIME_OMIT), (0, libc::UTIME_NOW), 0)
            }
            Op::Ftruncate { slot, len } => {
                calls::ftruncate(self.fd(*slot), *len)?;
                calls::futimens(self.fd(*slot), (0, libc::UTIME_OMIT), (0, libc::UTIME_NOW))
            }
            Op::Fallocate { slot, mode, at, len } => calls::fallocate(self.fd(*slot), *mode, *at, *len),
            Op::CopyRange { from, from_at, to, to_at, len } => calls::copy_range(self.fd(*from), *from_at, self.fd(*to), *to_at, *len),
            Op::SendFile { from, from_at, to, len } => {
                let sent = calls::sendfile(self.fd(*to), self.fd(*from), *from_at, *len)?;
                self.fifo_now(self.fd(*to));
                Ok(sent)
            }
            Op::SeekHole { slot, at } => self.seek(*slot, *at, libc::SEEK_HOLE),
            Op::SeekData { slot, at } => self.seek(*slot, *at, libc::SEEK_DATA),
            // Where a directory ends is the file system's own affair.
            Op::SeekEnd { slot } => match calls::fstat(self.fd(*slot))?.st_mode & libc::S_IFMT {
                libc::S_IFDIR => Ok(0),
                _ => calls::lseek(self.fd(*slot), 0, libc::SEEK_END),
            },
            Op::MapShared { slot, byte } => self.map(*slot, true, *byte, seen),
            Op::MapPrivate { slot, byte } => self.map(*slot, false, *byte, seen),
            Op::Chmod { who, path, mode } => as_user(*who, || calls::chmod(at, &path.0, *mode)),
            Op::Fchmod { slot, mode } => calls::fchmod(self.fd(*slot), *mode),
            Op::Chown { who, path, uid, gid } => as_user(*who, || calls::chown(at, &path.0, *uid, *gid, 0)),
            Op::Lchown { who, path, uid, gid } => as_user(*who, || calls::chown(at, &path.0, *uid, *gid, libc::AT_SYMLINK_NOFOLLOW)),
            Op::Fchown { slot, uid, gid } => calls::fchown(self.fd(*slot), *uid, *gid),
            Op::Utimens { who, path, atime, mtime } => as_user(*who, || calls::utimens(at, &path.0, *atime, *mtime, 0)),
            Op::Lutimens { who, path, atime, mtime } => as_user(*who, || calls::utimens(at, &path.0, *atime, *mtime, libc::AT_SYMLINK_NOFOLLOW)),
            Op::Futimens { slot, mtime } => calls::futimens(self.fd(*slot), (0, libc::UTIME_OMIT), *mtime),
            Op::SetXattr { who, path, name, len, flags, follow } => {
                as_user(*who, || calls::set_xattr(&self.whole(path), name, &value(*len), *flags, *follow))
            }
            Op::FsetXattr { slot, name, len } => calls::fset_xattr(self.fd(*slot), name, &value(*len), 0),
            Op::GetXattr { who, path, name, room } => {
                as_user(*who, || calls::get_xattr(&self.whole(path), name, *room, true)).map(|b| bytes(&b, seen))
            }
            Op::ListXattr { path, follow } => {
                *seen = calls::list_xattr(&self.whole(path), *follow)?.join(" ");
                Ok(0)
            }
            Op::RemoveXattr { who, path, name, follow } => as_user(*who, || calls::remove_xattr(&self.whole(path), name, *follow)),
            Op::SetAcl { who, path, default, perm, id } => {
                as_user(*who, || calls::set_xattr(&self.whole(path), acl_name(*default), &acl(*perm, *id), 0, true))
            }
            Op::RemoveAcl { who, path, default } => as_user(*who, || calls::remove_xattr(&self.whole(path), acl_name(*default), true)),
            Op::Fsync { slot } => calls::fsync(self.fd(*slot)),
            Op::Fdatasync { slot } => calls::fdatasync(self.fd(*slot)),
            Op::Syncfs { slot } => calls::syncfs(self.fd(*slot)),
            Op::Mkdir { who, path, mode } => as_user(*who, || calls::mkdir(at, &path.0, *mode)),
            Op::Rmdir { who, path } => as_user(*who, || calls::unlink(at, &path.0, libc::AT_REMOVEDIR)),
            Op::Mkfifo { who, path, mode } => as_user(*who, || calls::mknod(at, &path.0, libc::S_IFIFO | mode, 0)),
            Op::MkSocket { who, path, mode } => as_user(*who, || calls::mknod(at, &path.0, libc::S_IFSOCK | mode, 0)),
            Op::MkNode { who, path, mode } => as_user(*who, || calls::mknod(at, &path.0, libc::S_IFREG | mode, 0)),
            Op::MkDevice { path, whiteout } => {
                let device = if *whiteout { 0 } else { libc::makedev(1, 3) };
                calls::mknod(at, &path.0, libc::S_IFCHR | 0o644, device)
            }
            Op::Symlink { who, target, path } => as_user(*who, || calls::symlink(&target.0, at, &path.0)),
            Op::Readlink { who, path } => as_user(*who, || calls::readlink(at, &path.0)).map(|b| bytes(&b, seen)),
            Op::Link { who, from, to, follow } => {
                as_user(*who, || calls::link(at, &from.0, &to.0, if *follow { libc::AT_SYMLINK_FOLLOW } else { 0 }))
            }
            Op::Unlink { who, path } => as_user(*who, || calls::unlink(at, &path.0, 0)),
            Op::Rename { who, from, to } => as_user(*who, || calls::rename(at, &from.0, &to.0, 0)),
            Op::RenameNoReplace { who, from, to } => as_user(*who, || calls::rename(at, &from.0, &to.0, libc::RENAME_NOREPLACE)),
            Op::Exchange { who, from, to } => as_user(*who, || calls::rename(at, &from.0, &to.0, libc::RENAME_EXCHANGE)),
            Op::RenameWhiteout { from, to } => calls::rename(at, &from.0, &to.0, libc::RENAME_WHITEOUT),
            Op::List { who, path, buffer } => as_user(*who, || list(at, path, *buffer, seen)),
            Op::ListInterrupted { path, first } => self.list_interrupted(path, *first, seen),
            Op::ListAgain { path, first } => self.list_again(path, *first),
            Op::Statfs { path } => calls::statfs(&self.whole(path)).map(|s| s.f_namelen),
            Op::Flock { slot, operation } => calls::flock(self.fd(*slot), *operation),
            Op::OfdLock { slot, kind, start, len } => calls::ofd_lock(self.fd(*slot), false, *kind, *start, *len),
            Op::OfdAsk { slot, kind, start, len } => calls::ofd_lock(self.fd(*slot), true, *kind, *start, *len),
            Op::UnlinkedIo { who, path } => self.unlinked(*who, path, seen),
            Op::ReplacedIo { path } => self.replaced(path, seen),
            Op::RemovedDir { path } => self.removed(path, seen),
            Op::Access { who, path, mode } => as_user(*who, || calls::access(at, &path.0, *mode)),
            Op::Stat { who, path, follow } => {
                let flags = if *follow { 0 } else { libc::AT_SYMLINK_NOFOLLOW };
                *seen = attributes(&as_user(*who, || calls::stat(at, &path.0, flags))?);
                Ok(0)
            }
            Op::Fstat { slot } => {
                *seen = attributes(&calls::fstat(self.fd(*slot))?);
                Ok(0)
            }
            Op::Tmpfile { path } => self.tmpfile(path, seen),
            Op::Deep { path, name, count } => self.deep(path, *name, *count, seen),
            Op::ReadBehind { path } => self.read_behind(path, seen),
            Op::Remount => {
                self.slots = [const { None }; SLOTS];
                Ok(0)
            }
        }
    }

    /// What was written to a fifo changes its times on a disk; overlays, the kernel's too, are not told.
    fn fifo_now(&self, fd: RawFd) {
        if calls::fstat(fd).is_ok_and(|stat| stat.st_mode & libc::S_IFMT == libc::S_IFIFO) {
            let _ = calls::futimens(fd, (0, libc::UTIME_OMIT), (0, libc::UTIME_NOW));
        }
    }

    pub fn is_removed(&self, slot: usize) -> bool {
        calls::fstat(self.fd(slot)).is_ok_and(|stat| stat.st_nlink == 0)
    }

    /// The number of a file that is there.
    pub fn number(&self, path: &Name) -> Option<u64> {
        calls::stat(self.at(), &path.0, 0).ok().map(|stat| stat.st_ino)
    }

    pub fn number_of(&self, slot: usize) -> Option<u64> {
        calls::fstat(self.fd(slot)).ok().map(|stat| stat.st_ino)
    }

    pub fn is_read_only(&self, slot: usize) -> bool {
        calls::flags(self.fd(slot)).is_ok_and(|flags| flags as i32 & libc::O_ACCMODE == libc::O_RDONLY)
    }

    pub fn has_acl(&self, path: &Name) -> bool {
        calls::get_xattr(&self.whole(path), acl_name(false), 0, true).is_ok()
    }

    /// The place stays, since both may be right about a hole, and go to other ones.
    fn seek(&self, slot: usize, at: i64, whence: i32) -> Answer {
        let place = calls::lseek(self.fd(slot), 0, libc::SEEK_CUR)?;
        let found = calls::lseek(self.fd(slot), at, whence);
        calls::lseek(self.fd(slot), place, libc::SEEK_SET)?;
        found
    }

    fn map(&self, slot: usize, shared: bool, byte: u8, seen: &mut String) -> Answer {
        let fd = self.fd(slot);
        let size = calls::fstat(fd)?.st_size.min(200_000) as usize;
        let work = |b: &mut [u8]| {
            let before = hash(b);
            let middle = b.len() / 2;
            b[middle] = byte;
            b[0] = byte;
            (before, hash(b))
        };
        if size == 0 {
            return calls::mapped(fd, 0, 4096, shared, true, |_| 0);
        }
        let (before, after) = calls::mapped(fd, 0, size, shared, true, work)?;
        if shared {
            // On a tmpfs this changes no times, elsewhere it does. Through FUSE it becomes a write, which takes away setuid and setgid.
            let _ = calls::fchmod(fd, calls::fstat(fd)?.st_mode & 0o1777);
            let _ = calls::futimens(fd, (0, libc::UTIME_OMIT), (0, libc::UTIME_NOW));
        }
        *seen = format!("{before:x} {after:x}");
        calls::pread(fd, size, 0).map(|b| {
            *seen += &format!(" {:x}", hash(&b));
            b.len() as i64
        })
    }

    /// POSIX leaves open whether what changes meanwhile is seen. What does not change must be, once.
    fn list_interrupted(&self, path: &Name, first: usize, seen: &mut String) -> Answer {
        let fd = self.open(path, libc::O_RDONLY | libc::O_DIRECTORY)?;
        let before: BTreeSet<Vec<u8>> =
            Entries::of(self.open(path, libc::O_RDONLY | libc::O_DIRECTORY)?, 4096).rest()?.into_iter().map(|e| e.name).collect();
        let mut entries = Entries::of(fd, NAME);
        let mut names = Vec::new();
        for _ in 0..first {
            names.extend(entries.next()?.map(|e| e.name));
        }
        let dir = entries.fd();
        let mut made = Vec::new();
        for n in 0..8 {
            let name = format!("!between{n}").into_bytes();
            if calls::open(dir, &name, libc::O_CREAT | libc::O_WRONLY, 0o600).is_ok() {
                made.push(name);
            }
        }
        for name in made.iter().step_by(2) {
            calls::unlink(dir, name, 0)?;
        }
        names.extend(entries.rest()?.into_iter().map(|e| e.name));
        for name in made.iter().skip(1).step_by(2) {
            calls::unlink(dir, name, 0)?;
        }
        names.retain(|n| !n.starts_with(b"!between") && n != b"." && n != b"..");
        let once: BTreeSet<Vec<u8>> = names.iter().cloned().collect();
        if once != before || once.len() != names.len() {
            *seen = format!("lists {} of {} names, {} once", names.len(), before.len(), once.len());
        }
        Ok(before.len() as i64)
    }

    /// After going back to an entry's place the same entries come.
    fn list_again(&self, path: &Name, first: usize) -> Answer {
        let mut entries = Entries::of(self.open(path, libc::O_RDONLY | libc::O_DIRECTORY)?, NAME);
        let mut place = 0;
        for _ in 0..first {
            place = entries.next()?.map_or(place, |e| e.next);
        }
        let names = |rest: Vec<calls::Entry>| rest.into_iter().map(|e| e.name).collect::<Vec<_>>();
        let rest = names(entries.rest()?);
        entries.seek(place)?;
        let again = names(entries.rest()?);
        Ok(if rest == again { rest.len() as i64 } else { -1 })
    }

    fn unlinked(&self, who: u32, path: &Name, seen: &mut String) -> Answer {
        as_user(who, || {
            let fd = self.open(path, libc::O_RDWR)?;
            let kind = calls::fstat(fd.as_raw_fd())?.st_mode & libc::S_IFMT;
            if kind != libc::S_IFREG {
                return Ok(1);
            }
            calls::unlink(self.at(), &path.0, 0)?;
            let fd = fd.as_raw_fd();
            let first = calls::pread(fd, 200_000, 0)?;
            calls::pwrite(fd, b"behind the name", 3)?;
            let linked = calls::link(self.at(), format!("/proc/self/fd/{fd}").as_bytes(), b"!again", libc::AT_SYMLINK_FOLLOW);
            let second = calls::pread(fd, 200_000, 0)?;
            calls::ftruncate(fd, 5)?;
            calls::fchmod(fd, 0o600)?;
            calls::futimens(fd, (5, 5), (7, 7))?;
            calls::fsync(fd)?;
            let stat = calls::fstat(fd)?;
            *seen = format!("{:x} {:x} {:?} {}", hash(&first), hash(&second), linked.is_ok(), attributes(&stat));
            Ok(0)
        })
    }

    fn replaced(&self, path: &Name, seen: &mut String) -> Answer {
        let fd = self.open(path, libc::O_RDONLY)?;
        if calls::fstat(fd.as_raw_fd())?.st_mode & libc::S_IFMT != libc::S_IFREG {
            return Ok(1);
        }
        let new = Name(b"!new".to_vec());
        let other = self.open(&new, libc::O_CREAT | libc::O_TRUNC | libc::O_RDWR)?;
        calls::write(other.as_raw_fd(), b"new content")?;
        if let Err(e) = calls::rename(self.at(), &new.0, &path.0, 0) {
            calls::unlink(self.at(), &new.0, 0)?;
            return Err(e);
        }
        let old = calls::pread(fd.as_raw_fd(), 200_000, 0)?;
        let new = calls::pread(self.open(path, libc::O_RDONLY)?.as_raw_fd(), 200_000, 0)?;
        *seen = format!("{:x} {:x}", hash(&old), hash(&new));
        Ok(0)
    }

    fn removed(&self, path: &Name, seen: &mut String) -> Answer {
        let fd = self.open(path, libc::O_RDONLY | libc::O_DIRECTORY)?;
        calls::unlink(self.at(), &path.0, libc::AT_REMOVEDIR)?;
        let dir = fd.as_raw_fd();
        let make = calls::open(dir, b"x", libc::O_CREAT | libc::O_WRONLY, 0o600).map(|_| 0);
        let sub = calls::mkdir(dir, b"d", 0o700);
        let up = calls::stat(dir, b"..", 0).map(|_| 0);
        let look = calls::stat(dir, b"x", 0).map(|_| 0);
        let left = Entries::of(fd, 4096).rest().map(|e| e.len());
        *seen = format!("{make:?} {sub:?} {} {look:?} {left:?}", up.is_ok());
        Ok(0)
    }

    fn tmpfile(&self, path: &Name, seen: &mut String) -> Answer {
        let fd = self.open(path, libc::O_TMPFILE | libc::O_RDWR)?;
        calls::write(fd.as_raw_fd(), b"without a name")?;
        let to = [&path.0[..], b"/!tmp"].concat();
        let linked = calls::link(self.at(), format!("/proc/self/fd/{}", fd.as_raw_fd()).as_bytes(), &to, libc::AT_SYMLINK_FOLLOW);
        *seen = format!("{linked:?} {}", attributes(&calls::fstat(fd.as_raw_fd())?));
        Ok(0)
    }

    fn deep(&self, path: &Name, name: usize, count: usize, seen: &mut String) -> Answer {
        let name = vec![b'y'; name];
        let mut dirs = vec![self.open(path, libc::O_RDONLY | libc::O_DIRECTORY)?];
        for _ in 0..count {
            let dir = dirs[dirs.len() - 1].as_raw_fd();
            match calls::mkdir(dir, &name, 0o755) {
                Ok(_) | Err(libc::EEXIST) => {}
                Err(e) => return Err(e),
            }
            dirs.push(calls::open(dir, &name, libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW, 0)?);
        }
        let bottom = dirs[dirs.len() - 1].as_raw_fd();
        let file = calls::open(bottom, b"bottom", libc::O_CREAT | libc::O_RDWR, 0o644)?;
        calls::write(file.as_raw_fd(), b"deep")?;
        *seen = attributes(&calls::stat(bottom, b"bottom", 0)?);
        calls::unlink(bottom, b"bottom", 0)?;
        // From the bottom up, but for the first two.
        while dirs.len() > 3 {
            dirs.pop();
            if let Err(e) = calls::unlink(dirs[dirs.len() - 1].as_raw_fd(), &name, libc::AT_REMOVEDIR) {
                return if e == libc::ENOTEMPTY { Ok(1) } else { Err(e) };
            }
        }
        Ok(0)
    }

    fn read_behind(&self, path: &Name, seen: &mut String) -> Answer {
        let reader = self.open(path, libc::O_RDONLY)?;
        if calls::fstat(reader.as_raw_fd())?.st_mode & libc::S_IFMT != libc::S_IFREG {
            return Ok(1);
        }
        let first = calls::pread(reader.as_raw_fd(), 100, 0)?;
        let writer = self.open(path, libc::O_WRONLY)?;
        calls::pwrite(writer.as_raw_fd(), b"changed by another", 10)?;
        let second = calls::pread(reader.as_raw_fd(), 100, 0)?;
        let stat = calls::fstat(reader.as_raw_fd())?;
        *seen = format!("{:x} {:x} {}", hash(&first), hash(&second), attributes(&stat));
        Ok(0)
    }
}

fn bytes(bytes: &[u8], seen: &mut String) -> i64 {
    *seen = if bytes.len() <= 60 { format!("\"{}\"", bytes.escape_ascii()) } else { format!("{:016x}", hash(bytes)) };
    bytes.len() as i64
}

fn list(at: RawFd, path: &Name, buffer: usize, seen: &mut String) -> Answer {
    let fd = calls::open(at, &path.0, libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
    let mut names: Vec<_> = Entries::of(fd, buffer).rest()?.into_iter().map(|e| format!("{}:{}", e.name.escape_ascii(), e.kind)).collect();
    names.sort();
    let all = names.join(" ");
    *seen = if all.len() < 300 { all } else { format!("{:016x}", hash(all.as_bytes())) };
    Ok(names.len() as i64)
}

/// An answer to SEEK_DATA or SEEK_HOLE that is not the other's, but true: what it calls a hole is zeros up to there.
pub fn seek_is_true(world: &World, op: &Op, answer: Answer) -> bool {
    let (slot, at, hole) = match op {
        Op::SeekHole { slot, at } => (*slot, *at, true),
        Op::SeekData { slot, at } => (*slot, *at, false),
        _ => return false,
    };
    let fd = world.fd(slot);
    let Ok(stat) = calls::fstat(fd) else { return false };
    // Whether directories have holes is a question that has several wrong answers.
    if stat.st_mode & libc::S_IFMT == libc::S_IFDIR {
        return true;
    }
    // It may be open for writing alone.
    let Ok(reader) = calls::open(libc::AT_FDCWD, format!("/proc/self/fd/{fd}").as_bytes(), libc::O_RDONLY, 0) else { return false };
    let fd = reader.as_raw_fd();
    let zeros = |from: i64, to: i64| {
        let len = (to - from).max(0) as usize;
        calls::pread(fd, len, from).is_ok_and(|b| b.len() == len && b.iter().all(|b| *b == 0))
    };
    match answer {
        // Any place up to the end can be one where a hole begins only if there are zeros, or it is the end.
        Ok(found) if hole => found >= at && (found == stat.st_size || zeros(found, found + 1)),
        Ok(found) => found >= at && found < stat.st_size && zeros(at, found),
        Err(libc::ENXIO) => at >= stat.st_size || (!hole && zeros(at, stat.st_size)),
        Err(_) => false,
    }
}
