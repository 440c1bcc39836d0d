//! A booted machine: Debian with systemd, cgroup v2 and a kernel of its own under qemu, in software, since KVM may be absent. The bodies of
//! `it` run in it, as they are.
//!
//! `cargo vm [WORD...]` runs the cases with one of the words in their names, and without any, all of them; `--needed` adds those that nothing
//! but this machine can run. `--kernel backports` boots Debian's newest kernel. What was built travels on a second disk, together with the
//! list of cases; a third brings back, line by line, how each of them ended and what it said. *image* makes the first, *inside* is what runs
//! there, *record* is the third, *cases* says which there are.

mod cases;
mod image;
mod inside;
mod record;

use image::Kernel;
use record::Record;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// From the start of qemu: a test run takes about ten times as long as outside.
const MOST: Duration = Duration::from_secs(60 * 60);
/// Without a word from the machine: a little longer than any case may take.
const SILENCE: Duration = Duration::from_secs(8 * 60);
/// The same before its first word, which takes half a minute: emulated, it hangs now and then on the way up.
const COMING_UP: Duration = Duration::from_secs(3 * 60);
/// So often it is booted for that.
const BOOTS: u32 = 3;

type Result<T> = std::result::Result<T, String>;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let code = if words == ["--inside"] { inside::run().map(|()| 0) } else { run(&words) };
    match code {
        Ok(code) => ExitCode::from(code),
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::from(125)
        }
    }
}

fn run(arguments: &[String]) -> Result<u8> {
    let (mut needed, mut kernel, mut words) = (false, Kernel::Stable, Vec::new());
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "--needed" => needed = true,
            "--kernel" => {
                kernel = match rest.next().map(String::as_str) {
                    Some("stable") => Kernel::Stable,
                    Some("backports") => Kernel::Backports,
                    other => return Err(format!("--kernel takes 'stable' or 'backports', not {other:?}")),
                }
            }
            flag if flag.starts_with('-') => {
                return Err(format!("no such flag: {flag}\n  hint: cargo vm [--needed] [--kernel stable|backports] [WORD...]"));
            }
            word => words.push(word.to_string()),
        }
    }
    for (program, package) in [("mmdebstrap", "mmdebstrap"), ("qemu-system-x86_64", "qemu-system-x86"), ("mkfs.ext4", "e2fsprogs"), ("gcc", "gcc")] {
        let found = ["/usr/bin", "/usr/sbin", "/sbin", "/usr/local/bin"].iter().any(|dir| Path::new(dir).join(program).exists());
        if !found {
            return Err(format!("cannot boot a machine: {program} is not installed\n  hint: sudo apt-get install {package}"));
        }
    }
    let it = it()?;
    let cases = cases::Cases::of(&it)?;
    let mut plan = cases.with(&words)?;
    if needed {
        plan.extend(cases.needed()?);
    } else if words.is_empty() {
        plan = cases.all();
    }

    let image = image::image(kernel)?;
    let work = Work::new()?;
    let console = work.0.join("console");
    let (mut records, mut rest) = (Vec::new(), plan.clone());
    let ended = loop {
        let results = work.0.join("results");
        File::create(&results).and_then(|f| f.set_len(256 << 20)).map_err(|e| format!("cannot make a disk: {e}"))?;
        let ended = boot(kernel, &image, &payload(&work.0, &it, &rest)?, &results, &console);
        let (new, _) = record::read(&results).map_err(|e| format!("cannot read the results: {e}"))?;
        let again = records.is_empty() && !new.is_empty();
        records.extend(new);
        rest.retain(|name| !records.iter().any(|r| matches!(r, Record::Case { name: ran, .. } if ran == name)));
        match ended {
            // An emulated machine stands still now and then, whatever it runs. A case that makes it do so does it twice.
            Err(why) if again && !rest.is_empty() && why.contains("said nothing") => {
                println!("{why}; once more, for the {} that are left", rest.len())
            }
            ended => break ended,
        }
    };
    keep(&records, &console);
    tell(&plan, &records, ended, &console)
}

/// For whoever wants to look closer.
fn keep(records: &[Record], console: &Path) {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("vm");
    let _ = std::fs::create_dir_all(&dir);
    let _ = std::fs::write(dir.join("results.jsonl"), records.iter().map(Record::line).collect::<String>());
    let _ = std::fs::copy(console, dir.join("console"));
}

