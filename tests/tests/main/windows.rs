//! Request windows: one for each request that a server answers, with what the request left behind.

mod escaped;
mod memory;
mod privacy;
mod protocol;
mod servers;
mod targets;
mod tasks;
