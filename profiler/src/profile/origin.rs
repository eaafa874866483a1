//! Tells whose code a frame is.

use super::culprit::{LIBRARIES, WITH_PYTHON, begins_as, has_any, is_runtime};
use super::frames::base_name;
use super::{Frame, Target};
use crate::capture::FrameKind;

/// Whose code a frame is, as far as names can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Code of the program itself.
    Application,
    /// Code of a package that somebody installed for the interpreter, interpreted or compiled.
    Framework,
    /// Code of the interpreter, and of what comes with it.
    Interpreter,
    /// Code of any other compiled library, such as the C library or the allocator.
    Native,
    /// Code that the kernel maps into every process.
    Kernel,
    /// No code: the frame is a marker for something unknown.
    Unknown,
}

/// How the file names of interpreters begin.
const INTERPRETERS: [&str; 2] = ["libpython", "python3"];
/// How the names of CPython's functions begin, where CPython is linked into the program itself.
const PYTHON_FUNCTIONS: [&str; 4] = ["_Py", "PyObject_", "PyMem_", "PyEval_"];

/// Tells whose code a frame is: see [`super::Profile::origin`].
pub(super) fn of(frame: &Frame, targets: &[Target]) -> Origin {
    match (frame.kind, frame.file.as_deref()) {
        (FrameKind::Python, Some(path)) => python(path),
        (FrameKind::Python, None) => Origin::Interpreter,
        (FrameKind::Native, file) => native(frame, file, targets),
    }
}

fn python(path: &str) -> Origin {
    if has_any(path, LIBRARIES) {
        Origin::Framework
    } else if has_any(path, WITH_PYTHON) {
        Origin::Interpreter
    } else {
        Origin::Application
    }
}

fn native(frame: &Frame, file: Option<&str>, targets: &[Target]) -> Origin {
    let Some(module) = frame.module.as_deref() else {
        return match file {
            None if frame.name.starts_with('[') => Origin::Unknown,
            None => Origin::Native,
            Some(_) => Origin::Application,
        };
    };
    let is_program = targets.iter().any(|target| target.exe == module);
    if module == "[vdso]" || module == "[vsyscall]" {
        Origin::Kernel
    } else if begins_as(base_name(module), &INTERPRETERS)
        || begins_as(&frame.name, &PYTHON_FUNCTIONS)
    {
        Origin::Interpreter
    } else if has_any(module, LIBRARIES) {
        Origin::Framework
    } else if has_any(module, WITH_PYTHON) {
        Origin::Interpreter
    } else if !is_runtime(frame) && (is_program || frame.line.is_some()) {
        Origin::Application
    } else {
        Origin::Native
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(kind: FrameKind, name: &str, file: Option<&str>, module: Option<&str>) -> Origin {
        let frame = Frame {
            kind,
            name: name.into(),
            file: file.map(Into::into),
            line: file.map(|_| 7),
            module: module.map(Into::into),
            inlined: false,
        };
        let program = Target {
            exe: "/srv/app/server".into(),
            ..Target::default()
        };
        of(&frame, &[program])
    }

    #[test]
    fn python_code_is_told_apart_by_where_it_lies() {
        let of = |file| origin(FrameKind::Python, "f", Some(file), None);
        assert_eq!(of("/srv/app/views.py"), Origin::Application);
        let django = "/srv/venv/lib/python3.11/site-packages/django/http.py";
        assert_eq!(of(django), Origin::Framework);
        assert_eq!(
            of("/usr/lib/python3.11/json/decoder.py"),
            Origin::Interpreter
        );
        assert_eq!(of("<frozen importlib._bootstrap>"), Origin::Interpreter);
    }

    #[test]
    fn native_code_is_told_apart_by_its_module() {
        let of = |name, file, module| origin(FrameKind::Native, name, file, Some(module));
        assert_eq!(of("handle", None, "/srv/app/server"), Origin::Application);
        assert_eq!(of("malloc", None, "/srv/app/server"), Origin::Native);
        assert_eq!(
            of("open", Some("a.cc"), "/srv/app/lib.so"),
            Origin::Application
        );
        assert_eq!(of("SSL_new", None, "/lib/libssl.so.3"), Origin::Native);
        assert_eq!(
            of("malloc", Some("malloc.c"), "/lib/libc.so.6"),
            Origin::Native
        );
        assert_eq!(of("f", None, "/usr/bin/python3.11"), Origin::Interpreter);
        let numpy = "/v/lib/python3.11/site-packages/numpy/core.so";
        assert_eq!(of("f", None, numpy), Origin::Framework);
        assert_eq!(of("__vdso_time", None, "[vdso]"), Origin::Kernel);
    }

    #[test]
    fn what_stands_for_something_unknown_is_no_code() {
        let cut = origin(FrameKind::Native, "[stack cut: no table]", None, None);
        assert_eq!(cut, Origin::Unknown);
    }
}
