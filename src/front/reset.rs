//! How is a connection broken off so that its end is not taken for an answer's?
//!
//! An answer to HTTP/1.0 of which nobody knows how long it is ends with its connection (RFC 9112 6.3). In the clear, only a
//! reset tells a client that it did not come to its end; inside TLS, that the end was not announced says so already.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use pingora::protocols::Stream;

/// From now on closing the connection resets it, whatever was to be sent still.
#[expect(unsafe_code, reason = "of its sockets Pingora tells nothing but their number")]
pub(super) fn when_closed(stream: &Stream) {
    // SAFETY: the stream owns the socket, is borrowed here, and closes it only when it is dropped.
    let socket = unsafe { BorrowedFd::borrow_raw(stream.id()) };
    let _ = rustix::net::sockopt::set_socket_linger(socket, Some(Duration::ZERO)); // a socket that cannot is closed as ever
}
