//! Mapped files whose disk may fail: a page that can not be read costs its readers an error, not
//! the process.
//!
//! ```text
//! map ──► a region, listed ──► read ──► a page that the disk can not give ──► SIGBUS
//!                                        handler: the region is found by the address, the page is
//!                                        noted as lost, and zeros are mapped in its place
//! reader, when it is done: unreadable(bytes)? ──► an error that names the file
//! ```
//!
//! Invariants: a page is noted before zeros stand in its place, so whoever has read them learns of
//! it when he asks afterwards; what is lost stays lost while the region is mapped. The handler
//! takes no lock and allocates nothing. A fault that lies in no region of ours goes where it went
//! before: to the handler that was there, or to the end of the process.
//!
//! Not here: what the reader does about it, and files that are read by system calls, which say so
//! themselves.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering, fence};

use bytes::Bytes;
use libc::{c_int, c_void, siginfo_t};
use memmap2::Mmap;
use parking_lot::Mutex;

/// Where one mapped file lies, for the handler. Slots are never freed, only used again, so that the
/// handler may walk them at any time.
struct Slot {
    start: AtomicUsize,
    /// 0 while nobody has the slot.
    len: AtomicUsize,
    /// From the first lost page to the end of the last: `usize::MAX` and 0 where none is. What lies
    /// between two of them counts as lost with them: disks fail in stretches, files end once.
    lost_from: AtomicUsize,
    lost_until: AtomicUsize,
    /// The slot that was the newest before this one.
    older: *const Slot,
}

// SAFETY: `older` is written once, before the slot is published, and points to a slot that is
// never freed.
unsafe impl Sync for Slot {}

/// The newest slot.
static SLOTS: AtomicPtr<Slot> = AtomicPtr::new(ptr::null_mut());

/// How many regions have lost something: nearly always 0, and then that is all there is to ask.
static LOSSES: AtomicUsize = AtomicUsize::new(0);

/// Which file each slot has, `None` for slots that wait to be used again. The lock guards who gets
/// a slot; the handler does not take it.
static FILES: Mutex<Vec<(&'static Slot, Option<PathBuf>)>> = Mutex::new(Vec::new());

/// A mapped file, listed for as long as it lives.
struct Region {
    map: Mmap,
    slot: &'static Slot,
}

impl AsRef<[u8]> for Region {
    fn as_ref(&self) -> &[u8] {
        &self.map
    }
}

/// Maps a file that is not empty.
pub(crate) fn map(file: &File, path: &Path) -> io::Result<Bytes> {
    handle_bus_errors()?;
    // SAFETY: The bytes stay valid and unchanged as long as nobody shortens or overwrites the file.
    // The data directory is ours under an exclusive lock, and the contract of `Disk::map` forbids
    // both to our own callers. Of a page that is lost all the same, the handler makes zeros.
    let map = unsafe { Mmap::map(file)? };
    let slot = take_slot(&map, path);
    Ok(Bytes::from_owner(Region { map, slot }))
}

fn take_slot(map: &Mmap, path: &Path) -> &'static Slot {
    let mut files = FILES.lock();
    let slot = match files.iter_mut().find(|(_, file)| file.is_none()) {
        Some((slot, file)) => {
            *file = Some(path.to_owned());
            *slot
        }
        None => {
            let slot: &'static Slot = Box::leak(Box::new(Slot {
                start: AtomicUsize::new(0),
                len: AtomicUsize::new(0),
                lost_from: AtomicUsize::new(usize::MAX),
                lost_until: AtomicUsize::new(0),
                older: SLOTS.load(Ordering::Acquire),
            }));
            SLOTS.store(ptr::from_ref(slot).cast_mut(), Ordering::Release);
            files.push((slot, Some(path.to_owned())));
            slot
        }
    };
    slot.start.store(map.as_ptr() as usize, Ordering::Relaxed);
    slot.len.store(map.len(), Ordering::Release);
    slot
}

impl Drop for Region {
    /// The slot is given back before the pages are: afterwards their addresses may be another's.
    fn drop(&mut self) {
        let mut files = FILES.lock();
        self.slot.len.store(0, Ordering::Release);
        self.slot.lost_from.store(usize::MAX, Ordering::Release);
        if self.slot.lost_until.swap(0, Ordering::AcqRel) != 0 {
            LOSSES.fetch_sub(1, Ordering::AcqRel);
        }
        let entry = files.iter_mut().find(|(slot, _)| ptr::eq(*slot, self.slot));
        entry.expect("listed while the region lives").1 = None;
    }
}

