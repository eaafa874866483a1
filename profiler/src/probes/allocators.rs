//! The allocators that residue knows, as data. To add an allocator, add an [`AllocatorSpec`].
//!
//! These functions are missing on purpose:
//! - `reallocarray` of glibc and musl: both end in a tail call of `realloc` with the same stack, so the probe
//!   on `realloc` sees the call, with the right caller.
//! - `__libc_malloc` and similar names: they name the same code. Residue puts one probe on names that share a
//!   file offset, as glibc's `memalign` and `aligned_alloc` do.
//! - libstdc++'s plain `operator new`: it calls `malloc`, and leaves the frame pointer alone.
//! - `malloc_usable_size`, `mallctl` and so on: they neither allocate nor free memory.
//! - mimalloc's `mi_heap_calloc`, `mi_heap_realloc` and the like, `mi_expand` and `mi_strdup`: no call shape
//!   fits their arguments. Rust's mimalloc crate calls none of them.

use std::collections::HashMap;
use std::sync::LazyLock;

use residue_ebpf::abi::call_shape::CallShape::{self, *};

/// One function of an allocator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AllocFn {
    /// The symbol, without the prefix of the allocator.
    pub symbol: &'static str,
    /// How callers call the function.
    pub shape: CallShape,
    /// Whether the function reports failure by a C++ exception. Residue must never put a return probe on
    /// such a function: the probe replaces the return address, so the unwinder finds no caller, and the
    /// program terminates instead of catching `bad_alloc`.
    pub throws: bool,
}

/// Which definitions of a function to probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// The definition that symbol resolution picks, and those in libraries that the process loads later.
    Resolved,
    /// As `Resolved`, but only in an object that brings its own allocator. Elsewhere these functions call
    /// `malloc` and `free`, which have probes already.
    ResolvedInAllocator,
    /// As `Resolved`, but only in an executable that is linked statically.
    ResolvedInStatic,
    /// Every definition in every object, because the prefix makes the name the allocator's own.
    Anywhere,
    /// Every definition, if residue finds no allocator that the function calls.
    NothingBelow,
}

/// An allocator: its functions, and where to look for them.
#[derive(Debug)]
pub struct AllocatorSpec {
    /// The name in reports.
    pub name: &'static str,
    /// The prefixes of its symbols, one entry for each flavour of the allocator.
    pub prefixes: &'static [&'static str],
    /// Which definitions to probe.
    pub found: Found,
    /// The functions, in groups that several allocators share.
    pub functions: &'static [&'static [AllocFn]],
}

/// Stands for the allocator that the defining object brings; see [`MARKERS`].
pub const PROVIDER: &str = "libc";

/// All allocators that residue knows. If several symbols have one address, the function gets the name that
/// comes first here.
pub const ALLOCATORS: &[AllocatorSpec] = &[
    AllocatorSpec {
        name: PROVIDER,
        prefixes: &[""],
        found: Found::Resolved,
        functions: &[C_FAMILY, C_MAPPING],
    },
    AllocatorSpec {
        name: PROVIDER,
        prefixes: &[""],
        found: Found::ResolvedInStatic,
        functions: &[C_DIRECT_MAPPING],
    },
    AllocatorSpec {
        name: "jemalloc",
        prefixes: &[""],
        found: Found::Resolved,
        functions: &[JEMALLOC_EXTENSIONS],
    },
    AllocatorSpec {
        name: PROVIDER,
        prefixes: &[""],
        found: Found::ResolvedInAllocator,
        functions: &[CXX_OPERATORS],
    },
    AllocatorSpec {
        name: "jemalloc",
        // jemalloc's own prefix, and those of Rust's tikv-jemalloc-sys and jemalloc-sys.
        prefixes: &["je_", "_rjem_", "_rjem_je_"],
        found: Found::Anywhere,
        functions: &[C_FAMILY, JEMALLOC_EXTENSIONS],
    },
    AllocatorSpec {
        name: "mimalloc",
        prefixes: &["mi_"],
        found: Found::Anywhere,
        functions: &[C_FAMILY, MIMALLOC_EXTENSIONS, MIMALLOC_HEAPS],
    },
    AllocatorSpec {
        name: "tcmalloc",
        prefixes: &["tc_"],
        found: Found::Anywhere,
        functions: &[C_FAMILY, TCMALLOC_OPERATORS],
    },
    AllocatorSpec {
        name: "rust",
        prefixes: &[""],
        found: Found::NothingBelow,
        functions: &[RUST],
    },
];

