//! The commands against a real registry.
