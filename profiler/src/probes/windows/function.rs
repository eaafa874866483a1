//! Plans the probes that make each call of a function a window.

use std::{collections::HashSet, path::PathBuf};

use residue_ebpf::abi::call_shape::CallShape;

use super::object::{is_named, is_similar, whole, without_part};
use super::{SourceObject, WindowProbe, listed};
use crate::{
    probes::{
        FunctionSymbol, ProbeSite, SitePolicy, demangle,
        exits::{self, NoExits},
    },
    process::FileOffset,
};

/// Why residue cannot make the calls of a function windows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FunctionError {
    /// No object has the function.
    #[error(
        "no function {name} is in the process: {}",
        match &similar[..] {
            "" => "give a symbol as `nm` shows it, or a path such as app::jobs::run; a stripped program \
                   has none but those that it exports".to_owned(),
            similar => format!("there is {similar}"),
        }
    )]
    NotFound {
        /// The name that the user gave.
        name: String,
        /// Similar names; may be empty.
        similar: String,
    },
    /// An object has several such functions.
    #[error(
        "{name} is {count} functions of {object}: give the symbol of one of them, {candidates}"
    )]
    Ambiguous {
        /// The name that the user gave.
        name: String,
        /// How many there are.
        count: usize,
        /// The object that has the function.
        object: PathBuf,
        /// Their symbols.
        candidates: String,
    },
    /// The function is in an object that Go made.
    #[error(
        "{name} is in {object}, which Go made: a goroutine changes threads and stacks, so no window \
         can be bound to a call there"
    )]
    Go {
        /// The name that the user gave.
        name: String,
        /// The object that has the function.
        object: PathBuf,
    },
    /// Residue finds no place for a probe.
    #[error("{name} in {object} cannot be probed: {reason}; give another function")]
    NotProbed {
        /// The name that the user gave.
        name: String,
        /// The object that has the function.
        object: PathBuf,
        /// Why there is none.
        reason: &'static str,
    },
    /// An exception may leave the function, and residue does not know all exits of the function.
    #[error(
        "{name} in {object} may be left by an exception, which a return probe would break, and {}: \
         give the function that calls it, or build it with -fno-optimize-sibling-calls", why.reason()
    )]
    MayThrow {
        /// The name that the user gave.
        name: String,
        /// The object that has the function.
        object: PathBuf,
        /// Why residue would need a return probe.
        why: NoExits,
    },
}

/// Plans the probes for the function of this name in the first object, in search order, that has one.
pub(super) fn plan(
    name: &str,
    objects: &[SourceObject],
    policy: SitePolicy,
) -> Result<Vec<WindowProbe>, FunctionError> {
    for (index, object) in objects.iter().enumerate() {
        let found = find(name, object)?;
        if found.is_empty() {
            continue;
        }
        let throws = objects.iter().any(|object| object.throws);
        let mut probes = Vec::new();
        for function in found {
            let plan = Planned {
                name,
                index,
                object,
                function,
            };
            probes.extend(plan.probes(policy, throws)?);
        }
        return Ok(probes);
    }
    let similar = objects.iter().flat_map(|object| &object.similar);
    let similar = similar.filter(|similar| is_similar(similar, name));
    Err(FunctionError::NotFound {
        name: name.to_owned(),
        similar: listed(similar.map(String::as_str)),
    })
}

/// Finds the function of an object that has this symbol, or else the function that the source calls so, together
/// with the variants that the compiler has made of the function. Empty if there is none.
fn find<'a>(
    name: &str,
    object: &'a SourceObject,
) -> Result<Vec<&'a FunctionSymbol>, FunctionError> {
    let all = object.functions.iter();
    let mut found: Vec<_> = all.filter(|known| is_named(&known.name, name)).collect();
    keep_any(&mut found, |known| {
        known.name == name || whole(&known.name) == name
    });
    found.sort_by_key(|known| known.address);
    found.dedup_by_key(|known| known.address);
    let is_original = |known: &&FunctionSymbol| whole(&known.name) == known.name;
    let (mut originals, variants): (Vec<_>, Vec<_>) = found.into_iter().partition(is_original);
    keep_any(&mut originals, |original| original.global);
    found = [originals, variants].concat();
    let is_one = |several: &[&FunctionSymbol]| {
        let names: HashSet<_> = several.iter().map(|known| &known.name).collect();
        let originals: HashSet<_> = names.iter().map(|name| whole(name)).collect();
        names.len() == several.len() && originals.len() <= 1
    };
    if is_one(&found) {
        return Ok(found);
    }
    Err(FunctionError::Ambiguous {
        name: name.to_owned(),
        count: found.len(),
        object: object.path.clone(),
        candidates: candidates(&found),
    })
}