/// Symbols that tell which allocator an object brings under the names of C.
pub const MARKERS: &[(&str, &str)] = &[
    ("mallctl", "jemalloc"),
    ("TCMallocInternalMalloc", "tcmalloc"),
    ("gnu_get_libc_version", "glibc"),
    ("_dlstart", "musl"),
];

/// The function that rustc's shims call when a program sets a `#[global_allocator]`. In recent versions of
/// Rust the shims call no such function: the program itself defines `__rust_alloc`, and [`RUST_DEFAULT`] is
/// missing.
pub const RUST_CUSTOM: &str = "__rg_alloc";
/// The function that rustc's shims call otherwise. It calls the allocator of the C library.
pub const RUST_DEFAULT: &str = "__rdl_alloc";

const fn function(symbol: &'static str, shape: CallShape) -> AllocFn {
    AllocFn {
        symbol,
        shape,
        throws: false,
    }
}

const fn throwing(symbol: &'static str, shape: CallShape) -> AllocFn {
    AllocFn {
        symbol,
        shape,
        throws: true,
    }
}

const C_FAMILY: &[AllocFn] = &[
    function("malloc", Malloc),
    function("calloc", Calloc),
    function("realloc", Realloc),
    function("free", Free),
    function("posix_memalign", PosixMemalign),
    function("aligned_alloc", AlignedAlloc),
    function("memalign", AlignedAlloc),
    function("valloc", Malloc),
    function("pvalloc", Malloc),
    function("cfree", Free),
    // C23
    function("free_sized", Free),
    function("free_aligned_sized", Free),
];

/// Functions that map memory. Their probes only note the caller, for code without an unwind table (musl); the
/// syscall tracepoints count the memory.
const C_MAPPING: &[AllocFn] = &[
    function("mmap", NoteCaller),
    function("mmap64", NoteCaller),
    function("mremap", NoteCaller),
    function("sbrk", NoteCaller),
];

/// The function for any syscall, for the same purpose. Residue leaves out glibc's: glibc has an unwind table,
/// and programs call its `syscall` whenever they wait for a lock.
const C_DIRECT_MAPPING: &[AllocFn] = &[function("syscall", NoteCaller)];

const JEMALLOC_EXTENSIONS: &[AllocFn] = &[
    function("mallocx", Malloc),
    function("rallocx", Realloc),
    function("xallocx", ResizeInPlace),
    function("dallocx", Free),
    function("sdallocx", Free),
];

/// Itanium mangling: `_Znw` new, `_Zna` new[], `_Zdl` delete, `_Zda` delete[].
const CXX_OPERATORS: &[AllocFn] = &[
    throwing("_Znwm", Malloc),
    throwing("_Znam", Malloc),
    function("_ZnwmRKSt9nothrow_t", Malloc),
    function("_ZnamRKSt9nothrow_t", Malloc),
    throwing("_ZnwmSt11align_val_t", Malloc),
    throwing("_ZnamSt11align_val_t", Malloc),
    function("_ZnwmSt11align_val_tRKSt9nothrow_t", Malloc),
    function("_ZnamSt11align_val_tRKSt9nothrow_t", Malloc),
    function("_ZdlPv", Free),
    function("_ZdaPv", Free),
    function("_ZdlPvm", Free),
    function("_ZdaPvm", Free),
    function("_ZdlPvRKSt9nothrow_t", Free),
    function("_ZdaPvRKSt9nothrow_t", Free),
    function("_ZdlPvSt11align_val_t", Free),
    function("_ZdaPvSt11align_val_t", Free),
    function("_ZdlPvmSt11align_val_t", Free),
    function("_ZdaPvmSt11align_val_t", Free),
    function("_ZdlPvSt11align_val_tRKSt9nothrow_t", Free),
    function("_ZdaPvSt11align_val_tRKSt9nothrow_t", Free),
];

