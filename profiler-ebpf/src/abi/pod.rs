//! Lets aya read and write the ABI's types in maps.

use super::{
    cost::ProbeTime,
    heap::{FunctionInfo, ProcessState, StackTotals},
    python::{CodePointers, PythonLayout},
    unwind::{CodeMapping, ObjectState, PageChunk, RowChunk, Rule, TaskOffsets},
    window::SocketOffsets,
};

macro_rules! pod {
    ($($name:ty),+ $(,)?) => {$(
        // SAFETY: repr(C), integers only, no padding (the size asserts beside the type).
        unsafe impl aya::Pod for $name {}
    )+};
}

pod!(
    CodeMapping,
    CodePointers,
    FunctionInfo,
    ObjectState,
    PageChunk,
    ProbeTime,
    ProcessState,
    PythonLayout,
    RowChunk,
    Rule,
    SocketOffsets,
    StackTotals,
    TaskOffsets,
);
