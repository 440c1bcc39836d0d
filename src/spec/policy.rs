//! Policy files.
#![forbid(unsafe_code)]