/// mimalloc.h. Unlike C's, its aligned functions take the size first.
const MIMALLOC_EXTENSIONS: &[AllocFn] = &[
    function("zalloc", Malloc),
    function("malloc_small", Malloc),
    function("zalloc_small", Malloc),
    function("mallocn", Calloc),
    function("reallocn", ReallocArray),
    function("reallocf", Realloc),
    function("reallocarray", ReallocArray),
    function("rezalloc", Realloc),
    function("recalloc", ReallocArray),
    function("malloc_aligned", Malloc),
    function("malloc_aligned_at", Malloc),
    function("zalloc_aligned", Malloc),
    function("zalloc_aligned_at", Malloc),
    function("calloc_aligned", Calloc),
    function("calloc_aligned_at", Calloc),
    function("realloc_aligned", Realloc),
    function("realloc_aligned_at", Realloc),
    function("rezalloc_aligned", Realloc),
    function("rezalloc_aligned_at", Realloc),
    function("recalloc_aligned", ReallocArray),
    function("recalloc_aligned_at", ReallocArray),
    function("free_size", Free),
    function("free_size_aligned", Free),
    function("free_aligned", Free),
    throwing("new", Malloc),
    throwing("new_aligned", Malloc),
    function("new_nothrow", Malloc),
    function("new_aligned_nothrow", Malloc),
    throwing("new_n", Calloc),
    throwing("new_realloc", Realloc),
    throwing("new_reallocn", ReallocArray),
];

/// `f(heap, size, …)`. The probe of `aligned_alloc` fits, because it does not use the first argument.
const MIMALLOC_HEAPS: &[AllocFn] = &[
    function("heap_malloc", AlignedAlloc),
    function("heap_zalloc", AlignedAlloc),
    function("heap_malloc_small", AlignedAlloc),
    function("heap_malloc_aligned", AlignedAlloc),
    function("heap_malloc_aligned_at", AlignedAlloc),
    function("heap_zalloc_aligned", AlignedAlloc),
    function("heap_zalloc_aligned_at", AlignedAlloc),
    function("heap_alloc_new", AlignedAlloc),
];

/// gperftools/tcmalloc.h.
const TCMALLOC_OPERATORS: &[AllocFn] = &[
    function("malloc_skip_new_handler", Malloc),
    throwing("new", Malloc),
    throwing("newarray", Malloc),
    function("new_nothrow", Malloc),
    function("newarray_nothrow", Malloc),
    throwing("new_aligned", Malloc),
    throwing("newarray_aligned", Malloc),
    function("new_aligned_nothrow", Malloc),
    function("newarray_aligned_nothrow", Malloc),
    function("delete", Free),
    function("deletearray", Free),
    function("delete_sized", Free),
    function("deletearray_sized", Free),
    function("delete_nothrow", Free),
    function("deletearray_nothrow", Free),
    function("delete_aligned", Free),
    function("deletearray_aligned", Free),
    function("delete_sized_aligned", Free),
    function("deletearray_sized_aligned", Free),
    function("delete_aligned_nothrow", Free),
    function("deletearray_aligned_nothrow", Free),
];

/// The functions that `alloc::alloc` and so on call (library/alloc/src/alloc.rs).
const RUST: &[AllocFn] = &[
    function("__rust_alloc", Malloc),
    function("__rust_alloc_zeroed", Malloc),
    function("__rust_realloc", RustRealloc),
    function("__rust_dealloc", Free),
];

/// The entry of the registry for one symbol.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// The allocator that has this function.
    pub spec: &'static AllocatorSpec,
    /// How callers call the function.
    pub shape: CallShape,
    /// Whether the function reports failure by a C++ exception.
    pub throws: bool,
    /// The place in [`ALLOCATORS`], for choosing among several names of one function.
    pub rank: usize,
}

static BY_NAME: LazyLock<HashMap<String, Known>> = LazyLock::new(|| {
    let mut by_name = HashMap::new();
    for spec in ALLOCATORS {
        for (prefix, function) in spec.prefixes.iter().flat_map(|prefix| {
            spec.functions
                .iter()
                .copied()
                .flatten()
                .map(move |function| (prefix, function))
        }) {
            let known = Known {
                spec,
                shape: function.shape,
                throws: function.throws,
                rank: by_name.len(),
            };
            by_name
                .entry(format!("{prefix}{}", function.symbol))
                .or_insert(known);
        }
    }
    by_name
});

/// The allocator function with this symbol, if residue knows one.
#[must_use]
pub fn find(symbol: &str) -> Option<Known> {
    BY_NAME.get(unmangled(symbol)).copied()
}

