//! Walks a native stack by unwind tables.
//!
//! For each frame, a walk finds the mapping that holds the frame's address, the rule that holds at the
//! address in the mapping's object, and by the rule the caller's registers. If something stops a walk early,
//! the [`WalkEnd`] is counted and goes with the stack.
//!
//! The state of a walk lies in the thread's state and not on the BPF stack. So the verifier takes all of it
//! for unknown, and has little to follow.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_loop;
use residue_ebpf::abi::{
    LEAF_FRAMES, MAX_FRAMES, ROOT_FRAMES,
    counters::Counter,
    event::WalkEnd,
    frame::{NO_OBJECT, RawFrame},
    unwind::{BpRule, CodeMapping, ObjectState, PAGE_BITS, Rule, RuleKind, TableState},
};

use super::{
    return_probe::original_return_address,
    table::{mapping_at, rule_at},
};
use crate::{
    counters::{count, count_number},
    kernel::memory::read_word,
    maps::{CODE_LISTS, CODE_MAPPINGS, FRAME_POINTERS_ONLY, HAS_LOOP, OBJECTS, RULES, STACK_SEEDS},
    python,
    state::{
        thread::ThreadState,
        walk::{Registers, Walk},
    },
    verifier::element,
};

/// The most frames of a walk.
const MAX_WALKED: u32 = 1024;
/// The most frames of a walk if the kernel has no `bpf_loop` (before 5.17), so that the verifier follows each step by
/// itself.
const MAX_WALKED_UNROLLED: u32 = 24;
/// How many frames tell one place in native code from another well enough. One frame does not, because many
/// places often share the caller of the allocator, such as `operator new` or a language's own allocator.
const PLACE_FRAMES: u32 = 4;
/// How far above the stack pointer a frame pointer may point that no table confirms, bytes.
const MAX_GUESSED_FRAME: u64 = 8 << 20;

/// The offsets of the registers in `struct sigcontext` (arch/x86/include/uapi/asm/sigcontext.h), bytes.
mod sigcontext {
    pub const RBP: u64 = 80;
    pub const RSP: u64 = 120;
    pub const RIP: u64 = 128;
}

/// The values that all steps of a walk share.
struct Context<'a> {
    thread: &'a mut ThreadState,
    /// The process's code mappings, as `mapping_list` packs them.
    list: u64,
}

/// Walks from `start`, writes the frames into the thread's stack event, leaf first, and returns
/// their hash.
#[inline(always)]
pub fn walk(start: Registers, process: u16, thread: &mut ThreadState) -> u64 {
    take_walk(start, process, thread, MAX_WALKED);
    count_what_is_missing(&thread.walk);
    thread.walk.hash
}

/// Walks only a few frames from `start`, and does the rest as [`walk`] does.
#[inline(always)]
pub fn walk_place(start: Registers, process: u16, thread: &mut ThreadState) -> u64 {
    take_walk(start, process, thread, PLACE_FRAMES);
    thread.stack.end = WalkEnd::Bottom as u32;
    thread.walk.hash
}

#[inline(always)]
fn take_walk(start: Registers, process: u16, thread: &mut ThreadState, steps: u32) {
    let walk = &mut thread.walk;
    walk.at = start;
    walk.code.start = 0;
    walk.code.end = 0;
    walk.hash = seed(process);
    walk.walked = 0;
    walk.end = WalkEnd::TooDeep as u32;
    walk.guessed = 0;
    walk.ever_guessed = 0;
    walk.ahead.clear();
    python::begin(thread, process);
    let list = code_list(process);
    let mut context = Context { thread, list };
    take_steps(&mut context, steps);
    let ThreadState { walk, stack, .. } = context.thread;
    stack.walked = walk.walked;
    stack.end = walk.end;
}

/// What the hashes of a process's stacks begin with.
#[inline(always)]
pub fn seed(process: u16) -> u64 {
    STACK_SEEDS.get(u32::from(process)).copied().unwrap_or(0)
}

