//! The pprof format: gzipped protocol buffers with the sample types of Go's heap profiles, in their
//! order.

mod messages;

use std::collections::HashMap;
use std::hash::Hash;
use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use prost::Message;

use crate::printable::printable;
use crate::profile::{Figures, Frame, FrameId, LeftProfile, Profile, StackProfile};
use crate::report::rows::{left_behind, rows, walked_share};
use crate::report::{Measure, Options, heading, why_empty};
use crate::requests::record::{Amount, Stage};

/// The type and the unit of one value of a sample.
type SampleType = (&'static str, &'static str);

/// The sample types of memory that the recorder keeps by stack: those of Go's heap profiles, in
/// their order.
const HEAP: [SampleType; 4] = [
    ("alloc_objects", "count"),
    ("alloc_space", "bytes"),
    ("inuse_objects", "count"),
    ("inuse_space", "bytes"),
];
/// The sample types of what requests retained.
const RETAINED: [SampleType; 2] = [("retained_objects", "count"), ("retained_space", "bytes")];
/// The sample types of what survived requests.
const SURVIVORS: [SampleType; 2] = [("survivor_objects", "count"), ("survivor_space", "bytes")];

pub(super) fn write(profile: &Profile, shown: Options<'_>, out: &mut impl Write) -> io::Result<()> {
    let mut gzip = GzEncoder::new(out, Compression::default());
    gzip.write_all(&encode(profile, shown).encode_to_vec())?;
    gzip.finish()?;
    Ok(())
}

fn encode(profile: &Profile, shown: Options<'_>) -> messages::Profile {
    let mut tables = Tables::new();
    let (types, sample) = match shown.by.stage() {
        None => heap_samples(profile, shown, &mut tables),
        Some(stage) => request_samples(profile, stage, shown, &mut tables),
    };
    let sample_type = types.iter();
    let sample_type = sample_type.map(|(name, unit)| tables.value_type(name, unit));
    let sample_type = sample_type.collect();
    // Go's default type is the last one, and so is the default of request types.
    let default_sample_type = types.last().map_or(0, |(name, _)| tables.string(name));
    let period_type = Some(tables.value_type("space", "bytes"));
    let comment = comments(profile, shown);
    let comment = comment.iter().map(|text| tables.string(text)).collect();
    messages::Profile {
        sample_type,
        sample,
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

/// The sample types of a profile, and its samples.
type Samples = (&'static [SampleType], Vec<messages::Sample>);

fn heap_samples<'a>(profile: &'a Profile, shown: Options<'_>, tables: &mut Tables<'a>) -> Samples {
    let sample = |stack: &'a StackProfile| {
        let Figures {
            inuse_bytes,
            inuse_objects,
            alloc_bytes,
            alloc_objects,
        } = stack.figures;
        messages::Sample {
            location_id: tables.stack(profile, &stack.frames),
            value: [alloc_objects, alloc_bytes, inuse_objects, inuse_bytes]
                .map(signed)
                .to_vec(),
            label: tables.pid(profile, stack.target).into_iter().collect(),
        }
    };
    let stacks = profile.tier(shown.tier).iter();
    (&HEAP, stacks.map(sample).collect())
}

/// Makes samples with labels. Labels are texts, because Pyroscope reads no others. Only the pid is
/// a number.
fn request_samples<'a>(
    profile: &'a Profile,
    stage: Stage,
    shown: Options<'a>,
    tables: &mut Tables<'a>,
) -> Samples {
    let types = match stage {
        Stage::Retained => &RETAINED,
        Stage::Survivors => &SURVIVORS,
    };
    let sample = |left: &'a LeftProfile| {
        let Amount { bytes, objects } = left.amount;
        let mut label = tables.texts(left);
        label.extend(tables.pid(profile, left.target));
        messages::Sample {
            location_id: tables.stack(profile, &left.frames),
            value: [objects, bytes].map(signed).to_vec(),
            label,
        }
    };
    let left = left_behind(profile, stage, shown.route);
    (types, left.map(sample).collect())
}

/// Says who was recorded, what was lost, and what the recorder remarked. `go tool pprof -comments`
/// prints these lines.
fn comments(profile: &Profile, shown: Options<'_>) -> Vec<String> {
    let mut comments = vec![format!(
        "{}, {}",
        heading::targets(profile),
        heading::span(profile.span)
    )];
    comments.extend(
        profile
            .lost()
            .map(|counter| format!("lost: {} {}", counter.value, counter.meaning)),
    );
    let measures = match shown.by.stage() {
        None => &[Measure::Outstanding, Measure::Allocated][..],
        Some(_) => &[shown.by],
    };
    for by in measures {
        if let Some(share) = walked_share(&rows(profile, Options { by: *by, ..shown })) {
            let which = match shown.by.stage() {
                None => by.noun(),
                Some(_) => "shown",
            };
            comments.push(format!(
                "{share} of the {which} bytes have a stack of their own"
            ));
        }
    }
    comments.extend(why_empty(profile, shown).map(str::to_owned));
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

    /// Adds a string. Every text of the profile comes through here.
    fn string(&mut self, text: &str) -> i64 {
        let text = &*printable(text);
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

    fn label(&mut self, key: &str, text: &str) -> messages::Label {
        messages::Label {
            key: self.string(key),
            str: self.string(text),
            num: 0,
        }
    }

    fn texts(&mut self, left: &LeftProfile) -> Vec<messages::Label> {
        let method = left.route.method();
        let texts = [
            ("route", Some(left.route.template().to_owned())),
            ("method", method.map(|method| method.name().to_owned())),
            ("status", left.status.map(|status| status.to_string())),
        ];
        let texts = texts
            .iter()
            .filter_map(|(key, text)| Some((key, text.as_ref()?)));
        texts.map(|(key, text)| self.label(key, text)).collect()
    }

    fn pid(&mut self, profile: &Profile, target: Option<usize>) -> Option<messages::Label> {
        let target = profile.targets.get(target?)?;
        Some(messages::Label {
            key: self.string("pid"),
            str: 0,
            num: target.pid.into(),
        })
    }

    /// Finds the locations of a stack. An inlined frame shares the location of the next outer frame
    /// that is not inlined.
    fn stack(&mut self, profile: &'a Profile, frames: &'a [FrameId]) -> Vec<u64> {
        let locations = frames.split_inclusive(|id| !profile.frame(*id).inlined);
        locations
            .map(|frames| self.location(profile, frames))
            .collect()
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

    /// Finds the id of a mapping. All flags are set, so that pprof takes the symbols as they are
    /// and does not look for its own.
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

/// Returns the id of `key`, counted from 1 in the order of first use, and whether this is the first
/// use.
fn number<K: Eq + Hash>(ids: &mut HashMap<K, usize>, key: K) -> (u64, bool) {
    let next = ids.len() + 1;
    let id = *ids.entry(key).or_insert(next);
    (id as u64, id == next)
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
