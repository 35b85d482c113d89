//! What one rendering of a chat template may take: memory, allocations, time and stack.
//!
//! minijinja's fuel pays for instructions and for most of the data they make, but not for all: a list may be small in
//! memory and endless in print (`x = [x, x]`, forty times over), lists are joined lazily, and walking nested lists is
//! recursive. All of these allocate on the way, so the limits stand in the allocator of this library, where nothing
//! can go around them. Invariants:
//! 1. The limits hold for the thread that runs [`within`], until it returns; others pay one thread-local read.
//! 2. The allocation that passes a limit fails, as if memory had run out, and so does every later one, until the
//!    error hook runs. It panics, and from then on allocations succeed again: unwinding needs some.
//! 3. The panic never leaves [`within`].
//!
//! What frames own is dropped on the way, but for one case: regex-syntax allocates in destructors, and where a limit is
//! passed there, the value that the frame was about to return is lost (rust-lang/rust#47949). That is a parsed regular
//! expression at most, and each costs its sender the whole limit of time.
//!
//! Failing by panic is what the documentation of `set_alloc_error_hook` shows. The hook is not in stable Rust yet, so
//! CMakeLists.txt permits this crate, and no other, to use it (RUSTC_BOOTSTRAP).

use std::alloc::{set_alloc_error_hook, GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::Once;

const ALLOCATIONS_PER_LOOK: u32 = 64;

#[derive(Clone, Copy)]
pub struct Limits {
    pub bytes: isize,
    pub allocations: u32,
    /// Of this thread's processor time, looked at every 64th allocation: a single step may walk a long text.
    pub nanoseconds: u64,
    /// Below the frame that began. Threads have 8 MiB where this project starts them.
    pub stack_bytes: usize,
}

pub const RENDERING: Limits = Limits {
    bytes: 96 << 20,
    allocations: 6_000_000,
    nanoseconds: 1_500_000_000,
    stack_bytes: 1 << 20,
};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Limit {
    Memory,
    Steps,
    Time,
    Depth,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Free,
    Counting,
    Refusing(Limit),
    Unwinding(Limit),
}

struct Account {
    phase: Cell<Phase>,
    limits: Cell<Limits>,
    live_bytes: Cell<isize>,
    allocations: Cell<u32>,
    stack_top: Cell<usize>,
    end_nanoseconds: Cell<u64>,
}

thread_local! {
    // Neither lazy nor with a destructor: the allocator may read it at any time of a thread's life.
    static ACCOUNT: Account = const {
        Account {
            phase: Cell::new(Phase::Free),
            limits: Cell::new(RENDERING),
            live_bytes: Cell::new(0),
            allocations: Cell::new(0),
            stack_top: Cell::new(0),
            end_nanoseconds: Cell::new(0),
        }
    };
}

/// An address in the frame of the caller, more or less; stacks grow downwards on every processor we run on.
#[inline(always)]
fn stack_address() -> usize {
    let mark = 0u8;
    std::hint::black_box(&mark) as *const u8 as usize
}

fn processor_nanoseconds() -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `now` is writable; the clock exists wherever there are threads.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

impl Account {
    /// Books a change of `bytes`; false when the allocation has to fail.
    #[inline]
    fn allows(&self, bytes: isize) -> bool {
        match self.phase.get() {
            Phase::Free | Phase::Unwinding(_) => true,
            Phase::Refusing(_) => false,
            Phase::Counting => self.book(bytes),
        }
    }

    fn book(&self, bytes: isize) -> bool {
        let live = self.live_bytes.get().saturating_add(bytes);
        let allocations = self.allocations.get() + 1;
        let limits = self.limits.get();
        let passed = if live > limits.bytes {
            Limit::Memory
        } else if allocations > limits.allocations {
            Limit::Steps
        } else if allocations % ALLOCATIONS_PER_LOOK == 0
            && processor_nanoseconds() > self.end_nanoseconds.get()
        {
            Limit::Time
        } else if self.stack_top.get().saturating_sub(stack_address()) > limits.stack_bytes {
            Limit::Depth
        } else {
            self.live_bytes.set(live);
            self.allocations.set(allocations);
            return true;
        };
        self.phase.set(Phase::Refusing(passed));
        false
    }

    #[inline]
    fn give_back(&self, bytes: usize) {
        if self.phase.get() == Phase::Counting {
            self.live_bytes.set(self.live_bytes.get() - bytes as isize);
        }
    }
}

/// The system's allocator with the account in front.
struct Budgeted;

#[global_allocator]
static ALLOCATOR: Budgeted = Budgeted;

// SAFETY: every block comes from System, with the layout that the caller gave, and goes back to it; a null pointer is
// how an allocator says that there is no memory. Nothing here panics or allocates.
unsafe impl GlobalAlloc for Budgeted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if ACCOUNT.with(|account| account.allows(layout.size() as isize)) {
            System.alloc(layout)
        } else {
            std::ptr::null_mut()
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if ACCOUNT.with(|account| account.allows(layout.size() as isize)) {
            System.alloc_zeroed(layout)
        } else {
            std::ptr::null_mut()
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Layouts are at most isize::MAX bytes.
        let grows = size as isize - layout.size() as isize;
        if ACCOUNT.with(|account| account.allows(grows)) {
            System.realloc(block, layout, size)
        } else {
            std::ptr::null_mut()
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        ACCOUNT.with(|account| account.give_back(layout.size()));
        System.dealloc(block, layout)
    }
}

fn on_failed_allocation(layout: Layout) {
    let limit = ACCOUNT.with(|account| match account.phase.get() {
        Phase::Refusing(limit) => {
            account.phase.set(Phase::Unwinding(limit));
            true
        }
        _ => false,
    });
    if limit {
        panic!("one of the limits was passed");
    }
    // The machine has no memory left; the process ends when this returns.
    eprintln!(
        "out of memory: an allocation of {} bytes failed",
        layout.size()
    );
}

/// Runs `body` within the limits. `Err` says which one it passed; another panic of the body goes on.
pub fn within<T>(limits: &Limits, body: impl FnOnce() -> T) -> Result<T, Limit> {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| set_alloc_error_hook(on_failed_allocation));
    ACCOUNT.with(|account| {
        account.limits.set(*limits);
        account.live_bytes.set(0);
        account.allocations.set(0);
        account.stack_top.set(stack_address());
        let end = processor_nanoseconds().saturating_add(limits.nanoseconds);
        account.end_nanoseconds.set(end);
        account.phase.set(Phase::Counting);
    });
    let outcome = catch_unwind(AssertUnwindSafe(body));
    let phase = ACCOUNT.with(|account| account.phase.replace(Phase::Free));
    match (phase, outcome) {
        (Phase::Refusing(limit) | Phase::Unwinding(limit), _) => Err(limit),
        (_, Ok(value)) => Ok(value),
        (_, Err(payload)) => std::panic::resume_unwind(payload),
    }
}
