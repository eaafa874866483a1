//! Probes by which allocations find the request that an asyncio task works for: on what makes and frees
//! the contexts that tasks run in; and on the queues by which threads are given work.

use std::{
    collections::{HashMap, HashSet},
    ffi::OsStr,
};

use residue_ebpf::abi::{call_shape::CallShape, heap::FunctionInfo, python::PythonLayout};

use super::{Config, discovered::Discovered, followed::Followed};
use crate::{
    attach::{AttachError, Kernel, ProbePoint},
    process::{Avma, LoadedObject, ProcessMemory},
    python::{Contexts, QueueFunctions},
};

/// The module that makes tasks, unless it is linked into the interpreter:
/// `_asyncio.cpython-313-x86_64-linux-gnu.so`.
const TASKS: &str = "_asyncio.";
/// The module of the queues that pools of threads have.
const QUEUES: &str = "_queue.";

/// The tasks of a recording's Pythons.
pub struct PythonTasks {
    /// Whether there are requests to find.
    enabled: bool,
    probed: HashSet<u16>,
    /// Processes whose queues were found.
    with_queues: HashSet<u16>,
    /// By process, the code that makes tasks, AVMAs.
    code: HashMap<u16, [u64; 2]>,
}

impl PythonTasks {
    pub fn new(config: &Config) -> Self {
        Self {
            enabled: config.tracing.allocations && config.tracing.sockets,
            probed: HashSet::new(),
            with_queues: HashSet::new(),
            code: HashMap::new(),
        }
    }

    /// Puts the probes into a process whose Python was found, once, and says from where tasks are made,
    /// as soon as that is loaded. Returns what will not be seen.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn attach(
        &mut self,
        kernel: &mut Kernel,
        followed: &Followed,
        discovered: &Discovered,
    ) -> Result<Option<String>, AttachError> {
        let Some(python) = followed.python.as_ref().filter(|_| self.enabled) else {
            return Ok(None);
        };
        let code = task_code(followed, &discovered.objects);
        if self.code.insert(followed.slot, code) != Some(code) {
            let layout = PythonLayout {
                task_code: code,
                ..python.interpreter.layout
            };
            kernel.set_python(followed.slot, layout)?;
        }
        if !self.with_queues.contains(&followed.slot)
            && let Some(points) = queue_points(followed, discovered)
        {
            // Once, whatever comes of it: what takes items out may be in.
            self.with_queues.insert(followed.slot);
            put_in(kernel, followed, &points)?;
        }
        if !self.probed.insert(followed.slot) {
            return Ok(None);
        }
        let contexts = python.interpreter.contexts.as_ref();
        let points = contexts.and_then(|contexts| points(followed, discovered, contexts));
        let Some(points) = points else {
            return Ok(Some(
                "where its contexts (contextvars) are was not found: what asyncio tasks allocate is \
                 not told apart by request"
                    .to_owned(),
            ));
        };
        put_in(kernel, followed, &points)?;
        Ok(None)
    }
}

fn put_in(
    kernel: &mut Kernel,
    followed: &Followed,
    points: &[ProbePoint<'_>],
) -> Result<(), AttachError> {
    let pid = followed.pid();
    for point in points {
        kernel.attach_function(followed.slot, pid, point, FunctionInfo::default())?;
    }
    Ok(())
}

/// First what takes items out; none while the module is not loaded.
fn queue_points<'a>(
    followed: &Followed,
    discovered: &'a Discovered,
) -> Option<Vec<ProbePoint<'a>>> {
    let module = module(&discovered.objects, QUEUES)?;
    let mappings = followed.process.mappings().iter();
    let parts = mappings.filter(|it| it.file == Some(module.file));
    let parts: Vec<_> = parts.map(|it| [it.start, it.end]).collect();
    let memory = ProcessMemory::of(&followed.process)?;
    let functions = QueueFunctions::find(&parts, &memory)?;
    let at = |function, shape| point(followed, discovered, function, shape);
    let take = functions.take.into_iter();
    let take = take.map(|take| at(take, CallShape::PythonItemTaken));
    let exits = functions.exits.into_iter();
    let taken = take.chain(exits.map(|exit| at(exit, CallShape::PythonItemReturned)));
    let put = functions.put.map(|put| at(put, CallShape::PythonItemPut));
    taken.chain(put).collect()
}

/// First what frees contexts: an address that is used again belongs to nobody until then.
fn points<'a>(
    followed: &Followed,
    discovered: &'a Discovered,
    contexts: &Contexts,
) -> Option<Vec<ProbePoint<'a>>> {
    let at = |function, shape| point(followed, discovered, function, shape);
    let freed = at(contexts.dealloc, CallShape::PythonContextFreed);
    let makers = contexts.makers.iter();
    let made = makers.map(|maker| at(*maker, CallShape::PythonContextMade));
    std::iter::once(freed).chain(made).collect()
}

fn point<'a>(
    followed: &Followed,
    discovered: &'a Discovered,
    function: Avma,
    shape: CallShape,
) -> Option<ProbePoint<'a>> {
    let (mapping, offset) = followed.process.mappings().locate(function)?;
    let mut objects = discovered.objects.iter();
    let holder = objects.find(|object| Some(object.file) == mapping.file)?;
    Some(ProbePoint {
        object: holder.opened.path(),
        name: &holder.path,
        file_offset: offset.0,
        shape,
    })
}

/// The code that makes asyncio's tasks, AVMAs: `[start, end)`; zero if it is not loaded.
fn task_code(followed: &Followed, objects: &[LoadedObject]) -> [u64; 2] {
    let module = module(objects, TASKS);
    let mut mappings = followed.process.mappings().iter();
    let text = mappings.find(|it| it.executable && it.file == module.map(|it| it.file));
    text.filter(|it| it.file.is_some())
        .map_or([0; 2], |text| [text.start.0, text.end.0])
}

/// A module of Python's own by how its file's name begins, if it is loaded.
fn module<'a>(objects: &'a [LoadedObject], name: &str) -> Option<&'a LoadedObject> {
    objects.iter().find(|object| {
        let file_name = object.path.file_name().and_then(OsStr::to_str);
        file_name.is_some_and(|it| it.starts_with(name))
    })
}
