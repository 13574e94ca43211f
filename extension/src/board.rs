//! Shared memory between backends, launcher and maintainers: who looks after which database, and who asked for whom.
//! Only atomics: it is written in commit callbacks, where nothing may fail and nothing may wait.

use std::ffi::{CStr, c_int};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicPtr, AtomicU32, Ordering};

use pgrx::pg_sys::{self, Latch, Oid};

use crate::refused::Counters;

/// Databases of one server that can have a maintainer. Further ones work without: their workers poll.
pub(crate) const PLACES: usize = 128;

/// The board; zeroed memory is an empty one.
#[repr(C)]
pub(crate) struct Board {
    launcher: AtomicPtr<Latch>,
    places: [Place; PLACES],
    refusals: Counters,
}

/// One database. Taken once and kept while the database exists.
#[repr(C)]
pub(crate) struct Place {
    /// Oid of the database; 0 is a free place.
    database: AtomicU32,
    /// Process of the maintainer; 0 is none.
    process: AtomicI32,
    latch: AtomicPtr<Latch>,
    /// Something was committed that workers have not been told of.
    wake: AtomicBool,
    /// The last maintainer found that the database has no such extension.
    absent: AtomicBool,
    /// No maintainer before this time: somebody is dropping the database.
    hold_until: AtomicI64,
}

static BOARD: AtomicPtr<Board> = AtomicPtr::new(std::ptr::null_mut());
static mut PREVIOUS_REQUEST_HOOK: pg_sys::shmem_request_hook_type = None;
static mut PREVIOUS_STARTUP_HOOK: pg_sys::shmem_startup_hook_type = None;

const NAME: &CStr = c"sms_outbox";

unsafe extern "C-unwind" {
    // Without pgrx's guard, which allocates on failure: for the commit callback. It cannot fail.
    fn SetLatch(latch: *mut Latch);
}

