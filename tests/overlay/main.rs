//! Our overlay against the kernel's, against what man pages promise, against programs, and against being killed. Run by
//! `cargo test --test overlay [-- WORD..]`; ends with the line that `cargo test` ends with.
//!
//! Everything happens as root of a user namespace of the user `sandboxtest` (`ground`). Knobs are in tests/README.md.

mod calls;
mod concurrent;
mod crash;
mod differ;
mod ground;
mod lower;
mod op;
mod posix;
mod programs;
mod sides;
mod tree;

use std::panic::catch_unwind;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

type Case = fn();

const CASES: [(&str, Case); 18] = [
    ("posix", posix::posix),
    ("many_writers", concurrent::many_writers),
    ("replaced_while_open", concurrent::replaced_while_open),
    ("rename_against_lookup", concurrent::rename_against_lookup),
    ("copy_up_races", concurrent::copy_up_races),
    ("one_wins", concurrent::one_wins),
    ("storm", concurrent::storm),
    ("large_directory", concurrent::large_directory),
    ("killed_server", crash::killed_server),
    ("dead_server", crash::dead_server),
    ("git", programs::git),
    ("cargo_build", programs::cargo_build),
    ("python_package", programs::python_package),
    ("npm", programs::npm),
    ("dpkg", programs::dpkg),
    ("sqlite", programs::sqlite),
    ("postgresql", programs::postgresql),
    ("differential", differ::differential),
];

fn inside() -> i32 {
    let words: Vec<String> = std::env::args().skip(1).filter(|w| !w.starts_with('-')).collect();
    let wanted = |name: &str| words.is_empty() || words.iter().any(|w| name.contains(w.as_str()));
    let (mut passed, mut failed) = (0, Vec::new());
    for (name, case) in CASES.iter().filter(|(name, _)| wanted(name)) {
        let start = Instant::now();
        let limit = Duration::from_secs(ground::knob("OVERLAY_LIMIT", 300));
        let (over, ended) = std::sync::mpsc::channel::<()>();
        std::thread::spawn(move || {
            if ended.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                println!("overlay {name} ... hangs, FAILED");
                std::process::exit(1);
            }
        });
        let result = catch_unwind(case);
        drop(over);
        let word = if result.is_ok() { "ok" } else { "FAILED" };
        println!("overlay {name} ... {word}, {:.1} s", start.elapsed().as_secs_f64());
        if result.is_ok() { passed += 1 } else { failed.push(*name) }
    }
    let word = if failed.is_empty() { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {word}. {passed} passed; {} failed; 0 ignored; 0 measured; {} filtered out",
        failed.len(),
        CASES.len() - passed - failed.len()
    );
    i32::from(!failed.is_empty())
}

fn main() {
    if std::env::args().any(|a| a == "--list") {
        return CASES.iter().for_each(|(name, _)| println!("{name}: test"));
    }
    std::process::exit(ground::enter(inside));
}
