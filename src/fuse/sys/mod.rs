//! The system calls around a mount: getting the device and hanging it into the
//! tree (`attach`), and becoming a process of its own (`process`). All `unsafe`
//! of the mount is in `process`.

pub mod attach;
pub mod process;