/// What failed, with all that it said, and how many did what. Each planned case is accounted for, by name.
fn tell(plan: &BTreeSet<String>, records: &[Record], ended: Result<()>, console: &Path) -> Result<u8> {
    let mut ran: BTreeMap<&str, (Option<i64>, &str)> = BTreeMap::new();
    for record in records {
        if let Record::Case { name, code, said, .. } = record {
            ran.insert(name, (*code, said));
        }
    }
    let (mut passed, mut skipped, mut failed) = (0, 0, Vec::new());
    for name in plan {
        match ran.get(name.as_str()) {
            Some((Some(0), said)) => match skip(said) {
                Some(why) => {
                    println!("SKIP {name}: {why}");
                    skipped += 1;
                }
                // The harness says 'ok' to a filter that hits nothing, too.
                None if said.contains("1 passed; 0 failed") => passed += 1,
                None => failed.push((name, format!("it did not run\n{said}"))),
            },
            Some((Some(_), said)) => failed.push((name, said.to_string())),
            Some((None, said)) => failed.push((name, format!("it took too long and was killed\n{said}"))),
            None => failed.push((name, "it did not run".to_string())),
        }
    }
    for (name, said) in &failed {
        println!("\n---- {name}, in the VM ----\n{}", said.trim_end());
    }
    let ended =
        ended.and_then(|()| if records.iter().any(|r| matches!(r, Record::End)) { Ok(()) } else { Err("the machine stopped before the end".into()) });
    if let Err(why) = &ended {
        println!("\n---- the console ----\n{}", String::from_utf8_lossy(&std::fs::read(console).unwrap_or_default()));
        println!("{why}");
    }
    for (name, _) in &failed {
        println!("    {name}");
    }
    let all = failed.is_empty() && ended.is_ok();
    println!("\nvm result: {}. {passed} passed; {} failed; {skipped} skipped", if all { "ok" } else { "FAILED" }, failed.len());
    Ok(if all { 0 } else { 101 })
}

/// The reason, if the case skipped itself.
fn skip(said: &str) -> Option<&str> {
    said.lines().find_map(|l| l.strip_prefix("SKIP ").or(l.split_once(" SKIP ").map(|(_, rest)| rest))?.split_once(": ").map(|(_, why)| why))
}

/// A directory that is gone at the end.
struct Work(PathBuf);

