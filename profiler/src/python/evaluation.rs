//! Finds the native code that runs Python's bytecode: the evaluation function, and those of its parts that a
//! compiler has moved away because the program rarely executes them.
//!
//! Such a part has a symbol of its own, which stripping removes. In a stripped file, this module follows the jumps
//! out of the function. A jump may lead to a part, or to another function (a tail call). The call frame information
//! tells the two apart: a function begins with the return address on top of the stack, and a part begins in the
//! middle of a frame.

use std::collections::BTreeSet;

use gimli::{
    CfaRule, EhFrame, EndianSlice, FrameDescriptionEntry, LittleEndian, UnwindContext,
    UnwindSection as _, X86_64,
};
use iced_x86::{Decoder, DecoderOptions, FlowControl, OpKind};
use object::{Object as _, ObjectSymbol, ReadRef};

use crate::{
    process::{Svma, elf::text_segments},
    unwind::sections::{CfiSection, CfiSections},
};

/// The evaluation function. The names of its moved parts begin so as well.
const EVAL: &str = "_PyEval_EvalFrameDefault";
/// The most code to decode, bytes: twenty times what the function has.
const MAX_CODE_BYTES: u64 = 1 << 20;
/// The most places outside of the function to look at. Each takes a search in `.eh_frame`.
const MAX_SEARCHES: usize = 32;

type Slice<'data> = EndianSlice<'data, LittleEndian>;

/// Code that runs Python's bytecode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EvalPart {
    /// The first byte, SVMA.
    pub start: Svma,
    /// The length, bytes.
    pub bytes: u64,
    /// How residue has found this code.
    pub found_by: FoundBy,
}

/// How residue has found a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FoundBy {
    /// By a symbol.
    Symbol,
    /// By a jump to the part.
    Jump,
}

/// The parts that have a symbol.
pub(super) fn named<'data>(
    symbols: impl Iterator<Item = impl ObjectSymbol<'data>>,
) -> Vec<EvalPart> {
    let mut parts: Vec<_> = symbols
        .filter(|symbol| symbol.is_definition() && symbol.size() > 0)
        .filter(|symbol| symbol.name().is_ok_and(is_eval))
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

/// The parts in a stripped file: the function, which the file exports, and those that the function jumps to.
pub(super) fn decoded<'data, R: ReadRef<'data>>(
    data: R,
    file: &object::File<'data, R>,
) -> Vec<EvalPart> {
    let mut parts = named(file.dynamic_symbols());
    if let Some(function) = parts.first().copied() {
        let functions = file.dynamic_symbols().map(|symbol| symbol.address());
        let functions = functions.collect();
        parts.extend(moved_parts(data, function, &functions).unwrap_or_default());
    }
    parts
}

fn is_eval(name: &str) -> bool {
    name.strip_prefix(EVAL)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// The moved parts of `function`. `functions` are the addresses of known functions.
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

/// The targets of jumps that leave a function, SVMA.
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

/// The code of the FDE that covers an address, unless that code is a function.
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
