//! In which order the dynamic linker searches objects, and which of them were there from the start.
//! Pure: the objects' own statements of what they need, and the linker's list if there is one.

use std::collections::VecDeque;

/// What an object says about linking.
#[derive(Clone, Copy, Debug)]
pub(super) struct Linkage<'a> {
    /// `DT_NEEDED`, in order.
    pub needed: &'a [Vec<u8>],
    /// `DT_SONAME`.
    pub soname: Option<&'a [u8]>,
    /// The last part of its path.
    pub file_name: &'a [u8],
}

impl Linkage<'_> {
    fn is_needed_by(&self, other: &Linkage<'_>) -> bool {
        other.needed.iter().any(|name| {
            let name = name.rsplit(|byte| *byte == b'/').next().unwrap_or(name);
            Some(name) == self.soname || name == self.file_name
        })
    }
}

/// The objects that were loaded at startup, in search order: what the executable (the first one)
/// and the preloaded ones need, breadth first, as the linker does it.
///
/// `objects` may be in any order when `listed` is false. Otherwise they come in the order of the
/// linker's list, where preloaded ones stand between the executable and the first that it needs.
pub(super) fn loaded_at_startup(objects: &[Linkage<'_>], listed: bool) -> Vec<usize> {
    let Some(executable) = objects.first() else {
        return Vec::new();
    };
    let first_needed = objects
        .iter()
        .position(|object| object.is_needed_by(executable));
    let preloaded = first_needed.filter(|_| listed).unwrap_or(1);
    let mut found: Vec<usize> = (0..preloaded).collect();
    let mut queue: VecDeque<usize> = found.iter().copied().collect();
    while let Some(parent) = queue.pop_front() {
        for name in objects[parent].needed {
            let parent = Linkage {
                needed: std::slice::from_ref(name),
                ..objects[parent]
            };
            let child = objects
                .iter()
                .position(|object| object.is_needed_by(&parent));
            if let Some(child) = child.filter(|child| !found.contains(child)) {
                found.push(child);
                queue.push_back(child);
            }
        }
    }
    if listed {
        found.sort_unstable();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Objects by name, each with the names it needs.
    fn startup(objects: &[(&str, &[&str])], listed: bool) -> Vec<usize> {
        let needed: Vec<Vec<Vec<u8>>> = objects
            .iter()
            .map(|(_, needed)| needed.iter().map(|name| name.as_bytes().to_vec()).collect())
            .collect();
        let linkage: Vec<_> = objects
            .iter()
            .zip(&needed)
            .map(|((name, _), needed)| Linkage {
                needed,
                soname: Some(name.as_bytes()),
                file_name: b"",
            })
            .collect();
        loaded_at_startup(&linkage, listed)
    }

    #[test]
    fn a_preloaded_library_was_there_from_the_start_and_a_dlopened_one_was_not() {
        let objects: &[(&str, &[&str])] = &[
            ("server", &["libm", "libc"]),
            ("libjemalloc", &["libc"]),
            ("libm", &["libc"]),
            ("libc", &["ld.so"]),
            ("ld.so", &[]),
            ("plugin", &["libc"]),
        ];
        assert_eq!(startup(objects, true), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn without_the_linkers_list_the_order_is_breadth_first() {
        let objects: &[(&str, &[&str])] = &[
            ("server", &["libz", "libb"]),
            ("liba", &[]),
            ("libb", &[]),
            ("libz", &["liba"]),
            ("plugin", &[]),
        ];
        assert_eq!(startup(objects, false), [0, 3, 2, 1]);
    }

    #[test]
    fn libraries_that_need_each_other_end() {
        assert_eq!(startup(&[("a", &["b"]), ("b", &["a", "b"])], true), [0, 1]);
        assert_eq!(startup(&[], true), [0; 0]);
    }
}
