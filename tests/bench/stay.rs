//! What a sandbox that stays costs: a further command in it, its memory, and a hundred of them.

use super::{Bench, Words, descendants, ms, pss, ratio, words};
use std::fmt::Display;
use std::process::Stdio;
use std::time::Instant;

/// How many stay at once.
const MANY: usize = 100;

const IDLE: &str = "#include <unistd.h>\nint main(void) { for (;;) pause(); }";

pub fn stay(bench: &Bench, crun: Option<&Words>) {
    println!("\nSandboxes that stay, in a root directory of two programs");
    if bench.compile("idle", IDLE).is_none_or(|idle| std::fs::copy(idle, bench.path("bundle/rootfs/bin/idle")).is_err()) {
        return println!("  (gcc makes no static program here)");
    }
    let ours = Ours(bench);
    ours.run("stays");
    exec(bench, crun);
    let own = ours.memory("stays");
    ratio("MiB of ours beside a detached one (as root: with PID 1)", own as f64 / 1024.0, 1.5);
    ours.does("rm", "-f stays");

    let names: Vec<String> = (0..MANY).map(|n| format!("stays-{n}")).collect();
    let all = |what: &str, act: &dyn Fn()| {
        let start = Instant::now();
        act();
        ms(&format!("{MANY} detached: {what}"), start.elapsed().as_secs_f64() * 1e3);
    };
    all("started, one after the other", &|| names.iter().for_each(|name| ours.run(name)));
    println!("  {:<58} {:8.2}", "MiB of ours beside all", names.iter().map(|name| ours.memory(name)).sum::<u64>() as f64 / 1024.0);
    all("ps", &|| ours.does("ps", ""));
    all("stop --all", &|| ours.does("stop", "--all"));
    all("rm --all", &|| ours.does("rm", "--all"));
}

fn exec(bench: &Bench, crun: Option<&Words>) {
    let ours = words(&format!("{} exec stays /bin/true", bench.path("sandbox")));
    let theirs = crun.and_then(|run| Theirs::start(bench, run));
    let Some(theirs) = theirs else {
        ms("sandbox exec", bench.paired(&[&ours])[0]);
        return println!("  (no crun to compare with)");
    };
    let times = bench.paired(&[&theirs.words("exec", "/bin/true"), &ours]);
    ms("crun exec", times[0]);
    ms("sandbox exec", times[1]);
    ratio("sandbox exec : crun exec", times[1] / times[0], 0.6);
}

struct Ours<'a>(&'a Bench);

impl Ours<'_> {
    fn does(&self, verb: &str, rest: impl Display) {
        self.0.once(&words(&format!("{} {verb} {rest}", self.0.path("sandbox"))));
    }

    fn run(&self, name: &str) {
        self.does("run", format_args!("-d --stop-timeout 1 --name {name} --rootfs {} /bin/idle", self.0.path("bundle/rootfs")));
    }

    /// KiB of its monitor and its PID 1, but not of its command.
    fn memory(&self, name: &str) -> u64 {
        let asked = words(&format!("{} inspect --format {{{{.Sandbox.Monitor}}}} {name}", self.0.path("sandbox")));
        let out = self.0.command(&asked).stdout(Stdio::piped()).output().expect("inspect");
        let monitor = String::from_utf8_lossy(&out.stdout).trim().parse().expect("a monitor");
        let init = descendants(monitor).into_iter().take(1);
        init.chain([monitor]).filter_map(pss).sum()
    }
}

/// The same with crun, until this is dropped.
struct Theirs<'a> {
    bench: &'a Bench,
    /// `crun` with its options.
    crun: String,
}

impl<'a> Theirs<'a> {
    fn start(bench: &'a Bench, run: &Words) -> Option<Theirs<'a>> {
        let (config, crun) = (bench.path("bundle/config.json"), run.split(|w| w == "run").next()?.join(" "));
        let mut spec: serde_json::Value = serde_json::from_slice(&std::fs::read(&config).ok()?).ok()?;
        spec["process"]["args"] = serde_json::json!(["/bin/idle"]);
        std::fs::write(&config, spec.to_string()).ok()?;
        let theirs = Theirs { bench, crun };
        // Whoever stays would hold a pipe of ours open.
        let started = bench.command(&theirs.words("run -d -b", bench.path("bundle"))).stderr(Stdio::null()).status();
        started.is_ok_and(|s| s.success()).then_some(theirs)
    }

    fn words(&self, verb: &str, rest: impl Display) -> Words {
        let (verb, flags) = verb.split_once(' ').unwrap_or((verb, ""));
        match flags {
            "" => words(&format!("{} {verb} bench-stays {rest}", self.crun)),
            flags => words(&format!("{} {verb} {flags} {rest} bench-stays", self.crun)),
        }
    }
}

impl Drop for Theirs<'_> {
    fn drop(&mut self) {
        let _ = self.bench.command(&self.words("delete", "--force")).status();
    }
}
