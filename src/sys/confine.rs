//! seccomp(2) and landlock(7), raw.
