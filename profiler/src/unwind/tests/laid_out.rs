//! Compares what a walk finds in the maps with the table that the store has laid out there.

use proptest::prelude::*;
use residue_ebpf::abi::unwind::{
    BpRule, CHUNK_PAGES, CHUNK_ROWS, ObjectState, PAGE_BITS, Page, Row, Rule, RuleKind, TableState,
};

use super::elf::{Cfi, TEXT, TEXT_OFFSET, object};
use crate::unwind::rule::GAP;
use crate::unwind::{StoreLimits, TableStore, UnwindTable, Update};

/// The maps of the kernel side.
#[derive(Default)]
pub struct Maps {
    rows: Vec<[Row; CHUNK_ROWS]>,
    pages: Vec<[Page; CHUNK_PAGES]>,
    rules: Vec<Rule>,
}

impl Maps {
    pub fn write(&mut self, updates: Vec<Update>) {
        fn put<T: Clone>(map: &mut Vec<T>, index: u32, value: T) {
            let index = index as usize;
            if map.len() <= index {
                map.resize(index + 1, value.clone());
            }
            map[index] = value;
        }
        for update in updates {
            match update {
                Update::Rows { index, chunk } => put(&mut self.rows, index, chunk.rows),
                Update::Pages { index, chunk } => put(&mut self.pages, index, chunk.pages),
                Update::Rule { index, rule } => put(&mut self.rules, index, rule),
            }
        }
    }

    /// The rule at a file offset, as the kernel side looks it up; `None` outside the object's pages.
    pub fn lookup(&self, object: ObjectState, offset: u32) -> Option<Rule> {
        assert_eq!(object.state, TableState::Ready as u32);
        let page = (offset >> PAGE_BITS).checked_sub(object.first_offset)?;
        if page >= object.pages {
            return None;
        }
        let page = (object.first_page + page) as usize;
        let page = self.pages[page / CHUNK_PAGES][page % CHUNK_PAGES];
        let rows = &self.rows[page.chunk as usize];
        let rows = &rows[page.first.into()..][..page.count.into()];
        let into = (offset % (1 << PAGE_BITS)) as u16;
        let behind = rows.partition_point(|row| row.offset <= into);
        Some(self.rules[usize::from(rows[behind - 1].rule)])
    }
}

const ROOM: StoreLimits = StoreLimits {
    row_chunks: 1 << 16,
    page_chunks: 1 << 14,
};

/// The offsets just before and after the first row, each row, and the end of each segment.
pub fn places(table: &UnwindTable) -> impl Iterator<Item = u32> + '_ {
    let rows = table.rows().iter().map(|row| row.offset);
    let ends = table.text().iter().map(|text| text.end);
    rows.chain(ends)
        .flat_map(|at| [at.saturating_sub(1), at, at.saturating_add(1)])
}

/// Asserts that the maps say what the table does.
pub fn assert_same(maps: &Maps, state: ObjectState, table: &UnwindTable, at: u32) {
    let page = at >> PAGE_BITS;
    let is_inside = (state.first_offset..state.first_offset + state.pages).contains(&page);
    let said = is_inside.then(|| table.rule_at(at).unwrap_or(GAP));
    assert_eq!(maps.lookup(state, at), said, "at {at:#x}");
}

/// A table with functions of these lengths and stack depths, one after the other.
fn table(functions: &[(u16, u8)]) -> UnwindTable {
    let mut cfi = Cfi::eh_frame();
    let cie = cfi.cie("", super::elf::CALLED);
    let mut at = TEXT;
    for (length, depth) in functions {
        let length = u64::from(*length);
        // DW_CFA_advance_loc 1; DW_CFA_def_cfa_offset
        cfi.fde(cie, at, length, &[0x41, 0x0e, depth & 0x7f]);
        at += length;
    }
    let code = vec![0xcc; (at - TEXT) as usize];
    UnwindTable::read(&object(&code, &[&cfi])[..]).expect("it is sound")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn lookups_in_the_maps_find_what_the_tables_say(
        tables in prop::collection::vec(prop::collection::vec((1..5000u16, any::<u8>()), 1..200), 1..5),
    ) {
        let mut store = TableStore::new(ROOM);
        let mut maps = Maps::default();
        let mut laid_out = Vec::new();
        for table in tables.iter().map(|functions| table(functions)) {
            let (state, updates) = store.insert(&table).expect("there is room");
            maps.write(updates);
            laid_out.push((state, table));
        }
        for (state, table) in &laid_out {
            places(table).for_each(|at| assert_same(&maps, *state, table, at));
        }
    }
}

#[test]
fn a_page_with_a_row_at_every_byte_fits_into_a_chunk() {
    let functions: Vec<_> = (0..8000u16).map(|at| (1 + at % 2, at as u8)).collect();
    let table = table(&functions);
    let mut store = TableStore::new(ROOM);
    let (state, updates) = store.insert(&table).expect("there is room");
    let mut maps = Maps::default();
    maps.write(updates);
    let end = table.text()[0].end;
    (TEXT_OFFSET as u32..end).for_each(|at| assert_same(&maps, state, &table, at));
}

#[test]
fn pages_of_one_rule_share_a_row() {
    let mut store = TableStore::new(ROOM);
    store.insert(&table(&[(60_000, 8)])).expect("there is room");
    let usage = store.usage();
    assert_eq!(
        (usage.pages, usage.rows),
        (60, 2 + 1 + 2),
        "first, shared, last"
    );
}

#[test]
fn a_table_that_does_not_fit_changes_nothing() {
    let small = StoreLimits {
        row_chunks: 1,
        page_chunks: 1,
    };
    let mut store = TableStore::new(small);
    let fits = table(&[(100, 16)]);
    let (state, updates) = store.insert(&fits).expect("there is room");
    let mut maps = Maps::default();
    maps.write(updates);
    let before = store.usage();
    let many_rows: Vec<_> = (0..2000u16).map(|at| (2, at as u8)).collect();
    let many_pages = vec![(40_000, 8); 20];
    for too_large in [table(&many_rows), table(&many_pages)] {
        assert!(store.insert(&too_large).is_err());
        assert_eq!(store.usage(), before);
    }
    let (second, updates) = store.insert(&fits).expect("there is still room");
    maps.write(updates);
    for state in [state, second] {
        places(&fits).for_each(|at| assert_same(&maps, state, &fits, at));
    }
    assert_eq!(store.usage().rules, before.rules, "rules are shared");
}

#[test]
fn a_hole_between_segments_has_the_rule_of_gaps() {
    let bytes = include_bytes!("corpus/debug_frame.elf");
    let table = UnwindTable::read(&bytes[..]).expect("it is sound");
    let [first, second] = table.text() else {
        panic!("it has two executable segments");
    };
    let mut store = TableStore::new(ROOM);
    let (state, updates) = store.insert(&table).expect("there is room");
    let mut maps = Maps::default();
    maps.write(updates);
    assert!(first.end < second.start);
    for at in first.end..second.start {
        assert_eq!(table.rule_at(at), None);
        assert_eq!(maps.lookup(state, at), Some(GAP));
    }
    let pushed = Rule::new(RuleKind::Sp, 16).with_bp(BpRule::AtCfa, -16);
    assert_eq!(maps.lookup(state, second.start + 1), Some(pushed));
}
