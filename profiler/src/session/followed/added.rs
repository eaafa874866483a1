//! In which order probes are put into a process, and what becomes of that where one is refused.

use std::collections::HashSet;

use residue_ebpf::abi::call_shape::AttachRank;

use crate::{
    attach::AttachError,
    probes::{Plan, PlannedFunction},
    process::{FileKey, FileOffset},
};

/// What came of putting probes in.
#[derive(Debug, Default)]
pub struct Added {
    /// How many functions are probed that were not.
    pub functions: usize,
    /// Of which the kernel would have none.
    pub refused: Vec<AttachError>,
}

impl Added {
    /// Has `put` put probes on what is not `probed` yet, in the plan's order. Where what releases or moves the blocks
    /// of an object is refused, what allocates them is left out: nobody would see them freed.
    pub(super) fn of(
        plan: &Plan,
        probed: &mut HashSet<(FileKey, FileOffset)>,
        mut put: impl FnMut(&PlannedFunction) -> Result<(), AttachError>,
    ) -> Result<Self, AttachError> {
        let mut added = Self::default();
        let mut never_freed = HashSet::new();
        for function in &plan.functions {
            let rank = function.shape.attach_rank();
            let is_left_out =
                rank != AttachRank::Releases && never_freed.contains(&function.object);
            if is_left_out || probed.contains(&function.key()) {
                continue;
            }
            match put(function) {
                Ok(()) => {
                    probed.insert(function.key());
                    added.functions += 1;
                }
                Err(error) if error.is_of_late_probe() => {
                    if rank != AttachRank::Takes {
                        never_freed.insert(function.object);
                    }
                    added.refused.push(error);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(added)
    }
}

#[cfg(test)]
mod tests {
    use residue_ebpf::abi::call_shape::CallShape;

    use super::*;
    use crate::probes::{ProbeSite, SiteCost};

    fn function(symbol: &str, object: usize, shape: CallShape) -> PlannedFunction {
        let offset = symbol.bytes().map(u64::from).sum();
        PlannedFunction {
            symbol: symbol.to_owned(),
            allocator: "test",
            shape,
            object,
            file: FileKey {
                device: 1,
                inode: object as u64,
            },
            file_offset: FileOffset(offset),
            site: ProbeSite {
                symbol: symbol.to_owned(),
                offset_in_function: 0,
                file_offset: FileOffset(offset),
                cost: SiteCost::Emulated,
                instruction: "push rbp".to_owned(),
                reason: "",
            },
            unpaired: false,
        }
    }

    #[test]
    fn what_allocates_is_left_out_until_what_frees_is_probed() -> Result<(), AttachError> {
        let functions = [
            ("free", 0, CallShape::Free),
            ("free", 1, CallShape::Free),
            ("realloc", 0, CallShape::Realloc),
            ("malloc", 0, CallShape::Malloc),
            ("malloc", 1, CallShape::Malloc),
        ];
        let plan = Plan {
            functions: functions
                .map(|(symbol, object, shape)| function(symbol, object, shape))
                .into(),
            skipped: Vec::new(),
        };
        let mut probed = HashSet::new();
        let mut put_in = |refuses: Option<&str>| {
            let mut put = Vec::new();
            let added = Added::of(&plan, &mut probed, |it| {
                if it.object == 0 && refuses == Some(&it.symbol) {
                    return Err(AttachError::TooManyLate);
                }
                put.push((it.symbol.clone(), it.object));
                Ok(())
            })?;
            assert_eq!(
                (added.functions, added.refused.len()),
                (put.len(), usize::from(refuses.is_some()))
            );
            Ok::<_, AttachError>(put)
        };
        let named = |all: &[(&str, usize)]| -> Vec<_> {
            let named = all
                .iter()
                .map(|(symbol, object)| ((*symbol).to_owned(), *object));
            named.collect()
        };
        assert_eq!(put_in(Some("free"))?, named(&[("free", 1), ("malloc", 1)]));
        assert_eq!(put_in(Some("realloc"))?, named(&[("free", 0)]));
        assert_eq!(put_in(Some("malloc"))?, named(&[("realloc", 0)]));
        assert_eq!(put_in(None)?, named(&[("malloc", 0)]));
        assert_eq!(put_in(None)?, named(&[]));
        Ok(())
    }

    #[test]
    fn what_is_no_matter_of_one_probe_ends_it() {
        let plan = Plan {
            functions: vec![function("free", 0, CallShape::Free)],
            skipped: Vec::new(),
        };
        let put = |_: &_| Err(AttachError::TooManyProcesses);
        let added = Added::of(&plan, &mut HashSet::new(), put);
        assert!(matches!(added, Err(AttachError::TooManyProcesses)));
        let put = |_: &_| Err(AttachError::TooManyFiles);
        assert!(Added::of(&plan, &mut HashSet::new(), put).is_ok());
    }
}
