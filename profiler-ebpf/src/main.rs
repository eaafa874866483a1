//! The eBPF programs: entry points only. Their work is in [`heap`], [`process`], [`python`] and [`requests`].
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![expect(
    missing_docs,
    reason = "a binary; the attribute macros make undocumented items"
)]

mod atomic;
mod cost;
mod counters;
mod events;
mod heap;
mod kernel;
mod live;
mod maps;
mod process;
mod python;
mod requests;
mod stack;
mod state;
mod threads;
mod verifier;

use aya_ebpf::{
    EbpfContext as _,
    macros::{tracepoint, uprobe, uretprobe},
    programs::{ProbeContext, RetProbeContext, TracePointContext},
};
use cost::{Hit, measured};
use residue_ebpf::abi::call_shape::CallShape;

/// Makes an entry program and a return program for each call shape. The `residue` crate knows the programs by
/// these names.
macro_rules! call_programs {
    ($($shape:ident: $enter:ident, $leave:ident;)+) => {$(
        #[uprobe]
        pub fn $enter(ctx: ProbeContext) -> u32 {
            measured(ctx.as_ptr(), Hit::Entry, || heap::calls::enter(&ctx, CallShape::$shape))
        }

        #[uretprobe]
        pub fn $leave(ctx: RetProbeContext) -> u32 {
            measured(ctx.as_ptr(), Hit::Return, || heap::calls::leave(&ctx, CallShape::$shape))
        }
    )+};
}

call_programs! {
    Malloc: enter_malloc, leave_malloc;
    Calloc: enter_calloc, leave_calloc;
    Realloc: enter_realloc, leave_realloc;
    ReallocArray: enter_reallocarray, leave_reallocarray;
    AlignedAlloc: enter_aligned_alloc, leave_aligned_alloc;
    PosixMemalign: enter_posix_memalign, leave_posix_memalign;
    ResizeInPlace: enter_resize_in_place, leave_resize_in_place;
    RustRealloc: enter_rust_realloc, leave_rust_realloc;
}

#[uprobe]
pub fn enter_free(ctx: ProbeContext) -> u32 {
    measured(ctx.as_ptr(), Hit::Entry, || heap::calls::free(&ctx))
}

#[uprobe]
pub fn note_caller(ctx: ProbeContext) -> u32 {
    measured(ctx.as_ptr(), Hit::Entry, || heap::note_caller(&ctx))
}

#[uprobe]
pub fn python_code_freed(ctx: ProbeContext) -> u32 {
    measured(ctx.as_ptr(), Hit::Entry, || python::code_freed(&ctx))
}

macro_rules! python_call_programs {
    ($($shape:ident: $enter:ident, $leave:ident;)+) => {$(
        #[uprobe]
        pub fn $enter(ctx: ProbeContext) -> u32 {
            measured(ctx.as_ptr(), Hit::Entry, || heap::python::enter(&ctx, CallShape::$shape))
        }

        #[uretprobe]
        pub fn $leave(ctx: RetProbeContext) -> u32 {
            measured(ctx.as_ptr(), Hit::Return, || heap::python::leave(&ctx))
        }
    )+};
}

python_call_programs! {
    PythonMalloc: enter_python_malloc, leave_python_malloc;
    PythonCalloc: enter_python_calloc, leave_python_calloc;
    PythonRealloc: enter_python_realloc, leave_python_realloc;
}

#[uprobe]
pub fn enter_python_free(ctx: ProbeContext) -> u32 {
    measured(ctx.as_ptr(), Hit::Entry, || heap::python::free(&ctx))
}

#[uretprobe]
pub fn leave_python_new_pool(ctx: RetProbeContext) -> u32 {
    measured(ctx.as_ptr(), Hit::OtherReturn, || {
        heap::python::new_pool(&ctx)
    })
}

#[uretprobe]
pub fn python_context_made(ctx: RetProbeContext) -> u32 {
    measured(ctx.as_ptr(), Hit::OtherReturn, || {
        requests::context_made(&ctx)
    })
}

#[uprobe]
pub fn python_item_put(ctx: ProbeContext) -> u32 {
    measured(ctx.as_ptr(), Hit::Entry, || requests::item_put(&ctx))
}

