//! Hands unwind tables to the kernel side, with the lists that say which table belongs to which code.

use aya::{
    Ebpf,
    maps::{Array, MapData},
};
use residue_ebpf::abi::unwind::{
    CodeMapping, ObjectState, PageChunk, RowChunk, Rule, TableState, mapping_list,
};

use super::{AttachError, code_lists::CodeLists, take};
use crate::{ids::Slot, unwind::Update};

/// The maps that the kernel side reads when it walks a stack.
pub(super) struct UnwindMaps {
    lists: Array<MapData, u64>,
    mappings: Array<MapData, CodeMapping>,
    objects: Array<MapData, ObjectState>,
    pages: Array<MapData, PageChunk>,
    rows: Array<MapData, RowChunk>,
    rules: Array<MapData, Rule>,
    places: CodeLists,
}

impl UnwindMaps {
    pub(super) fn of(ebpf: &mut Ebpf) -> Self {
        let mappings: Array<MapData, CodeMapping> = take(ebpf, "CODE_MAPPINGS");
        Self {
            places: CodeLists::new(mappings.len()),
            lists: take(ebpf, "CODE_LISTS"),
            mappings,
            objects: take(ebpf, "OBJECTS"),
            pages: take(ebpf, "PAGES"),
            rows: take(ebpf, "ROWS"),
            rules: take(ebpf, "RULES"),
        }
    }

    /// Gives the walks of a process a new list of its code, in ascending order.
    pub(super) fn set_code(&mut self, slot: Slot, code: &[CodeMapping]) -> Result<(), AttachError> {
        let count = u32::try_from(code.len()).map_err(|_| AttachError::TooMuchCode)?;
        let place = self.places.place(slot, count);
        let place = place.ok_or(AttachError::TooMuchCode)?;
        for (index, mapping) in place.clone().zip(code) {
            self.mappings.set(index, mapping, 0)?;
        }
        let list = mapping_list(place.start, count);
        Ok(self.lists.set(slot.index(), list, 0)?)
    }

    /// Leaves a slot without code: its process is over.
    pub(super) fn remove_code(&mut self, slot: Slot) -> Result<(), AttachError> {
        self.lists.set(slot.index(), 0, 0)?;
        self.places.remove(slot);
        Ok(())
    }

    /// Notes that residue has no table of an object, and why.
    pub(super) fn set_no_table(&mut self, object: u16, why: TableState) -> Result<(), AttachError> {
        let state = ObjectState {
            state: why as u32,
            ..ObjectState::default()
        };
        Ok(self.objects.set(u32::from(object), state, 0)?)
    }

    /// Gives the kernel side the table of an object.
    pub(super) fn set_table(
        &mut self,
        object: u16,
        state: ObjectState,
        updates: &[Update],
    ) -> Result<(), AttachError> {
        for update in updates {
            match update {
                Update::Rule { index, rule } => self.rules.set(*index, rule, 0)?,
                Update::Rows { index, chunk } => self.rows.set(*index, **chunk, 0)?,
                Update::Pages { index, chunk } => self.pages.set(*index, **chunk, 0)?,
            }
        }
        // The kernel copies a value word by word. So the first write says where the table is, and only the
        // second one that the table is ready.
        let not_yet = ObjectState {
            state: TableState::Loading as u32,
            ..state
        };
        self.objects.set(u32::from(object), not_yet, 0)?;
        Ok(self.objects.set(u32::from(object), state, 0)?)
    }
}
