//! What is outstanding, as far as user space keeps it. Pure.
//!
//! The kernel side keeps the allocator's blocks and their totals by stack. Memory mappings are
//! ranges, which split and overlap; they are kept here.

pub mod ranges;
