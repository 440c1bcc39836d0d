//! Everything this binary can be: the human door. (Helper roles will be words that begin with `@`.)
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    sandbox::cli::main()
}