/// Asks for the memory; only while shared_preload_libraries are loaded.
pub(crate) fn reserve() {
    // SAFETY: single-threaded start-up of the postmaster.
    unsafe {
        PREVIOUS_REQUEST_HOOK = pg_sys::shmem_request_hook;
        pg_sys::shmem_request_hook = Some(request);
        PREVIOUS_STARTUP_HOOK = pg_sys::shmem_startup_hook;
        pg_sys::shmem_startup_hook = Some(start);
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn request() {
    // SAFETY: called by the postmaster at the time for requests.
    unsafe {
        if let Some(previous) = PREVIOUS_REQUEST_HOOK {
            previous();
        }
        pg_sys::RequestAddinShmemSpace(size_of::<Board>());
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn start() {
    // SAFETY: called by the postmaster when shared memory is there, also after a crash of the cluster; new memory is
    // zeroed before anyone else can see it.
    unsafe {
        if let Some(previous) = PREVIOUS_STARTUP_HOOK {
            previous();
        }
        let mut found = false;
        let board = pg_sys::ShmemInitStruct(NAME.as_ptr(), size_of::<Board>(), &raw mut found).cast::<Board>();
        if !found {
            board.write_bytes(0, 1);
        }
        BOARD.store(board, Ordering::Release);
    }
}

/// The board, if the library was preloaded.
pub(crate) fn board() -> Option<&'static Board> {
    // SAFETY: shared memory outlives the process, and every field is atomic.
    unsafe { BOARD.load(Ordering::Acquire).as_ref() }
}

impl Board {
    /// Wakes the maintainer of a database, or the launcher if there is none. Atomics and SetLatch only.
    pub(crate) fn wake(&self, database: Oid) {
        let Some(place) = self.take(database) else { return };
        if place.wake.swap(true, Ordering::SeqCst) {
            return; // whoever set it has called, or will
        }
        let latch = place.latch.load(Ordering::SeqCst);
        set(if latch.is_null() { self.launcher.load(Ordering::SeqCst) } else { latch });
    }

    /// The place of a database, if it has one.
    pub(crate) fn find(&self, database: Oid) -> Option<&Place> {
        self.places.iter().find(|place| place.database.load(Ordering::SeqCst) == database.to_u32())
    }

    /// The place of a database, taken if it has none yet; nothing if all are taken.
    pub(crate) fn take(&self, database: Oid) -> Option<&Place> {
        loop {
            if let Some(place) = self.find(database) {
                return Some(place);
            }
            let free = self.places.iter().find(|place| place.database.load(Ordering::SeqCst) == 0)?;
            // Several may take places for one database at once: the first by order wins, since all look from the start.
            let _ = free.database.compare_exchange(0, database.to_u32(), Ordering::SeqCst, Ordering::SeqCst);
        }
    }

    /// What limits refused.
    pub(crate) fn refusals(&self) -> &Counters {
        &self.refusals
    }

    /// Frees the places of databases that are gone.
    pub(crate) fn retain(&self, exists: impl Fn(Oid) -> bool) {
        self.refusals.retain(&exists);
        for place in &self.places {
            let database = place.database.load(Ordering::SeqCst);
            if database != 0 && !exists(Oid::from_u32(database)) && !place.is_served() {
                place.wake.store(false, Ordering::SeqCst);
                place.absent.store(false, Ordering::SeqCst);
                place.hold_until.store(0, Ordering::SeqCst);
                place.database.store(0, Ordering::SeqCst);
            }
        }
    }

    /// Makes the current process the launcher, until it ends.
    pub(crate) fn attach_launcher(&self) {
        // SAFETY: the latch of a background worker is in shared memory.
        self.launcher.store(unsafe { pg_sys::MyLatch }, Ordering::SeqCst);
    }

    pub(crate) fn detach_launcher(&self) {
        self.launcher.store(std::ptr::null_mut(), Ordering::SeqCst);
    }

    pub(crate) fn wake_launcher(&self) {
        set(self.launcher.load(Ordering::SeqCst));
    }
}

fn set(latch: *mut Latch) {
    if !latch.is_null() {
        // SAFETY: a latch in shared memory; one whose process has ended is nobody's and setting it does nothing.
        unsafe { SetLatch(latch) };
    }
}

impl Place {
    /// Makes the current process the maintainer, unless there is one.
    pub(crate) fn attach(&self) -> bool {
        // SAFETY: plain reads of this process' own state.
        let (process, latch) = unsafe { (pg_sys::MyProcPid, pg_sys::MyLatch) };
        if self.process.compare_exchange(0, process, Ordering::SeqCst, Ordering::SeqCst).is_err() {
            return false;
        }
        self.latch.store(latch, Ordering::SeqCst);
        // A predecessor may have taken a wake-up along.
        self.wake.store(true, Ordering::SeqCst);
        true
    }

    /// The maintainer ends. Does nothing in a process that never attached.
    pub(crate) fn detach(&self) {
        // SAFETY: a plain read.
        let process = unsafe { pg_sys::MyProcPid };
        if self.process.load(Ordering::SeqCst) == process {
            self.latch.store(std::ptr::null_mut(), Ordering::SeqCst);
            self.process.store(0, Ordering::SeqCst);
        }
    }

    pub(crate) fn is_served(&self) -> bool {
        self.process.load(Ordering::SeqCst) != 0
    }

    pub(crate) fn wake_wanted(&self) -> bool {
        self.wake.load(Ordering::SeqCst)
    }

    /// Takes the request for a wake-up.
    pub(crate) fn take_wake(&self) -> bool {
        self.wake.swap(false, Ordering::SeqCst)
    }

    pub(crate) fn put_wake_back(&self) {
        self.wake.store(true, Ordering::SeqCst);
    }

    pub(crate) fn set_absent(&self, absent: bool) {
        self.absent.store(absent, Ordering::SeqCst);
    }

    pub(crate) fn is_absent(&self) -> bool {
        self.absent.load(Ordering::SeqCst)
    }

    pub(crate) fn held_until(&self) -> i64 {
        self.hold_until.load(Ordering::SeqCst)
    }

    /// Sends the maintainer away, and lets none come back for a while.
    pub(crate) fn dismiss(&self, hold_until: i64) {
        self.hold_until.store(hold_until, Ordering::SeqCst);
        let process = self.process.load(Ordering::SeqCst);
        if process != 0 {
            // SAFETY: a signal that background workers take as a request to end.
            unsafe { kill(process, pg_sys::SIGTERM as c_int) };
        }
    }
}

unsafe extern "C" {
    fn kill(process: pg_sys::pid_t, signal: c_int) -> c_int;
}
