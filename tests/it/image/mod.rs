//! Images: where they come from and go to, and what runs in them.

mod build;
mod run;
