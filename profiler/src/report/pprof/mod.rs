//! pprof: gzipped protocol buffers with the sample types of Go's heap profiles, in their order.

mod messages;

use std::collections::HashMap;
use std::hash::Hash;
use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use prost::Message;

use crate::profile::{Figures, Frame, FrameId, Profile, StackProfile, Tier};
use crate::report::{Measure, units};

/// Type and unit of each value of a sample.
const SAMPLE_TYPES: [(&str, &str); 4] = [
    ("alloc_objects", "count"),
    ("alloc_space", "bytes"),
    ("inuse_objects", "count"),
    ("inuse_space", "bytes"),
];

pub(super) fn write(profile: &Profile, tier: Tier, out: &mut impl Write) -> io::Result<()> {
    let mut gzip = GzEncoder::new(out, Compression::default());
    gzip.write_all(&encode(profile, tier).encode_to_vec())?;
    gzip.finish()?;
    Ok(())
}

fn encode(profile: &Profile, tier: Tier) -> messages::Profile {
    let mut tables = Tables::new();
    let samples = profile
        .tier(tier)
        .iter()
        .map(|stack| tables.sample(profile, stack))
        .collect();
    let sample_type = SAMPLE_TYPES
        .map(|(name, unit)| tables.value_type(name, unit))
        .to_vec();
    let period_type = Some(tables.value_type("space", "bytes"));
    let default_sample_type = tables.string("inuse_space");
    let comment = comments(profile)
        .iter()
        .map(|it| tables.string(it))
        .collect();
    messages::Profile {
        sample_type,
        sample: samples,
        mapping: tables.mappings,
        location: tables.locations,
        function: tables.functions,
        string_table: tables.strings,
        time_nanos: signed(profile.span.start_ns),
        duration_nanos: signed(profile.span.duration_ns()),
        period_type,
        period: 1,
        comment,
        default_sample_type,
    }
}

/// Who was recorded, what was lost, and what was remarked: `go tool pprof -comments` prints them.
fn comments(profile: &Profile) -> Vec<String> {
    let mut comments = vec![format!(
        "{}, {}",
        units::targets(profile),
        units::span(profile.span)
    )];
    comments.extend(
        profile
            .lost()
            .map(|it| format!("lost: {} {}", it.value, it.meaning)),
    );
    for by in [Measure::Outstanding, Measure::Allocated] {
        if let Some(share) = units::walked_share(profile, by) {
            let noun = by.noun();
            comments.push(format!(
                "{share} of the {noun} bytes have a stack of their own"
            ));
        }
    }
    comments.extend(profile.notes.iter().map(|note| note.text.clone()));
    comments
}

/// The tables that samples refer to. Ids begin at 1, because 0 means none.
struct Tables<'a> {
    strings: Vec<String>,
    string_ids: HashMap<String, usize>,
    mappings: Vec<messages::Mapping>,
    mapping_ids: HashMap<&'a str, usize>,
    functions: Vec<messages::Function>,
    function_ids: HashMap<(&'a str, Option<&'a str>), usize>,
    locations: Vec<messages::Location>,
    location_ids: HashMap<&'a [FrameId], usize>,
}

impl<'a> Tables<'a> {
    fn new() -> Self {
        Self {
            strings: vec![String::new()],
            string_ids: HashMap::from([(String::new(), 0)]),
            mappings: Vec::new(),
            mapping_ids: HashMap::new(),
            functions: Vec::new(),
            function_ids: HashMap::new(),
            locations: Vec::new(),
            location_ids: HashMap::new(),
        }
    }

    fn string(&mut self, text: &str) -> i64 {
        if let Some(id) = self.string_ids.get(text) {
            return *id as i64;
        }
        let id = self.strings.len();
        self.strings.push(text.to_owned());
        self.string_ids.insert(text.to_owned(), id);
        id as i64
    }

    fn value_type(&mut self, name: &str, unit: &str) -> messages::ValueType {
        messages::ValueType {
            r#type: self.string(name),
            unit: self.string(unit),
        }
    }

    fn sample(&mut self, profile: &'a Profile, stack: &'a StackProfile) -> messages::Sample {
        let Figures {
            inuse_bytes,
            inuse_objects,
            alloc_bytes,
            alloc_objects,
        } = stack.figures;
        let target = stack.target.and_then(|index| profile.targets.get(index));
        messages::Sample {
            // A frame that is inlined shares the location of the next outer one that is not.
            location_id: stack
                .frames
                .split_inclusive(|id| !profile.frame(*id).inlined)
                .map(|frames| self.location(profile, frames))
                .collect(),
            value: [alloc_objects, alloc_bytes, inuse_objects, inuse_bytes]
                .map(signed)
                .to_vec(),
            label: target
                .map(|target| messages::Label {
                    key: self.string("pid"),
                    num: target.pid.into(),
                })
                .into_iter()
                .collect(),
        }
    }

    fn location(&mut self, profile: &'a Profile, frames: &'a [FrameId]) -> u64 {
        let (id, is_new) = number(&mut self.location_ids, frames);
        if is_new {
            let line = frames
                .iter()
                .map(|frame| self.line(profile.frame(*frame)))
                .collect();
            let module = frames
                .last()
                .and_then(|id| profile.frame(*id).module.as_deref());
            let mapping_id = module.map_or(0, |module| self.mapping(module));
            self.locations.push(messages::Location {
                id,
                mapping_id,
                line,
            });
        }
        id
    }

    fn line(&mut self, frame: &'a Frame) -> messages::Line {
        messages::Line {
            function_id: self.function(frame),
            line: frame.line.unwrap_or(0).into(),
        }
    }

    fn function(&mut self, frame: &'a Frame) -> u64 {
        let key = (frame.name.as_str(), frame.file.as_deref());
        let (id, is_new) = number(&mut self.function_ids, key);
        if is_new {
            let name = self.string(&frame.name);
            let filename = self.string(frame.file.as_deref().unwrap_or_default());
            self.functions.push(messages::Function {
                id,
                name,
                system_name: name,
                filename,
            });
        }
        id
    }

    /// Every flag says that symbols are here already: pprof shall not look for its own.
    fn mapping(&mut self, module: &'a str) -> u64 {
        let (id, is_new) = number(&mut self.mapping_ids, module);
        if is_new {
            let filename = self.string(module);
            self.mappings.push(messages::Mapping {
                id,
                filename,
                has_functions: true,
                has_filenames: true,
                has_line_numbers: true,
                has_inline_frames: true,
            });
        }
        id
    }
}

/// The id of `key`, from 1 in the order of their first use, and whether this is that use.
fn number<K: Eq + Hash>(ids: &mut HashMap<K, usize>, key: K) -> (u64, bool) {
    let next = ids.len() + 1;
    let id = *ids.entry(key).or_insert(next);
    (id as u64, id == next)
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
