#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| adit_tests::untrusted_input::capsule_stream(bytes));
