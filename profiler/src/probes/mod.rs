//! Plan: which functions to probe, and at which instruction of each. Pure: bytes of ELF files go
//! in, a [`Plan`] comes out; nothing here reads `/proc` or touches the kernel.
//!
//! `allocators` says what allocators look like, as data. `symbols` finds their functions in one
//! object. `plan` chooses among the objects of a process what symbol resolution would pick. `site`
//! chooses the instruction, by what `encoding` knows of the kernel.
//!
//! Windows open and close at functions of the program's own: `functions` finds those by name, `demangle`
//! knows what the source calls them, `exits` where they return, and `sdt` reads static probes.
//!
//! `windows` plans what opens windows beside sockets. `loaded` reads the objects of a process.
//!
//! `walkers` knows what else in a process takes stacks, which return probes cut.

pub mod allocators;
pub mod demangle;
mod encoding;
pub mod exits;
mod functions;
mod loaded;
mod plan;
mod plt;
pub mod python;
mod sdt;
mod site;
mod symbols;
pub mod walkers;
pub mod windows;

pub use functions::{FunctionSymbol, SymbolName, functions};
pub use plan::{Plan, PlanError, PlannedFunction, ScopeObject, Skipped, plan, plan_under_way};
pub use sdt::{StaticProbe, static_probes};
pub use site::{ProbeSite, SiteCost, SitePolicy};
pub use symbols::{AllocatorSymbol, DamagedSymbols, Forward, FunctionCode, ObjectSymbols};
