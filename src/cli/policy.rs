use crate::error::Result; use std::path::Path;
pub fn list(_: &Path, _: bool) -> Result<String> { Ok(String::new()) }
pub fn show(_: &str, _: &Path, _: bool) -> Result<String> { Ok(String::new()) }
pub fn check(_: &str, _: &Path) -> Result<String> { Ok(String::new()) }
pub fn diff(_: &str, _: &str, _: &Path) -> Result<String> { Ok(String::new()) }
