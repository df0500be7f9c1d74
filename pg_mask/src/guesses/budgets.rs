//! What each role has used of its budget in the present hour: a fixed table, in the server's shared memory.
//!
//! With `shared_preload_libraries = 'pg_mask'` the memory is mapped when the server starts, and outlasts a crash. Without
//! it, a named segment of dynamic shared memory serves as well, which PostgreSQL 17 and later have. Where there is
//! neither, each session has a table of its own, and `pgmask.health` says that the budget can be evaded.

use crate::memory;
use pgrx::prelude::*;
use std::cell::{Cell, UnsafeCell};
#[cfg(any(feature = "pg17", feature = "pg18"))]
use std::ffi::CStr;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

/// What the named segment is called.
#[cfg(any(feature = "pg17", feature = "pg18"))]
const NAME: &CStr = c"pg_mask guesses";

/// Roles that mask in one hour. When there are more, those that come too late mask nothing.
const SLOTS: usize = 1024;

/// A value counts for so many roles at most.
pub(super) const MOST_ROLES: usize = 16;

/// A clock may be set back so many hours without giving one of them again.
const LARGEST_STEP_BACK: i64 = 24;

/// The longest name of a role, with its end (NAMEDATALEN).
const LONGEST_NAME: usize = pg_sys::NAMEDATALEN as usize;

/// A role's name, with zeros behind it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct RoleName([u8; LONGEST_NAME]);

impl RoleName {
    /// No role has an empty name.
    const NONE: Self = Self([0; LONGEST_NAME]);

    pub(super) fn new(name: &[u8]) -> Self {
        let mut bytes = [0; LONGEST_NAME];
        let len = name.len().min(LONGEST_NAME);
        bytes[..len].copy_from_slice(&name[..len]);
        Self(bytes)
    }

    /// As people read it.
    pub(super) fn shown(&self) -> String {
        String::from_utf8_lossy(&self.0).trim_end_matches('\0').to_owned()
    }
}

/// What is counted.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum What {
    Guesses = 0,
    Recoveries = 1,
}

impl What {
    /// The setting that limits it.
    pub(super) fn setting(self) -> &'static str {
        match self {
            Self::Guesses => "pgmask.guess_limit",
            Self::Recoveries => "pgmask.recover_limit",
        }
    }
}

/// How many values a role may have in an hour.
#[derive(Clone, Copy)]
pub(super) struct Budget {
    pub(super) role: pg_sys::Oid,
    pub(super) name: RoleName,
    pub(super) limit: u32,
}

/// What became of a wish for values.
pub(super) enum Taken {
    /// So many were taken from each budget.
    Some(u32),
    /// The budget at this place is used up.
    UsedUp(usize),
    /// There is no room for another role in this hour.
    Full,
}

/// A role's use in an hour. All zeros is a slot that is free.
#[derive(Clone, Copy)]
#[repr(C)]
struct Slot {
    role: RoleName,
    hour: i64,
    used: u32,
    what: What,
}

impl Slot {
    fn is_of(&self, what: What, role: &RoleName, hour: i64) -> bool {
        self.hour == hour && self.counts_for(what, role, hour)
    }

    /// Whether what a role has in `hour` counts here. A clock that was set back leads to no hour that was there before.
    fn counts_for(&self, what: What, role: &RoleName, hour: i64) -> bool {
        !self.is_over(hour) && self.what == what && self.role == *role
    }

    /// Whether it has nothing to say in `hour` any more. What a clock left that was more than a day ahead is over, too:
    /// otherwise it would count for years.
    fn is_over(&self, hour: i64) -> bool {
        self.hour < hour || self.hour - hour > LARGEST_STEP_BACK
    }
}

/// All zeros is a table that is empty and not locked.
#[repr(C)]
struct Table {
    is_locked: AtomicBool,
    /// The server's limits, each and two more; 0 where they are not known.
    of_server: [AtomicI32; 2],
    slots: UnsafeCell<[Slot; SLOTS]>,
}

// SAFETY: the slots are reached only while `is_locked` is held.
unsafe impl Sync for Table {}

/// The table that this session counts in.
pub(super) struct Budgets {
    table: &'static Table,
    pub(super) is_shared: bool,
}

