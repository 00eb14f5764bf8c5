//! An allocator that counts, into memory that another process can read.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering::Relaxed};

/// The allocator of the whole program, and of the servers that it becomes.
pub struct Counting;

/// What is counted; it stands at the beginning of a file of `COUNTS_SIZE`.
#[repr(C)]
struct Counts {
    /// Calls that asked for memory.
    allocations: AtomicU64,
    /// Bytes that were asked for.
    taken: AtomicU64,
    /// Bytes that were given back.
    returned: AtomicU64,
}

/// The size of the file.
pub const COUNTS_SIZE: usize = size_of::<Counts>();

/// Where the counts are; null while nobody wants them.
static COUNTS: AtomicPtr<Counts> = AtomicPtr::new(ptr::null_mut());

/// Counts into this file from now on, together with children that are forked.
pub fn count_into(file: &File) -> std::io::Result<()> {
    // SAFETY: a mapping at an address of the kernel's choice touches no memory
    // of ours.
    let memory = unsafe {
        libc::mmap(
            ptr::null_mut(),
            COUNTS_SIZE,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            0,
        )
    };
    if memory == libc::MAP_FAILED {
        return Err(std::io::Error::last_os_error());
    }
    COUNTS.store(memory.cast(), Relaxed);
    Ok(())
}

fn count(allocations: u64, taken: usize, returned: usize) {
    let counts = COUNTS.load(Relaxed);
    // SAFETY: null, or the mapping of `count_into`: aligned to a page, as long
    // as a `Counts`, valid with any content, never unmapped, and written only
    // through atomics.
    if let Some(counts) = unsafe { counts.as_ref() } {
        counts.allocations.fetch_add(allocations, Relaxed);
        counts.taken.fetch_add(taken as u64, Relaxed);
        counts.returned.fetch_add(returned as u64, Relaxed);
    }
}

// SAFETY: every method hands its arguments on to the system's allocator and
// returns what it gives; counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(1, layout.size(), 0);
        // SAFETY: the caller keeps the contract of this very method.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(1, layout.size(), 0);
        // SAFETY: the caller keeps the contract of this very method.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, old: Layout, new: usize) -> *mut u8 {
        count(1, new, old.size());
        // SAFETY: the caller keeps the contract of this very method.
        unsafe { System.realloc(at, old, new) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(0, 0, layout.size());
        // SAFETY: the caller keeps the contract of this very method.
        unsafe { System.dealloc(at, layout) }
    }
}
