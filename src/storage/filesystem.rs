//! Objects as files under a root.