/// The file whose disk could not give a part of these mapped bytes, in place of which zeros were
/// read. Ask after reading; what was read before then is true if the answer is `None`.
#[inline]
pub fn unreadable(bytes: &[u8]) -> Option<PathBuf> {
    // The bytes are read first and the counter then, on machines that reorder loads, too.
    fence(Ordering::Acquire);
    if LOSSES.load(Ordering::Acquire) == 0 { None } else { find_loss(bytes) }
}

#[cold]
fn find_loss(bytes: &[u8]) -> Option<PathBuf> {
    let start = bytes.as_ptr() as usize;
    let end = start + bytes.len();
    let touched = |slot: &Slot| {
        slot.lost_from.load(Ordering::Acquire) < end && start < slot.lost_until.load(Ordering::Acquire)
    };
    FILES.lock().iter().find(|(slot, _)| touched(slot)).and_then(|(_, file)| file.clone())
}

/// Gives the memory of mapped bytes back that are not needed soon; who reads them again gets them
/// from the file. Does nothing where the bytes are not those of a mapped file.
pub fn give_back(bytes: &[u8]) {
    let (start, end) = (bytes.as_ptr() as usize, bytes.as_ptr() as usize + bytes.len());
    let is_ours = |slot: &Slot| {
        let of_slot = slot.start.load(Ordering::Relaxed);
        of_slot <= start && end <= of_slot + slot.len.load(Ordering::Acquire)
    };
    if bytes.is_empty() || !FILES.lock().iter().any(|(slot, file)| file.is_some() && is_ours(slot)) {
        return;
    }
    let from = start & !(page_size() - 1);
    // SAFETY: the pages are those of a region that lives as long as `bytes` do, and mapped from a file
    // for reading, or the zeros of a lost page: dropping them changes no byte. A failure changes none.
    unsafe { libc::madvise(from as *mut c_void, end - from, libc::MADV_DONTNEED) };
}

/// What was there before our handler.
static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

/// Installs the handler, once for the process.
fn handle_bus_errors() -> io::Result<()> {
    /// Held by the first who maps a file, until the handler is there.
    static INSTALLED: Mutex<bool> = Mutex::new(false);
    let mut installed = INSTALLED.lock();
    if *installed {
        return Ok(());
    }
    page_size();
    // SAFETY: all bits zero is a valid `sigaction`: the default action, no flags, no signals.
    let (mut ours, mut before): (libc::sigaction, libc::sigaction) = unsafe { std::mem::zeroed() };
    ours.sa_sigaction = on_bus_error as *const () as usize;
    // On the alternative stack, where a thread has one: the fault may come anywhere.
    ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: a null pointer for the new action asks for the one that there is.
    check(unsafe { libc::sigaction(libc::SIGBUS, ptr::null(), &mut before) })?;
    BEFORE.get_or_init(|| before);
    // SAFETY: the handler has the signature that `SA_SIGINFO` asks for and keeps to what a handler may
    // do: atomics, `mmap` and `sigaction`.
    check(unsafe { libc::sigaction(libc::SIGBUS, &ours, ptr::null_mut()) })?;
    *installed = true;
    Ok(())
}

