//! Looks up the mapping that holds an address, and the rule that holds at a place.
//!
//! Both look-ups are global functions. The verifier looks at each once, and knows nothing of what the
//! functions return, which keeps the walk's loop cheap to verify.

use residue_ebpf::abi::unwind::{CHUNK_PAGES, CHUNK_ROWS, Page};

use crate::{
    maps::{CODE_MAPPINGS, PAGES, ROWS},
    verifier::element,
};

/// Stands for no rule and for no mapping. As an index, the number is beyond the end of any array.
const NONE: u64 = u64::MAX;

/// The steps of a binary search over the mappings of a process: more than any search can need.
const MAPPING_STEPS: u32 = 18;
/// The steps of a binary search over the rows of a page, which has at most one row a byte.
const ROW_STEPS: u32 = 11;

/// The index of the code mapping in `list` (see `mapping_list`) that holds `address`, AVMA.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mapping_at(list: u64, address: u64) -> u64 {
    let mut first = list as u32;
    let mut count = (list >> 32) as u32;
    for _ in 0..MAPPING_STEPS {
        if count <= 1 {
            break;
        }
        let half = count / 2;
        let Some(middle) = CODE_MAPPINGS.get(first.wrapping_add(half)) else {
            return NONE;
        };
        if middle.start <= address {
            first = first.wrapping_add(half);
        }
        count -= half;
    }
    match CODE_MAPPINGS.get(first) {
        Some(found) if count != 0 && address >= found.start && address < found.end => {
            u64::from(first)
        }
        _ => NONE,
    }
}

/// The index of the rule that holds `offset` bytes into a page, given as its index over all chunks.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn rule_at(page: u32, offset: u32) -> u64 {
    let Some(Page {
        chunk,
        first,
        count,
    }) = self::page(page)
    else {
        return NONE;
    };
    let Some(rows) = ROWS.get_ptr_mut(chunk) else {
        return NONE;
    };
    // SAFETY: the pointer leads to a map value, which user space fills before any page leads there.
    let rows = unsafe { &mut (*rows).rows };
    let mut first = usize::from(first);
    let mut count = usize::from(count);
    for _ in 0..ROW_STEPS {
        if count <= 1 {
            break;
        }
        let half = count / 2;
        if u32::from(element::<_, CHUNK_ROWS>(rows, first + half).offset) <= offset {
            first += half;
        }
        count -= half;
    }
    if count == 0 {
        return NONE;
    }
    u64::from(element::<_, CHUNK_ROWS>(rows, first).rule)
}

#[inline(always)]
fn page(index: u32) -> Option<Page> {
    let chunk = PAGES.get_ptr_mut(index / CHUNK_PAGES as u32)?;
    // SAFETY: the pointer leads to a map value, which user space fills before any object leads there.
    let pages = unsafe { &mut (*chunk).pages };
    Some(*element::<_, CHUNK_PAGES>(pages, index as usize))
}
