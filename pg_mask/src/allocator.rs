//! A reserve for small allocations.
//!
//! Where the system has no memory, an ordinary allocation of Rust's ends the process, and PostgreSQL then restarts
//! all of the server's. Under a limit (`vm.overcommit_memory = 2`, a limit on the address space) the system does
//! say no, and an analyst can bring a session close to it. So a request that the system refuses is served from the
//! library's own memory, if it is small: what is under way, and the error message, come to their end.
//! [`memory`](crate::memory) sees to it that nothing begins while there is no memory. A large request gets nothing, as
//! before; those are made in a way that can fail.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

#[global_allocator]
static ALLOCATOR: WithReserve =
    WithReserve { small: Reserve::new(), medium: Reserve::new(), large: Reserve::new() };

/// The system's allocator with 256 KiB beside it.
struct WithReserve {
    small: Reserve<128, 512>,
    medium: Reserve<1024, 64>,
    large: Reserve<{ 16 << 10 }, 8>,
}

/// Pieces of memory of one size. Each is given to one allocation, so that nothing is lost to those that live long.
#[repr(C, align(64))]
struct Reserve<const SIZE: usize, const COUNT: usize> {
    pieces: UnsafeCell<[[u8; SIZE]; COUNT]>,
    is_taken: [AtomicBool; COUNT],
    /// How many are taken.
    taken: AtomicUsize,
}

// SAFETY: a piece is reached only through the allocation that has taken it.
unsafe impl<const SIZE: usize, const COUNT: usize> Sync for Reserve<SIZE, COUNT> {}

impl<const SIZE: usize, const COUNT: usize> Reserve<SIZE, COUNT> {
    /// The alignment of the reserve. Each size is a multiple of it, so each piece has it, too.
    const ALIGN: usize = 64;

    const fn new() -> Self {
        const { assert!(SIZE.is_multiple_of(Self::ALIGN)) };
        Self {
            pieces: UnsafeCell::new([[0; SIZE]; COUNT]),
            is_taken: [const { AtomicBool::new(false) }; COUNT],
            taken: AtomicUsize::new(0),
        }
    }

    /// A free piece, if it is large enough.
    fn take(&self, layout: Layout) -> *mut u8 {
        if layout.size() > SIZE || layout.align() > Self::ALIGN {
            return null_mut();
        }
        match self.is_taken.iter().position(|is_taken| !is_taken.swap(true, Ordering::Acquire)) {
            Some(place) => {
                self.taken.fetch_add(1, Ordering::Relaxed);
                // SAFETY: `place` is below `COUNT`.
                unsafe { self.pieces.get().cast::<u8>().add(place * SIZE) }
            }
            None => null_mut(),
        }
    }

    /// Takes a piece back; `false` if `memory` is none of these.
    fn give_back(&self, memory: *mut u8) -> bool {
        let Some(place) = self.place_of(memory) else { return false };
        self.taken.fetch_sub(1, Ordering::Relaxed);
        self.is_taken[place].store(false, Ordering::Release);
        true
    }

    fn place_of(&self, memory: *mut u8) -> Option<usize> {
        let offset = memory.addr().wrapping_sub(self.pieces.get().addr());
        (offset < SIZE * COUNT).then_some(offset / SIZE)
    }

    /// The size of a piece, if `memory` is one of these.
    fn size_of(&self, memory: *mut u8) -> Option<usize> {
        self.place_of(memory).map(|_| SIZE)
    }

    fn is_low(&self) -> bool {
        self.taken.load(Ordering::Relaxed) > COUNT / 2
    }
}

impl WithReserve {
    #[cold]
    fn take(&self, layout: Layout) -> *mut u8 {
        let Self { small, medium, large } = self;
        let mut memory = small.take(layout);
        if memory.is_null() {
            memory = medium.take(layout);
        }
        if memory.is_null() {
            memory = large.take(layout);
        }
        memory
    }

    /// Whether `memory` is somewhere in the reserve.
    #[inline]
    fn has(&self, memory: *mut u8) -> bool {
        memory.addr().wrapping_sub(std::ptr::from_ref(self).addr()) < size_of::<Self>()
    }

    #[cold]
    fn give_back(&self, memory: *mut u8) {
        let _ = self.small.give_back(memory) || self.medium.give_back(memory) || self.large.give_back(memory);
    }

    /// How large the piece is.
    #[cold]
    fn size_of(&self, memory: *mut u8) -> usize {
        let Self { small, medium, large } = self;
        let size = small.size_of(memory).or_else(|| medium.size_of(memory));
        size.or_else(|| large.size_of(memory)).unwrap_or(0)
    }
}

// SAFETY: what comes from the system goes back to it, and what comes from the reserve goes back there: addresses
// tell which is which. A piece has the size and the alignment that were asked for, and belongs to one allocation at
// a time. Nothing here unwinds.
unsafe impl GlobalAlloc for WithReserve {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: by the caller.
        let memory = unsafe { System.alloc(layout) };
        if memory.is_null() { self.take(layout) } else { memory }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: by the caller.
        let memory = unsafe { System.alloc_zeroed(layout) };
        if !memory.is_null() {
            return memory;
        }
        let memory = self.take(layout);
        if !memory.is_null() {
            // SAFETY: the piece has that size at least.
            unsafe { memory.write_bytes(0, layout.size()) };
        }
        memory
    }

    #[inline]
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        if self.has(memory) {
            self.give_back(memory);
        } else {
            // SAFETY: by the caller; the system gave it.
            unsafe { System.dealloc(memory, layout) };
        }
    }

    #[inline]
    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let is_reserve = self.has(memory);
        if is_reserve && new_size <= self.size_of(memory) {
            return memory;
        }
        if !is_reserve {
            // SAFETY: by the caller; the system gave it.
            let moved = unsafe { System.realloc(memory, layout, new_size) };
            if !moved.is_null() {
                return moved;
            }
        }
        // SAFETY: by the caller, the new size is valid for that alignment; the old memory has the old size, the new
        // memory the new one, and they don't overlap.
        unsafe {
            let moved = self.alloc(Layout::from_size_align_unchecked(new_size, layout.align()));
            if !moved.is_null() {
                moved.copy_from_nonoverlapping(memory, layout.size().min(new_size));
                self.dealloc(memory, layout);
            }
            moved
        }
    }
}

/// Whether the system itself has so many bytes now. They are given back at once.
pub(crate) fn system_has(bytes: usize) -> bool {
    let Ok(layout) = Layout::array::<u8>(bytes.max(1)) else { return false };
    // SAFETY: the layout is not empty, and what is given is given back.
    unsafe {
        let memory = std::hint::black_box(System.alloc(layout)); // not to be optimized away
        if memory.is_null() {
            return false;
        }
        System.dealloc(memory, layout);
    }
    true
}

/// Whether more than half of the reserve is in use.
pub(crate) fn is_low() -> bool {
    let WithReserve { small, medium, large } = &ALLOCATOR;
    small.is_low() || medium.is_low() || large.is_low()
}
