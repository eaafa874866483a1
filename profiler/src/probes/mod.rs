//! Plans which functions to probe, and at which instruction of each. Pure: the bytes of ELF files go in,
//! and a [`Plan`] comes out; nothing here reads `/proc` or touches the kernel.
//!
//! `allocators` describes the allocators, as data. `symbols` finds their functions in one object. `plan`
//! chooses, among the objects of a process, the functions that symbol resolution would pick. `site` chooses
//! the instruction, and `encoding` knows what each instruction costs in the kernel.
//!
//! Functions of the program itself can open and close windows: `functions` finds such functions by name,
//! `demangle` knows what the source calls them, `exits` finds where they return, and `sdt` reads static
//! probes. `windows` plans the probes for all windows but those of plain sockets.
//!
//! `loaded` reads the objects of a process. `walkers` recognizes code in a process that takes stacks by
//! itself, because return probes cut such stacks short.

pub mod allocators;
pub mod demangle;
mod encoding;
pub mod exits;
mod functions;
mod loaded;
mod plan;
mod plt;
mod sdt;
pub(crate) mod site;
mod symbols;
pub mod walkers;
pub mod windows;

pub use functions::{FunctionSymbol, SymbolName, functions};
pub use plan::{Plan, PlanError, PlannedFunction, ScopeObject, Skipped, plan, plan_under_way};
pub use sdt::{StaticProbe, static_probes};
pub use site::{ProbeSite, SiteCost, SitePolicy};
pub use symbols::{AllocatorSymbol, DamagedSymbols, Forward, FunctionCode, ObjectSymbols};
