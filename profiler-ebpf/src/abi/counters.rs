//! Counters of everything that can be lost or stay unexplained, as one enum that both sides share.

/// Whether a counter above zero makes a report incomplete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CounterKind {
    /// The report misses something, or may misplace it.
    Lost,
    /// The value is worth knowing; every byte is still where it belongs.
    Note,
}

macro_rules! counters {
    ($($(#[doc = $meaning:literal])+ $variant:ident = $name:literal, $kind:ident;)+) => {
        /// One reason why something was not recorded, or could not be. The unit is events unless the name says bytes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u32)]
        pub enum Counter { $($(#[doc = $meaning])+ $variant,)+ }

        impl Counter {
            /// Every counter, in the order of their discriminants.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];
            /// How many counters there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The name in reports: snake case, stable.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// The meaning of the counter, for a person.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => concat!($($meaning,)+).trim_ascii(),)+ }
            }

            /// Whether a value above zero makes a report incomplete.
            #[must_use]
            pub const fn kind(self) -> CounterKind {
                match self { $(Self::$variant => CounterKind::$kind,)+ }
            }
        }
    };
}

counters! {
    /// allocations not tracked because the live set was full (raise --max-live)
    LiveSetFull = "live_set_full", Lost;
    /// bytes of the allocations not tracked because the live set was full
    LiveSetFullBytes = "live_set_full_bytes", Lost;
    /// allocations counted without their stack because the stack table was full (raise --max-stacks)
    StackTableFull = "stack_table_full", Lost;
    /// calls not followed because the thread table was full
    ThreadTableFull = "thread_table_full", Lost;
    /// allocations found at an address that was already live: their earlier free was not seen
    MissedFree = "missed_free", Lost;
    /// frees of blocks whose allocation was not seen, as the function that allocates them is not probed
    FreeUnseen = "free_unseen", Lost;
    /// results of posix_memalign that could not be read from the target
    ResultUnreadable = "result_unreadable", Lost;
    /// live allocations that could not be moved or released because the kernel's map refused
    MapUpdateFailed = "map_update_failed", Lost;
    /// memory-mapping events lost because the event buffer was full
    EventBufferFull = "event_buffer_full", Lost;
    /// syscall events that the kernel skipped because another BPF operation held the CPU
    KernelSkipped = "kernel_skipped", Lost;
    /// stacks whose frames had not arrived when the recording ended
    StacksUndelivered = "stacks_undelivered", Lost;
    /// samples of Python objects, and pools, dropped because their stack could not be kept (raise --max-stacks)
    PythonSamplesLost = "python_samples_lost", Lost;
    /// requests without a window because there was no room for it
    WindowsFull = "windows_full", Lost;
    /// events of request windows lost because the event buffer was full
    WindowEventsLost = "window_events_lost", Lost;
    /// requests that were counted under `other` because there were too many routes (raise --max-routes)
    RoutesFull = "routes_full", Note;
    /// windows that turned out to be of another protocol than HTTP: what was allocated in them is in no row
    NotHttp = "not_http", Note;
    /// windows whose survivors are not known because too many others came after them
    SurvivorsUnknown = "survivors_unknown", Note;
    /// windows whose survivors are not known because the probes of their process were taken out
    SurvivorsUncounted = "survivors_uncounted", Note;
    /// frees of blocks allocated before recording began
    FreeUnmatched = "free_unmatched", Note;
    /// allocator calls that never returned (longjmp, a C++ exception, a thread that ended inside)
    CallsAbandoned = "calls_abandoned", Note;
    /// allocations whose stack is cut: its memory could not be read
    StacksUnreadable = "stacks_unreadable", Note;
    /// allocations whose stack is cut: it has too many frames
    StacksTooDeep = "stacks_too_deep", Note;
    /// allocations whose stack is cut at code without unwind table and frame pointer
    StacksNoTable = "stacks_no_table", Note;
    /// allocations whose stack is cut at an object whose unwind table was not loaded yet
    StacksTableLoading = "stacks_table_loading", Note;
    /// allocations whose stack is cut at an object whose unwind table found no room (raise --max-unwind-memory)
    StacksNoRoom = "stacks_no_room", Note;
    /// allocations whose stack is cut at an address that is in no code known yet
    StacksUnknownCode = "stacks_unknown_code", Note;
    /// allocations whose stack is cut at an unwind rule that is not supported
    StacksUnsupported = "stacks_unsupported", Note;
    /// allocations whose stack is cut because it does not go up
    StacksNoProgress = "stacks_no_progress", Note;
    /// allocations whose stack leads through code that was walked by frame pointers, without unwind table
    StacksByFramePointer = "stacks_by_frame_pointer", Note;
    /// allocations whose stack has Python frames that were not read: memory unreadable, or more than a walk follows
    PythonCut = "python_cut", Note;
    /// allocations whose stack shows the interpreter at work for which no Python frame was found
    PythonMissing = "python_missing", Note;
    /// Python frames without name because there was no room for their code object
    PythonCodeTableFull = "python_code_table_full", Note;
    /// Python objects of up to 512 bytes allocated, by which samples of them are taken
    PythonObjectCalls = "python_object_calls", Note;
    /// responses sent by an asyncio task that works for another request as far as is known
    TasksDisagree = "tasks_disagree", Note;
    /// contexts of Python's tasks for which there was no room: what was allocated in them may be ambiguous
    ContextsFull = "contexts_full", Note;
    /// items of Python's queues for which there was no room: what was allocated for them may be ambiguous
    ItemsFull = "items_full", Note;
    /// places in Python code without name because the code was freed, or unreadable, when its name was read
    PythonCodeStale = "python_code_stale", Note;
    /// places in native code that lack names because the symbols of their file cannot be read, or take too
    /// long or too much memory
    FramesNameless = "frames_nameless", Note;
}

// `WalkEnd`s are counted by number.
const _: () = {
    use crate::abi::event::WalkEnd;
    let first = Counter::StacksUnreadable as u32 - WalkEnd::Unreadable as u32;
    assert!(Counter::StacksTooDeep as u32 == first + WalkEnd::TooDeep as u32);
    assert!(Counter::StacksNoTable as u32 == first + WalkEnd::NoTable as u32);
    assert!(Counter::StacksTableLoading as u32 == first + WalkEnd::TableLoading as u32);
    assert!(Counter::StacksNoRoom as u32 == first + WalkEnd::NoRoom as u32);
    assert!(Counter::StacksUnknownCode as u32 == first + WalkEnd::UnknownCode as u32);
    assert!(Counter::StacksUnsupported as u32 == first + WalkEnd::Unsupported as u32);
    assert!(Counter::StacksNoProgress as u32 == first + WalkEnd::NoProgress as u32);
};
