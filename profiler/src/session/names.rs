//! Looks the names of native frames up in a thread of its own. A recording never waits for it longer than it
//! wants to: what is not answered in time is answered later, or has no name.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::Instant,
};

use super::code::Object;
use crate::{
    symbolize::{CodeAddress, ModuleFile, Symbol, SymbolizeError, Symbolizer},
    target::{Root, TargetFile},
};

/// Native frames of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// The object.
    pub object: u16,
    /// The number of each frame, and where it returns to, file offset.
    pub frames: Vec<(u32, u64)>,
}

/// What was found for some places.
pub struct Named {
    /// As they were asked for.
    pub places: Places,
    /// The functions of each; none where there are none.
    pub symbols: Vec<Vec<Symbol>>,
    /// What whoever records should know, told once.
    pub note: Option<String>,
    /// Whether the object takes too much to read, now and later.
    pub hopeless: bool,
}

/// A question, with all that its answer needs: the process, and the object's name, may be gone by then.
struct Job {
    places: Places,
    path: PathBuf,
    file: Arc<TargetFile>,
    root: Arc<Root>,
    build_id: Option<Vec<u8>>,
}

/// See the module documentation.
pub struct Names {
    jobs: Sender<Job>,
    answers: Receiver<Named>,
    /// How many frames were asked for and not answered yet.
    unanswered: usize,
}

impl Default for Names {
    fn default() -> Self {
        let (jobs, work) = channel::<Job>();
        let (done, answers) = channel();
        // Ends when this is dropped, and with it the last sender of jobs. Without room for a thread nobody takes
        // jobs, and there are no names.
        let _ = thread::Builder::new()
            .name("names".to_owned())
            .spawn(move || {
                let mut symbolizer = Symbolizer::with_helper();
                for job in work {
                    if done.send(job.answer(&mut symbolizer)).is_err() {
                        return;
                    }
                }
            });
        Self {
            jobs,
            answers,
            unanswered: 0,
        }
    }
}

impl Names {
    /// Asks for the names of places in an object. Returns whether there will be an answer.
    pub fn ask(&mut self, object: &Object, places: Places) -> bool {
        let Some(file) = object.file.clone() else {
            return false;
        };
        let frames = places.frames.len();
        let job = Job {
            places,
            path: object.path.clone(),
            file,
            root: Arc::clone(&object.root),
            build_id: object.build_id.clone(),
        };
        let is_asked = self.jobs.send(job).is_ok();
        if is_asked {
            self.unanswered += frames;
        }
        is_asked
    }

    /// What is answered by now, or, if that is not all, by `deadline`.
    pub fn answered(&mut self, deadline: Instant) -> Vec<Named> {
        let mut answered = Vec::new();
        while self.unanswered > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(named) = self.answers.recv_timeout(left) else {
                break;
            };
            self.unanswered -= named.places.frames.len();
            answered.push(named);
        }
        answered
    }

    /// How many frames are not answered yet.
    pub const fn unanswered(&self) -> usize {
        self.unanswered
    }
}

impl Job {
    fn answer(self, symbolizer: &mut Symbolizer) -> Named {
        let module = ModuleFile {
            path: &self.path,
            file: &self.file,
            root: Some(&self.root),
            build_id: self.build_id.as_deref(),
        };
        let frames = self.places.frames.iter();
        let addresses: Vec<_> = frames.map(|it| CodeAddress::Return(it.1)).collect();
        let left_out = symbolizer.left_out();
        let (symbols, note, hopeless) = match symbolizer.symbolize(module, &addresses) {
            Ok(symbols) if symbolizer.left_out() == left_out => (symbols, None, false),
            Ok(symbols) => (symbols, Some(too_large(&self.path)), false),
            Err(error) => {
                let hopeless = matches!(error, SymbolizeError::Hostile { .. });
                let nothing = vec![Vec::new(); addresses.len()];
                (nothing, Some(error.to_string()), hopeless)
            }
        };
        Named {
            places: self.places,
            symbols,
            note,
            hopeless,
        }
    }
}

fn too_large(path: &Path) -> String {
    format!(
        "there is no room for the debug information of {}: its functions are named by its symbols, without lines",
        path.display()
    )
}
