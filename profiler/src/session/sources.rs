//! Probes for windows beside those of sockets: on functions, static probes and TLS libraries.

use std::collections::{HashMap, HashSet};

use residue_ebpf::abi::{call_shape::CallShape, heap::FunctionInfo};

use super::{SessionError, discovered::Discovered, followed::Followed, windows::Windows};
use crate::{
    attach::{AttachError, Kernel, ProbePoint},
    ids::FunctionId,
    probes::{
        SitePolicy,
        windows::{SourceError, SourceObject, WindowProbe, WindowSource, plan_tls},
    },
    process::{FileKey, FileOffset, LoadedObject},
    remark::Remark,
    requests::route::Route,
};

/// What puts probes for windows into processes.
pub struct WindowProbes {
    sources: Vec<WindowSource>,
    sites: SitePolicy,
    /// What was found in no process so far, and why.
    missing: HashMap<WindowSource, SourceError>,
    found: HashSet<WindowSource>,
    told: HashSet<String>,
}

/// Which probes for windows one process has.
#[derive(Debug, Default)]
pub struct WindowProbed(HashSet<(FileKey, FileOffset, CallShape)>);

impl WindowProbes {
    pub fn new(sources: &[WindowSource], sites: SitePolicy) -> Self {
        Self {
            sources: sources.to_vec(),
            sites,
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
        followed: &mut Followed,
        discovered: &Discovered,
    ) -> Result<Vec<Remark>, AttachError> {
        let read = match discovered.objects[..] {
            // Allocations are not followed: nobody has looked.
            [] => followed.process.loaded_objects().objects,
            _ => Vec::new(),
        };
        let (objects, described) = self.describe(discovered.objects.iter().chain(&read));
        let mut notes = Vec::new();
        if self.sources.contains(&WindowSource::Http) {
            let tls = plan_tls(&described, self.sites);
            notes.extend(tls.not_followed);
            if !tls.probes.is_empty() {
                windows.decrypts(followed.slot);
            }
            for probe in &tls.probes {
                put(kernel, followed, &objects, probe)?;
            }
        }
        self.attach_sources((kernel, windows), followed, (&objects, &described))?;
        notes.retain(|note| self.told.insert(note.clone()));
        Ok(notes.into_iter().map(Remark::NotProbed).collect())
    }

    fn attach_sources(
        &mut self,
        (kernel, windows): (&mut Kernel, &mut Windows),
        followed: &mut Followed,
        (objects, described): (&[&LoadedObject], &[SourceObject]),
    ) -> Result<(), AttachError> {
        for source in &self.sources {
            match source.plan(described, self.sites) {
                Ok(probes) => {
                    for probe in &probes {
                        if let Some(function) = put(kernel, followed, objects, probe)? {
                            windows.add_source(function, Route::named(&source.to_string()));
                        }
                    }
                    self.found.insert(source.clone());
                }
                Err(error) => {
                    self.missing.insert(source.clone(), error);
                }
            }
        }
        Ok(())
    }

    /// Objects that can be read, and what there is to know of them.
    fn describe<'a>(
        &self,
        objects: impl Iterator<Item = &'a LoadedObject>,
    ) -> (Vec<&'a LoadedObject>, Vec<SourceObject>) {
        // An allocator in one that cannot be read is not seen either, which is told already.
        let readable = objects
            .filter_map(|object| Some((object, SourceObject::of(object, &self.sources).ok()?)));
        readable.unzip()
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

/// Puts a probe in, unless it is there; returns its number.
fn put(
    kernel: &mut Kernel,
    followed: &mut Followed,
    objects: &[&LoadedObject],
    probe: &WindowProbe,
) -> Result<Option<FunctionId>, AttachError> {
    let key = probe.key();
    if followed.window_probes.0.contains(&key) {
        return Ok(None);
    }
    let object = objects[probe.object];
    let point = ProbePoint::new(object, probe.site.file_offset, probe.shape);
    let info = FunctionInfo::default();
    let function = kernel.attach_function(followed.slot, followed.pid(), &point, info)?;
    followed.window_probes.0.insert(key);
    Ok(Some(function))
}

impl WindowProbed {
    /// What these probes show of the process, and nothing else does.
    pub fn shows(&self) -> Vec<&'static str> {
        use CallShape::{SslFree, SslRead, SslReadEx, SslWrite, SslWriteEx};
        let is_tls = |shape| matches!(shape, SslRead | SslReadEx | SslWrite | SslWriteEx | SslFree);
        let of_tls: HashSet<bool> = self.0.iter().map(|probe| is_tls(probe.2)).collect();
        let all = [
            (true, "further requests through TLS"),
            (false, "further windows of its functions and static probes"),
        ];
        let shown = all
            .into_iter()
            .filter(|(is_tls, _)| of_tls.contains(is_tls));
        shown.map(|(_, what)| what).collect()
    }
}
