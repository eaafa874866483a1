//! Ends what counts of a process, and removes its traces from the kernel side's maps.

use std::{collections::HashSet, io};

use aya::maps::{HashMap, MapData, MapError, PerCpuValues};
use residue_ebpf::abi::{
    cost::ProbeTime,
    heap::ADDRESS_BITS,
    python::{CodePointers, PythonLayout},
    window::tls_slot,
};

use super::{AttachError, Kernel};
use crate::ids::Slot;

impl Kernel {
    /// From here on, nothing that the process does counts. Its probes stay in.
    ///
    /// # Errors
    ///
    /// When the kernel refuses a map update, which it has no reason to.
    pub fn close_process(&mut self, slot: Slot) -> Result<(), AttachError> {
        let mut state = self.processes.get(&slot.index(), 0)?;
        state.flags = 0;
        self.processes.set(slot.index(), state, 0)?;
        // Its id may be another process's soon, whose children are strangers.
        let known = self.targets.get(&state.tgid, 0);
        if known.is_ok_and(|known| known == slot.index()) {
            self.targets.remove(&state.tgid)?;
        }
        Ok(())
    }

    /// Forgets what is kept of processes that are over: of each its slot, and its id where that is free for another.
    pub fn forget(&mut self, slots: &HashSet<Slot>, ids: &HashSet<u32>) {
        let is_theirs = |key: u64| slots.contains(&slot_of(key));
        forget(&mut self.contexts, is_theirs);
        forget(&mut self.items, is_theirs);
        let is_connection = |key| match tls_slot(key) {
            Some(slot) => slots.contains(&Slot(slot)),
            None => ids.contains(&((key >> 32) as u32)),
        };
        forget(&mut self.connections, is_connection);
    }

    /// Empties the entries of a slot in the tables that have one for each process: another process may have the slot
    /// from now on. The process that had the slot must be over, and its probes be coming out.
    ///
    /// # Errors
    ///
    /// When the kernel refuses a map update, which it has no reason to.
    pub fn clear_slot(&mut self, slot: Slot) -> Result<(), AttachError> {
        let place = slot.index();
        self.trampolines.set(place, 0, 0)?;
        self.pythons.set(place, PythonLayout::default(), 0)?;
        self.code_pointers.set(place, CodePointers::default(), 0)?;
        self.python_pools.set(place, 0, 0)?;
        self.unwind.remove_code(slot)?;
        // One value for each CPU.
        let before = self.probe_times.get(&place, 0)?;
        let nothing = vec![ProbeTime::default(); before.len()];
        let nothing = PerCpuValues::try_from(nothing);
        let nothing = nothing.map_err(|source| MapError::IoError(io::Error::other(source)))?;
        self.probe_times.set(place, nothing, 0)?;
        self.late_functions.remove(&slot);
        let functions = self.functions_of.remove(&slot);
        self.free_functions.extend(functions.unwrap_or_default());
        Ok(())
    }

    /// As [`close_process`](Self::close_process), for one that was never opened.
    pub fn release_process(&mut self, slot: Slot) {
        // Where there is nothing to be changed, the process is not known.
        let _ = self.close_process(slot);
    }
}

/// The slot in a key that has an address in its lower bits.
pub fn slot_of(key: u64) -> Slot {
    Slot((key >> ADDRESS_BITS) as u16)
}

/// Removes entries by their keys.
pub fn forget<V: aya::Pod>(map: &mut HashMap<MapData, u64, V>, is_over: impl Fn(u64) -> bool) {
    let over: Vec<u64> = map.keys().flatten().filter(|key| is_over(*key)).collect();
    for key in over {
        // The kernel side may have been faster.
        let _ = map.remove(&key);
    }
}
