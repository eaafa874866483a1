//! The ABI of Residue: all types that cross the kernel boundary, and nothing else.
//!
//! The eBPF programs (`main.rs`, built for `bpfel-unknown-none`) write these types into maps and
//! ring buffers; the `residue` crate reads them. All types are `repr(C)`, have no padding without a
//! name, and are valid for every bit pattern, so user space may read them from raw bytes.
//!
//! Units: sizes and totals are bytes as the caller requested them; addresses are AVMAs (addresses
//! in the target process).
#![no_std]

pub mod abi;
