//! Each call of a function is a window.

use std::{collections::HashSet, path::PathBuf};

use residue_ebpf::abi::call_shape::CallShape;

use super::object::{is_named, is_similar, whole, without_part};
use super::{SourceObject, WindowProbe, listed};
use crate::{
    probes::{
        FunctionSymbol, ProbeSite, SitePolicy, demangle,
        exits::{self, NoExits},
    },
    target::FileOffset,
};

/// Why no function can be a window.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FunctionError {
    /// No object has it.
    #[error(
        "no function {name} is in the process: {}",
        match &similar[..] {
            "" => "give a symbol as `nm` shows it, or a path such as app::jobs::run; a stripped program \
                   has none but those that it exports".to_owned(),
            similar => format!("there is {similar}"),
        }
    )]
    NotFound {
        /// As asked for.
        name: String,
        /// Names like it; may be empty.
        similar: String,
    },
    /// An object has several.
    #[error(
        "{name} is {count} functions of {object}: give the symbol of one of them, {candidates}"
    )]
    Ambiguous {
        /// As asked for.
        name: String,
        /// How many there are.
        count: usize,
        /// Where.
        object: PathBuf,
        /// Their symbols.
        candidates: String,
    },
    /// A Go function.
    #[error(
        "{name} is in {object}, which Go made: a goroutine changes threads and stacks, so no window \
         can be bound to a call there"
    )]
    Go {
        /// As asked for.
        name: String,
        /// Where.
        object: PathBuf,
    },
    /// Without a site.
    #[error("{name} in {object} cannot be probed: {reason}; give another function")]
    NotProbed {
        /// As asked for.
        name: String,
        /// Where.
        object: PathBuf,
        /// Why.
        reason: &'static str,
    },
    /// An exception may leave it, and not all its exits are known.
    #[error(
        "{name} in {object} may be left by an exception, which a return probe would break, and {}: \
         give the function that calls it, or build it with -fno-optimize-sibling-calls", why.reason()
    )]
    MayThrow {
        /// As asked for.
        name: String,
        /// Where.
        object: PathBuf,
        /// Why it cannot do without a return probe.
        why: NoExits,
    },
}

/// Where to probe the function of this name that symbol resolution comes to first.
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
        let throws = objects.iter().any(|it| it.throws);
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
    let similar = objects.iter().flat_map(|it| &it.similar);
    let similar = similar
        .map(String::as_str)
        .filter(|it| is_similar(it, name));
    Err(FunctionError::NotFound {
        name: name.to_owned(),
        similar: listed(similar),
    })
}

/// The function of an object that has this symbol, else the one that its source calls so; with the
/// variants that the compiler has made of it. Empty if there is none.
fn find<'a>(
    name: &str,
    object: &'a SourceObject,
) -> Result<Vec<&'a FunctionSymbol>, FunctionError> {
    let all = object.functions.iter();
    let mut found: Vec<_> = all.filter(|it| is_named(&it.name, name)).collect();
    keep_any(&mut found, |it| it.name == name || whole(&it.name) == name);
    found.sort_by_key(|it| it.address);
    found.dedup_by_key(|it| it.address);
    let (mut originals, variants): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|it| whole(&it.name) == it.name);
    keep_any(&mut originals, |it| it.global);
    found = [originals, variants].concat();
    let is_one = |several: &[&FunctionSymbol]| {
        let first = several.first().map(|it| whole(&it.name));
        let names: HashSet<_> = several.iter().map(|it| &it.name).collect();
        names.len() == several.len() && several.iter().all(|it| Some(whole(&it.name)) == first)
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

/// Leaves what is preferred, if anything is.
fn keep_any<'a>(
    found: &mut Vec<&'a FunctionSymbol>,
    is_preferred: impl Fn(&&'a FunctionSymbol) -> bool,
) {
    if found.iter().any(&is_preferred) {
        found.retain(is_preferred);
    }
}

/// What tells functions of one name apart.
fn candidates(functions: &[&FunctionSymbol]) -> String {
    let described = functions
        .iter()
        .map(|it| match demangle::readable(&it.name) {
            readable if readable == it.name => format!("{readable} at {}", it.address),
            readable => format!("{} ({readable})", it.name),
        });
    let described: Vec<_> = described.collect();
    listed(described.iter().map(String::as_str))
}

/// The function that was found.
struct Planned<'a> {
    name: &'a str,
    index: usize,
    object: &'a SourceObject,
    function: &'a FunctionSymbol,
}

impl Planned<'_> {
    /// Probes at entry and at the exits; with a return probe in their place where they are not known and
    /// no exception can pass.
    fn probes(&self, policy: SitePolicy, throws: bool) -> Result<Vec<WindowProbe>, FunctionError> {
        let Self {
            object, function, ..
        } = *self;
        let name = || self.name.to_owned();
        let path = || object.path.clone();
        if object.is_go {
            return Err(FunctionError::Go {
                name: name(),
                object: path(),
            });
        }
        if function.indirect {
            return Err(self.not_probed("it is chosen at run time (IFUNC)"));
        }
        let start = function.file_offset;
        let start = start.ok_or_else(|| self.not_probed("it is in no text segment"))?;
        match self.exits(start) {
            Ok(mut probes) => {
                probes.push(self.entry(start, CallShape::WindowEnter, policy)?);
                Ok(probes)
            }
            Err(NoExits::Never) => Err(self.not_probed(NoExits::Never.reason())),
            Err(why) if throws => Err(FunctionError::MayThrow {
                name: name(),
                object: path(),
                why,
            }),
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
        let FunctionSymbol {
            name,
            address,
            code,
            ..
        } = self.function;
        let site = ProbeSite::choose(name, (*address, start), code, shape, policy);
        Ok(self.probe(shape, site.map_err(|reason| self.not_probed(reason))?))
    }

    fn exits(&self, start: FileOffset) -> Result<Vec<WindowProbe>, NoExits> {
        let function = self.function;
        let is_part = |it: &&FunctionSymbol| {
            it.name != function.name && without_part(&it.name) == function.name
        };
        let mut parts = vec![(function, start)];
        let others = self.object.functions.iter().filter(is_part);
        parts.extend(others.filter_map(|it| Some((it, it.file_offset?))));
        let code: Vec<_> = parts.iter().map(|(it, _)| (it.address, &it.code)).collect();
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
