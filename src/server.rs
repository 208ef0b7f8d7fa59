//! How do settings become a running server, and how does it end?
