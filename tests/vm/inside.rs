//! The side inside: PID 1's child that runs the cases, each in a process of its own with a limit of its own, and writes down how it ended.
//!
//! Cases of `it::machine` change the machine, so they run alone, after all others, and so do those with `alone` in their name. Those with `rebooted` in their name come after a second
//! boot from the same disk.

use crate::Result;
use crate::record::{self, Record};
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

const PAYLOAD: &str = "/payload";
const RESULTS: &str = "/dev/vdc";

/// For one case; about ten times what it takes outside.
const MOST: Duration = Duration::from_secs(7 * 60);
/// Of what it said, the end.
const SAID: usize = 256 << 10;

pub fn run() -> Result<()> {
    let plan = std::fs::read_to_string(format!("{PAYLOAD}/plan")).map_err(|e| format!("cannot read the plan: {e}"))?;
    let (before, end) = record::read(Path::new(RESULTS)).map_err(|e| format!("cannot read {RESULTS}: {e}"))?;
    let results =
        Results { disk: OpenOptions::new().write(true).open(RESULTS).map_err(|e| format!("cannot write {RESULTS}: {e}"))?, end: Mutex::new(end) };
    let number = 1 + before.iter().filter(|r| matches!(r, Record::Boot { .. })).count() as u64;
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_string();
    results.add(&Record::Boot { number, kernel });
    for device in ["/dev/fuse", "/dev/net/tun"] {
        let _ = std::fs::set_permissions(device, std::os::unix::fs::PermissionsExt::from_mode(0o666));
    }

    let is_done = |name: &&str| before.iter().any(|r| matches!(r, Record::Case { name: n, .. } if n == *name));
    let todo: Vec<&str> = plan.lines().filter(|name| !is_done(name)).collect();
    let (later, now): (Vec<&str>, Vec<&str>) = todo.into_iter().partition(|name| name.contains("rebooted") && number == 1);
    let (alone, together): (Vec<&str>, Vec<&str>) = now.into_iter().partition(|name| name.starts_with("machine::") || name.contains("alone"));
    let queue = Mutex::new(together.into_iter());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().unwrap().next();
                    let Some(name) = next else { break };
                    results.add(&case(name));
                }
            });
        }
    });
    for name in alone {
        results.add(&case(name));
    }
    if !later.is_empty() && number == 1 {
        // tests.service would turn the machine off.
        let _ = File::create("/run/tests-go-on");
        let _ = Command::new("systemctl").args(["--no-block", "reboot"]).status();
        return Ok(());
    }
    results.add(&Record::End);
    Ok(())
}

struct Results {
    disk: File,
    end: Mutex<u64>,
}

impl Results {
    fn add(&self, record: &Record) {
        let line = record.line();
        let mut end = self.end.lock().unwrap();
        let written = self.disk.write_all_at(line.as_bytes(), *end).and_then(|()| self.disk.sync_data());
        match written {
            Ok(()) => *end += line.len() as u64,
            Err(why) => eprintln!("cannot write down a result: {why}"),
        }
    }
}

fn case(name: &str) -> Record {
    let start = Instant::now();
    let result = one(name);
    let (code, said) = result.unwrap_or_else(|why| (Some(125), why));
    Record::Case { name: name.to_string(), code, seconds: start.elapsed().as_secs_f64(), said }
}

fn one(name: &str) -> Result<(Option<i64>, String)> {
    // A file, not a pipe: whatever a case leaves running holds nobody up.
    let path = format!("/run/said-{}", name.replace(':', "-"));
    let said = File::create(&path).map_err(|e| format!("cannot make {path}: {e}"))?;
    let both = said.try_clone().map_err(|e| e.to_string())?;
    let mut it = Command::new(format!("{PAYLOAD}/it"));
    it.args(["--exact", name, "--include-ignored", "--nocapture", "--test-threads", "2"]).current_dir("/root").process_group(0);
    it.env("SANDBOX_BUILT", PAYLOAD).env("SANDBOX_VM", "1").env("SANDBOX_PATIENCE", "10").env("HOME", "/root");
    let strict = std::fs::read_to_string(format!("{PAYLOAD}/strict")).unwrap_or_default();
    it.env("SANDBOX_STRICT", strict.trim());
    let mut child = it.stdin(Stdio::null()).stdout(said).stderr(both).spawn().map_err(|e| format!("cannot start the case: {e}"))?;
    let start = Instant::now();
    let code = loop {
        if let Some(status) = child.try_wait().map_err(|e| e.to_string())? {
            break Some(i64::from(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))));
        }
        if start.elapsed() > MOST {
            let _ = rustix::process::kill_process_group(rustix::process::Pid::from_child(&child), rustix::process::Signal::KILL);
            let _ = child.wait();
            break None;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let mut bytes = Vec::new();
    let _ = File::open(&path).and_then(|mut f| f.read_to_end(&mut bytes));
    let _ = std::fs::remove_file(&path);
    let text = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(SAID)..]).into_owned();
    Ok((code, text))
}
