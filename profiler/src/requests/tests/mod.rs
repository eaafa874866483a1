//! Tests of heads, with hostile input.

mod fuzz;
mod head;
