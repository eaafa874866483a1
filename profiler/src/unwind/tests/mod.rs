//! Compares what a walk would do by a table with what gimli makes of the same bytes.

mod elf;
mod fuzz;
mod laid_out;
mod oracle;
mod real_objects;
mod rules;
mod tables;
