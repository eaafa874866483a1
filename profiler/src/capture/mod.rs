//! The recording is one SQLite file, the only place where recording and reporting meet.
//!
//! The recorder hands a [`Writer`] what is new since the last interval. Each interval is one
//! transaction, so a kill at any moment loses at most the interval that is being written. A report
//! calls [`read`] and gets the whole recording as plain data, on any machine and without
//! privileges. `docs/capture.md` documents the tables for whoever queries them directly.
//!
//! ```no_run
//! use residue::capture::{self, Interval, Meta, Writer};
//!
//! let path = "out.residue".as_ref();
//! let mut writer = Writer::create(path, &Meta::default())?;
//! writer.write_interval(Interval { at_ns: 1, ..Interval::default() })?;
//! writer.finish(2)?;
//! assert!(capture::read(path)?.ended_ns.is_some());
//! # Ok::<(), capture::CaptureError>(())
//! ```

mod background;
mod error;
mod header;
mod image;
mod journal;
mod kept;
mod load;
mod lock;
mod place;
mod reader;
mod record;
mod rows;
mod schema;
mod snapshot;
mod tables;
mod vfs;
mod writer;

#[cfg(test)]
mod tests;

pub use crate::heap::{Figures, MappingOwner};
pub use background::BackgroundWriter;
pub use error::CaptureError;
pub use place::check_output;
pub use reader::{Capture, Ended, UnboundAt, Windows, read};
pub use record::{
    Frame, FrameKind, Interval, MappingTotals, Meta, Module, Note, PYTHON_OBJECTS_OPTION, Process,
    Stack, unix_ns,
};
pub use schema::SCHEMA_VERSION;
pub use writer::Writer;
