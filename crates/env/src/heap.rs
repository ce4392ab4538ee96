//! The C library's heap, told what this process is like.
//!
//! glibc gives threads up to eight arenas a core, and what one thread has freed another does not use:
//! a server whose samples come in by all its threads holds a quarter more than it needs.
//!
//! Not here: an allocator of our own. Paths that are hot allocate nothing, so that none would make
//! them faster.

/// Lets the threads of this process share one arena for every four cores. For the start of a
/// process, before there are threads; who has set `MALLOC_ARENA_MAX` or `GLIBC_TUNABLES` is obeyed.
/// Does nothing where the C library is another than glibc.
pub fn share_heap() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        let is_set = |name| std::env::var_os(name).is_some();
        if is_set("MALLOC_ARENA_MAX") || is_set("GLIBC_TUNABLES") {
            return;
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let arenas = libc::c_int::try_from(cores.div_ceil(4)).unwrap_or(libc::c_int::MAX);
        // SAFETY: sets a number of the allocator, under its own lock; on failure nothing is changed.
        unsafe { libc::mallopt(libc::M_ARENA_MAX, arenas) };
    }
}

/// Gives back what is free within the heap, not only at its end: for after a job that took much.
pub fn trim_heap() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: gives free pages back under the allocator's own locks.
        unsafe { libc::malloc_trim(0) };
    }
}
