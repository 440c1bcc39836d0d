//! The commands, really run: as an ordinary user, in parallel, against the kernel of this machine.
//!
//! *support* has the accounts and the watchdog, *oracle* judges; *probe.c* asks the kernel. A test asserts on what the kernel
//! shows from inside or leaves outside, not on what we say about it.

mod support;

mod apply;
mod attach;
mod cp;
mod crash;
mod ends;
mod escape;
mod exec;
mod full;
mod image;
mod layer;
mod life;
mod limits;
mod logs;
mod machine;
mod matrix;
mod oldkernel;
mod oracle;
mod overlay;
mod owners;
mod policy;
mod restart;
mod run;
mod tty;