#[uretprobe]
pub fn python_item_taken(ctx: RetProbeContext) -> u32 {
    measured(ctx.as_ptr(), Hit::OtherReturn, || {
        requests::item_taken(ctx.as_ptr(), ctx.regs)
    })
}

#[uprobe]
pub fn python_item_returned(ctx: ProbeContext) -> u32 {
    measured(ctx.as_ptr(), Hit::Entry, || {
        requests::item_taken(ctx.as_ptr(), ctx.regs)
    })
}

#[uprobe]
pub fn python_context_freed(ctx: ProbeContext) -> u32 {
    measured(ctx.as_ptr(), Hit::Entry, || requests::context_freed(&ctx))
}

macro_rules! window_programs {
    ($($name:ident: $($module:ident)::+($($argument:expr)?);)+) => {$(
        #[uprobe]
        pub fn $name(ctx: ProbeContext) -> u32 {
            measured(ctx.as_ptr(), Hit::Entry, || $($module)::+(&ctx $(, $argument)?))
        }
    )+};
}

window_programs! {
    enter_window_function: requests::entered(true);
    enter_window_call: requests::entered(false);
    window_function_left: requests::returns();
    open_window: requests::opened();
    close_window: requests::closed();
    enter_ssl_call: requests::tls::entered(None);
    enter_ssl_call_ex: requests::tls::entered(Some(3));
    enter_ssl_free: requests::tls::ended();
}

#[uretprobe]
pub fn leave_window_function(ctx: RetProbeContext) -> u32 {
    measured(ctx.as_ptr(), Hit::OtherReturn, || requests::returned(&ctx))
}

#[uretprobe]
pub fn leave_ssl_read(ctx: RetProbeContext) -> u32 {
    measured(ctx.as_ptr(), Hit::OtherReturn, || requests::tls::read(&ctx))
}

#[uretprobe]
pub fn leave_ssl_write(ctx: RetProbeContext) -> u32 {
    measured(ctx.as_ptr(), Hit::OtherReturn, || {
        requests::tls::written(&ctx)
    })
}

/// Does nothing. The benchmarks measure against this program and [`empty_return`].
#[uprobe]
pub fn empty_entry(_: ProbeContext) -> u32 {
    0
}

#[uretprobe]
pub fn empty_return(_: RetProbeContext) -> u32 {
    0
}

macro_rules! syscall_programs {
    ($($name:ident;)+) => {$(
        #[tracepoint]
        pub fn $name(ctx: TracePointContext) -> u32 {
            let _ = heap::ranges::$name(&ctx);
            0
        }
    )+};
}

syscall_programs! {
    enter_mmap;
    leave_mmap;
    enter_munmap;
    leave_munmap;
    enter_mremap;
    leave_mremap;
    leave_brk;
    leave_shmat;
    enter_shmdt;
}

/// Runs behind read, readv, recvfrom and recvmsg.
#[tracepoint]
pub fn data_read(ctx: TracePointContext) -> u32 {
    let _ = requests::data_read(&ctx);
    0
}

/// Runs behind write, writev, sendto, sendmsg and sendfile.
#[tracepoint]
pub fn data_written(ctx: TracePointContext) -> u32 {
    let _ = requests::data_written(&ctx);
    0
}

/// Runs before close.
#[tracepoint]
pub fn descriptor_closes(ctx: TracePointContext) -> u32 {
    let _ = requests::descriptor_closes(&ctx);
    0
}

/// Runs before accept, epoll_wait, poll, select and their variants.
#[tracepoint]
pub fn thread_waits(ctx: TracePointContext) -> u32 {
    let _ = requests::thread_waits(&ctx);
    0
}

/// Runs behind accept, select, nanosleep and their variants.
#[tracepoint]
pub fn thread_waited(ctx: TracePointContext) -> u32 {
    let _ = requests::thread_waited(&ctx);
    0
}

#[tracepoint]
pub fn process_executed(ctx: TracePointContext) -> u32 {
    let _ = process::executed(&ctx);
    0
}

/// Runs behind fork, vfork and clone.
#[tracepoint]
pub fn task_created(ctx: TracePointContext) -> u32 {
    let _ = process::descendants::created(&ctx);
    0
}

#[tracepoint]
pub fn thread_exited(_: TracePointContext) -> u32 {
    process::thread_exited();
    process::descendants::exited();
    0
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 4] = *b"GPL\0";
