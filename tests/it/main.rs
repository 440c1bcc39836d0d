//! The commands, really run: as an ordinary user, in parallel, against the kernel of this machine.
//!
//! *support* has the accounts, the watchdog and the oracles; *probe.c* asks the kernel. A test asserts on what the kernel
//! shows from inside or leaves outside, not on what we say about it.

mod support;

mod cp;
mod crash;
mod escape;
mod exec;
mod image;
mod layer;
mod limits;
mod machine;
mod oldkernel;
mod policy;
mod restart;
mod run;
mod tty;
