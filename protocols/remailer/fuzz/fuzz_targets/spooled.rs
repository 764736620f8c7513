#![no_main]

#[path = "../targets.rs"]
#[allow(dead_code, reason = "the others are other programs'")]
mod targets;

libfuzzer_sys::fuzz_target!(|octets: &[u8]| targets::spooled(octets));
