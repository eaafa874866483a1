//! Request windows. A window is the time in which one thread or task works on one request. This
//! room tells what each request leaves behind.
//!
//! The code here decides nothing about a live process: fragments of heads and finished windows come
//! in as plain data.
//!
//! ```text
//! fragments of heads ─▶ head ─▶ route ─▶ record ─▶ line   one line for each request
//!                                           │  └───▶ table  one row for each route
//!                                           └──────▶ survivors: the windows whose grace is over
//!                                                        └──▶ growth: whether a route goes on growing
//! growth by interval ──────────────────────────────▶ estimate: by route, where nothing could be bound
//! ```
//!
//! Nothing secret gets further than [`head`]: no query, no body, and no header except the request id.

pub mod growth;
pub mod head;
pub mod record;
pub mod route;
pub mod survivors;
pub mod table;
pub mod track;

#[cfg(test)]
mod tests;
