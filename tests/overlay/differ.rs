//! The same random sequence on two sides: on the kernel's overlay and ours, or on a plain directory and ours. What operations answer and
//! all that can be seen must be the same; at the end each reads what the other has written.
//!
//! A seed is a sequence. A failing one is made shorter, printed, and belongs into `seeds` until the end of time.

use crate::ground::{self, knob};
use crate::lower;
use crate::op::{Dice, Maker, Name, Op, Outcome, SLOTS, World, seek_is_true};
use crate::sides::{Kind, Layers, Mounted};
use crate::tree::{Tree, differences, tree};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Operations of one sequence, and how many pass between two looks at everything.
const LENGTH: usize = 4000;
const LOOK: usize = 250;

/// In all: `OVERLAY_OPS`.
const USUAL: u64 = 100_000;

/// Those that found something once.
const KEPT: &str = include_str!("seeds");

/// As long as a failing sequence is made shorter.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Failure {
    /// The number of the operation, or of all.
    at: usize,
    why: String,
}

/// How often each kind was played, and how often it was successful.
type Count = BTreeMap<String, (u64, u64)>;

struct Play<'a> {
    seed: u64,
    reference: Kind,
    dir: &'a Path,
    count: Count,
    /// What is being done, for the watchdog.
    doing: &'a Mutex<(Instant, String)>,
}

struct Side {
    kind: Kind,
    layers: Layers,
    at: PathBuf,
    mounted: Option<Mounted>,
    world: Option<World>,
}

impl Side {
    fn new(kind: Kind, lower: &[PathBuf], dir: &Path, name: &str) -> Side {
        let layers = Layers::new(lower, &dir.join(name));
        // With a directory of its own above, for paths that lead out of it.
        let above = dir.join(format!("m{name}"));
        std::fs::create_dir(&above).expect("a directory");
        Side { kind, layers, at: above.join("top"), mounted: None, world: None }
    }

    fn mount(&mut self) {
        self.mounted = Some(Mounted::new(self.kind, &self.layers, &self.at));
        self.world = Some(World::new(&self.at));
    }

    fn unmount(&mut self) {
        self.world = None;
        self.mounted.take().expect("mounted").unmount();
    }

    fn play(&mut self, op: &Op) -> Outcome {
        self.world.as_mut().expect("mounted").play(op)
    }
}

/// The tree of one side as the other one reads it.
fn read_by(kind: Kind, layers: &Layers, at: &Path, groups: bool) -> Tree {
    let mounted = Mounted::new(kind, layers, at);
    let tree = tree(at, groups);
    mounted.unmount();
    tree
}

/// Renames of lower directories stay where they are for the kernel's overlay without `redirect_dir`, which an ordinary user cannot have.
/// They are compared with a plain directory.
fn kernel_cannot(op: &Op, outcome: &Outcome) -> bool {
    matches!(outcome.answer, Err(libc::EXDEV)) && matches!(op, Op::Rename { .. } | Op::RenameNoReplace { .. } | Op::Exchange { .. })
}

/// What a plain directory does and no overlay: whiteouts can be made in it.
fn only_plain(op: &Op) -> bool {
    matches!(op, Op::MkDevice { whiteout: true, .. }) || matches!(op, Op::RenameWhiteout { from, to } if from != to)
}

