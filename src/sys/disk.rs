//! sync_file_range(2): what is written goes to the disk before anybody waits for it.

use super::{Result, check};
use rustix::fd::{AsRawFd, BorrowedFd};

/// Have the kernel begin to write these bytes of a file to the disk; 0: all from `from` on. It promises nothing: fsync(2) and syncfs(2) do,
/// and then have less to wait for.
pub fn start_writing(file: BorrowedFd, from: u64, length: u64) -> Result<()> {
    // SAFETY: sync_file_range takes integers only.
    check(unsafe { libc::sync_file_range(file.as_raw_fd(), from as i64, length as i64, libc::SYNC_FILE_RANGE_WRITE) }.into()).map(drop)
}
