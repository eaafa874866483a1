//! Probes by which allocations find the request that an asyncio task works for: on what makes and frees
//! the contexts that tasks run in.

use std::ffi::OsStr;

use residue_ebpf::abi::{call_shape::CallShape, heap::FunctionInfo};

use super::followed::{Discovered, Followed};
use crate::{
    attach::{AttachError, Kernel, ProbePoint},
    target::{Avma, LoadedObject},
};

/// The module that makes tasks, unless it is linked into the interpreter:
/// `_asyncio.cpython-313-x86_64-linux-gnu.so`.
const TASKS: &str = "_asyncio.";

/// Puts the probes into a process whose Python was found. Returns what will not be seen.
///
/// # Errors
///
/// When the kernel refuses.
pub fn attach(
    kernel: &mut Kernel,
    followed: &Followed,
    discovered: &Discovered,
) -> Result<Option<String>, AttachError> {
    let Some(python) = &followed.python else {
        return Ok(None);
    };
    let contexts = python.interpreter.contexts.as_ref();
    let points = contexts.and_then(|contexts| {
        // First what frees them: an address that is used again belongs to nobody until then.
        let freed = point(followed, discovered, contexts.dealloc, CallShape::PythonContextFreed);
        let made = contexts.makers.iter();
        let made = made.map(|at| point(followed, discovered, *at, CallShape::PythonContextMade));
        std::iter::once(freed).chain(made).collect::<Option<Vec<_>>>()
    });
    let Some(points) = points else {
        return Ok(Some(
            "where its contexts (contextvars) are was not found: what asyncio tasks allocate is not \
             told apart by request"
                .to_owned(),
        ));
    };
    let pid = followed.process.pid();
    for point in points {
        kernel.attach_function(followed.slot, pid, &point, FunctionInfo::default())?;
    }
    Ok(None)
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
        object: &holder.open_path,
        file_offset: offset.0,
        shape,
    })
}

/// The code that makes asyncio's tasks, AVMAs: `[start, end)`; zero if it is not loaded.
pub fn task_code(followed: &Followed, objects: &[LoadedObject]) -> [u64; 2] {
    let is_tasks = |object: &&LoadedObject| {
        let name = object.path.file_name().and_then(OsStr::to_str);
        name.is_some_and(|name| name.starts_with(TASKS))
    };
    let module = objects.iter().find(is_tasks);
    let mut mappings = followed.process.mappings().iter();
    let text = mappings.find(|it| it.executable && it.file == module.map(|it| it.file));
    text.filter(|it| it.file.is_some())
        .map_or([0; 2], |text| [text.start.0, text.end.0])
}
