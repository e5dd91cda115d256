//! How much memory something takes.

use super::PeakAlloc;

/// Runs something, and tells how many bytes it had allocated at a time, beyond what was before.
///
/// A buffer that moves while it grows counts twice.
pub(super) fn measured<T>(run: impl FnOnce() -> T) -> (T, usize) {
    let before = PeakAlloc.current_usage();
    assert_ne!(before, 0, "PeakAlloc is not the allocator of this program");
    PeakAlloc.reset_peak_usage();
    let result = run();
    (result, PeakAlloc.peak_usage().saturating_sub(before))
}

/// Runs something that may have at most so many bytes allocated at a time.
pub(super) fn bounded<T>(max_bytes: usize, run: impl FnOnce() -> T) -> T {
    let (result, n_bytes) = measured(run);
    assert!(
        n_bytes <= max_bytes,
        "{n_bytes} bytes were allocated, at most {max_bytes} may be"
    );
    result
}
