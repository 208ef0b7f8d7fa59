//! The fuzzer: libFuzzer makes requests, guided by what they reach in our crate (see `coverage`), and [`request::check`]
//! takes them apart. `make fuzz` runs it.

#![no_main]

mod request;

libfuzzer_sys::fuzz_target!(|data: &[u8]| request::check(data));