impl Play<'_> {
    fn doing(&self, what: String) {
        *self.doing.lock().unwrap() = (Instant::now(), format!("seed {} against {}: {what}", self.seed, self.reference.name()));
    }

    /// Play this script, or make one; with looks after each `look` operations.
    fn play(&mut self, script: Option<&[Op]>, look: usize) -> (Vec<Op>, Option<Failure>) {
        let _ = std::fs::remove_dir_all(self.dir);
        std::fs::create_dir_all(self.dir).expect("a directory");
        let mut done = Vec::new();
        let result = catch_unwind(AssertUnwindSafe(|| self.run(script, look, &mut done)));
        let failure = match result {
            Ok(Ok(())) => None,
            Ok(Err(failure)) => Some(failure),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
                Some(Failure { at: done.len(), why: format!("panicked: {}", text.unwrap_or_default()) })
            }
        };
        (done, failure)
    }

    fn run(&mut self, script: Option<&[Op]>, look: usize, done: &mut Vec<Op>) -> Result<(), Failure> {
        let mut dice = Dice::new(self.seed);
        let links = self.reference == Kind::Plain;
        let lower = lower::layers(&mut dice, self.dir, links);
        let mut left = Side::new(self.reference, &lower, self.dir, "1");
        let mut right = Side::new(Kind::ours(), &lower, self.dir, "2");
        for side in [&left, &right].into_iter().filter(|s| s.kind == Kind::Plain) {
            copy_merged(side, self.dir);
        }
        self.doing("mount".into());
        left.mount();
        right.mount();
        let first = self.look(&left, &right, 0)?;
        let tmpfile = tmpfile_is_there(&right);
        let mut maker = Maker::new(dice, &first);
        let length = script.map_or(LENGTH, <[Op]>::len);
        for step in 0..length {
            let op = script.map_or_else(|| maker.next(), |s| s[step].clone());
            let op = self.judged(op, &left);
            done.push(op.clone());
            self.doing(format!("{step}: {op:?}"));
            let same = match op {
                Op::Link { ref from, .. } => self.link(&op, from, &mut left, &mut right, tmpfile),
                _ => self.step(&op, &mut left, &mut right, tmpfile),
            };
            same.map_err(|why| Failure { at: step, why: format!("{op:?}\n      {why}") })?;
            maker.made(&op);
            if (step + 1) % look == 0 {
                maker.look(&self.look(&left, &right, step)?);
            }
        }
        let last = self.look(&left, &right, length)?;
        self.doing("exchange".into());
        left.unmount();
        right.unmount();
        self.exchange(&left, &right, &last).map_err(|why| Failure { at: length, why })
    }

    /// What is asked of both, so that there is one right answer.
    fn judged(&self, mut op: Op, left: &Side) -> Op {
        let Some(world) = &left.world else { return op };
        match &mut op {
            // How far a read is ahead of the write decides what a file copied onto itself becomes.
            Op::SendFile { from, to, .. } if world.number_of(*from) == world.number_of(*to) => return Op::Fstat { slot: *to },
            // The kernel's maps what is below, if that was opened before it was copied up.
            Op::MapPrivate { slot, .. } | Op::MapShared { slot, .. } if self.reference == Kind::Kernel && world.is_read_only(*slot) => {
                return Op::Pread { slot: *slot, len: 200_000, at: 0 };
            }
            // A plain directory keeps set-group-ID, where an overlay takes it from a file whose group one is not in; the kernel's takes it where there
            // is no ACL, too.
            Op::RemoveAcl { who, path, .. } if self.reference == Kind::Plain || !world.has_acl(path) => *who = crate::calls::ROOT,
            _ => {}
        }
        op
    }

    /// In a user namespace the kernel's overlay has a file twice after link(2), by the old name and by the new one, until it forgets: what is changed
    /// by the one, stat(2) shows by the other, but permissions are checked against what was before, it cannot be renamed from the one to the other,
    /// and so on. So it is made to forget; this is compared with a plain directory.
    fn link(&mut self, op: &Op, from: &Name, left: &mut Side, right: &mut Side, tmpfile: bool) -> Result<(), String> {
        if self.reference != Kind::Kernel {
            return self.step(op, left, right, tmpfile);
        }
        let number = left.world.as_ref().and_then(|world| world.number(from));
        for slot in 0..SLOTS {
            if number.is_some() && number == left.world.as_ref().and_then(|world| world.number_of(slot)) {
                [&mut *left, &mut *right].into_iter().for_each(|side| drop(side.play(&Op::Close { slot })));
            }
        }
        self.step(op, left, right, tmpfile)?;
        crate::calls::mount("", &left.at.display().to_string(), "", libc::MS_REMOUNT, "").map(drop).map_err(crate::calls::errno_name)
    }

    fn step(&mut self, op: &Op, left: &mut Side, right: &mut Side, tmpfile: bool) -> Result<(), String> {
        if matches!(op, Op::Tmpfile { .. }) && !tmpfile {
            let ours = right.play(op);
            return if ours.answer.is_err() { Ok(()) } else { Err(format!("O_TMPFILE once works and once not: {ours:?}")) };
        }
        if self.reference == Kind::Plain && only_plain(op) && right.kind != Kind::Plain {
            let ours = right.play(op);
            return if ours.answer.is_err() { Ok(()) } else { Err(format!("made a whiteout: {ours:?}")) };
        }
        let theirs = left.play(op);
        let count = self.count.entry(op.kind()).or_default();
        count.0 += 1;
        count.1 += u64::from(theirs.answer.is_ok());
        if self.reference == Kind::Kernel && kernel_cannot(op, &theirs) {
            return Ok(());
        }
        let ours = right.play(op);
        if matches!(op, Op::Remount) {
            for side in [left, right] {
                side.unmount();
                side.mount();
            }
            return Ok(());
        }
        let both_seek = || {
            let true_for = |side: &Side, outcome: &Outcome| seek_is_true(side.world.as_ref().expect("mounted"), op, outcome.answer);
            true_for(left, &theirs) && true_for(right, &ours)
        };
        // An access list that is not there: the kernel's overlay says so where it would have to copy up, others do not.
        let no_list = matches!(op, Op::RemoveAcl { .. }) && [&theirs, &ours].map(|o| matches!(o.answer, Ok(_) | Err(libc::ENODATA))) == [true; 2];
        if theirs == ours || both_seek() || no_list {
            return Ok(());
        }
        // What was removed while it was open for reading: the kernel's overlay counts the link in the lower layer,
        let removed = |slot| self.reference == Kind::Kernel && right.world.as_ref().is_some_and(|w| w.is_removed(slot));
        if let Op::Fstat { slot } = op
            && removed(*slot)
            && theirs.seen.replace(" links 1 ", " links 0 ") == ours.seen
        {
            return Ok(());
        }
        // and does not copy up; then the two are no longer the same.
        if let Op::Fchmod { slot, .. } | Op::Fchown { slot, .. } | Op::Futimens { slot, .. } | Op::FsetXattr { slot, .. } = op
            && theirs.answer == Err(libc::EEXIST)
            && removed(*slot)
        {
            for side in [left, right] {
                side.play(&Op::Close { slot: *slot });
            }
            return Ok(());
        }
        Err(format!("{}: {theirs:?}\n      {}: {ours:?}", left.kind.name(), right.kind.name()))
    }

    /// Inode numbers of the kernel's overlay change when what has several names is copied up.
    fn groups(&self) -> bool {
        self.reference == Kind::Plain
    }

    fn look(&self, left: &Side, right: &Side, at: usize) -> Result<Tree, Failure> {
        self.doing(format!("look after {at}"));
        let groups = self.groups();
        let (theirs, ours) = (tree(&left.at, groups), tree(&right.at, groups));
        same((left.kind.name(), &theirs), (right.kind.name(), &ours)).map_err(|why| Failure { at, why })?;
        Ok(theirs)
    }

    fn exchange(&self, left: &Side, right: &Side, last: &Tree) -> Result<(), String> {
        let at = self.dir.join("m3");
        let again = read_by(right.kind, &right.layers, &at, self.groups());
        same(("before", last), ("ours, mounted again", &again))?;
        if self.reference == Kind::Plain {
            return Ok(());
        }
        let theirs = read_by(right.kind, &left.layers, &at, self.groups());
        same(("kernel", last), ("the kernel's, by ours", &theirs))?;
        let ours = read_by(Kind::Kernel, &right.layers, &at, self.groups());
        same(("before", last), ("ours, by the kernel", &ours))
    }
}

