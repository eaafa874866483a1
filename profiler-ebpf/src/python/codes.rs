//! The ids of Python's code objects, and what names a code object that the interpreter frees.

use aya_ebpf::{
    EbpfContext as _,
    bindings::{BPF_NOEXIST, BPF_RB_NO_WAKEUP},
    helpers::bpf_probe_read_user_buf,
    programs::ProbeContext,
};
use residue_ebpf::abi::{
    counters::Counter,
    python::{CODE_IDS, CODE_KEYS, CodePart, FreedCode, PART_BYTES, code_key},
};

use crate::{
    atomic,
    counters::count,
    kernel::{memory::read_word, process::cookie},
    maps::{LAST_PYTHON_CODE, PYTHON_CODE_KEYS, PYTHON_CODE_POINTERS, PYTHON_CODES, PYTHON_FREED},
};

/// Returns the id of a code object; zero, counted, if there is no room for an id. A global function, so that the
/// verifier looks at it once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn python_code_id(key: u64) -> u64 {
    // SAFETY: the value is copied at once.
    if let Some(&id) = unsafe { PYTHON_CODES.get(key) } {
        return u64::from(id);
    }
    let id = next_id(key);
    if id == 0 {
        return 0;
    }
    if PYTHON_CODES.insert(key, id, u64::from(BPF_NOEXIST)).is_ok() {
        return u64::from(id);
    }
    // Another thread was faster, or the table is full.
    // SAFETY: the value is copied at once.
    match unsafe { PYTHON_CODES.get(key) } {
        Some(&id) => u64::from(id),
        None => {
            count(Counter::PythonCodeTableFull, 1);
            0
        }
    }
}

/// Takes the next id, and notes the code object's key under the id; zero, counted, if there is no further id.
#[inline(always)]
fn next_id(key: u64) -> u32 {
    let Some(last) = LAST_PYTHON_CODE.get_ptr_mut(0) else {
        return 0;
    };
    // SAFETY: the pointer leads to a map value.
    let id = unsafe { atomic::fetch_add(last, 1) } + 1;
    if id >= CODE_IDS - 1 {
        count(Counter::PythonCodeTableFull, 1);
        return 0;
    }
    let id = id as u32;
    let Some(slot) = PYTHON_CODE_KEYS.get_ptr_mut(id % CODE_KEYS) else {
        return 0;
    };
    // SAFETY: the pointer leads to a map value. The place belongs to this id until the kernel side has given out as
    // many further ids as there are places.
    unsafe { *slot = key };
    id
}

/// The interpreter frees a code object, whose address may be another code object's from now on.
#[inline(always)]
pub fn freed(ctx: &ProbeContext) -> Option<()> {
    let code = ctx.arg(0)?;
    // Whether or not events of the process still count: user space may read names after it has closed the process.
    let process = cookie(ctx.as_ptr()).process;
    let key = code_key(process, code);
    // Most code objects were never on a stack that was walked.
    // SAFETY: the value is copied at once.
    let id = *unsafe { PYTHON_CODES.get(key) }?;
    // The record comes before the removal: whoever finds that the id was taken back also finds the code object among
    // those freed.
    if PYTHON_CODE_KEYS.get(id % CODE_KEYS) == Some(&key) {
        send_freed(id, process, code);
    }
    PYTHON_CODES.remove(key).ok()
}

/// Sends what names a code object. If the ring is full, the code object has no name.
#[inline(always)]
fn send_freed(id: u32, process: u16, code: u64) {
    let Some(pointers) = PYTHON_CODE_POINTERS.get(u32::from(process)) else {
        return;
    };
    let Some(mut record) = PYTHON_FREED.reserve::<FreedCode>(0) else {
        return;
    };
    // SAFETY: the record has the size of a `FreedCode`, whose integers may have any value.
    let freed = unsafe { &mut *record.as_mut_ptr() };
    freed.id = id;
    freed.process = u32::from(process);
    let [object, names @ ..] = &mut freed.parts;
    read_part(object, code);
    for (part, offset) in names.iter_mut().zip(pointers.0) {
        read_part(part, read_word(code.wrapping_add(u64::from(offset))));
    }
    record.submit(u64::from(BPF_RB_NO_WAKEUP));
}

/// Reads as much as can be read at `address`, AVMA. The mapping may end behind the object's end.
#[inline(always)]
fn read_part(part: &mut CodePart, address: u64) {
    const PAGE: u64 = 4096;
    part.address = address;
    part.len = PART_BYTES as u64;
    // SAFETY: the helper checks the address.
    if unsafe { bpf_probe_read_user_buf(address as *const u8, &mut part.bytes) }.is_ok() {
        return;
    }
    let in_page = ((PAGE - address % PAGE) as usize).min(PART_BYTES);
    let read = part.bytes.get_mut(..in_page).is_some_and(|bytes| {
        // SAFETY: the helper checks the address.
        unsafe { bpf_probe_read_user_buf(address as *const u8, bytes) }.is_ok()
    });
    part.len = if read { in_page as u64 } else { 0 };
}
