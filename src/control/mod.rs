//! L5: the command line and the control thread. Starts shards and mounts,
//! accepts clients and hands each to its shard, answers the administrator.
//!
//! Start at [`run`]; `serve` is the box's life from conf to clean mark.
//!
//! Architecture invariant: the control thread never touches a shard's state;
//! it talks to shards through their inboxes only.

pub mod admin;
pub mod cache;
pub mod cli;
mod commands;
mod custody;
mod door;
pub mod fsck;
mod mounted;
mod progress;
pub mod serve;

use cli::{Cli, Failure, Verb};

/// Does what the command line says.
pub fn run(cli: Cli) -> Result<(), Failure> {
    match cli.verb {
        Verb::Serve(serve) => serve::run(&serve),
        Verb::Mount(mount) => commands::mount(&mount),
        Verb::Umount { dir } => commands::umount(&dir),
        Verb::Check { conf } => commands::check(&conf),
        Verb::Status { find, json } => commands::status(&find, json),
        Verb::Flush { what, wait, find } => commands::flush(&what, wait, &find),
        Verb::Custody {
            what,
            json,
            all,
            find,
        } => custody::custody(&what, json, all, &find),
        Verb::Shutdown { find } => commands::shutdown(&find),
    }
}