/// The function that allocates what the function with this symbol frees or resizes.
#[must_use]
pub fn partner(symbol: &str) -> Option<String> {
    let symbol = unmangled(symbol);
    let releases = |shape: &CallShape| {
        matches!(
            shape,
            Free | Realloc | ReallocArray | ResizeInPlace | RustRealloc
        )
    };
    let spec = find(symbol).filter(|known| releases(&known.shape))?.spec;
    spec.prefixes.iter().find_map(|prefix| {
        let own = symbol.strip_prefix(prefix)?;
        let mut functions = spec.functions.iter().copied().flatten();
        functions.find(|function| function.symbol == own)?;
        let partner = match own {
            "dallocx" | "sdallocx" | "rallocx" | "xallocx" => "mallocx",
            "__rust_dealloc" | "__rust_realloc" => "__rust_alloc",
            _ if own.starts_with("_Zdl") => "_Znwm",
            _ if own.starts_with("_Zda") => "_Znam",
            _ if own.starts_with("deletearray") => "newarray",
            _ if own.starts_with("delete") => "new",
            _ => "malloc",
        };
        Some(format!("{prefix}{partner}"))
    })
}

/// The name inside a symbol such as `_RNvCs…_7___rustc12___rust_alloc` (Rust 1.86 and later; the mangling of
/// RFC 2603 puts an underscore between a length and a name that begins with an underscore). Returns any other
/// symbol unchanged.
#[must_use]
pub fn unmangled(symbol: &str) -> &str {
    let inner = symbol
        .strip_prefix("_RNv")
        .and_then(|rest| rest.split_once("7___rustc"));
    let Some((_, numbered)) = inner else {
        return symbol;
    };
    let name = numbered.trim_start_matches(|c: char| c.is_ascii_digit());
    name.strip_prefix('_').unwrap_or(symbol)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(symbol: &str) -> Option<(&'static str, CallShape)> {
        find(symbol).map(|known| (known.spec.name, known.shape))
    }

    #[test]
    fn functions_are_known_by_every_prefix() {
        assert_eq!(shape("malloc"), Some(("libc", Malloc)));
        assert_eq!(shape("_rjem_sdallocx"), Some(("jemalloc", Free)));
        assert_eq!(shape("_rjem_je_xallocx"), Some(("jemalloc", ResizeInPlace)));
        assert_eq!(shape("mi_realloc_aligned"), Some(("mimalloc", Realloc)));
        assert_eq!(
            shape("tc_posix_memalign"),
            Some(("tcmalloc", PosixMemalign))
        );
        assert_eq!(shape("reallocarray"), None);
        assert_eq!(shape("mi_mmap"), None);
    }

    #[test]
    fn whatever_frees_has_a_partner_that_allocates() {
        let partners = [
            ("free", "malloc"),
            ("_rjem_je_sdallocx", "_rjem_je_mallocx"),
            ("mi_free_size", "mi_malloc"),
            ("tc_deletearray_sized", "tc_newarray"),
            ("_ZdaPvm", "_Znam"),
            (
                "_RNvCsdBezzDwma51_7___rustc14___rust_dealloc",
                "__rust_alloc",
            ),
        ];
        for (frees, allocates) in partners {
            assert_eq!(partner(frees).as_deref(), Some(allocates));
        }
        assert_eq!(partner("realloc").as_deref(), Some("malloc"));
        assert_eq!(partner("malloc"), None);
        for (name, known) in BY_NAME.iter() {
            let partner = partner(name);
            assert!(known.shape != Free || partner.is_some(), "{name}");
            let partner = partner.as_deref();
            assert!(
                partner.is_none_or(|partner| find(partner).is_some()),
                "{name}"
            );
        }
    }

    #[test]
    fn mangled_rust_shims_are_known() {
        let dealloc = "_RNvCsdBezzDwma51_7___rustc14___rust_dealloc";
        assert_eq!(shape(dealloc), Some(("rust", Free)));
        let zeroed = "_RNvCs5QKde7ScR4H_7___rustc19___rust_alloc_zeroed";
        assert_eq!(shape(zeroed), Some(("rust", Malloc)));
        assert_eq!(
            unmangled("_RNvCs5QKde7ScR4H_7___rustc10___rg_alloc"),
            RUST_CUSTOM
        );
        assert_eq!(shape("_RNvCs5QKde7ScR4H_7___rustc"), None);
    }

    #[test]
    fn no_name_has_two_meanings() {
        let names = ALLOCATORS.iter().map(|spec| {
            spec.prefixes.len()
                * spec
                    .functions
                    .iter()
                    .map(|group| group.len())
                    .sum::<usize>()
        });
        assert_eq!(BY_NAME.len(), names.sum::<usize>());
    }
}