impl Work {
    fn new() -> Result<Work> {
        let dir = std::env::temp_dir().join(format!("sandbox-vm-{}", std::process::id()));
        std::fs::create_dir(&dir).map_err(|e| format!("cannot make {}: {e}", dir.display()))?;
        Ok(Work(dir))
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn done(command: &mut Command, what: &str) -> Result<()> {
    let out = command.stdin(Stdio::null()).output().map_err(|e| format!("cannot {what}: {e}"))?;
    if out.status.success() { Ok(()) } else { Err(format!("cannot {what}: {}", String::from_utf8_lossy(&out.stderr).trim())) }
}

/// The disk with what was built, and what to do with it.
fn payload(work: &Path, it: &Path, plan: &BTreeSet<String>) -> Result<PathBuf> {
    let dir = work.join("payload");
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir(&dir).map_err(|e| e.to_string())?;
    let me = std::env::current_exe().map_err(|e| format!("cannot find myself: {e}"))?;
    for (from, name) in [(Path::new(env!("CARGO_BIN_EXE_sandbox")), "sandbox"), (it, "it"), (&me, "vm")] {
        // The symbols are four fifths of it, and each case copies the program.
        done(Command::new("objcopy").arg("--strip-debug").arg(from).arg(dir.join(name)), &format!("copy {}", from.display()))?;
    }
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/probe.c");
    done(Command::new("gcc").args(["-static", "-O1", "-o"]).arg(dir.join("probe")).arg(source), "compile the probe")?;
    let lines: String = plan.iter().map(|name| format!("{name}\n")).collect();
    let strict = if std::env::var("SANDBOX_STRICT").is_ok_and(|v| v == "1") { "1" } else { "0" };
    std::fs::write(dir.join("plan"), lines).and_then(|()| std::fs::write(dir.join("strict"), strict)).map_err(|e| e.to_string())?;
    let disk = work.join("payload.ext4");
    File::create(&disk).and_then(|f| f.set_len(400 << 20)).map_err(|e| e.to_string())?;
    done(Command::new("/sbin/mkfs.ext4").args(["-q", "-F", "-d"]).arg(&dir).arg(&disk), "make a disk")?;
    Ok(disk)
}

/// The built tests, as cargo says where they are.
fn it() -> Result<PathBuf> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["test", "--test", "it", "--no-run", "--message-format=json"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    // What the cargo around us says of this package; build scripts of others watch it, and would run again.
    for (name, _) in std::env::vars_os().filter(|(n, _)| ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|p| n.to_string_lossy().starts_with(p))) {
        cargo.env_remove(name);
    }
    let out = cargo.stdin(Stdio::null()).stderr(Stdio::inherit()).output().map_err(|e| format!("cannot run cargo: {e}"))?;
    let lines = String::from_utf8_lossy(&out.stdout).into_owned();
    let messages = lines.lines().filter_map(|l| serde_json::from_str::<serde_json::Value>(l).ok());
    let executable = messages.filter(|m| m["target"]["name"] == "it").filter_map(|m| m["executable"].as_str().map(PathBuf::from)).next_back();
    executable.ok_or_else(|| "cargo built no tests".to_string())
}

/// Until the machine turns itself off; what it writes down is printed on the way.
fn boot(kernel: Kernel, image: &Path, payload: &Path, results: &Path, console: &Path) -> Result<()> {
    for _ in 1..BOOTS {
        match run_once(kernel, image, payload, results, console) {
            Err(why) if record::read(results).is_ok_and(|(records, _)| records.is_empty()) => {
                println!("{why}; its console:\n{}\nonce more", String::from_utf8_lossy(&std::fs::read(console).unwrap_or_default()));
            }
            ended => return ended,
        }
    }
    run_once(kernel, image, payload, results, console)
}

fn run_once(kernel: Kernel, image: &Path, payload: &Path, results: &Path, console: &Path) -> Result<()> {
    let log = File::create(console).map_err(|e| e.to_string())?;
    let disk = |file: &Path, more: &str| format!("file={},format=raw,if=virtio,cache=unsafe{more}", file.display());
    let file = |name: &str| image.join(name).display().to_string();
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", kernel.processor(), "-smp", "2", "-m", "3072", "-nographic"]);
    qemu.args(["-kernel", &file("vmlinuz"), "-initrd", &file("initrd")]);
    qemu.args(["-append", "root=/dev/vda rw console=ttyS0 quiet systemd.log_level=warning"]);
    // What is written to the first lasts as long as this qemu, over its reboots too.
    for drive in [disk(&image.join("disk"), ",snapshot=on"), disk(payload, ",readonly=on"), disk(results, "")] {
        qemu.args(["-drive", &drive]);
    }
    let both = log.try_clone().map_err(|e| e.to_string())?;
    let mut machine = qemu.stdin(Stdio::null()).stdout(log).stderr(both).spawn().map_err(|e| format!("cannot start qemu-system-x86_64: {e}"))?;
    let start = Instant::now();
    let (mut told, mut word) = (0, Instant::now());
    let ended = loop {
        let off = machine.try_wait().map_err(|e| e.to_string())?.is_some();
        let (records, _) = record::read(results).map_err(|e| format!("cannot read the results: {e}"))?;
        for record in &records[told..] {
            word = Instant::now();
            match record {
                Record::Boot { number, kernel } => println!("boot {number}: Linux {kernel}, after {:.0} s", start.elapsed().as_secs_f64()),
                Record::Case { name, code, seconds, said } => {
                    let how = match code {
                        Some(0) if skip(said).is_some() => "skipped",
                        Some(0) => "ok",
                        Some(_) => "FAILED",
                        None => "FAILED, too slow",
                    };
                    println!("vm {name} ... {how} ({seconds:.1} s)");
                }
                Record::End => {}
            }
        }
        told = records.len();
        if off {
            break Ok(());
        }
        if start.elapsed() > MOST {
            break Err(format!("the machine ran for more than {} minutes", MOST.as_secs() / 60));
        }
        let patience = if told == 0 { COMING_UP } else { SILENCE };
        if word.elapsed() > patience {
            break Err(format!("the machine said nothing for {} minutes", patience.as_secs() / 60));
        }
        if std::fs::read(console).is_ok_and(|said| said.windows(12).any(|w| w == b"Kernel panic")) {
            // Give it the time to say why.
            std::thread::sleep(Duration::from_secs(2));
            break Err("the machine's kernel panicked".into());
        }
        std::thread::sleep(Duration::from_millis(200));
    };
    let _ = machine.kill();
    let _ = machine.wait();
    ended
}