fn same(left: (&str, &Tree), right: (&str, &Tree)) -> Result<(), String> {
    let found = differences(left, right);
    if found.is_empty() { Ok(()) } else { Err(format!("trees differ:\n    {}", found.join("\n    "))) }
}

/// What is compared with a plain directory starts as a copy of the merged lowers.
fn copy_merged(plain: &Side, dir: &Path) {
    let layers = Layers::new(&plain.layers.lower, &dir.join("merged"));
    let at = dir.join("m0");
    let mounted = Mounted::new(Kind::Kernel, &layers, &at);
    std::fs::create_dir(&plain.at).expect("a directory");
    let status = Command::new("cp").arg("-a").arg(at.join(".")).arg(&plain.at).status().expect("cp");
    assert!(status.success(), "cp -a: {status}");
    mounted.unmount();
    std::fs::remove_dir_all(dir.join("merged")).expect("remove");
}

fn tmpfile_is_there(side: &Side) -> bool {
    let root = side.at.as_os_str().as_encoded_bytes();
    crate::calls::open(libc::AT_FDCWD, root, libc::O_TMPFILE | libc::O_RDWR, 0o600).is_ok()
}

/// Leave out what is not needed for the failure: halves first, then smaller pieces.
fn shorten(play: &mut Play<'_>, ops: &[Op], failure: Failure) -> (Vec<Op>, Failure) {
    let (mut best, mut why) = (ops.to_vec(), failure);
    best.truncate(why.at + 1);
    let start = Instant::now();
    let mut piece = best.len().div_ceil(2);
    while piece > 0 && start.elapsed() < PATIENCE {
        let mut at = 0;
        let mut less = false;
        while at < best.len() && start.elapsed() < PATIENCE {
            let mut without = best.clone();
            without.drain(at..(at + piece).min(best.len()));
            let (done, found) = play.play(Some(&without), usize::MAX);
            if let Some(found) = found {
                best = done;
                best.truncate(found.at + 1);
                why = found;
                less = true;
            } else {
                at += piece;
            }
        }
        if piece == 1 && !less {
            break;
        }
        piece = if piece == 1 { 1 } else { piece.div_ceil(2) };
    }
    (best, why)
}