/// Keeps only the preferred functions, if there are any.
fn keep_any<'a>(
    found: &mut Vec<&'a FunctionSymbol>,
    is_preferred: impl Fn(&&'a FunctionSymbol) -> bool,
) {
    if found.iter().any(&is_preferred) {
        found.retain(is_preferred);
    }
}

/// Lists what tells functions of one name apart.
fn candidates(functions: &[&FunctionSymbol]) -> String {
    let described = functions
        .iter()
        .map(|function| match demangle::readable(&function.name) {
            readable if readable == function.name => format!("{readable} at {}", function.address),
            readable => format!("{} ({readable})", function.name),
        });
    let described: Vec<_> = described.collect();
    listed(described.iter().map(String::as_str))
}

/// The function that residue has found, and for what.
struct Planned<'a> {
    name: &'a str,
    index: usize,
    object: &'a SourceObject,
    function: &'a FunctionSymbol,
}

impl Planned<'_> {
    /// Plans probes at the entry and at the exits. Where residue does not know the exits, and no exception can
    /// pass, a return probe takes their place.
    fn probes(&self, policy: SitePolicy, throws: bool) -> Result<Vec<WindowProbe>, FunctionError> {
        let (name, object) = (self.name.to_owned(), self.object.path.clone());
        if self.object.is_go {
            return Err(FunctionError::Go { name, object });
        }
        if self.function.indirect {
            return Err(self.not_probed("it is chosen at run time (IFUNC)"));
        }
        let start = self.function.file_offset;
        let start = start.ok_or_else(|| self.not_probed("it is in no text segment"))?;
        match self.exits(start) {
            Ok(mut probes) => {
                probes.push(self.entry(start, CallShape::WindowEnter, policy)?);
                Ok(probes)
            }
            Err(NoExits::Never) => Err(self.not_probed(NoExits::Never.reason())),
            Err(why) if throws => Err(FunctionError::MayThrow { name, object, why }),
            Err(_) => Ok(vec![self.entry(
                start,
                CallShape::WindowFunction,
                policy,
            )?]),
        }
    }

    fn entry(
        &self,
        start: FileOffset,
        shape: CallShape,
        policy: SitePolicy,
    ) -> Result<WindowProbe, FunctionError> {
        let function = self.function;
        let place = (function.address, start);
        let site = ProbeSite::choose(&function.name, place, &function.code, shape, policy);
        Ok(self.probe(shape, site.map_err(|reason| self.not_probed(reason))?))
    }

    fn exits(&self, start: FileOffset) -> Result<Vec<WindowProbe>, NoExits> {
        let function = self.function;
        let is_part = |other: &&FunctionSymbol| {
            other.name != function.name && without_part(&other.name) == function.name
        };
        let mut parts = vec![(function, start)];
        let others = self.object.functions.iter().filter(is_part);
        parts.extend(others.filter_map(|part| Some((part, part.file_offset?))));
        let code = parts.iter().map(|(part, _)| (part.address, &part.code));
        let code: Vec<_> = code.collect();
        let exits = exits::exits(&code)?.into_iter().filter_map(|address| {
            parts.iter().find_map(|(part, start)| {
                let into = address.0.checked_sub(part.address.0)?;
                let bytes = part.code.bytes.get(usize::try_from(into).ok()?..)?;
                let at = start.checked_add(into)?;
                let reason = "where it returns";
                let site = ProbeSite::of(&part.name, into, (address, at), bytes, reason);
                Some(self.probe(CallShape::WindowLeave, site))
            })
        });
        Ok(exits.collect())
    }

    fn probe(&self, shape: CallShape, site: ProbeSite) -> WindowProbe {
        WindowProbe {
            shape,
            object: self.index,
            file: self.object.file,
            site,
        }
    }

    fn not_probed(&self, reason: &'static str) -> FunctionError {
        FunctionError::NotProbed {
            name: self.name.to_owned(),
            object: self.object.path.clone(),
            reason,
        }
    }
}
