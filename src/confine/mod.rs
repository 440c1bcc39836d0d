//! x
#![forbid(unsafe_code)]
pub mod seccomp { 
use crate::error::Result; use std::collections::BTreeSet; use std::path::Path;
pub struct Program{ pub i: Box<[crate::sys::confine::SockFilter]> }
impl Program { pub fn into_instructions(self)->Box<[crate::sys::confine::SockFilter]>{self.i} }
pub fn compile(_: &crate::spec::Seccomp, _: bool, _: &BTreeSet<u8>, _: Option<&Path>) -> Result<Option<Program>> { Ok(None) }
}
pub mod landlock {
use crate::error::Result;
#[derive(Default)]
pub struct Piece { pub ruleset: Option<std::os::fd::OwnedFd>, pub read: u64, pub write: u64, pub file: u64, pub missing: Vec<String> }
pub fn plan(_: &crate::spec::Landlock, _: u32) -> Result<Piece> { Ok(Piece::default()) }
}
