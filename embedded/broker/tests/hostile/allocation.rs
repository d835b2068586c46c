//! Measures the largest allocation by the server's threads; the test's own thread does not count.
#![allow(unsafe_code, reason = "an allocator is an unsafe trait; this one only counts and passes on")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    future::Future,
    sync::atomic::{AtomicUsize, Ordering},
};

static LARGEST: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// True on threads of the test itself.
    static IS_OURS: Cell<bool> = const { Cell::new(false) };
}

struct Counting;

fn note(size: usize) {
    // A thread that ends has no thread-locals any more, and allocates little.
    if size > 1 << 16 && !IS_OURS.try_with(Cell::get).unwrap_or(true) {
        LARGEST.fetch_max(size, Ordering::Relaxed);
    }
}

unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size);
        unsafe { System.realloc(pointer, layout, size) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Runs the work on this thread and returns the largest allocation of all other threads meanwhile.
pub async fn largest_while<T>(work: impl Future<Output = T>) -> usize {
    IS_OURS.set(true);
    LARGEST.store(0, Ordering::Relaxed);
    work.await;
    IS_OURS.set(false);
    LARGEST.load(Ordering::Relaxed)
}
