//! Lays unwind tables out for the kernel: rows and pages in chunks, each of which is a map value, and one list of
//! rules for all tables. Pure: the store only returns the values to write.
//!
//! The store fills one chunk after the other. It keeps a chunk that is not full, and writes that chunk again when
//! the next table adds something. Entries that are written never change, so a walk may read at any time.

use std::collections::HashMap;

use residue_ebpf::abi::unwind::{
    CHUNK_PAGES, CHUNK_ROWS, MAX_RULES, ObjectState, Page, PageChunk, Row, RowChunk, Rule,
    TableState,
};

use super::pages::pages;
use super::table::UnwindTable;

/// The most new rules of one table. Real tables have a few hundred (libpython 3.11: 327). Without a bound, a hostile
/// object could use up all rules.
const MAX_RULES_OF_TABLE: usize = MAX_RULES / 8;

/// The capacity of the maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreLimits {
    /// How many chunks of [`CHUNK_ROWS`] rows.
    pub row_chunks: u32,
    /// How many chunks of [`CHUNK_PAGES`] pages.
    pub page_chunks: u32,
}

/// A value to write into a map.
pub enum Update {
    /// A chunk of rows.
    Rows {
        /// The index of the chunk.
        index: u32,
        /// The whole chunk.
        chunk: Box<RowChunk>,
    },
    /// A chunk of pages.
    Pages {
        /// The index of the chunk.
        index: u32,
        /// The whole chunk.
        chunk: Box<PageChunk>,
    },
    /// A rule.
    Rule {
        /// The index of the rule.
        index: u32,
        /// The rule itself.
        rule: Rule,
    },
}

/// The maps have no room for a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no room for its unwind table")]
pub struct NoRoom;

/// How much of the maps is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreUsage {
    /// Rows, including those that stay empty at the end of a chunk.
    pub rows: usize,
    /// Pages.
    pub pages: usize,
    /// Rules.
    pub rules: usize,
}

/// The tables that are laid out so far.
pub struct TableStore {
    limits: StoreLimits,
    rules: HashMap<Rule, u16>,
    /// For the index of a rule: the row that all pages share in which only this rule holds.
    uniform: HashMap<u16, Page>,
    ends: Ends,
}

/// Where the next row and the next page go.
#[derive(Clone)]
struct Ends {
    rows: Box<RowChunk>,
    row: usize,
    pages: Box<PageChunk>,
    page: usize,
}

impl TableStore {
    /// A store without tables.
    #[must_use]
    pub fn new(limits: StoreLimits) -> Self {
        Self {
            limits,
            rules: HashMap::new(),
            uniform: HashMap::new(),
            ends: Ends {
                rows: empty_rows(),
                row: 0,
                pages: empty_pages(),
                page: 0,
            },
        }
    }

    /// How much of the maps is in use.
    #[must_use]
    pub fn usage(&self) -> StoreUsage {
        StoreUsage {
            rows: self.ends.row,
            pages: self.ends.page,
            rules: self.rules.len(),
        }
    }

    /// Adds a table. The caller writes the updates in their order, and then the state.
    ///
    /// # Errors
    /// When the table does not fit. The store has not changed then.
    pub fn insert(&mut self, table: &UnwindTable) -> Result<(ObjectState, Vec<Update>), NoRoom> {
        let pages = pages(table);
        let first_page = self.ends.page;
        let room = self.limits.page_chunks as usize * CHUNK_PAGES;
        if pages.len() > room.saturating_sub(first_page) {
            return Err(NoRoom);
        }
        let state = ObjectState {
            first_page: u32::try_from(first_page).map_err(|_| NoRoom)?,
            pages: u32::try_from(pages.len()).map_err(|_| NoRoom)?,
            first_offset: pages.first(),
            state: TableState::Ready as u32,
        };
        let mut insertion = Insertion::new(self);
        for page in pages {
            insertion.page(&page)?;
        }
        Ok((state, insertion.commit()))
    }
}

/// A table that is not completely laid out yet. The store does not change before the whole table has found room.
struct Insertion<'a> {
    store: &'a mut TableStore,
    ends: Ends,
    new_rules: HashMap<Rule, u16>,
    new_uniform: HashMap<u16, Page>,
    updates: Vec<Update>,
}

