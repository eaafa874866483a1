//! Residue against real processes. One binary, one module a promise.
//!
//! Needs root (the kernel lets nobody else load probes), `cargo build --release -p residue`, and
//! the packages in `tests/packages.txt`; a test that lacks one says `SKIPPED` and its name. The
//! knobs are in `residue_tests::machine`.

mod bounded;
mod captures;
mod cost;
mod endings;
mod exactness;
mod files;
mod harmless;
mod kernel;
mod localized;
mod oracle;
mod outputs;
mod policy;
mod python;
mod python_inspect;
mod python_objects;
mod reading;
mod redis;
mod refusals;
mod several;
mod shared_maps;
mod sinks;
mod slots;
mod stack_walkers;
mod stacks;
mod targets;
mod window_sites;
mod window_sources;
mod windows;
mod windows_estimates;