thread_local! {
    /// Where the server's table lies, or this session's own, once that was found out.
    static FOUND: Cell<Option<(&'static Table, bool)>> = const { Cell::new(None) };
}

impl Budgets {
    pub(super) fn find() -> Self {
        let (table, is_shared) = FOUND.get().unwrap_or_else(|| {
            let found = match shared_table() {
                Some(table) => (table, true),
                None => (own_table(), false),
            };
            FOUND.set(Some(found));
            found
        });
        Self { table, is_shared }
    }

    /// The limit that the server itself has: postgresql.conf's, the command line's or the built-in one. A session may have
    /// another, from its role, its database or a SET. `None` where the library was not loaded at the server's start.
    pub(super) fn limit_of_server(&self, what: What) -> Option<i32> {
        match self.table.of_server[what as usize].load(Ordering::Relaxed) {
            0 => None,
            kept => Some(kept - 2),
        }
    }

    /// Takes up to `portion` values from each of one to [`MOST_ROLES`] budgets: as many as the one that has the
    /// least left allows. With 0 it tells whether each has something left.
    pub(super) fn take(&self, what: What, budgets: &[Budget], hour: i64, portion: u32) -> Taken {
        self.table.with_slots(|slots| {
            let mut places = [0; MOST_ROLES];
            let places = &mut places[..budgets.len()];
            for (Budget { name, .. }, claimed) in budgets.iter().zip(places.iter_mut()) {
                let Some(place) = place_of(slots, what, name, hour) else { return Taken::Full };
                // Claimed at once, so that the next role does not get the same.
                if !slots[place].counts_for(what, name, hour) {
                    slots[place] = Slot { role: *name, hour, used: 0, what };
                }
                *claimed = place;
            }
            let mut values = portion;
            for (at, (place, budget)) in places.iter().zip(budgets).enumerate() {
                let left = budget.limit.saturating_sub(slots[*place].used);
                if left == 0 {
                    return Taken::UsedUp(at);
                }
                values = values.min(left);
            }
            for place in places {
                slots[*place].used += values;
            }
            Taken::Some(values)
        })
    }

    /// Gives back values that were taken in `hour` and not used.
    pub(super) fn give_back(&self, what: What, budgets: &[Budget], hour: i64, values: u32) {
        self.table.with_slots(|slots| {
            let is_given = |slot: &Slot| budgets.iter().any(|budget| slot.is_of(what, &budget.name, hour));
            for slot in slots.iter_mut().filter(|slot| is_given(slot)) {
                slot.used = slot.used.saturating_sub(values);
            }
        });
    }
}

/// The slot of a role in an hour, or one that is free or of an hour that is over.
fn place_of(slots: &[Slot; SLOTS], what: What, role: &RoleName, hour: i64) -> Option<usize> {
    let of_role = slots.iter().position(|slot| slot.counts_for(what, role, hour));
    of_role.or_else(|| slots.iter().position(|slot| slot.is_over(hour) || slot.role == RoleName::NONE))
}

impl Table {
    /// Gives the slots to `work`, which is short and raises no error. A process that is killed meanwhile
    /// leaves the lock: then the server restarts all of its processes, and the memory is made anew or unlocked.
    fn with_slots<R>(&self, work: impl FnOnce(&mut [Slot; SLOTS]) -> R) -> R {
        while self.is_locked.swap(true, Ordering::Acquire) {
            std::thread::yield_now();
        }
        // SAFETY: the lock is held, so no one else has a reference to the slots.
        let done = work(unsafe { &mut *self.slots.get() });
        self.is_locked.store(false, Ordering::Release);
        done
    }
}

/// This session's own table.
fn own_table() -> &'static Table {
    if memory::available(size_of::<Table>()).is_err() {
        memory::out();
    }
    // SAFETY: all zeros is a table.
    Box::leak(unsafe { Box::<Table>::new_zeroed().assume_init() })
}

/// The table in memory that was mapped at the server's start, or else in a named segment.
fn shared_table() -> Option<&'static Table> {
    // SAFETY: written once, by the postmaster, before any other process exists; mapped as long as the server runs.
    unsafe { MAPPED.as_ref() }.or_else(named_segment)
}

#[cfg(any(feature = "pg17", feature = "pg18"))]
fn named_segment() -> Option<&'static Table> {
    unsafe extern "C-unwind" fn clear(memory: *mut std::ffi::c_void) {
        // SAFETY: PostgreSQL gives a segment of the size that was asked for.
        unsafe { memory.cast::<Table>().write_bytes(0, 1) };
    }
    let mut was_there = false;
    // SAFETY: the segment stays attached as long as the process runs (dsm_registry.c).
    unsafe {
        let memory =
            pg_sys::GetNamedDSMSegment(NAME.as_ptr(), size_of::<Table>(), Some(clear), &mut was_there);
        memory.cast::<Table>().as_ref()
    }
}

#[cfg(not(any(feature = "pg17", feature = "pg18")))]
fn named_segment() -> Option<&'static Table> {
    None
}

/// Keeps a limit, if this is the postmaster: it has no role, no database and no session.
pub(super) fn note_of_server(what: What, limit: i32) {
    // SAFETY: plain reads; the memory is mapped as long as the server runs.
    unsafe {
        if let Some(table) = MAPPED.as_ref().filter(|_| !pg_sys::IsUnderPostmaster) {
            table.of_server[what as usize].store(limit.saturating_add(2), Ordering::Relaxed);
        }
    }
}

/// Where the memory lies that was mapped at the server's start.
static mut MAPPED: *mut Table = std::ptr::null_mut();
/// The hook of a library that was loaded before this one.
static mut PREVIOUS_STARTUP: pg_sys::shmem_startup_hook_type = None;

/// Maps the memory, if the library is loaded at the server's start. For `_PG_init`.
///
/// It is the postmaster's, which outlasts a crash of its processes, and comes to these as they are forked. PostgreSQL's
/// own shared memory is made anew after a crash: who could bring one about would have a new budget each time.
pub(crate) fn map_at_start() {
    // SAFETY: the postmaster loads libraries one after the other. The mapping has no file, and is never taken back;
    // the system fills it with zeros.
    unsafe {
        if !pg_sys::process_shared_preload_libraries_in_progress {
            return;
        }
        let memory = libc::mmap(
            std::ptr::null_mut(),
            size_of::<Table>(),
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS,
            -1,
            0,
        );
        if memory == libc::MAP_FAILED {
            memory::out();
        }
        MAPPED = memory.cast();
        PREVIOUS_STARTUP = pg_sys::shmem_startup_hook;
        pg_sys::shmem_startup_hook = Some(startup);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn startup() {
    // SAFETY: called by the postmaster, at the start and after a crash; no other process runs then.
    unsafe {
        if let Some(previous) = PREVIOUS_STARTUP {
            previous();
        }
        if let Some(table) = MAPPED.as_ref() {
            table.is_locked.store(false, Ordering::Release); // a process may have been killed with it
        }
    }
}
