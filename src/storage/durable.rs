//! How does a file survive a power cut?
