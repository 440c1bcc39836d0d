#![doc = include_str!("README.md")]
// Read from top to bottom: a module may use only the modules above it (checked by tests/shape.rs).

pub mod error; // what went wrong, how to cure it, which exit code
pub mod ident; // names with a grammar: Name, Bytes
pub mod moment; // a point in time, printed and said
pub mod dirs; // where things live on disk (XDG), and how a directory becomes trusted
pub mod sys; // the kernel's words; the only unsafe code
pub mod tape; // the child's instruction set, its recorder, its player
pub mod host; // what this machine can do, and the cure for what it cannot
pub mod spec; // what the user asked for, and the policies that shape it
pub mod userns; // id maps
pub mod cgroup; // limits, through the user's systemd
pub mod confine; // capabilities, landlock, seccomp
pub mod birth; // a process of ours in a user namespace of its own
pub mod role; // helpers: this program again, confined, for what must be done with other ids or hostile bytes
pub mod image; // the store: OCI layout, layers, registry
pub mod overlay; // our own overlay file system, served over FUSE
pub mod owners; // which ids a workload with one id believes in
pub mod rootfs; // the tree the process will see
pub mod launch; // freeze a Spec into a Plan; bring it to life
pub mod logs; // what a detached sandbox said, on disk, and read again
pub mod monitor; // stay with a living sandbox: terminal, signals, exit
pub mod container; // its record on disk, who stays with it, and the verbs on it
pub mod cli; // the human door
