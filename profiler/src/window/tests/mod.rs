//! The parts by themselves, and hostile input.

mod fuzz;
mod head;
