//! The thin face: a request is decoded, given to the file that a reader of the kernel's overlayfs would open, and answered. No logic.

use super::Overlay;
use fuser::{Config, Filesystem, Session, SessionACL};
use std::os::fd::OwnedFd;

struct Face {
    _overlay: Overlay,
}

pub fn serve(device: OwnedFd, overlay: Overlay) -> std::io::Result<()> {
    Session::from_fd(Face { _overlay: overlay }, device, SessionACL::All, Config::default())?.run()
}

impl Filesystem for Face {}
