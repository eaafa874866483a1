//! Plan: which functions to probe, and at which instruction of each. Pure: bytes of ELF files go
//! in, a [`Plan`] comes out; nothing here reads `/proc` or touches the kernel.
//!
//! `allocators` says what allocators look like, as data. `symbols` finds their functions in one
//! object. `plan` chooses among the objects of a process what symbol resolution would pick. `site`
//! chooses the instruction, by what `encoding` knows of the kernel.

pub mod allocators;
mod encoding;
mod plan;
mod plt;
pub mod python;
mod site;
mod symbols;

pub use plan::{Plan, PlanError, PlannedFunction, ScopeObject, Skipped, plan};
pub use site::{ProbeSite, SiteCost, SitePolicy};
pub use symbols::{AllocatorSymbol, DamagedSymbols, Forward, FunctionCode, ObjectSymbols};
