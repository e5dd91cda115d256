#![no_main]

use libfuzzer_sys::fuzz_target;
use passerby_tests::fuzzing::{PeakAlloc, Target};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

fuzz_target!(|data: &[u8]| Target::Ndjson.run(data));
