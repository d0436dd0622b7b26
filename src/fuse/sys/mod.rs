//! The system calls around a mount: getting the device and hanging it into the
//! tree (`attach`), becoming a process of its own (`process`), and where that
//! runs (`schedule`). All `unsafe` of the mount is in the last two.

pub mod attach;
pub mod process;
pub mod schedule;
