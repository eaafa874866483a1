//! Probes for windows beside those of sockets: on functions, static probes and TLS libraries.

use std::collections::{HashMap, HashSet};

use residue_ebpf::abi::{call_shape::CallShape, heap::FunctionInfo};

use super::{SessionError, discovered::Discovered, followed::Followed, windows::Windows};
use crate::{
    attach::{AttachError, Kernel, ProbePoint},
    probes::{
        SitePolicy,
        windows::{SourceError, SourceObject, WindowProbe, WindowSource, plan_tls},
    },
    process::{FileKey, FileOffset, LoadedObject},
    requests::route::Route,
};

/// See the module documentation.
pub struct WindowProbes {
    sources: Vec<WindowSource>,
    sites: SitePolicy,
    /// By process.
    probed: HashSet<(u16, (FileKey, FileOffset, CallShape))>,
    /// What was found in no process so far, and why.
    missing: HashMap<WindowSource, SourceError>,
    found: HashSet<WindowSource>,
    told: HashSet<String>,
}

impl WindowProbes {
    pub fn new(sources: &[WindowSource], sites: SitePolicy) -> Self {
        Self {
            sources: sources.to_vec(),
            sites,
            probed: HashSet::new(),
            missing: HashMap::new(),
            found: HashSet::new(),
            told: HashSet::new(),
        }
    }

    /// Puts probes into a process where there are none yet, and names the windows that they will open.
    /// Returns what will not be seen.
    ///
    /// # Errors
    ///
    /// When the kernel refuses, or the process is gone.
    pub fn attach(
        &mut self,
        (kernel, windows): (&mut Kernel, &mut Windows),
        followed: &Followed,
        discovered: &Discovered,
    ) -> Result<Vec<String>, AttachError> {
        let read;
        let objects = match &discovered.objects[..] {
            // Allocations are not followed: nobody has looked.
            [] => {
                read = followed.process.loaded_objects().objects;
                &read
            }
            objects => objects,
        };
        let (objects, described) = self.describe(objects);
        let mut notes = Vec::new();
        if self.sources.contains(&WindowSource::Http) {
            let tls = plan_tls(&described, self.sites);
            notes.extend(tls.not_followed);
            if !tls.probes.is_empty() {
                windows.decrypts(followed.slot);
            }
            for probe in &tls.probes {
                self.probe((kernel, followed), &objects, probe)?;
            }
        }
        for source in self.sources.clone() {
            match source.plan(&described, self.sites) {
                Ok(probes) => {
                    for probe in &probes {
                        let function = self.probe((kernel, followed), &objects, probe)?;
                        if let Some(function) = function {
                            windows.add_source(function, Route::named(&source.to_string()));
                        }
                    }
                    self.found.insert(source);
                }
                Err(error) => {
                    self.missing.insert(source, error);
                }
            }
        }
        notes.retain(|note| self.told.insert(note.clone()));
        Ok(notes)
    }

    /// Objects that can be read, and what there is to know of them.
    fn describe<'a>(
        &self,
        objects: &'a [LoadedObject],
    ) -> (Vec<&'a LoadedObject>, Vec<SourceObject>) {
        // An allocator in one that cannot be read is not seen either, which is told already.
        let readable = objects
            .iter()
            .filter_map(|object| Some((object, SourceObject::of(object, &self.sources).ok()?)));
        readable.unzip()
    }

    /// Puts a probe in, unless it is there; returns its number.
    fn probe(
        &mut self,
        (kernel, followed): (&mut Kernel, &Followed),
        objects: &[&LoadedObject],
        probe: &WindowProbe,
    ) -> Result<Option<u32>, AttachError> {
        let key = (followed.slot, probe.key());
        if self.probed.contains(&key) {
            return Ok(None);
        }
        let object = objects[probe.object];
        let point = ProbePoint {
            object: object.opened.path(),
            name: &object.path,
            file_offset: probe.site.file_offset.0,
            shape: probe.shape,
        };
        let info = FunctionInfo::default();
        let function = kernel.attach_function(followed.slot, followed.pid(), &point, info)?;
        self.probed.insert(key);
        Ok(Some(function))
    }

    /// What these probes show of a process, and nothing else does.
    pub fn seen_in(&self, slot: u16) -> Vec<&'static str> {
        use CallShape::{SslFree, SslRead, SslReadEx, SslWrite, SslWriteEx};
        let probed = self.probed.iter().filter(|(process, _)| *process == slot);
        let is_tls = |shape| matches!(shape, SslRead | SslReadEx | SslWrite | SslWriteEx | SslFree);
        let of_tls: HashSet<bool> = probed.map(|(_, probe)| is_tls(probe.2)).collect();
        let all = [
            (true, "further requests through TLS"),
            (false, "further windows of its functions and static probes"),
        ];
        let seen = all
            .into_iter()
            .filter(|(is_tls, _)| of_tls.contains(is_tls));
        seen.map(|(_, what)| what).collect()
    }

    /// Whether everything that was asked for is in some process.
    ///
    /// # Errors
    ///
    /// With what is in none of them.
    pub fn check(&mut self) -> Result<(), SessionError> {
        let found = &self.found;
        let mut missing = self.missing.drain();
        let missing = missing.find(|(source, _)| !found.contains(source));
        missing.map_or(Ok(()), |(_, error)| Err(error.into()))
    }
}
