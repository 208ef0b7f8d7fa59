//! The fuzzer: libFuzzer makes requests, guided by what they reach in our crate (see `coverage`), and [`request::check`]
//! and [`wire::check`] take them apart. `make fuzz` runs it.

#![no_main]

mod request;
mod wire;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    request::check(data);
    wire::check(data);
});
