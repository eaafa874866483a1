//! The native code that runs Python's bytecode: the evaluation function, and the parts of it that a
//! compiler has moved away because they are rarely run.
//!
//! Such a part has a symbol of its own, which stripping removes. It is found by what leads there: a
//! jump out of the function. A jump may also be a call at the function's end; what tells them apart is
//! the call frame information: a function begins with the return address on top of the stack, a part
//! in the middle of a frame.

use std::collections::BTreeSet;

use gimli::{
    CfaRule, EhFrame, EndianSlice, FrameDescriptionEntry, LittleEndian, UnwindContext,
    UnwindSection as _, X86_64,
};
use iced_x86::{Decoder, DecoderOptions, FlowControl, OpKind};
use object::{Object as _, ObjectSymbol, ReadRef};

use crate::{
    target::{Svma, elf::text_segments},
    unwind::sections::{CfiSection, CfiSections},
};

/// A compiler may have moved parts of it away, whose names begin so as well.
const EVAL: &str = "_PyEval_EvalFrameDefault";
/// Twenty times what the function has.
const MAX_CODE_BYTES: u64 = 1 << 20;
/// How many places outside of the function are looked at. Each takes a search in `.eh_frame`.
const MAX_SEARCHES: usize = 32;

type Slice<'data> = EndianSlice<'data, LittleEndian>;

/// Code that runs Python's bytecode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EvalPart {
    /// Its first byte.
    pub start: Svma,
    /// How long it is.
    pub bytes: u64,
    /// What it was found by.
    pub found_by: FoundBy,
}

/// What a part was found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FoundBy {
    /// Its symbol.
    Symbol,
    /// A jump to it.
    Jump,
}

/// Those that have a symbol.
pub(super) fn named<'data>(
    symbols: impl Iterator<Item = impl ObjectSymbol<'data>>,
) -> Vec<EvalPart> {
    let mut parts: Vec<_> = symbols
        .filter(|it| it.is_definition() && it.size() > 0)
        .filter(|it| it.name().is_ok_and(is_eval))
        .map(|symbol| EvalPart {
            start: Svma(symbol.address()),
            bytes: symbol.size(),
            found_by: FoundBy::Symbol,
        })
        .collect();
    parts.sort_unstable();
    parts.dedup();
    parts
}

/// Those that are found in a stripped file: the function, which is exported, and where it jumps to.
pub(super) fn decoded<'data, R: ReadRef<'data>>(
    data: R,
    file: &object::File<'data, R>,
) -> Vec<EvalPart> {
    let mut parts = named(file.dynamic_symbols());
    if let Some(function) = parts.first().copied() {
        let functions = file.dynamic_symbols().map(|it| it.address()).collect();
        parts.extend(moved_parts(data, function, &functions).unwrap_or_default());
    }
    parts
}

fn is_eval(name: &str) -> bool {
    name.strip_prefix(EVAL)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// The parts of `function` outside of it. `functions` are the starts of functions that are known.
fn moved_parts<'data>(
    data: impl ReadRef<'data>,
    function: EvalPart,
    functions: &BTreeSet<u64>,
) -> Option<Vec<EvalPart>> {
    let offset = text_segments(data).ok()?.file_offset(function.start)?;
    let bytes = function.bytes.min(MAX_CODE_BYTES);
    let code = data.read_bytes_at(offset.0, bytes).ok()?;
    let cfi = CfiSections::read(data).ok()?.eh_frame?;
    let mut parts: Vec<EvalPart> = Vec::new();
    let targets = jumps_out(code, function.start);
    let mut searches = 0;
    for target in targets.difference(functions) {
        let is_in = |part: &EvalPart| {
            (part.start.0..part.start.0.saturating_add(part.bytes)).contains(target)
        };
        if searches == MAX_SEARCHES || parts.iter().any(is_in) {
            continue;
        }
        searches += 1;
        parts.extend(part_at(&cfi, *target));
    }
    Some(parts)
}

/// Where the jumps of a function go that leave it.
fn jumps_out(code: &[u8], start: Svma) -> BTreeSet<u64> {
    let end = start.0.saturating_add(code.len() as u64);
    let mut decoder = Decoder::with_ip(64, code, start.0, DecoderOptions::NONE);
    let mut targets = BTreeSet::new();
    while decoder.can_decode() {
        let instruction = decoder.decode();
        let is_jump = matches!(
            instruction.flow_control(),
            FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch
        );
        if is_jump && instruction.op0_kind() == OpKind::NearBranch64 {
            targets.insert(instruction.near_branch_target());
        }
    }
    targets.retain(|target| !(start.0..end).contains(target));
    targets
}

/// The code that an FDE covers at an address, unless it is a function.
fn part_at(cfi: &CfiSection<'_>, address: u64) -> Option<EvalPart> {
    let section = EhFrame::new(cfi.bytes, LittleEndian);
    let cie = EhFrame::cie_from_offset;
    let fde = section.fde_for_address(&cfi.bases, address, cie).ok()?;
    let part = EvalPart {
        start: Svma(fde.initial_address()),
        bytes: fde.len(),
        found_by: FoundBy::Jump,
    };
    let is_bounded = part.bytes <= MAX_CODE_BYTES && part.start.checked_add(part.bytes).is_some();
    (is_bounded && !begins_a_frame(&section, cfi, &fde)?).then_some(part)
}

/// Whether the return address is on top of the stack where the code of an FDE begins.
fn begins_a_frame(
    section: &EhFrame<Slice<'_>>,
    cfi: &CfiSection<'_>,
    fde: &FrameDescriptionEntry<Slice<'_>>,
) -> Option<bool> {
    let mut context = UnwindContext::new();
    let mut rows = fde.rows(section, &cfi.bases, &mut context).ok()?;
    let entry = CfaRule::RegisterAndOffset {
        register: X86_64::RSP,
        offset: 8,
    };
    Some(*rows.next_row().ok()??.cfa() == entry)
}

#[cfg(test)]
mod tests;
