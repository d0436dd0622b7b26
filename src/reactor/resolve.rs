//! Names of hosts. The C library's resolver blocks, so it gets a thread of its
//! own; literal addresses need none.

use crate::base::Errno;
use crate::reactor::oneshot;
use std::net::{SocketAddr, ToSocketAddrs};
use std::thread;

/// The addresses of "host:port". EHOSTUNREACH for a name that nobody knows,
/// EINVAL without a port.
pub(super) async fn resolve(address: &str) -> Result<Vec<SocketAddr>, Errno> {
    if let Ok(literal) = address.parse::<SocketAddr>() {
        return Ok(vec![literal]);
    }
    let port = address.rsplit_once(':').map(|(_, port)| port);
    if port.is_none_or(|port| port.parse::<u16>().is_err()) {
        return Err(Errno::EINVAL);
    }
    let name = address.to_string();
    let (answer, question) = oneshot::channel();
    thread::Builder::new()
        .name("resolve".to_string())
        .spawn(move || {
            let found: Vec<SocketAddr> = match name.to_socket_addrs() {
                Ok(found) => found.collect(),
                Err(_) => Vec::new(),
            };
            answer.send(found);
        })
        .map_err(|e| Errno::of(&e))?;
    match question.await {
        Some(found) if !found.is_empty() => Ok(found),
        _ => Err(Errno::EHOSTUNREACH),
    }
}
