//! Request windows: the time in which one thread or task works on one request, and what it leaves
//! behind.
//!
//! This is the part that decides nothing about a live process: fragments of heads and finished windows
//! come in as plain data.
//!
//! ```text
//! fragments of heads ─▶ head ─▶ route ─▶ record ─▶ line   one line a request
//!                                           │  └───▶ table  one row a route
//!                                           └──────▶ survivors: whose retained bytes are final by now
//!                                                        └──▶ growth: by route, whether they go on growing
//! growth by interval ──────────────────────────────▶ estimate: by route, where nothing could be bound
//! ```
//!
//! Nothing secret gets further than [`head`]: no query, no body, and no header but the request id.

pub mod estimate;
pub mod growth;
pub mod head;
pub mod line;
pub mod record;
pub mod route;
pub mod survivors;
pub mod table;
pub mod track;

#[cfg(test)]
mod tests;
