//! Plain data that maps hold.

pub mod thread;
