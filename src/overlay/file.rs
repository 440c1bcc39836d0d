//! Content: reading, writing, holes, syncing.
//!
//! The kernel is told that files need no opening, so there are no open files here: content is reached by node, over descriptors that are kept
//! for a while. The first write copies a file up.

use super::Fs;
use super::inode::{Asker, Node, read, without_privileges};
use super::layer::Spot;
use crate::sys::{Errno, Result};
use rustix::fs::{FallocateFlags, FileType, OFlags, fstat};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Fs {
    /// A descriptor of the content, in the layer that it is in.
    pub fn content(&self, node: &Arc<Node>) -> Result<Arc<OwnedFd>> {
        if node.kind != FileType::RegularFile {
            return Err(if node.is_dir() { Errno::ISDIR } else { Errno::INVAL });
        }
        if let Some(fd) = &read(&node.state).pinned {
            return Ok(fd.clone());
        }
        let slot = node.content.get_or_init(|| self.descriptors.slot());
        // The layer is asked for under the slot's lock: `copy_up` first says that it changed, then clears the slot.
        slot.get_or(|| {
            node.steadily(|| {
                let upper = node.has_upper();
                let spot = self.spot(node)?;
                let open = |flags| match spot.open(flags)? {
                    // Pinned meanwhile.
                    fd if matches!(spot, Spot::Own(_)) => rustix::io::fcntl_dupfd_cloexec(&*fd, 0),
                    fd => Arc::try_unwrap(fd).map_err(|_| Errno::IO),
                };
                match upper {
                    true => match open(OFlags::RDWR) {
                        Err(Errno::ACCESS) => open(OFlags::RDONLY),
                        other => other,
                    },
                    false => open(OFlags::RDONLY),
                }
            })
        })
    }

    /// A descriptor of the content in the upper layer.
    pub fn writable(&self, node: &Arc<Node>) -> Result<Arc<OwnedFd>> {
        self.copy_up(node)?;
        self.content(node)
    }

    /// As many bytes as there are, up to the size of the buffer.
    pub fn read(&self, node: &Arc<Node>, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let fd = self.content(node)?;
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..).filter(|r| !r.is_empty()) {
            match rustix::io::pread(&*fd, rest, offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(Errno::INTR) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }

    pub fn write(&self, node: &Arc<Node>, offset: u64, bytes: &[u8], unprivileged: Option<Asker>) -> Result<usize> {
        let fd = self.writable(node)?;
        if let Some(by) = unprivileged {
            self.drop_privileges(node, by)?;
        }
        self.grow(node, &fd, offset, bytes.len() as u64, || {
            let mut done = 0;
            while let Some(rest) = bytes.get(done..).filter(|r| !r.is_empty()) {
                match rustix::io::pwrite(&*fd, rest, offset + done as u64) {
                    Ok(0) => return Err(Errno::IO),
                    Ok(n) => done += n,
                    Err(Errno::INTR) => {}
                    // What was written is written.
                    Err(_) if done > 0 => break,
                    Err(Errno::BADF) => return Err(Errno::ACCESS),
                    Err(e) => return Err(e),
                }
            }
            Ok(done)
        })
    }

    /// man: write(2): set-uid and set-gid do not survive a write by somebody without CAP_FSETID. The kernel lets nobody change the mode meanwhile.
    fn drop_privileges(&self, node: &Arc<Node>, by: Asker) -> Result<()> {
        if node.harmless.load(Ordering::Relaxed) {
            return Ok(());
        }
        let mut stat = self.attributes(node)?.stat;
        if let Some(mode) = without_privileges(&stat, by) {
            stat = self.set_attributes(node, &super::inode::Changes { mode: Some(mode), ..Default::default() })?.stat;
        }
        node.harmless.store(stat.st_mode & 0o6000 == 0, Ordering::Relaxed);
        Ok(())
    }

    pub fn truncate(&self, node: &Arc<Node>, size: u64) -> Result<()> {
        let fd = self.writable(node)?;
        self.grow(node, &fd, size, 0, || rustix::fs::ftruncate(&*fd, size))
    }

    /// man: fallocate(2)
    pub fn allocate(&self, node: &Arc<Node>, mode: u32, offset: u64, len: u64) -> Result<()> {
        let fd = self.writable(node)?;
        let takes = mode & (libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_COLLAPSE_RANGE) as u32 == 0;
        let len_taken = if takes { len } else { 0 };
        self.grow(node, &fd, offset, len_taken, || rustix::fs::fallocate(&*fd, FallocateFlags::from_bits_retain(mode), offset, len))
    }

    pub fn copy_range(&self, from: (&Arc<Node>, u64), to: (&Arc<Node>, u64), len: u64) -> Result<u64> {
        let target = self.writable(to.0)?;
        let source = self.content(from.0)?;
        let (mut a, mut b) = (from.1, to.1);
        let len = len.min(1 << 30);
        self.grow(to.0, &target, to.1, len, || {
            rustix::fs::copy_file_range(&*source, Some(&mut a), &*target, Some(&mut b), len as usize).map(|n| n as u64)
        })
    }

    pub fn sync(&self, node: &Arc<Node>, content_only: bool) -> Result<()> {
        if !node.has_upper() {
            return Ok(());
        }
        let fd = if node.is_dir() { self.upper_dir(node)? } else { self.content(node)? };
        if content_only { rustix::fs::fdatasync(&*fd) } else { rustix::fs::fsync(&*fd) }
    }

    pub fn read_link(&self, node: &Arc<Node>) -> Result<Vec<u8>> {
        self.ask(node, |spot| match spot.read_link() {
            // A link of somebody else: see `xattr`.
            Err(Errno::INVAL | Errno::NOENT) if node.kind == FileType::Symlink => {
                let fd = spot.open(OFlags::RDONLY)?;
                let mut target = vec![0; libc::PATH_MAX as usize];
                let n = rustix::io::pread(&*fd, &mut target, 0)?;
                target.truncate(n);
                Ok(target)
            }
            other => other,
        })
    }

    /// What is done to a file that may then take more room.
    fn grow<T>(&self, node: &Node, fd: &OwnedFd, offset: u64, len: u64, work: impl FnOnce() -> Result<T>) -> Result<T> {
        if !self.usage.counts_bytes() {
            return work();
        }
        let before = fstat(fd)?;
        if node.charged.load(Ordering::Relaxed) == u64::MAX {
            node.charged.store(before.st_blocks as u64, Ordering::Relaxed);
        }
        let (size, allocated) = (before.st_size as u64, before.st_blocks as u64 * 512);
        // A whole file only grows behind its end; one with holes may grow anywhere.
        let need = if allocated >= size { (offset + len).saturating_sub(allocated) } else { len };
        self.usage.has_room(if len == 0 { 0 } else { need })?;
        let done = work();
        let now = fstat(fd)?.st_blocks as u64;
        let then = node.charged.swap(now, Ordering::Relaxed);
        self.usage.charge(now, then);
        done
    }
}
