//! Compares the stacks that residue walks in the kernel with those that framehop walks, frame by
//! frame.
//!
//! `residue record --sample-stacks FILE` writes, for some allocations, the registers, a copy of the
//! stack, and the frames that the kernel side walked. framehop unwinds the same copy by the same
//! objects' unwind sections, which it reads by code that shares nothing with residue's:
//!
//! ```text
//! FILE ─▶ sample ─▶ walk (framehop) ─▶ compare ─▶ summary
//! /proc/PID ─▶ code, object ──▲          names of places ──▲
//! ```
//!
//! Addresses are AVMAs, and return addresses, as in
//! [`RawFrame`](residue_ebpf::abi::frame::RawFrame).

pub mod classes;
pub mod code;
pub mod compare;
pub mod growing;
pub mod object;
pub mod run;
pub mod sample;
pub mod summary;
pub mod walk;
