//! The sink that writes a capture.

use std::path::PathBuf;

use super::{Keeps, ProcessEnd, Sink, SinkError, Tally};
use crate::{
    capture::{BackgroundWriter, CaptureError, Interval, Meta, Process},
    private_file::Given,
    remark::Remark,
};

/// A capture at a path. The file is made when the recording begins, and an older capture there is replaced then.
pub struct CaptureFile {
    path: PathBuf,
    writer: Option<BackgroundWriter>,
}

impl CaptureFile {
    /// Nothing is written yet.
    #[must_use]
    pub const fn at(path: PathBuf) -> Self {
        Self { path, writer: None }
    }

    fn write(
        &mut self,
        write: impl FnOnce(&mut BackgroundWriter) -> Result<(), CaptureError>,
    ) -> Result<(), SinkError> {
        if let Some(writer) = &mut self.writer {
            write(writer)?;
        }
        Ok(())
    }
}

impl Sink for CaptureFile {
    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn keeps(&self) -> Keeps {
        Keeps::Everything
    }

    fn begin(&mut self, meta: &Meta) -> Result<Option<Remark>, SinkError> {
        let writer = BackgroundWriter::create(&self.path, meta)?;
        let stays_roots = writer.given() == Given::Refused;
        self.writer = Some(writer);
        Ok(stays_roots.then_some(Remark::StaysRoots))
    }

    fn follow(&mut self, process: &Process) -> Result<(), SinkError> {
        self.write(|writer| writer.add_process(process.clone()))
    }

    fn retire(&mut self, end: &ProcessEnd) -> Result<(), SinkError> {
        self.write(|writer| writer.end_process(end.process, end.at_ns, &end.reason))
    }

    fn remark(&mut self, at_ns: u64, remark: &Remark) -> Result<(), SinkError> {
        match remark.is_passing() {
            true => Ok(()),
            false => self.write(|writer| writer.note(at_ns, remark.to_string())),
        }
    }

    fn interval(&mut self, interval: &Interval, _: &Tally) -> Result<(), SinkError> {
        self.write(|writer| writer.write_interval(interval))
    }

    fn finish(&mut self, ended_ns: u64) -> Result<(), SinkError> {
        match self.writer.take() {
            Some(writer) => Ok(writer.finish(ended_ns)?),
            None => Ok(()),
        }
    }
}
