//! The human door: what was typed, told to the line, and told back.
//!
//! *What*: `Command` is pure clap; each command's file turns its arguments into a patch or calls the one function that does it.
//!
//! *Why this way*: `run` is the hot path, so its arguments are parsed by the subcommand's own parser when `run` is the first word;
//! building the whole tree of commands costs more than the parse. (Rejected: a hand-written parser, a second truth about flags.)
//!
//! *Invariants*
//! - I1 errors are printed here, once: `error: ...`, then the hint; with `--json` as one JSON object on stderr.
//! - I2 exit codes: the command's own; 125 ours, 126 not executable, 127 not found, 128+n signal.
#![forbid(unsafe_code)]

pub mod policy;
