//! Promise: before a registry that somebody else runs, whatever it believes of its own name and whatever stands before
//! us, clients push and pull at the first try, and every URL that they are given is the one that they used.

mod acceptance;
mod front;
mod matrix;
