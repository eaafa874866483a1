//! Makes unwind tables in a thread of its own, so that recording need not wait for them.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, SendError, Sender, TryRecvError, channel},
    },
    thread,
    time::Instant,
};

use crate::{process::TargetFile, unwind::UnwindTable};

/// Where an object can be read.
pub enum Source {
    /// An ELF file.
    File(Arc<TargetFile>),
    /// An ELF file as it lies in memory.
    Image(Vec<u8>),
}

/// An object's id and its table, if it has one.
type Loaded = (u16, Option<UnwindTable>);

/// See the module documentation.
pub struct Loader {
    jobs: Sender<(u16, Source)>,
    loaded: Receiver<Loaded>,
    /// Tables that were waited for and not asked for yet.
    ready: Vec<Loaded>,
    under_way: usize,
}

impl Default for Loader {
    fn default() -> Self {
        let (jobs, work) = channel::<(u16, Source)>();
        let (done, loaded) = channel();
        // Ends when this loader is dropped, and with it the last sender of jobs.
        let reader = thread::Builder::new().name("tables".to_owned());
        // Without room for a thread nobody takes jobs, and each is done where it is given.
        let _ = reader.spawn(move || {
            for (object, source) in work {
                if done.send((object, read(source))).is_err() {
                    return;
                }
            }
        });
        Self {
            jobs,
            loaded,
            ready: Vec::new(),
            under_way: 0,
        }
    }
}

impl Loader {
    /// Begins to read an object.
    pub fn start(&mut self, object: u16, source: Source) {
        match self.jobs.send((object, source)) {
            Ok(()) => self.under_way += 1,
            Err(SendError((object, source))) => self.ready.push((object, read(source))),
        }
    }

    /// A table that is ready. An object that has none, or a damaged one, gives `None` as its table.
    pub fn next_ready(&mut self) -> Option<Loaded> {
        if let Some(loaded) = self.ready.pop() {
            return Some(loaded);
        }
        match self.loaded.try_recv() {
            Ok(loaded) => {
                self.under_way -= 1;
                Some(loaded)
            }
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => None,
        }
    }

    /// Waits until no table is under way, or until `deadline`.
    pub fn wait(&mut self, deadline: Instant) {
        while self.under_way > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.loaded.recv_timeout(left) {
                Ok(loaded) => {
                    self.under_way -= 1;
                    self.ready.push(loaded);
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return,
            }
        }
    }
}

/// A damaged object must not end the recording, even if it finds a defect of ours.
fn read(source: Source) -> Option<UnwindTable> {
    let read = || match source {
        Source::File(file) => UnwindTable::read(&file.data()),
        Source::Image(bytes) => UnwindTable::read(&bytes[..]),
    };
    catch_unwind(AssertUnwindSafe(read)).ok()?.ok()
}