/// The frame of a return address, AVMA.
#[inline(always)]
pub fn frame_at(process: u16, ip: u64) -> RawFrame {
    let pc = ip.wrapping_sub(1);
    match code_at(code_list(process), pc) {
        Some(code) if code.object != u32::from(NO_OBJECT) => RawFrame {
            object: code.object as u16,
            offset: ip - code.start + code.offset,
        },
        _ => RawFrame {
            object: NO_OBJECT,
            offset: ip,
        },
    }
}

/// Whether an unwind table says how the code at `ip` (AVMA, of a return address) is left.
#[inline(always)]
pub fn has_rule(process: u16, ip: u64) -> bool {
    let pc = ip.wrapping_sub(1);
    let Some(code) = code_at(code_list(process), pc) else {
        return false;
    };
    let Some(object) = OBJECTS.get(code.object) else {
        return false;
    };
    rule_in(object, pc - code.start + code.offset).is_some_and(|rule| {
        rule.kind != RuleKind::FramePointer as u8 && rule.kind != RuleKind::NoTable as u8
    })
}

#[inline(always)]
fn code_list(process: u16) -> u64 {
    CODE_LISTS.get(u32::from(process)).copied().unwrap_or(0)
}

/// The mapping in `list` that holds `pc`, AVMA. The index that stands for no mapping is beyond the end of the map.
#[inline(always)]
fn code_at(list: u64, pc: u64) -> Option<&'static CodeMapping> {
    CODE_MAPPINGS.get(mapping_at(list, pc) as u32)
}