fn check(outcome: c_int) -> io::Result<()> {
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn page_size() -> usize {
    static SIZE: AtomicUsize = AtomicUsize::new(0);
    match SIZE.load(Ordering::Relaxed) {
        0 => {
            // SAFETY: asks for a number.
            let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
            let size = usize::try_from(size).expect("a page has a size");
            SIZE.store(size, Ordering::Relaxed);
            size
        }
        size => size,
    }
}

extern "C" fn on_bus_error(_: c_int, info: *mut siginfo_t, _: *mut c_void) {
    // SAFETY: the kernel gives a handler with `SA_SIGINFO` a valid pointer, and a signal that it
    // raised for a fault has an address.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr() as usize) };
    // Raised for an access; not sent by somebody.
    let is_fault = matches!(code, libc::BUS_ADRERR | libc::BUS_MCEERR_AR);
    if is_fault && lose_page(address & !(page_size() - 1)) {
        return;
    }
    if let Some(before) = BEFORE.get() {
        // The access is tried again when we return, and fails before whoever was there first.
        // SAFETY: the action is the one that the kernel gave us.
        unsafe { libc::sigaction(libc::SIGBUS, before, ptr::null_mut()) };
    }
}

/// Notes a page as lost and puts zeros in its place; false where no mapped file has it.
fn lose_page(page: usize) -> bool {
    let size = page_size();
    let mut found = false;
    let mut next = SLOTS.load(Ordering::Acquire).cast_const();
    // SAFETY: slots are published whole and never freed.
    while let Some(slot) = unsafe { next.as_ref() } {
        let len = slot.len.load(Ordering::Acquire);
        let offset = page.wrapping_sub(slot.start.load(Ordering::Relaxed));
        if offset < len {
            slot.lost_from.fetch_min(page, Ordering::AcqRel);
            if slot.lost_until.fetch_max(page + size, Ordering::AcqRel) == 0 {
                LOSSES.fetch_add(1, Ordering::AcqRel);
            }
            found = true;
        }
        next = slot.older;
    }
    found && {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        // SAFETY: the page is one of a region that is mapped, as somebody reads it right now. Who has
        // its bytes sees them change to zeros, which he learns from `unreadable`.
        let zeros = unsafe { libc::mmap(page as *mut c_void, size, libc::PROT_READ, flags, -1, 0) };
        zeros != libc::MAP_FAILED
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn file_of(pages: usize) -> (tempfile::NamedTempFile, Bytes) {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        for page in 0..pages {
            file.write_all(&vec![page as u8 + 1; page_size()]).expect("room");
        }
        let bytes = map(file.as_file(), file.path()).expect("mapped");
        (file, bytes)
    }

    #[test]
    fn pages_that_are_given_back_read_as_before_and_lost_ones_stay_lost() {
        let (file, bytes) = file_of(4);
        let size = page_size();
        assert_eq!((bytes[0], bytes[3 * size]), (1, 4));
        give_back(&bytes[1..]);
        give_back(&[1, 2, 3]);
        give_back(b"");
        assert_eq!((bytes[0], bytes[2 * size - 1], bytes[3 * size]), (1, 2, 4));
        file.as_file().set_len(2 * size as u64).expect("cut short");
        assert_eq!(bytes[3 * size], 0);
        give_back(&bytes);
        assert_eq!((bytes[0], bytes[3 * size]), (1, 0));
        assert_eq!(unreadable(&bytes[3 * size..]).as_deref(), Some(file.path()));
    }

    #[test]
    fn a_page_that_is_gone_reads_as_zeros_and_is_told_of() {
        let (file, bytes) = file_of(4);
        let (other_file, other) = file_of(4);
        let size = page_size();
        assert_eq!(bytes[3 * size], 4);
        assert_eq!(unreadable(&bytes), None);
        file.as_file().set_len(2 * size as u64).expect("cut short");
        assert_eq!((bytes[0], bytes[2 * size - 1]), (1, 2));
        assert_eq!(unreadable(&bytes), None, "nobody asked for what is gone");
        assert_eq!(bytes[2 * size..].iter().max(), Some(&0));
        assert_eq!(unreadable(&bytes[2 * size + 1..][..1]).as_deref(), Some(file.path()));
        assert_eq!(unreadable(&bytes).as_deref(), Some(file.path()));
        assert_eq!(unreadable(&bytes[..2 * size]), None, "the rest is whole");
        assert_eq!((unreadable(&other), other[3 * size]), (None, 4));
        drop(bytes);
        // Its place in the list, and perhaps in memory, is another's now.
        let (next_file, next) = file_of(4);
        assert_eq!(next[3 * size], 4);
        assert_eq!(unreadable(&next), None);
        drop((file, other_file, next_file));
    }

    #[test]
    fn many_readers_of_a_lost_page_all_learn_of_it() {
        let (file, bytes) = file_of(64);
        file.as_file().set_len(0).expect("cut short");
        std::thread::scope(|scope| {
            for reader in 0..8 {
                let bytes = &bytes;
                scope.spawn(move || {
                    for page in (0..64).map(|page| (page * 5 + reader) % 64) {
                        let part = &bytes[page * page_size()..][..page_size()];
                        assert_eq!(part.iter().max(), Some(&0));
                        assert!(unreadable(part).is_some(), "page {page}");
                    }
                });
            }
        });
    }

    /// A fault elsewhere ends the process as it always did.
    #[test]
    fn a_fault_that_is_not_ours_is_passed_on() {
        const TOLD: &str = "TIDEWATCH_TEST_BUS_ERROR";
        if std::env::var_os(TOLD).is_some() {
            let (_kept, _bytes) = file_of(1);
            let file = tempfile::tempfile().expect("a file");
            file.set_len(1).expect("room");
            // SAFETY: nothing relies on these bytes; reading them is meant to fail.
            let foreign = unsafe { Mmap::map(&file).expect("mapped") };
            file.set_len(0).expect("cut short");
            std::process::exit(i32::from(foreign[0]));
        }
        let test = std::env::current_exe().expect("this test");
        let status = std::process::Command::new(test)
            .args(["--exact", "mapped::tests::a_fault_that_is_not_ours_is_passed_on"])
            .env(TOLD, "1")
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .status()
            .expect("it starts");
        use std::os::unix::process::ExitStatusExt;
        assert_eq!(status.signal(), Some(libc::SIGBUS), "{status}");
    }
}
