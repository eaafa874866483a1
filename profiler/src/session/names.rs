//! Looks the names of native frames up in a thread of its own. A recording waits for that thread no longer than it
//! wants to: an answer that does not come in time comes later, or the frame has no name.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
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
    process::{Root, TargetFile},
    symbolize::{CodeAddress, ModuleFile, Symbol, Symbolizer},
};

/// Native frames of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// The object.
    pub object: u16,
    /// The number of each frame, and the file offset that it returns to.
    pub frames: Vec<(u32, u64)>,
}

/// The answer for some places.
pub struct Named {
    /// The places, as in the question.
    pub places: Places,
    /// The functions of each place; none where there are none.
    pub symbols: Vec<Vec<Symbol>>,
    /// A note for the user, which comes once.
    pub note: Option<String>,
    /// At how many of the places names are missing that residue could not read, or that found no room.
    pub nameless: u64,
}

/// A question, with all that its answer needs: the process and the object's name may be gone when the thread
/// answers.
struct Job {
    places: Places,
    path: PathBuf,
    file: Arc<TargetFile>,
    root: Arc<Root>,
    build_id: Option<Vec<u8>>,
}

/// The thread that looks names up, and how many questions it still has.
pub struct Names {
    jobs: Sender<Job>,
    answers: Receiver<Named>,
    /// How many frames have a question without an answer.
    unanswered: usize,
}

impl Default for Names {
    fn default() -> Self {
        let (jobs, work) = channel::<Job>();
        let (done, answers) = channel();
        // The thread ends when this value, and with it the last sender of jobs, is dropped.
        let reader = thread::Builder::new().name("names".to_owned());
        // If the thread cannot be started, nobody takes jobs, and nothing has a name.
        let _ = reader.spawn(move || {
            let mut worker = Worker {
                symbolizer: Symbolizer::with_helper(),
                is_barred_told: false,
            };
            for job in work {
                if done.send(worker.answer(job)).is_err() {
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
    /// Asks for the names of places in an object. Returns whether the question is on its way: without a thread
    /// there is nobody to ask, and about an object that residue cannot read there is nothing to ask.
    pub fn ask(&mut self, object: &Object, places: Places) -> bool {
        let Some(file) = object.file.clone() else {
            return true;
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

    /// The answers that have come by now or, if some are missing, by `deadline`.
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

    /// How many frames have no answer yet.
    pub const fn unanswered(&self) -> usize {
        self.unanswered
    }
}

/// The thread's state.
struct Worker {
    symbolizer: Symbolizer,
    /// Whether the note that residue cannot open debug files in a root has been made.
    is_barred_told: bool,
}

impl Worker {
    /// Answers a question. A panic over a file must not end the recording, even if it shows a defect of residue's.
    fn answer(&mut self, job: Job) -> Named {
        let module = job.module();
        let answer = catch_unwind(AssertUnwindSafe(|| job.answer(&mut self.symbolizer)));
        let (symbols, mut note, nameless) = answer.unwrap_or_else(|_| {
            self.symbolizer.give_up(module);
            (job.no_names(), Some(confusing(&job.path)), job.count())
        });
        if note.is_none() && !self.is_barred_told && job.root.is_barred() {
            self.is_barred_told = true;
            note = Some(BARRED.to_owned());
        }
        Named {
            places: job.places,
            symbols,
            note,
            nameless,
        }
    }
}

/// The note for a residue that is root, and may not act for anybody else.
const BARRED: &str = "no debug files are read in the roots of processes, and functions there may have no names: \
                      give residue CAP_SETUID and CAP_SETGID";

/// The functions at each place, a note, and how many places lack a name.
type Answer = (Vec<Vec<Symbol>>, Option<String>, u64);

impl Job {
    fn module(&self) -> ModuleFile<'_> {
        ModuleFile {
            path: &self.path,
            file: &self.file,
            root: Some(&self.root),
            build_id: self.build_id.as_deref(),
        }
    }

    fn count(&self) -> u64 {
        self.places.frames.len() as u64
    }

    fn no_names(&self) -> Vec<Vec<Symbol>> {
        vec![Vec::new(); self.places.frames.len()]
    }

    fn answer(&self, symbolizer: &mut Symbolizer) -> Answer {
        let frames = self.places.frames.iter();
        let addresses: Vec<_> = frames.map(|frame| CodeAddress::Return(frame.1)).collect();
        if symbolizer.has_given_up(self.module()) {
            return (self.no_names(), None, self.count());
        }
        let (left_out, shortened) = (symbolizer.left_out(), symbolizer.shortened());
        match symbolizer.symbolize(self.module(), &addresses) {
            Ok(symbols) => {
                let is_left_out = symbolizer.left_out() > left_out;
                let note = is_left_out.then(|| too_large(&self.path));
                (symbols, note, symbolizer.shortened() - shortened)
            }
            Err(error) => (self.no_names(), Some(error.to_string()), self.count()),
        }
    }
}

fn confusing(path: &Path) -> String {
    format!(
        "the symbols of {} confuse residue: its frames are named by offset, check the file",
        path.display()
    )
}

fn too_large(path: &Path) -> String {
    format!(
        "there is no room for the debug information of {}: its functions are named by its symbols, without lines",
        path.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_thread_nobody_answers() -> std::io::Result<()> {
        let object = Object {
            path: PathBuf::from("/proc/self/exe"),
            file: Some(Arc::new(TargetFile::behind(Path::new("/proc/self/exe"))?)),
            root: Arc::new(Root::host()?),
            build_id: None,
            interpreter: false,
        };
        let places = Places {
            object: 1,
            frames: vec![(0, 64)],
        };
        let mut names = Names {
            jobs: channel().0,
            ..Names::default()
        };
        assert!(!names.ask(&object, places));
        assert_eq!(names.unanswered(), 0);
        Ok(())
    }
}