/// Seeds and what they are compared with: `OVERLAY_SEED` alone, or those that are kept, then as many as give that many operations.
fn seeds() -> Vec<(u64, Kind)> {
    let against = |seed: u64| if seed.is_multiple_of(3) { Kind::Plain } else { Kind::Kernel };
    if let Ok(text) = std::env::var("OVERLAY_SEED") {
        return text.split(',').map(|s| s.parse().expect("OVERLAY_SEED: numbers")).map(|s| (s, against(s))).collect();
    }
    let kept = KEPT.lines().map(|l| l.split('#').next().unwrap_or("").trim()).filter(|l| !l.is_empty());
    let mut seeds: Vec<u64> = kept.map(|l| l.parse().expect("seeds: a number in each line")).collect();
    let wanted = (knob("OVERLAY_OPS", USUAL) as usize).div_ceil(LENGTH);
    let more: Vec<u64> = (1..).filter(|s| !seeds.contains(s)).take(wanted.saturating_sub(seeds.len())).collect();
    seeds.extend(more);
    seeds.into_iter().map(|s| (s, against(s))).collect()
}

/// All sequences, two at the same time.
pub fn differential() {
    let seeds = Mutex::new(seeds().into_iter());
    let failures = Mutex::new(Vec::new());
    let counts = Mutex::new(Count::new());
    let played = AtomicU64::new(0);
    let doing: Vec<Mutex<(Instant, String)>> = (0..2).map(|_| Mutex::new((Instant::now(), String::new()))).collect();
    let left = AtomicU64::new(doing.len() as u64);
    std::thread::scope(|scope| {
        for (worker, doing) in doing.iter().enumerate() {
            let (seeds, failures, counts, played, left) = (&seeds, &failures, &counts, &played, &left);
            scope.spawn(move || {
                let dir = ground::base().join(format!("tmp/differ{worker}"));
                loop {
                    let next = seeds.lock().unwrap().next();
                    let Some((seed, reference)) = next.filter(|_| failures.lock().unwrap().len() < 4) else { break };
                    let mut play = Play { seed, reference, dir: &dir, count: Count::new(), doing };
                    let (ops, failure) = play.play(None, LOOK);
                    played.fetch_add(ops.len() as u64, Ordering::Relaxed);
                    let mut all = counts.lock().unwrap();
                    for (kind, (tried, done)) in std::mem::take(&mut play.count) {
                        let entry = all.entry(kind).or_default();
                        (entry.0, entry.1) = (entry.0 + tried, entry.1 + done);
                    }
                    drop(all);
                    if let Some(failure) = failure {
                        println!("seed {seed} against {} fails after {} operations, is made shorter: {}", reference.name(), failure.at, failure.why);
                        let (ops, failure) = shorten(&mut play, &ops, failure);
                        let lines: Vec<_> = ops.iter().map(|op| format!("    {op:?}")).collect();
                        let text = format!(
                            "seed {seed} against {}, {} operations are enough (OVERLAY_SEED={seed}):\n{}\n  {}",
                            reference.name(),
                            ops.len(),
                            lines.join("\n"),
                            failure.why
                        );
                        failures.lock().unwrap().push(text);
                    }
                }
                let _ = std::fs::remove_dir_all(&dir);
                left.fetch_sub(1, Ordering::Relaxed);
            });
        }
        while left.load(Ordering::Relaxed) > 0 {
            std::thread::sleep(Duration::from_millis(100));
            for doing in &doing {
                let (since, what) = doing.lock().unwrap().clone();
                if since.elapsed() > Duration::from_secs(120) && !what.is_empty() && left.load(Ordering::Relaxed) == 2 {
                    println!("hangs: {what}");
                    std::process::exit(1);
                }
            }
        }
    });
    let counts = counts.into_inner().unwrap();
    let failures = failures.into_inner().unwrap();
    let done = counts.values().filter(|c| c.1 > 0).count();
    println!("  {} operations of {} kinds, {done} of them successful at least once", played.load(Ordering::Relaxed), counts.len());
    if std::env::var_os("OVERLAY_LOG").is_some() {
        counts.iter().for_each(|(kind, (tried, done))| println!("    {kind:20} {tried:7} {done:7}"));
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n\n"));
    assert!(counts.len() >= 40, "only {} kinds of operation: {:?}", counts.len(), counts.keys());
}
