//! A word to the processor ahead of time.

/// Asks for the memory of a value that will be read or written soon, so that other work goes on while
/// it comes. Changes nothing else; where the processor has no such instruction, nothing at all.
#[inline(always)]
pub fn prefetch<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch of whatever address has no effect on memory and does not fault, and this
        // one is valid.
        unsafe { _mm_prefetch::<_MM_HINT_T0>((&raw const *value).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}
