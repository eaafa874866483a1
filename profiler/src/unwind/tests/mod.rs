//! What a walk would do with a table, against what gimli makes of the same bytes.

mod elf;
mod fuzz;
mod laid_out;
mod oracle;
mod real_objects;
mod rules;
mod tables;
