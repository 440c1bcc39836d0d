//! One test for each row of the catalogue of real escapes that applies to `run`: each door must be shut, each canary untouched.
//!
//! A name begins with the row (s01: start-up, u: identity, y: terminal and session, k: kernel, g: resources, o: other users,
//! x: agents), then the CVE whose regression it is, then what is tried.

mod doors;
mod fds;
mod ids;
mod joined;
mod paths;
mod proc;
mod session;
mod users;
