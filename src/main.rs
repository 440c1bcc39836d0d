//! Everything this binary can be: the human door, and the helper roles, words that begin with `@`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    let word = std::env::args_os().nth(1).unwrap_or_default();
    let role = sandbox::image::unpack::act(&word).or_else(|| sandbox::image::diff::act(&word)).or_else(|| sandbox::image::gather::act(&word));
    let role = role.or_else(|| sandbox::image::copy::act(&word)).or_else(|| sandbox::container::watch::act(&word));
    let role = role.or_else(|| sandbox::container::health::act(&word)).or_else(|| sandbox::owners::act(&word));
    let role = role.or_else(|| sandbox::overlay::server::act(&word)).or_else(|| sandbox::launch::accounts::act(&word));
    role.unwrap_or_else(sandbox::cli::main)
}
