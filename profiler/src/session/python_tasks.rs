//! Probes by which allocations find the request that an asyncio task works for: on what makes and frees
//! the contexts that tasks run in; and on the queues by which threads are given work.

use std::ffi::OsStr;

use residue_ebpf::abi::{call_shape::CallShape, heap::FunctionInfo};

use super::{
    Config, discovered::Discovered, followed::Followed, python::Python, python_probes::PythonProbed,
};
use crate::{
    attach::{AttachError, Kernel, ProbePoint},
    process::{Avma, LoadedObject, ProcessMemory},
    python::{Contexts, QueueFunctions},
    remark::Remark,
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
}

impl PythonTasks {
    pub const fn new(config: &Config) -> Self {
        Self {
            enabled: config.tracing.allocations && config.tracing.sockets,
        }
    }

    /// Puts the probes into a process whose Python was found, each once, and says from where tasks are made, as soon
    /// as that is loaded. Returns what will not be seen.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn attach(
        &self,
        kernel: &mut Kernel,
        (followed, python): (&Followed, &Python),
        probed: &mut PythonProbed,
        discovered: &Discovered,
    ) -> Result<Option<Remark>, AttachError> {
        if !self.enabled {
            return Ok(None);
        }
        let code = task_code(followed, &discovered.objects);
        if probed.task_code.replace(code) != Some(code) {
            let mut layout = python.interpreter.layout;
            layout.task_code = code;
            kernel.set_python(followed.slot, layout)?;
        }
        if !probed.queues
            && let Some(points) = queue_points(followed, discovered)
        {
            // Once, whatever comes of it: what takes items out may be in.
            probed.queues = true;
            put_in(kernel, followed, &points)?;
        }
        match std::mem::replace(&mut probed.contexts, true) {
            true => Ok(None),
            false => attach_contexts(kernel, (followed, python), discovered),
        }
    }
}

fn attach_contexts(
    kernel: &mut Kernel,
    (followed, python): (&Followed, &Python),
    discovered: &Discovered,
) -> Result<Option<Remark>, AttachError> {
    let contexts = python.interpreter.contexts.as_ref();
    let points = contexts.and_then(|contexts| points(followed, discovered, contexts));
    let Some(points) = points else {
        return Ok(Some(Remark::PythonTasksUnknown));
    };
    put_in(kernel, followed, &points)?;
    Ok(None)
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
    let (holder, offset) = discovered.holder(&followed.process, function)?;
    Some(ProbePoint::new(holder, offset, shape))
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
