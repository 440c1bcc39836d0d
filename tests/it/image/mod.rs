//! Images: where they come from and go to.

mod hostile;
mod registry;
mod served;
