//! Files through the overlay: ours beside the kernel's and fuse-overlayfs, in turns. Run by `cargo bench --bench overlay`; prints each row with
//! its ratios, and their geometric mean. `OVERLAY_FILES` (10,000), `OVERLAY_MEGABYTES` (512), `OVERLAY_RUNS` (3); on a tmpfs, with
//! `OVERLAY_DISK=1` below /var/tmp. Never fails for being slow, only if a program does not do its work.

#[path = "../overlay/calls.rs"]
#[expect(dead_code, reason = "the tests use the rest")]
mod calls;
#[path = "../overlay/ground.rs"]
mod ground;
#[path = "../overlay/sides.rs"]
#[expect(dead_code, reason = "the tests use the rest")]
mod sides;

use sides::{Kind, Layers, Mounted};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

/// A row: what is done, and whether on a mount that has seen nothing yet. Times move within a row, so each is a fresh process.
const ROWS: [(&str, &str); 8] = [
    ("find, cold", "find . -printf '' "),
    ("stat everything, warm", "find . -printf '%s' >/dev/null"),
    ("tar everything to a pipe, first", "tar c tree | cat >/dev/null"),
    ("the same again", "tar c tree | cat >/dev/null"),
    ("untar 3,258 files into upper", "mkdir new; tar x -C new -f ../some.tar"),
    ("touch 2,000 lower files (copy-up)", "find tree -type f | head -2000 | xargs touch"),
    ("rm -r of a lower tree", "rm -r tree/0"),
    ("write", "dd if=/dev/zero of=large bs=1M count=MEGABYTES status=none"),
];

/// A lower tree of so many files, a tenth in each of ten parts, 13 KB each in the mean; and a tar of 3,258 of them.
fn make(lower: &Path, files: usize) {
    let bytes: Vec<u8> = (0..40_000_u32).map(|n| (n * 31 % 253) as u8).collect();
    for n in 0..files {
        let dir = lower.join(format!("tree/{}/{}", n % 10, n / 10 % 40));
        if n < 400 {
            std::fs::create_dir_all(&dir).expect("mkdir");
        }
        std::fs::write(dir.join(format!("file{n}")), &bytes[..n * 7919 % 26_000]).expect("write");
    }
}

fn sh(dir: &Path, script: &str) {
    let status = Command::new("sh").args(["-c", script]).current_dir(dir).stdin(Stdio::null()).status().expect("sh");
    assert!(status.success(), "{script}: {status}");
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn inside() -> i32 {
    let files = ground::knob("OVERLAY_FILES", 10_000) as usize;
    let runs = ground::knob("OVERLAY_RUNS", 3);
    let megabytes = ground::knob("OVERLAY_MEGABYTES", 512).to_string();
    let lower = ground::fresh("bench/lower");
    make(&lower, files);
    let place = ground::fresh("bench/place");
    sh(&lower, &format!("find tree -type f | head -3258 | tar c -T - -f {}/some.tar", place.display()));
    let kinds: Vec<Kind> =
        [Kind::Kernel, Kind::FuseOverlayfs, Kind::Ours].into_iter().filter(|k| *k != Kind::FuseOverlayfs || ground::has("fuse-overlayfs")).collect();
    let mut times = vec![vec![Vec::new(); kinds.len()]; ROWS.len()];
    for _ in 0..runs {
        for (side, kind) in kinds.iter().enumerate() {
            let layers = Layers::new(std::slice::from_ref(&lower), &ground::fresh("bench/layers"));
            let at = place.join("merged");
            std::fs::create_dir_all(&at).expect("mkdir");
            let mount = Mounted::new(*kind, &layers, &at);
            for (row, (_, script)) in ROWS.iter().enumerate() {
                let script = script.replace("MEGABYTES", &megabytes);
                let start = Instant::now();
                sh(&at, &script);
                times[row][side].push(start.elapsed().as_secs_f64() * 1000.0);
            }
            mount.unmount();
        }
    }
    println!("Files through the overlay: {files} files, {runs} runs in turns, medians in ms");
    print!("  {:<38}", "");
    kinds.iter().for_each(|k| print!("{:>16}", k.name()));
    println!("{:>16}{:>18}", "ours : kernel", "ours : fuse-o.");
    let (mut product, mut worst) = (1.0, 0.0_f64);
    for ((name, _), sides) in ROWS.iter().zip(times) {
        let medians: Vec<f64> = sides.into_iter().map(median).collect();
        let ours = medians[medians.len() - 1];
        print!("  {name:<38}");
        medians.iter().for_each(|m| print!("{m:16.1}"));
        print!("{:16.2}", ours / medians[0]);
        if medians.len() == 3 {
            print!("{:18.2}", ours / medians[1]);
            product *= ours / medians[1];
            worst = worst.max(ours / medians[1]);
        }
        println!();
    }
    if kinds.len() == 3 {
        let mean = f64::powf(product, 1.0 / ROWS.len() as f64);
        println!("  geometric mean against fuse-overlayfs {mean:.2} (target 0.50), worst row {worst:.2} (target 0.80)");
    } else {
        println!("  (fuse-overlayfs is not installed)");
    }
    0
}

fn main() {
    std::process::exit(ground::enter(inside));
}