#[inline(always)]
fn take_steps(context: &mut Context<'_>, steps: u32) {
    if HAS_LOOP.load() == 0 {
        for taken in 0..MAX_WALKED_UNROLLED {
            if taken == steps || step(context).is_none() {
                return;
            }
        }
        return;
    }
    let callback: extern "C" fn(u64, *mut Context<'_>) -> i64 = take_step;
    // SAFETY: the callback takes what is passed here, and the kernel checks both.
    unsafe {
        bpf_loop(
            steps,
            callback as *mut c_void,
            (&raw mut *context).cast(),
            0,
        )
    };
}

/// One iteration of `bpf_loop`: zero to go on.
extern "C" fn take_step(_: u64, context: *mut Context<'_>) -> i64 {
    // SAFETY: `take_steps` passes a valid context, and nobody else uses it meanwhile.
    i64::from(step(unsafe { &mut *context }).is_none())
}

#[inline(always)]
fn count_what_is_missing(walk: &Walk) {
    if walk.end != WalkEnd::Bottom as u32 {
        count_end(walk.end);
    }
    if walk.ever_guessed != 0 {
        count(Counter::StacksByFramePointer, 1);
    }
    python::count_what_is_missing(&walk.python);
}

/// Counts an end of a walk. There is one counter for each end, in the same order.
#[inline(always)]
fn count_end(end: u32) {
    let counter = Counter::StacksUnreadable as u32 + end - WalkEnd::Unreadable as u32;
    count_number(counter, 1);
}

/// Enters the next frame, a native or a Python frame, and finds the frame's caller; `None` at the end.
#[inline(always)]
fn step(context: &mut Context<'_>) -> Option<()> {
    let ThreadState { walk, stack, .. } = &mut *context.thread;
    if walk.python.is_next() {
        if let Some(frame) = python::step(&mut walk.python) {
            walk.enter_frame(frame.to_raw().to_bits(), &mut stack.frames);
        }
        return (!walk.python.is_over()).then_some(());
    }
    if native_step(context).is_some() || python::take_rest(&mut context.thread.walk.python) {
        return Some(());
    }
    None
}

/// Enters the next native frame and finds the frame's caller; `None` at the end.
#[inline(always)]
fn native_step(context: &mut Context<'_>) -> Option<()> {
    let list = context.list;
    let ThreadState { walk, stack, .. } = &mut *context.thread;
    let pc = walk.at.ip.wrapping_sub(1);
    if (pc < walk.code.start || pc >= walk.code.end) && !walk.enter_mapping(list, pc) {
        return walk.leave_mappings(&mut stack.frames);
    }
    let offset = pc - walk.code.start + walk.code.offset;
    let frame = RawFrame {
        object: walk.code.object as u16,
        offset: offset + 1,
    };
    walk.enter_frame(frame.to_bits(), &mut stack.frames);
    python::pass(&mut walk.python, pc);
    let rule = walk.rule(offset)?;
    walk.follow(&rule, pc)
}

impl Walk {
    /// Finds the mapping that holds `pc`, AVMA.
    #[inline(always)]
    fn enter_mapping(&mut self, list: u64, pc: u64) -> bool {
        let Some(code) = code_at(list, pc) else {
            return false;
        };
        self.code = *code;
        if code.object == u32::from(NO_OBJECT) {
            // The frames of such a mapping have their address as their name.
            self.code.offset = code.start;
        }
        if let Some(object) = OBJECTS.get(code.object) {
            self.object = *object;
        }
        true
    }

    /// Goes on, or stops, where the frame's address lies in no known mapping.
    #[inline(always)]
    fn leave_mappings(&mut self, frames: &mut [u64; MAX_FRAMES]) -> Option<()> {
        let original = original_return_address(self.at.sp.wrapping_sub(8));
        if original != 0 && original != self.at.ip {
            self.at.ip = original;
            return Some(());
        }
        if self.guessed != 0 {
            return self.stop(WalkEnd::NoTable);
        }
        let frame = RawFrame {
            object: NO_OBJECT,
            offset: self.at.ip,
        };
        self.enter_frame(frame.to_bits(), frames);
        self.stop(WalkEnd::UnknownCode)
    }

    /// Keeps the leaf-most frames, and behind them, in a ring, the outermost.
    #[inline(always)]
    fn enter_frame(&mut self, frame: u64, frames: &mut [u64; MAX_FRAMES]) {
        let walked = self.walked as usize;
        let index = if walked < LEAF_FRAMES {
            walked
        } else {
            LEAF_FRAMES + (walked - LEAF_FRAMES) % ROOT_FRAMES
        };
        *element(frames, index) = frame;
        self.hash = mix(self.hash, frame);
        self.walked += 1;
    }

    /// The rule at a file offset of the last frame's object.
    #[inline(always)]
    fn rule(&mut self, offset: u64) -> Option<Rule> {
        match rule_in(&self.object, offset) {
            None if self.object.state == TableState::Loading as u32 => {
                self.stop(WalkEnd::TableLoading)
            }
            None => self.stop(WalkEnd::NoRoom),
            rule => rule,
        }
    }

    /// Moves to the caller of the frame at `pc`, AVMA.
    #[inline(always)]
    fn follow(&mut self, rule: &Rule, pc: u64) -> Option<()> {
        let cfa_offset = i64::from(rule.cfa_offset) as u64;
        let addend = i64::from(rule.addend) as u64;
        let Registers { sp, bp, .. } = self.at;
        let kind = u32::from(rule.kind);
        let cfa = if kind == RuleKind::Sp as u32 {
            sp.wrapping_add(cfa_offset)
        } else if kind == RuleKind::Bp as u32 {
            bp.wrapping_add(cfa_offset)
        } else if kind == RuleKind::FramePointer as u32 {
            return self.follow_frame_pointer();
        } else if kind == RuleKind::NoTable as u32 {
            return self.stop(WalkEnd::NoTable);
        } else if kind == RuleKind::Bottom as u32 {
            return self.stop(WalkEnd::Bottom);
        } else if kind == RuleKind::Signal as u32 {
            return self.follow_signal(sp.wrapping_add(cfa_offset));
        } else if kind == RuleKind::SpDeref as u32 {
            read_word(sp.wrapping_add(cfa_offset)).wrapping_add(addend)
        } else if kind == RuleKind::BpDeref as u32 {
            read_word(bp.wrapping_add(cfa_offset)).wrapping_add(addend)
        } else if kind == RuleKind::Plt as u32 {
            let pushed = if pc % 16 >= addend { 8 } else { 0 };
            sp.wrapping_add(cfa_offset).wrapping_add(pushed)
        } else {
            return self.stop(WalkEnd::Unsupported);
        };
        if cfa <= sp || cfa % 8 != 0 {
            return self.stop(WalkEnd::NoProgress);
        }
        self.restore_bp(rule, cfa)?;
        self.guessed = 0;
        self.enter_caller(cfa)
    }

    /// Finds the caller's frame pointer by the rule, if the frame has saved it.
    #[inline(always)]
    fn restore_bp(&mut self, rule: &Rule, cfa: u64) -> Option<()> {
        let saved_bp = match u32::from(rule.bp) {
            at if at == BpRule::AtCfa as u32 => cfa,
            at if at == BpRule::AtBp as u32 => self.at.bp,
            at if at == BpRule::AtSp as u32 => self.at.sp,
            _ => 0,
        };
        if saved_bp != 0 {
            self.at.bp = self.word(saved_bp.wrapping_add(i64::from(rule.bp_offset) as u64))?;
        }
        Some(())
    }

    /// Moves to the caller, whose frame begins at `cfa`. The return address lies just below `cfa`.
    #[inline(always)]
    fn enter_caller(&mut self, cfa: u64) -> Option<()> {
        self.at.ip = self.word(cfa.wrapping_sub(8))?;
        self.at.sp = cfa;
        if self.at.ip == 0 {
            return self.stop(WalkEnd::Bottom);
        }
        Some(())
    }

    /// Moves to the caller of code that has no table and mostly keeps frame pointers. If the code does not, rbp leads
    /// nowhere, or to an address that is no code.
    #[inline(always)]
    fn follow_frame_pointer(&mut self) -> Option<()> {
        let Registers { sp, bp, .. } = self.at;
        if bp == 0 {
            return self.stop(WalkEnd::Bottom);
        }
        if bp < sp || bp - sp > MAX_GUESSED_FRAME || bp % 8 != 0 {
            return self.stop(WalkEnd::NoTable);
        }
        self.guessed = 1;
        self.ever_guessed = 1;
        self.at.bp = self.word(bp)?;
        self.enter_caller(bp + 16)
    }

    /// Moves to the code that a signal has interrupted. The code's registers are in the sigcontext at
    /// `context`, AVMA.
    #[inline(always)]
    fn follow_signal(&mut self, context: u64) -> Option<()> {
        let ip = read_word(context.wrapping_add(sigcontext::RIP));
        if ip == 0 {
            return self.stop(WalkEnd::Unreadable);
        }
        self.at = Registers {
            ip: ip.wrapping_add(1),
            sp: read_word(context.wrapping_add(sigcontext::RSP)),
            bp: read_word(context.wrapping_add(sigcontext::RBP)),
        };
        self.guessed = 0;
        Some(())
    }

    #[inline(always)]
    fn word(&mut self, address: u64) -> Option<u64> {
        match self.ahead.word(address) {
            None => {
                self.end = WalkEnd::Unreadable as u32;
                None
            }
            word => word,
        }
    }

    #[inline(always)]
    fn stop<T>(&mut self, end: WalkEnd) -> Option<T> {
        self.end = end as u32;
        None
    }
}

/// The rule at a file offset of an object; `None` if the object's table cannot be read.
#[inline(always)]
fn rule_in(object: &ObjectState, offset: u64) -> Option<Rule> {
    let no_table = Some(Rule::new(RuleKind::NoTable, 0));
    if FRAME_POINTERS_ONLY.load() != 0 || object.state == TableState::FramePointers as u32 {
        return Some(Rule::new(RuleKind::FramePointer, 0));
    }
    if object.state == TableState::Missing as u32 {
        return no_table;
    }
    if object.state != TableState::Ready as u32 {
        return None;
    }
    let page = (offset >> PAGE_BITS).wrapping_sub(u64::from(object.first_offset));
    if page >= u64::from(object.pages) {
        return no_table;
    }
    let page = object.first_page.wrapping_add(page as u32);
    let rule = rule_at(page, offset as u32 & ((1 << PAGE_BITS) - 1));
    RULES.get(rule as u32).copied().or(no_table)
}

/// One step of the stack hash: a multiplication by an odd constant, 2^64 divided by the golden ratio, as in Knuth's
/// multiplicative hashing. The product is folded down, so that the low bits depend on all bits.
#[inline(always)]
pub const fn mix(hash: u64, word: u64) -> u64 {
    let product = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    product ^ (product >> 29)
}
