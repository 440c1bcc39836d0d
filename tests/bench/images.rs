//! A Debian of some hundred megabytes comes from a layout and from a registry, beside umoci, skopeo and podman. Called by `main`.

use super::{Bench, Words, has, median, ms, ratio, words};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Of each program, in turns; each into an empty store.
const RUNS: usize = 3;
const PORT: &str = "127.0.0.1:5987";

/// The layout with one gzip layer, made once.
fn layout() -> Result<PathBuf, String> {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench-debian");
    if dir.join("layout").exists() {
        return Ok(dir);
    }
    let new = dir.with_extension("new");
    let _ = std::fs::remove_dir_all(&new);
    std::fs::create_dir_all(&new).map_err(|e| e.to_string())?;
    let script = "mmdebstrap --variant=minbase --include=gcc,python3,perl,git bookworm tree.tar && umoci init --layout layout && \
                  umoci new --image layout:debian && umoci raw add-layer --image layout:debian tree.tar";
    let made = Command::new("sh").args(["-c", script]).current_dir(&new).stdin(Stdio::null()).output().map_err(|e| e.to_string())?;
    if !made.status.success() {
        return Err(String::from_utf8_lossy(&made.stderr).lines().last().unwrap_or("no word").to_string());
    }
    std::fs::rename(&new, &dir).map_err(|e| e.to_string())?;
    Ok(dir)
}

struct Registry(Child);

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn registry(bench: &Bench) -> Option<Registry> {
    let config = bench.path("registry.yml");
    let data = bench.path("registry");
    let text = format!("version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {data}}}}}\nhttp: {{addr: \"{PORT}\"}}\n");
    std::fs::write(&config, text).ok()?;
    let serve = Command::new("docker-registry").args(["serve", &config]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let registry = Registry(serve.ok()?);
    let start = Instant::now();
    while std::net::TcpStream::connect(PORT).is_err() {
        if start.elapsed() > Duration::from_secs(10) {
            return None;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Some(registry)
}

/// Medians, in milliseconds. Each program runs in a directory of its own, `@` in its words. All of them go at the end only: for minutes,
/// ext4 looks at each inode that was deleted before it makes a new one (fs/ext4/ialloc.c, recently_deleted), which takes everybody seconds.
fn in_turns(bench: &Bench, programs: &[Words]) -> Vec<f64> {
    let mut times = vec![Vec::new(); programs.len()];
    bench.make("fresh");
    for run in 0..RUNS {
        for (number, (program, times)) in programs.iter().zip(&mut times).enumerate() {
            let name = format!("fresh/{run}-{number}");
            bench.make(&name);
            let program: Words = program.iter().map(|w| w.replace('@', &bench.path(&name))).collect();
            // What was written before goes to the disk in nobody's time.
            let _ = Command::new("sync").status();
            times.push(bench.once(&program));
        }
    }
    // What is there belongs to subordinate ids.
    let map = if bench.user.change { "" } else { "unshare --map-auto --map-root-user " };
    let gone = Command::new("sh").args(["-c", &format!("{map}rm -rf '{}'", bench.path("fresh"))]).status();
    assert!(gone.is_ok_and(|s| s.success()), "cannot remove {}", bench.path("fresh"));
    times.into_iter().map(median).collect()
}

pub fn load_and_pull(bench: &Bench) {
    println!("\nA Debian with gcc, python3, perl and git, one gzip layer, {RUNS} runs in turns");
    if let Some(lacks) = ["mmdebstrap", "umoci", "skopeo", "docker-registry"].iter().find(|p| !has(p)) {
        return println!("  ({lacks} is not installed)");
    }
    let from = match layout() {
        Ok(dir) => dir.join("layout").display().to_string(),
        Err(why) => return println!("  (no Debian could be made: {why})"),
    };
    let sandbox = format!("env XDG_DATA_HOME=@ {}", bench.path("sandbox"));
    // The build's own directory may be closed to the user.
    let layout = bench.path("layout");
    let copied = Command::new("cp").args(["-r", &from, &layout]).status().is_ok_and(|s| s.success());
    let opened = Command::new("chmod").args(["-R", "a+rX", &layout]).status().is_ok_and(|s| s.success());
    assert!(copied && opened, "cannot copy {from}");
    let load = words(&format!("{sandbox} load -q oci:{layout}:debian"));
    let umoci = words(&format!("umoci unpack --rootless --image {layout}:debian @/bundle"));
    let times = in_turns(bench, &[umoci, load]);
    ms("umoci unpack --rootless", times[0]);
    ms("sandbox load", times[1]);
    ratio("sandbox : umoci", times[1] / times[0], 0.35);

    let Some(_registry) = registry(bench) else { return println!("  (docker-registry does not answer)") };
    let name = format!("{PORT}/bench/debian");
    let pushed = words(&format!("skopeo copy -q --dest-tls-verify=false oci:{layout}:debian docker://{name}"));
    bench.once(&pushed);
    let mut programs = vec![
        ("skopeo copy, which unpacks nothing", words(&format!("skopeo copy -q --src-tls-verify=false docker://{name} dir:@/copy"))),
        ("sandbox pull", words(&format!("{sandbox} pull -q {name}"))),
    ];
    if has("podman") {
        programs.push(("podman pull", words(&format!("podman --root @/root --runroot @/run pull -q --tls-verify=false {name}"))));
    }
    let (names, lines): (Vec<_>, Vec<_>) = programs.into_iter().unzip();
    let times = in_turns(bench, &lines);
    names.iter().zip(&times).for_each(|(name, time)| ms(name, *time));
    println!("  {:<58} {:8.2}", "sandbox pull : skopeo copy", times[1] / times[0]);
    if let Some(podman) = times.get(2) {
        println!("  {:<58} {:8.2}", "sandbox pull : podman pull", times[1] / podman);
    }
}
