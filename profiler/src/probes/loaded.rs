//! Reads what planning needs to know about a loaded object, from the very file that the process has mapped.

use std::io;

use super::{
    DamagedSymbols, ObjectSymbols, ScopeObject,
    windows::{SourceObject, WindowSource},
};
use crate::process::{Load, LoadedObject, UnreadableObject};

impl ScopeObject {
    /// Reads what planning for allocators needs to know.
    ///
    /// # Errors
    ///
    /// When the file is missing or damaged.
    pub fn of(object: &LoadedObject) -> Result<Self, UnreadableObject> {
        let symbols = ObjectSymbols::read(&object.data(), &object.facts.text);
        Ok(Self {
            path: object.path.clone(),
            file: object.file,
            load: object.load,
            is_dynamic: object.load != Load::Executable || !object.facts.is_static(),
            symbols: symbols.map_err(|damaged| unreadable(object, damaged))?,
        })
    }
}

impl SourceObject {
    /// Reads what planning for these sources of windows needs to know.
    ///
    /// # Errors
    ///
    /// When the file is missing or damaged.
    pub fn of(object: &LoadedObject, sources: &[WindowSource]) -> Result<Self, UnreadableObject> {
        let identity = (&*object.path, object.file);
        Self::read(identity, &object.data(), &object.facts, sources)
            .map_err(|damaged| unreadable(object, damaged))
    }
}

fn unreadable(object: &LoadedObject, damaged: DamagedSymbols) -> UnreadableObject {
    UnreadableObject {
        path: object.path.clone(),
        reason: io::Error::other(damaged),
    }
}