impl<'a> Insertion<'a> {
    fn new(store: &'a mut TableStore) -> Self {
        let ends = store.ends.clone();
        Self {
            store,
            ends,
            new_rules: HashMap::new(),
            new_uniform: HashMap::new(),
            updates: Vec::new(),
        }
    }

    fn page(&mut self, rows: &[(u16, Rule)]) -> Result<(), NoRoom> {
        let page = match *rows {
            [(_, rule)] => self.uniform_page(rule)?,
            _ => self.rows(rows)?,
        };
        self.ends.pages.pages[self.ends.page % CHUNK_PAGES] = page;
        self.ends.page += 1;
        if self.ends.page.is_multiple_of(CHUNK_PAGES) {
            self.write_pages(self.ends.page - 1);
            self.ends.pages = empty_pages();
        }
        Ok(())
    }

    fn uniform_page(&mut self, rule: Rule) -> Result<Page, NoRoom> {
        let index = self.rule(rule)?;
        let known = self.store.uniform.get(&index);
        if let Some(page) = known.or_else(|| self.new_uniform.get(&index)) {
            return Ok(*page);
        }
        let page = self.rows(&[(0, rule)])?;
        self.new_uniform.insert(index, page);
        Ok(page)
    }

    fn rows(&mut self, rows: &[(u16, Rule)]) -> Result<Page, NoRoom> {
        if self.ends.row % CHUNK_ROWS + rows.len() > CHUNK_ROWS {
            self.next_row_chunk();
        }
        let chunk = self.ends.row / CHUNK_ROWS;
        if chunk >= self.store.limits.row_chunks as usize {
            return Err(NoRoom);
        }
        let first = self.ends.row % CHUNK_ROWS;
        for (at, &(offset, rule)) in (first..).zip(rows) {
            let rule = self.rule(rule)?;
            self.ends.rows.rows[at] = Row { offset, rule };
        }
        self.ends.row += rows.len();
        if self.ends.row.is_multiple_of(CHUNK_ROWS) {
            self.write_rows(chunk);
            self.ends.rows = empty_rows();
        }
        Ok(Page {
            chunk: chunk as u32,
            first: first as u16,
            count: rows.len() as u16,
        })
    }

    /// Leaves the rest of the chunk empty.
    fn next_row_chunk(&mut self) {
        self.write_rows(self.ends.row / CHUNK_ROWS);
        self.ends.rows = empty_rows();
        self.ends.row = self.ends.row.next_multiple_of(CHUNK_ROWS);
    }

    fn rule(&mut self, rule: Rule) -> Result<u16, NoRoom> {
        let known = self.store.rules.get(&rule);
        if let Some(index) = known.or_else(|| self.new_rules.get(&rule)) {
            return Ok(*index);
        }
        let index = self.store.rules.len() + self.new_rules.len();
        if self.new_rules.len() == MAX_RULES_OF_TABLE || index == MAX_RULES {
            return Err(NoRoom);
        }
        self.new_rules.insert(rule, index as u16);
        let index = index as u32;
        self.updates.push(Update::Rule { index, rule });
        Ok(index as u16)
    }

    fn write_rows(&mut self, chunk: usize) {
        self.updates.push(Update::Rows {
            index: chunk as u32,
            chunk: self.ends.rows.clone(),
        });
    }

    fn write_pages(&mut self, last: usize) {
        self.updates.push(Update::Pages {
            index: (last / CHUNK_PAGES) as u32,
            chunk: self.ends.pages.clone(),
        });
    }

    /// Writes the last chunks, which are not full, and hands everything to the store.
    fn commit(mut self) -> Vec<Update> {
        if !self.ends.row.is_multiple_of(CHUNK_ROWS) && self.ends.row != self.store.ends.row {
            self.write_rows(self.ends.row / CHUNK_ROWS);
        }
        if !self.ends.page.is_multiple_of(CHUNK_PAGES) && self.ends.page != self.store.ends.page {
            self.write_pages(self.ends.page);
        }
        self.store.rules.extend(self.new_rules);
        self.store.uniform.extend(self.new_uniform);
        self.store.ends = self.ends;
        self.updates
    }
}

fn empty_rows() -> Box<RowChunk> {
    let rows = [Row::default(); CHUNK_ROWS];
    Box::new(RowChunk { rows })
}

fn empty_pages() -> Box<PageChunk> {
    let pages = [Page::default(); CHUNK_PAGES];
    Box::new(PageChunk { pages })
}
